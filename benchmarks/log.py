"""The log: what an append costs, how soon a reader has it, how fast a run is read again.

Every store is measured the same way through `tokenwire.log`: one append awaited after the other,
appends of 500 streams at once (one record each, so grouping is the store's own; then eight each),
delivery from append to reader in the same and in another process, one writer to 1,000 readers, and
the replay of 10,000 records. Medians of some rounds, on uvloop as in the server; about a minute in
all. ``floor`` stores nothing and answers in the next turn of the loop: what the measuring costs.

    python benchmarks/log.py --stores floor,memory,sqlite,postgres,redis,valkey,cluster --json
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

import uvloop  # noqa: E402

from support.postgres import postgres_server  # noqa: E402
from support.redis import redis_server  # noqa: E402
from support.redis_cluster import redis_cluster  # noqa: E402
from tokenwire.log.base import Appended, Store  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402

RECORD = b'0123456789abcdef{"type":"text-delta","part":0,"text":" a few words of"}'
STREAMS = 500


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def create(log: Store, *names: str) -> None:
    for start in range(0, len(names), 100):
        part = names[start : start + 100]
        await asyncio.gather(*(log.create(name, owner="bench", lease=600) for name in part))


async def single(log: Store, name: str, count: int) -> float:
    """Microseconds of one awaited append."""
    await create(log, name)
    start = time.perf_counter()
    for number in range(1, count + 1):
        await log.append(name, epoch=1, first=number, records=[RECORD])
    return (time.perf_counter() - start) / count * 1e6


async def grouped(log: Store, name: str, rounds: int, size: int) -> tuple[float, float]:
    """Records per second, and CPU microseconds of this process per record, of many streams."""
    names = [f"{name}-{number}" for number in range(STREAMS)]
    await create(log, *names)

    async def write(stream: str) -> None:
        for number in range(rounds):
            first = number * size + 1
            await log.append(stream, epoch=1, first=first, records=[RECORD] * size)

    cpu, start = time.process_time(), time.perf_counter()
    await asyncio.gather(*map(write, names))
    total = STREAMS * rounds * size
    seconds = time.perf_counter() - start
    return total / seconds, (time.process_time() - cpu) / total * 1e6


async def soon(log: Store, name: str, rounds: int) -> float:
    """`grouped` with one record an append, by the call that tokens take: no task waits, the store
    tells when it is done. CPU microseconds per record."""
    names = [f"{name}-{number}" for number in range(STREAMS)]
    await create(log, *names)
    loop, left = asyncio.get_running_loop(), len(names)
    ended: asyncio.Future[None] = loop.create_future()

    def write(stream: str, number: int) -> None:
        def told(problem: object | None) -> None:
            nonlocal left
            if problem is not None:
                raise SystemExit(f"the store took no append: {problem}")
            if number < rounds:
                # Not at once: a store that answers in the same turn would call itself.
                loop.call_soon(write, stream, number + 1)
                return
            left -= 1
            if not left:
                ended.set_result(None)

        taken = log.append_soon(stream, epoch=1, first=number, records=[RECORD], then=told)
        if not taken:
            raise SystemExit("the store took no append")

    cpu = time.process_time()
    for stream in names:
        write(stream, 1)
    await ended
    return (time.process_time() - cpu) / (len(names) * rounds) * 1e6


async def follow(log: Store, name: str, count: int, got: Callable[[bytes], None]) -> None:
    woken = asyncio.Event()
    end = log.subscribe(name, woken.set)
    after = 0
    while after < count:
        page = await log.read(name, after=after)
        for record in page.records:
            got(record)
        after += len(page.records)
        if not page.records:
            await woken.wait()
            woken.clear()
    end()


async def pace(log: Store, name: str, count: int) -> None:
    """Appends that carry the moment they were made, 3 ms apart."""
    for number in range(1, count + 1):
        await asyncio.sleep(0.003)
        record = b"%.9f" % time.monotonic()
        await log.append(name, epoch=1, first=number, records=[record])


async def delivery(log: Store, name: str, count: int) -> list[float]:
    """Milliseconds from before the append to the reader, same process."""
    await create(log, name)
    late: list[float] = []
    reader = asyncio.create_task(
        follow(log, name, count, lambda r: late.append((time.monotonic() - float(r)) * 1e3))
    )
    await pace(log, name, count)
    await reader
    return late


async def delivery_elsewhere(log: Store, url: str, name: str, count: int) -> list[float]:
    """The same with a reader in another process."""
    await create(log, name)
    command = [sys.executable, __file__, "--reader", url, name, str(count)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()  # it is ready
    await pace(log, name, count)
    return json.loads(await process.stdout.read())


async def read_elsewhere(url: str, name: str, count: int) -> None:
    log = open_store(url)
    await log.start()
    late: list[float] = []
    print("ready", flush=True)
    await follow(log, name, count, lambda r: late.append((time.monotonic() - float(r)) * 1e3))
    await log.close()
    print(json.dumps(late))


async def fan_out(log: Store, name: str, readers: int, count: int) -> float:
    """Microseconds per record and reader, one writer to many readers, reading included."""
    await create(log, name)
    tasks = [asyncio.create_task(follow(log, name, count, lambda _: None)) for _ in range(readers)]
    await asyncio.sleep(0.2)
    start = time.perf_counter()
    for number in range(1, count + 1):
        await log.append(name, epoch=1, first=number, records=[RECORD])
    await asyncio.gather(*tasks)
    return (time.perf_counter() - start) / count / readers * 1e6


async def replay(log: Store, name: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Milliseconds of ``clock`` to read 10,000 records."""
    await create(log, name)
    for number in range(10):
        await log.append(name, epoch=1, first=number * 1000 + 1, records=[RECORD] * 1000)
    times = []
    for _ in range(5):
        start, after = clock(), 0
        while after < 10_000:
            after += len((await log.read(name, after=after, most=4096)).records)
        times.append((clock() - start) * 1e3)
    return statistics.median(times)


