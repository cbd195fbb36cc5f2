"""The whole way: a provider's socket, tokenwire, a reader's socket. How many streams does one core hold?

A model process sends every stream 50 tokens/s (330-byte Chat Completions chunks that carry the
moment they were sent), the server under test is pinned to one core, readers and model to the other.
"Held": at least 0.99 of the tokens arrived within the window, p99 of the added delay under 50 ms.

    python benchmarks/gateway.py --streams 100,400,800 --store memory: --seconds 4
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
CLOCK = os.sysconf("SC_CLK_TCK")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
CHUNK = (
    '{"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012","object":"chat.completion.chunk",'
    '"created":1795416446,"model":"bench-model-2026-11-01","service_tier":"default",'
    '"system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":"%s"},'
    '"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"abcdefghij"}'
)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


# --- the model ----------------------------------------------------------------------------------


class ModelProtocol(asyncio.Protocol):
    """Answers any POST with an endless stream; one shared tick per phase writes the tokens."""

    live: list[set["ModelProtocol"]] = []
    next_phase = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.seen = b""
        self.phase: int | None = None

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        if len(body) < length or self.phase is not None:
            return
        self.transport.write(HEAD)
        cls = ModelProtocol
        self.phase = cls.next_phase % len(cls.live)
        cls.next_phase += 7  # spread neighbours over the phases
        cls.live[self.phase].add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.phase is not None:
            ModelProtocol.live[self.phase].discard(self)


async def model(rate: float, port_file: str) -> None:
    phases = max(1, int(200 / rate)) * 4
    ModelProtocol.live = [set() for _ in range(phases)]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(ModelProtocol, "127.0.0.1", 0, backlog=4096)
    Path(port_file).write_text(str(server.sockets[0].getsockname()[1]))
    interval, phase, due = 1 / rate / phases, 0, time.monotonic()
    while True:
        due += interval
        data = chunked(b"data: " + (CHUNK % f"t{time.monotonic_ns()} ").encode() + b"\n\n")
        for stream in ModelProtocol.live[phase]:
            stream.transport.write(data)
        phase = (phase + 1) % phases
        pause = due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)


# --- the readers --------------------------------------------------------------------------------


class Reader(asyncio.Protocol):
    window: tuple[float, float] = (0.0, 0.0)
    delays: list[float] = []

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.tokens = 0
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self.tail + data
        at = data.find(b'"text":"t')
        while at >= 0:
            end = data.find(b" ", at + 9, at + 40)
            if end < 0:
                break
            begin, stop = Reader.window
            if begin <= now / 1e9 < stop:
                self.tokens += 1
                Reader.delays.append((now - int(data[at + 9 : end])) / 1e6)
            # A coalesced delta holds several stamps: "t1 t2 ".
            while data[end + 1 : end + 2] == b"t":
                more = data.find(b" ", end + 2, end + 40)
                if more < 0:
                    break
                if begin <= now / 1e9 < stop:
                    self.tokens += 1
                    Reader.delays.append((now - int(data[end + 2 : more])) / 1e6)
                end = more
            at = data.find(b'"text":"t', end)
        self.tail = data[-64:] if at >= 0 else b""


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK


def rss(pid: int) -> int:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().split("\n") if "VmRSS" in x)
    return int(line.split()[1]) * 1024


async def measure(
    port: int, pid: int, streams: int, rate: float, seconds: float, name: str
) -> dict:
    body = json.dumps({"prompt": "x", "model": name}).encode()
    request = (
        b"POST /v1/runs HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept: text/event-stream\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (port, len(body), body)
    )
    loop = asyncio.get_running_loop()
    before = rss(pid)
    Reader.window = (time.monotonic() + 1e9, time.monotonic() + 2e9)
    readers = []
    for number in range(streams):
        _, reader = await loop.create_connection(lambda: Reader(request), "127.0.0.1", port)
        readers.append(reader)
        if number % 50 == 49:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.5)
    grown = rss(pid) - before
    begin = time.monotonic()
    Reader.delays = []
    Reader.window = (begin, begin + seconds)
    used = cpu_seconds(pid)
    await asyncio.sleep(seconds)
    used = cpu_seconds(pid) - used
    await asyncio.sleep(0.2)
    tokens = sum(r.tokens for r in readers)
    delays = sorted(Reader.delays) or [float("nan")]
    for reader in readers:
        reader.transport.close()
    await asyncio.sleep(1.0)
    return {
        "streams": streams,
        "delivered": tokens / (streams * rate * seconds),
        "us_per_token": used / max(1, tokens) * 1e6,
        "core": used / seconds,
        "p50_ms": delays[len(delays) // 2],
        "p99_ms": delays[int(len(delays) * 0.99) - 1],
        "kb_per_stream": grown / streams / 1024,
    }


@contextlib.contextmanager
def process(*command: str, core: int, env: dict[str, str] | None = None):
    child = subprocess.Popen(
        command,
        env={**os.environ, **(env or {}), "PYTHONPATH": str(ROOT / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port: int, child: subprocess.Popen) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        if child.poll() is not None:
            raise SystemExit(child.stdout.read().decode() if child.stdout else "server ended")
        time.sleep(0.05)
    raise SystemExit("the server did not start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", default="100,400,800")
    parser.add_argument("--store", default="memory:")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--port-file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.model:
        uvloop.run(model(options.rate, options.port_file))
        return
    cores = sorted(os.sched_getaffinity(0))
    other = cores[-1]
    os.sched_setaffinity(0, {other})
    with tempfile.TemporaryDirectory() as folder:
        port_file = f"{folder}/port"
        store = options.store.replace("TEMP", folder)
        again = [sys.executable, __file__, "--model", "--port-file", port_file]
        with process(*again, "--rate", str(options.rate), core=other):
            while not Path(port_file).exists() or not Path(port_file).read_text():
                time.sleep(0.05)
            upstream = f"http://127.0.0.1:{Path(port_file).read_text()}/v1#bench"
            port = free_port()
            limits = {
                "TOKENWIRE_CONNECTIONS": "20000",
                "TOKENWIRE_CONNECTIONS_PER_IP": "20000",
                "TOKENWIRE_RUNS": "20000",
            }
            command = [sys.executable, "-m", "tokenwire", "serve", "--port", str(port)]
            command += ["--model", upstream, "--store", store]
            print("streams  delivered  us/token   core    p50 ms   p99 ms  kB/stream")
            with process(*command, core=cores[0], env=limits) as server:
                wait_for(port, server)
                for streams in map(int, options.streams.split(",")):
                    rows = [
                        uvloop.run(
                            measure(
                                port, server.pid, streams, options.rate, options.seconds, upstream
                            )
                        )
                        for _ in range(options.rounds)
                    ]
                    row = {k: statistics.median(r[k] for r in rows) for k in rows[0]}
                    print(
                        f"{int(row['streams']):7d}  {row['delivered']:9.3f}  "
                        f"{row['us_per_token']:8.1f}  {row['core']:5.2f}  {row['p50_ms']:8.1f} "
                        f"{row['p99_ms']:8.1f}  {row['kb_per_stream']:9.1f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
