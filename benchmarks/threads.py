"""The hundredth turn of a conversation: what does it read and store?

One conversation of many turns on a SQLite file (or any store), answered by a model in this process.
For some turns: the time and CPU time until the run has begun, the logs that were read for it, and
the bytes of its own description; then a conversation in which as many turns wait as may. With
`--feed` what it costs to tell of a change instead: to none and to many readers of a conversation,
and to the lists of none and of many members. A few seconds, stops by itself.

    python benchmarks/threads.py [--turns 200] [--store sqlite:FILE] [--feed]
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
from tokenwire.relay.conversation.scope import scope_of, thread_of  # noqa: E402
from tokenwire.relay.feed.follower import open_feed  # noqa: E402
from tokenwire.relay.members.access import Access  # noqa: E402
from tokenwire.relay.thread_list.entries import ENTRY, TITLE, Entry, encoded  # noqa: E402
from tokenwire.relay.thread_list.stream import ListStream  # noqa: E402

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


async def feed(url: str) -> None:
    """What an event costs, by its readers; and a change in lists, by members and followers."""
    print("conversation: readers  events  CPU us/event")
    async with device(open_store(url), HeldModel()) as here:
        store, feeds, events = here.runs.store, here.runs.worker.feeds, 500
        for readers in (0, 1, 10, 100):
            scope = scope_of("ann", f"t{readers}")
            followers = [
                (await open_feed(store, feeds, scope, None, lambda: None))[0]
                for _ in range(readers)
            ]
            cpu = time.process_time()
            for number in range(events):
                await feeds.publish(scope, [{"type": "note", "number": number}])
                for follower in followers:
                    await follower.pull()
            cost = (time.process_time() - cpu) / events * 1e6
            for follower in followers:
                follower.close()
            print(f"{readers:21}  {events:6}  {cost:12.0f}")
    print("lists: members  followers  CPU us/change")
    for members in (1, 10, 100):
        for count in sorted({0, 1, members}):
            await lists(url, members, count)


async def lists(url: str, members: int, followers: int, changes: int = 100) -> None:
    """Changes of one conversation's title, told to the lists of its members."""
    async with device(open_store(url), HeldModel()) as here:
        store, worker = here.runs.store, here.runs.worker
        scope = scope_of("ann", f"list-{members}-{followers}")
        access = Access(scope, "ann", thread_of(scope))
        await store.set_document(ENTRY, scope, encoded(Entry(updated=time.time())))
        names = ["ann", *(f"m{number}" for number in range(members - 1))]
        for name in names[1:]:
            await here.runs.members.put(access, name, "read")
        await worker.lists.flush()
        streams = [ListStream(store, worker.lists, name) for name in names[:followers]]
        for stream in streams:
            await stream.begin(None)
            await stream.ready()
        cpu = time.process_time()
        for number in range(changes):
            await store.set_document(TITLE, scope, b"title %d" % number)
            worker.lists.changed(scope)
            await worker.lists.flush()
            for stream in streams:
                await stream.ready()
        cost = (time.process_time() - cpu) / changes * 1e6
        for stream in streams:
            stream.close()
        print(f"{members:14}  {followers:9}  {cost:13.0f}")


def _ends(start: float, cpu: float) -> list[tuple[float, float]]:
    return [(start, time.perf_counter()), (cpu, time.process_time())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--store")
    parser.add_argument("--feed", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.store or f"sqlite:{folder}/log.db"
        if arguments.feed:
            asyncio.run(feed(url))
            return
        asyncio.run(run(url, arguments.turns))
        asyncio.run(queued(url))


if __name__ == "__main__":
    main()
