"""One run, 1, 100 and 1,000 readers over real sockets: what does one more reader cost?

The run is encoded once; every reader gets the same bytes. CPU microseconds of the server per
reader and token. The server is pinned to one core, the readers are on the other.

    python benchmarks/fan_out.py --readers 1,100,1000 --seconds 4
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import cpu_seconds, other_core, rss, running_model, running_tokenwire


class Counter(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.request = request
        self.events = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.events += data.count(b'"type":"text-delta"')


async def measure(port: int, pid: int, model: str, readers: int, seconds: float) -> dict:
    path = await started(port, model)
    request = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode()
    before = rss(pid)
    loop = asyncio.get_running_loop()
    counters = []
    for number in range(readers):
        _, counter = await loop.create_connection(lambda: Counter(request), "127.0.0.1", port)
        counters.append(counter)
        if number % 50 == 49:
            await asyncio.sleep(0.02)
    await asyncio.sleep(1.0)
    grown = rss(pid) - before
    first, used, begin = sum(c.events for c in counters), cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    events = sum(c.events for c in counters) - first
    used, took = cpu_seconds(pid) - used, time.monotonic() - begin
    for counter in counters:
        counter.transport.close()
    await ended(port, path)
    await asyncio.sleep(0.5)
    return {
        "readers": readers,
        "per_reader": events / readers / took,
        "us": used / max(1, events) * 1e6,
        "core": used / took,
        "kb": grown / readers / 1024,
    }


async def started(port: int, model: str) -> str:
    """Start a run; the path of its events."""
    body = json.dumps({"prompt": "x", "model": model}).encode()
    head = await _head_of_answer(port, "/v1/runs", body)
    if "location" in head:
        return f"{head['location']}/events"
    raise SystemExit("the server named no run")


async def ended(port: int, events: str) -> None:
    """End the run of `started`, which goes on for a while without readers: it would be part of what
    is measured next."""
    await _head_of_answer(port, events.removesuffix("/events") + "/cancel", b"")


async def _head_of_answer(port: int, path: str, body: bytes) -> dict[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    writer.close()
    if " 20" not in status:
        raise SystemExit(f"POST {path}: {status}")
    named = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in named}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readers", default="1,100,1000")
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    with running_model() as upstream, running_tokenwire(upstream) as (port, child):
        print("readers  events/s each  us/reader-token   core  kB/reader")
        for readers in map(int, options.readers.split(",")):
            model = f"{upstream}#bench"
            row = uvloop.run(measure(port, child.pid, model, readers, options.seconds))
            print(
                f"{row['readers']:7d}  {row['per_reader']:13.1f}  {row['us']:15.2f}  "
                f"{row['core']:5.2f}  {row['kb']:9.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
