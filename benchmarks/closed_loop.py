"""One token at a time: what a token costs the server when none ever waits for another.

The model sends a stream's next token when its reader has the one before (closed loop), so nothing
is merged and the core is full: the benchmark to compare two states of the hot path with, in turns.
The streams must be many, else each is so fast that it is read on the shared tick.
``--against DIR`` measures another checkout in turns with this one; ``--budgets`` this one with
budgets of tokens and money in turns with itself without any.

    python benchmarks/closed_loop.py --streams 600 --seconds 3 --rounds 3
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import time
from pathlib import Path

import uvloop
from harness import (
    CHUNK,
    HEAD,
    chunked,
    cpu_seconds,
    free_port,
    other_core,
    post,
    running_side_by_side,
)

#: Never used up.
BUDGETS = ("--budget", "principal/day=1000000000", "--budget", "principal/month=$1000000")
TOKEN = chunked(b"data: " + (CHUNK % "token ").encode() + b"\n\n")


class Model(asyncio.Protocol):
    """Answers a POST with a stream that `Reader` clocks; the prompt is the stream's number."""

    streams: dict[int, asyncio.Transport] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        with contextlib.suppress(ValueError):
            if found and head:
                number = int(json.loads(body)["messages"][-1]["content"])
                self.transport.write(HEAD + TOKEN)
                Model.streams[number] = self.transport


class Reader(asyncio.Protocol):
    """Asks for a run; for every token that arrives the model sends the next."""

    tokens = 0
    reads = 0

    def __init__(self, number: int, request: bytes) -> None:
        self.number, self.request = number, request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        came = data.count(b"token ")
        if came:
            Reader.tokens += came
            Reader.reads += 1
            model = Model.streams.get(self.number)
            if model is not None:
                model.write(TOKEN)


async def measure(port: int, pid: int, upstream: str, streams: int, seconds: float) -> float:
    """CPU microseconds of the server per token."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Model, "127.0.0.1", int(upstream.split(":")[2].split("/")[0]))
    readers = []
    for number in range(streams):
        body = json.dumps({"prompt": str(number), "model": f"{upstream}#bench"}).encode()
        request = post(port, "/v1/runs", body)
        _, reader = await loop.create_connection(
            lambda n=number, r=request: Reader(n, r), "127.0.0.1", port
        )
        readers.append(reader)
    await asyncio.sleep(1.0)
    first, used = Reader.tokens, cpu_seconds(pid)
    Reader.reads = 0
    begun = time.monotonic()
    await asyncio.sleep(seconds)
    tokens, used = Reader.tokens - first, cpu_seconds(pid) - used
    rate = tokens / (time.monotonic() - begun)
    for reader in readers:
        reader.transport.close()
    server.close()
    Model.streams.clear()
    await asyncio.sleep(0.5)
    if not tokens:
        raise SystemExit("no token arrived")
    print(f"  {rate:8.0f} tokens/s, {tokens / Reader.reads:.2f} a read", end="")
    return used / tokens * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=600)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--store", default="memory:")
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    parser.add_argument("--budgets", action="store_true", help="in turns with budgets and without")
    options = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    upstream = f"http://127.0.0.1:{free_port()}/v1"
    price = f"{upstream.split('/')[2]}/bench=1/2"
    more = [*BUDGETS, "--price", price] if options.budgets else ()
    with running_side_by_side(upstream, options.store, options.against, more) as servers:
        found: dict[str, list[float]] = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, (port, child) in servers.items():
                args = (port, child.pid, upstream, options.streams, options.seconds)
                found[name].append(uvloop.run(measure(*args)))
                print(f"  {name}: {found[name][-1]:.1f} us/token", flush=True)
        for name, values in found.items():
            print(f"{name}: median {statistics.median(values):.1f} us/token")


if __name__ == "__main__":
    main()
