"""Beside resumable-stream (PyPI and npm), on one Redis: the same chunks to the same readers.

All keep a stream that readers can come back to. resumable-stream keeps the chunks in the memory of
the producer and publishes each one to each reader; tokenwire keeps them in Redis and wakes readers,
who take what is there. Writer and readers run in one process, over connections of their own; the
npm package runs under Node, with the `redis` package (benchmarks/node).

    python benchmarks/log_peers.py --json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "benchmarks" / "node"
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.redis import BINARY, redis_server  # noqa: E402
from tokenwire.log.open import open_store  # noqa: E402

CHUNK = 'x{"type":"text-delta","part":0,"text":" a few words of text"}'
Figures = dict[str, float]


def median(values: list[float], share: float = 0.5) -> float:
    return sorted(values)[int((len(values) - 1) * share)]


async def ours(url: str, readers: int, chunks: int, gap: float) -> Figures:
    writer, reader = open_store(url), open_store(url)
    await writer.start()
    await reader.start()
    name = f"s{readers}-{chunks}-{gap}"
    await writer.create(name, owner="bench", lease=600)
    late: list[float] = []

    async def follow() -> int:
        woken = asyncio.Event()
        end = reader.subscribe(name, woken.set)
        after = size = 0
        while True:
            page = await reader.read(name, after=after)
            now = time.perf_counter()
            for record in page.records:
                late.append(now - float(record[:20]))
                size += len(record) - 20
            after += len(page.records)
            if page.closed:
                end()
                return size
            if not page.records:
                await woken.wait()
                woken.clear()

    tasks = [asyncio.create_task(follow()) for _ in range(readers)]
    await asyncio.sleep(0.3)
    cpu, start = time.process_time(), time.perf_counter()
    waiting = []
    for number in range(1, chunks + 1):
        record = f"{time.perf_counter():020.9f}{CHUNK}".encode()
        sent = writer.append(name, epoch=1, first=number, records=[record])
        if gap:
            await sent
            await asyncio.sleep(gap)
        else:
            waiting.append(asyncio.ensure_future(sent))
            if number % 64 == 0:
                await asyncio.gather(*waiting)
                waiting.clear()
    await asyncio.gather(*waiting)
    await writer.append(name, epoch=1, first=chunks + 1, records=[], close="complete")
    sizes = await asyncio.gather(*tasks)
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    assert sizes == [len(CHUNK) * chunks] * readers
    begun = time.perf_counter()
    after = 0
    while after < chunks:
        after += len((await reader.read(name, after=after, most=4096)).records)
    again = time.perf_counter() - begun
    await writer.close()
    await reader.close()
    return figures(late, seconds, used, chunks, readers, again)


async def theirs(url: str, readers: int, chunks: int, gap: float) -> Figures:
    from resumable_stream import (
        CreateResumableStreamContextOptions,
        RedisPublisher,
        RedisSubscriber,
        create_resumable_stream_context,
    )

    async def context() -> tuple[Any, Any, Any]:
        publisher, subscriber = RedisPublisher(url), RedisSubscriber(url)
        await publisher.connect()
        await subscriber.connect()
        options = CreateResumableStreamContextOptions(
            key_prefix="bench", publisher=publisher, subscriber=subscriber
        )
        return create_resumable_stream_context(options), publisher, subscriber

    first, *parts = await context()
    second, *more = await context()
    name = f"s{readers}-{chunks}-{gap}"
    late: list[float] = []
    go, finish = asyncio.Event(), asyncio.Event()

    async def source() -> AsyncIterator[str]:
        await go.wait()
        for _ in range(chunks):
            yield f"{time.perf_counter():020.9f}{CHUNK}"
            if gap:
                await asyncio.sleep(gap)
        await finish.wait()

    async def follow() -> int:
        stream = await second.resumable_stream(name, source)
        size = 0
        async for text in stream:
            now = time.perf_counter()
            for at in range(0, len(text), 20 + len(CHUNK)):
                late.append(now - float(text[at : at + 20]))
                size += len(CHUNK)
            if size == len(CHUNK) * chunks:
                break
        return size

    produced = await first.resumable_stream(name, source)

    async def drain() -> None:
        async for _ in produced:
            pass

    own = asyncio.create_task(drain())
    tasks = [asyncio.create_task(follow()) for _ in range(readers)]
    await asyncio.sleep(0.3)
    cpu, start = time.process_time(), time.perf_counter()
    go.set()
    await asyncio.gather(*tasks)
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    kept, late = late, []
    begun = time.perf_counter()
    await follow()
    again = time.perf_counter() - begun
    finish.set()
    await own
    for part in (*parts, *more):
        await part.close()
    return figures(kept, seconds, used, chunks, readers, again)


async def theirs_npm(url: str, readers: int, chunks: int, gap: float) -> Figures:
    command = ["node", "resumable_stream.mjs", url, str(readers), str(chunks), str(gap)]
    process = await asyncio.create_subprocess_exec(*command, cwd=NODE, stdout=PIPE)
    answer, _ = await process.communicate()
    if process.returncode:
        raise SystemExit("benchmarks/node/resumable_stream.mjs failed")
    return json.loads(answer)


def npm_installed() -> bool:
    """Install what benchmarks/node asks for; False when there is no npm."""
    if shutil.which("npm") is None:
        return False
    subprocess.run(["npm", "ci", "--silent"], cwd=NODE, check=True)
    return True


def figures(
    late: list[float], seconds: float, used: float, chunks: int, readers: int, again: float
) -> Figures:
    return {
        "chunks_per_s": chunks / seconds,
        "cpu_us_per_chunk_and_reader": used / chunks / readers * 1e6,
        "p50_ms": median(late) * 1e3,
        "p99_ms": median(late, 0.99) * 1e3,
        "read_again_ms": again * 1e3,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if BINARY is None:
        raise SystemExit("redis-server is not installed")
    systems: dict[str, Callable[[str, int, int, float], Awaitable[Figures]]] = {"tokenwire": ours}
    try:
        import resumable_stream  # noqa: F401

        systems["resumable-stream (PyPI)"] = theirs
    except ImportError:
        print("resumable-stream is not installed: pip install resumable-stream", file=sys.stderr)
    if npm_installed():
        systems["resumable-stream (npm)"] = theirs_npm
    else:
        print("npm is not installed: its resumable-stream is left out", file=sys.stderr)
    cases = {
        "flood, 1 reader": (1, 5000, 0.0),
        "flood, 100 readers": (100, 300, 0.0),
        "50 chunks/s, 100 readers": (100, 150, 0.02),
        "read again 10,000": (1, 10_000, 0.0),
    }
    found: dict[str, dict[str, Figures]] = {}
    for case, (readers, chunks, gap) in cases.items():
        for system, run in systems.items():
            with redis_server() as server:
                result = asyncio.run(run(server.url, readers, chunks, gap))
            found.setdefault(case, {})[system] = result
    if options.json:
        print(json.dumps(found))
        return
    names = list(next(iter(found.values()))["tokenwire"])
    print(f"{'':<28}{'':<26}" + "".join(f"{name:>30}" for name in names))
    for case, results in found.items():
        for system, result in results.items():
            cells = "".join(f"{result[name]:>30,.2f}" for name in names)
            print(f"{case:<28}{system:<26}{cells}")


if __name__ == "__main__":
    main()