async def memory(log: Store, name: str) -> tuple[float, float]:
    """Bytes in this process per open stream (30 records of 400 bytes) and per idle reader."""
    names = [f"{name}-{number}" for number in range(500)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await create(log, *names)
    for stream in names:
        records = [bytes(400) for _ in range(30)]
        await log.append(stream, epoch=1, first=1, records=records)
    gc.collect()
    middle = tracemalloc.get_traced_memory()[0]
    ends = [log.subscribe(stream, lambda: None) for stream in names for _ in range(4)]
    await asyncio.sleep(0.5)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for end in ends:
        end()
    return (middle - before) / len(names), (after - middle) / len(ends)


class _Floor:
    """Appends that wait for one turn of the loop, all together, and are accepted."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, asyncio.Future[Appended]]] = []

    async def create(self, name: str, **_: Any) -> None:
        pass

    async def append(self, name: str, *, epoch: int, first: int, records: list[bytes]) -> Any:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Appended] = asyncio.Future(loop=loop)
        if not self._waiting:
            loop.call_soon(self._answer)
        self._waiting.append((first + len(records) - 1, future))
        return await future

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for tail, future in waiting:
            future.set_result(Appended("ok", tail, 1))


async def measure_floor(rounds: int) -> dict[str, Any]:
    log: Any = _Floor()
    one = [await grouped(log, f"g{n}", 20, 1) for n in range(rounds)]
    eight = [await grouped(log, f"h{n}", 8, 8) for n in range(rounds)]
    return {
        "grouped_cpu_us": statistics.median(cpu for _, cpu in one),
        "eight_cpu_us": statistics.median(cpu for _, cpu in eight),
    }


async def measure(url: str, rounds: int) -> dict[str, Any]:
    log = open_store(url)
    await log.start()
    found: dict[str, Any] = {"durability": log.durability}
    found["single_us"] = statistics.median([await single(log, f"s{n}", 300) for n in range(rounds)])
    one = [await grouped(log, f"g{n}", 20, 1) for n in range(rounds)]
    found["grouped_per_s"], found["grouped_cpu_us"] = map(statistics.median, zip(*one, strict=True))
    eight = [await grouped(log, f"h{n}", 8, 8) for n in range(rounds)]
    found["eight_per_s"], found["eight_cpu_us"] = map(statistics.median, zip(*eight, strict=True))
    found["soon_cpu_us"] = statistics.median([await soon(log, f"n{n}", 20) for n in range(rounds)])
    late = await delivery(log, "near", 300)
    found["near_p50_ms"], found["near_p99_ms"] = percentile(late, 0.5), percentile(late, 0.99)
    if log.shared:
        late = await delivery_elsewhere(log, url, "far", 300)
        found["far_p50_ms"], found["far_p99_ms"] = percentile(late, 0.5), percentile(late, 0.99)
    found["fan_out_us"] = await fan_out(log, "fan", 1000, 30)
    found["replay_ms"] = await replay(log, "replay")
    found["stream_bytes"], found["reader_bytes"] = await memory(log, "memory")
    await log.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", default="memory,sqlite,sqlite-normal,redis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--reader", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        url, name, count = options.reader
        uvloop.run(read_elsewhere(url, name, int(count)))
        return
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TOKENWIRE_BENCH_DIR")) as folder:
        for store in options.stores.split(","):
            if store == "floor":
                found[store] = uvloop.run(measure_floor(options.rounds))
            elif store in ("redis", "valkey"):
                with redis_server(name=store) as server:
                    found[store] = uvloop.run(measure(server.url, options.rounds))
            elif store == "postgres":
                with postgres_server(fast=False, shared_buffers="256MB") as database:
                    found[store] = uvloop.run(measure(database.url, options.rounds))
            elif store == "cluster":
                with redis_cluster() as cluster:
                    found[store] = uvloop.run(measure(cluster.url, options.rounds))
            else:
                url = {
                    "memory": "memory:",
                    "sqlite": f"sqlite://{folder}/full.db",
                    "sqlite-normal": f"sqlite://{folder}/normal.db?synchronous=normal",
                }[store]
                found[store] = uvloop.run(measure(url, options.rounds))
    if options.json:
        print(json.dumps(found))
        return
    names = list(found)
    print(f"{'':<18}" + "".join(f"{name:>15}" for name in names))
    for row in max(found.values(), key=len):
        values = [found[name].get(row, "-") for name in names]
        cells = [f"{value:,.2f}" if isinstance(value, float) else str(value) for value in values]
        print(f"{row:<18}" + "".join(f"{cell:>15}" for cell in cells))


if __name__ == "__main__":
    main()
