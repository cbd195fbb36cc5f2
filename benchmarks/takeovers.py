"""Rolling restarts, and a storm of takeovers: is a run interrupted, or a lease lost?

`rolling`: three workers share a store and many slow runs; each worker in turn stops gracefully and
a new one starts, for some rounds. The goal: no run ends as interrupted. `storm`: a worker with runs
of its own finds many large runs whose worker is dead; the goal: the worker renews all of its leases
in time (the least that was left of one), and takes all of the others over. A minute in all; the
Redis rounds need `redis-server`, and are left out without it.

    python benchmarks/takeovers.py [--runs 30] [--rounds 3] [--large 60] [--events 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter

sys.path[:0] = [
    os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), name)
    for name in ("src", "tests")
]

import msgspec  # noqa: E402

from support.redis import BINARIES, redis_server  # noqa: E402
from support.spine import OneModel, request_of, simulator  # noqa: E402
from tokenwire.events import model as m  # noqa: E402
from tokenwire.events.message import user  # noqa: E402
from tokenwire.events.request import Request  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402
from tokenwire.relay.description import RunMeta  # noqa: E402
from tokenwire.relay.record import Chain  # noqa: E402
from tokenwire.relay.runs import Runs  # noqa: E402

SECONDS = 120.0
LEASE = 3.0
PAUSE = 0.7


async def opened(url: str, model: str) -> Runs:
    runs = Runs(open_store(url), registry=OneModel(model), lease=LEASE)
    await runs.open()
    return runs


async def left(runs: Runs) -> None:
    """A graceful stop."""
    await runs.drain(1.0)
    await runs.aclose()


async def outcomes(url: str, names: list[str]) -> Counter[str]:
    """How the runs ended."""
    store = open_store(url)
    await store.start()
    found: Counter[str] = Counter()
    end = time.monotonic() + SECONDS
    for name in names:
        while (info := await store.describe(name)).closed is None and time.monotonic() < end:
            await asyncio.sleep(0.1)
        found[info.closed or "open"] += 1
    await store.close()
    return found


async def rolling(url: str, store: str, count: int, rounds: int) -> None:
    async with simulator(rate=20.0) as server:
        workers = [await opened(url, server.url) for _ in range(3)]
        names: list[str] = []
        for number in range(count):
            info = await workers[number % 3].start(request_of("scenario:slow"), model="m0")
            names.append(info.id)
        start = time.perf_counter()
        restarts = 0
        for _ in range(rounds):
            for number in range(3):
                await left(workers[number])
                workers[number] = await opened(url, server.url)
                restarts += 1
                await asyncio.sleep(PAUSE)  # the others take over what it left
        seconds = time.perf_counter() - start
        ends = await outcomes(url, names)
        for worker in workers:
            await left(worker)
    mark = "" if not ends["interrupted"] and not ends["open"] else "  <-- above the goal"
    print(
        f"rolling, {store}: {restarts} restarts in {seconds:.1f} s, {count} runs:"
        f" {dict(ends)}{mark}"
    )


def large(run: str, count: int) -> list[bytes]:
    """The records of a run whose worker died in the middle of a step."""
    made: list[m.Event] = [
        m.RunStart(run=run, time=int(time.time() * 1000), model="m0"),
        m.StepStart(step=1, model="demo"),
        m.TextStart(part=0),
        *(m.TextDelta(part=0, text="word ") for _ in range(count)),
    ]
    for seq, event in enumerate(made, 1):
        event.seq, event.t = seq, seq
    return Chain(run).seal_all(made)


async def storm(url: str, count: int, events: int, own: int) -> None:
    async with simulator(rate=20.0) as server:
        worker = await opened(url, server.url)
        mine = [
            (await worker.start(request_of("scenario:stall"), model="m0")).id for _ in range(own)
        ]
        store = open_store(url)
        await store.start()
        names = [f"run_orphan_{number:010}" for number in range(count)]
        meta = msgspec.json.encode(RunMeta(model="m0", request=Request(messages=[user("text")])))
        for name in names:
            records = large(name, events)
            await store.create(name, owner="elsewhere", meta=meta, lease=600)
            await store.append(name, epoch=1, first=1, records=records)
        for name in names:
            await store.release(name, epoch=1)
        least, start = LEASE, time.perf_counter()
        losses = 0
        owners: list[str] = []
        while time.perf_counter() - start < SECONDS:
            infos = [await store.describe(name) for name in mine]
            losses = sum(info.owner != worker.owner for info in infos)
            least = min([least, *(info.lease_until - time.time() for info in infos)])
            owners = [(await store.describe(name)).owner for name in names]
            if all(owner == worker.owner for owner in owners):
                break
            await asyncio.sleep(0.1)
        seconds = time.perf_counter() - start
        taken = sum(owner == worker.owner for owner in owners)
        mark = "" if least > 0 and not losses else "  <-- above the goal"
        print(
            f"storm: {taken} of {count} runs of {events} events taken over in {seconds:.1f} s,"
            f" {own} own leases of {LEASE:g} s: {losses} lost, at least {least:.2f} s left{mark}"
        )
        await store.close()
        await left(worker)


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", type=int, default=60)
    parser.add_argument("--events", type=int, default=20_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        await rolling(f"sqlite:{folder}/rolling.db", "SQLite", options.runs, options.rounds)
        if BINARIES:
            with redis_server() as server:
                await rolling(server.url, "Redis", options.runs, options.rounds)
        await storm(f"sqlite:{folder}/storm.db", options.large, options.events, 50)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
