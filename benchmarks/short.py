"""Short answers: what does a whole run cost, and how soon does its first token come?

The model answers every request at once with one token and its end. Some callers at a time each ask
again as soon as they have their answer, so the core is full: runs a second, CPU milliseconds a run,
and how long a caller waited for the first token. ``--against DIR`` measures another checkout in
turns with this one.

    python benchmarks/short.py --callers 1,16 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
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

FINISH = CHUNK.replace('"finish_reason":null', '"finish_reason":"stop"')
ANSWER = HEAD + b"".join(
    chunked(b"data: " + data + b"\n\n")
    for data in ((CHUNK % "token").encode(), (FINISH % "").encode(), b"[DONE]")
)


class Model(asyncio.Protocol):
    """Answers a POST with a whole stream, and keeps the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if found and len(body) >= int(length or b"0"):
            self.seen = b""
            self.transport.write(ANSWER + b"0\r\n\r\n")


class Caller(asyncio.Protocol):
    """Asks, reads to the end, asks again, on one connection."""

    runs = 0
    waited: list[float] = []

    def __init__(self, request: bytes) -> None:
        self.request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.ask()

    def ask(self) -> None:
        self.seen, self.asked = b"", time.perf_counter()
        self.begun = False
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.seen += data
        if not self.begun and b'"text":"token"' in self.seen:
            self.begun = True
            Caller.waited.append((time.perf_counter() - self.asked) * 1e3)
        if self.seen.endswith(b"\r\n0\r\n\r\n"):
            if b'"type":"run-end"' not in self.seen:
                raise SystemExit(f"a run did not end: {self.seen[-300:]!r}")
            Caller.runs += 1
            self.ask()


async def measure(port: int, pid: int, model: str, callers: int, seconds: float) -> list[float]:
    """[runs a second, CPU milliseconds a run, first token p50 and p99 in milliseconds]"""
    loop = asyncio.get_running_loop()
    at = int(model.split(":")[2].split("/")[0])
    server = await loop.create_server(Model, "127.0.0.1", at)
    request = post(port, "/v1/runs", json.dumps({"prompt": "x", "model": model}).encode())
    all_callers = [
        await loop.create_connection(lambda: Caller(request), "127.0.0.1", port)
        for _ in range(callers)
    ]
    await asyncio.sleep(1.0)
    Caller.waited = []
    first, used, begun = Caller.runs, cpu_seconds(pid), time.monotonic()
    await asyncio.sleep(seconds)
    runs, used = Caller.runs - first, cpu_seconds(pid) - used
    took, waited = time.monotonic() - begun, sorted(Caller.waited)
    for transport, _ in all_callers:
        transport.close()
    server.close()
    await asyncio.sleep(0.3)
    if not runs:
        raise SystemExit("no run ended")
    p50, p99 = (waited[int(len(waited) * share)] for share in (0.5, 0.99))
    return [runs / took, used / runs * 1e3, p50, p99]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--callers", default="1,16")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--store", default="memory:")
    parser.add_argument("--against", type=Path, help="another checkout of this project")
    options = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    upstream = f"http://127.0.0.1:{free_port()}/v1"
    with running_side_by_side(upstream, options.store, options.against) as servers:
        print("callers   runs/s   CPU ms/run   first token p50, p99 ms")
        for callers in map(int, options.callers.split(",")):
            found: dict[str, list[list[float]]] = {name: [] for name in servers}
            for _ in range(options.rounds):
                for name, (port, child) in servers.items():
                    work = measure(port, child.pid, f"{upstream}#bench", callers, options.seconds)
                    found[name].append(uvloop.run(work))
            for name, rows in found.items():
                rate, cpu, p50, p99 = map(statistics.median, zip(*rows, strict=True))
                print(f"{callers:7d}  {rate:7.0f}  {cpu:11.2f}  {p50:12.1f} {p99:8.1f}  {name}")


if __name__ == "__main__":
    main()
