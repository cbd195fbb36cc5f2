"""Reading a model's answer: our bare protocol beside aiohttp. Steady streams, one token per read.

python benchmarks/http_reader.py --streams 100 --seconds 3 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

import aiohttp
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
from harness import running_model, server_core

from tokenwire.providers.http.pool import Pool


async def drain_lean(url: str, streams: int, seconds: float) -> float:
    pool = Pool()
    responses = [await pool.request("POST", url, {}, b"{}") for _ in range(streams)]
    count = 0

    async def one(response):
        nonlocal count
        while await response.read():
            count += 1

    return await timed([one(r) for r in responses], seconds, lambda: count, pool.close)


async def drain_aiohttp(url: str, streams: int, seconds: float) -> float:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        responses = [await session.post(url, data=b"{}") for _ in range(streams)]
        count = 0

        async def one(response):
            nonlocal count
            while await response.content.readany():
                count += 1

        def close():
            for response in responses:
                response.close()

        return await timed([one(r) for r in responses], seconds, lambda: count, close)


async def timed(bodies, seconds, count, close) -> float:
    tasks = [asyncio.create_task(b) for b in bodies]
    await asyncio.sleep(0.5)
    first, cpu = count(), time.process_time()
    await asyncio.sleep(seconds)
    tokens, cpu = count() - first, time.process_time() - cpu
    close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return cpu / tokens * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.sched_setaffinity(0, {server_core()})
    with running_model() as upstream:
        url = f"{upstream}/chat/completions"
        lean, other = [], []
        for _ in range(options.rounds):
            lean.append(uvloop.run(drain_lean(url, options.streams, options.seconds)))
            other.append(uvloop.run(drain_aiohttp(url, options.streams, options.seconds)))
    a, b = statistics.median(lean), statistics.median(other)
    print(f"us of CPU per token, {options.streams} streams of 50 tokens/s, median")
    print(f"  tokenwire {a:6.1f}\n  aiohttp   {b:6.1f}\n  ratio     {a / b:6.2f}")


if __name__ == "__main__":
    main()
