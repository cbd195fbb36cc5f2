"""The hundredth turn of a conversation: what does it read and store?

One conversation of many turns on a SQLite file (or any store), answered by a model in this process.
For some turns: the time and CPU time until the run has begun, the logs that were read for it, and
the bytes of its own description; then a conversation in which as many turns wait as may. A few
seconds, stops by itself.

    python benchmarks/threads.py [--turns 200] [--store sqlite:FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.conversation import HeldModel, device  # noqa: E402
from tokenwire.events.message import user  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402
from tokenwire.relay.conversation.queue import MOST_QUEUED  # noqa: E402

SHOWN = (2, 10, 50, 100, 200, 500, 1000)


async def run(url: str, turns: int) -> None:
    store, logs = open_store(url), set[str]()
    read = store.read

    async def counted(log: str, **more: Any) -> Any:
        logs.add(log)
        return await read(log, **more)

    store.read = counted  # type: ignore[method-assign]
    print("turn    ms  CPU ms  logs read  bytes stored")
    async with device(store, HeldModel()) as here:
        for turn in range(1, turns + 1):
            logs.clear()
            start, cpu = time.perf_counter(), time.process_time()
            reply = await here.ask(f"question {turn} " + "word " * 100)
            ms, cpu_ms = ((b - a) * 1000 for a, b in _ends(start, cpu))
            count = len(logs)
            await here.done(reply)
            if turn in SHOWN:
                size = len((await store.describe(reply.run)).meta)
                print(f"{turn:4}  {ms:4.1f}  {cpu_ms:6.1f}  {count:9}  {size:12}")


async def queued(url: str) -> None:
    """A full queue: what the turns cost that wait in it, and the looks at it."""
    async with device(open_store(url), HeldModel()) as here:
        await here.ask("hold it", thread="queue")
        print("waiting  to add, ms  to read, ms  to edit, ms")
        for waiting in range(1, MOST_QUEUED + 1):
            times = [time.perf_counter()]
            reply = await here.ask(f"turn {waiting}", thread="queue", while_busy="queue")
            times.append(time.perf_counter())
            await here.conversations.queue("", "queue")
            times.append(time.perf_counter())
            await here.conversations.edit("", "queue", reply.run, [user("edited")])
            times.append(time.perf_counter())
            if waiting in (1, 8, MOST_QUEUED):
                add, read, edit = ((b - a) * 1000 for a, b in itertools.pairwise(times))
                print(f"{waiting:7}  {add:10.1f}  {read:11.1f}  {edit:11.1f}")


def _ends(start: float, cpu: float) -> list[tuple[float, float]]:
    return [(start, time.perf_counter()), (cpu, time.process_time())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--store")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.store or f"sqlite:{folder}/log.db"
        asyncio.run(run(url, arguments.turns))
        asyncio.run(queued(url))


if __name__ == "__main__":
    main()
