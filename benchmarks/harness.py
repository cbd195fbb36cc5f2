"""What the benchmarks of whole servers share: a model, readers, accounts of CPU, processes.

The model process sends every stream some tokens a second (330-byte Chat Completions chunks whose
text is the moment they were sent); a reader finds those moments in whatever wire it is sent.
Each process is pinned: the server under test to one core, model and readers to the other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parent.parent
CORES = os.sched_getaffinity(0)
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

    live: list[set[ModelProtocol]] = []
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


async def model(rate: float, port_file: str, tls: ssl.SSLContext | None = None) -> None:
    phases = max(1, int(200 / rate)) * 4
    ModelProtocol.live = [set() for _ in range(phases)]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(ModelProtocol, "127.0.0.1", 0, backlog=4096, ssl=tls)
    Path(port_file).write_text(str(server.sockets[0].getsockname()[1]))
    interval, phase, due = 1 / rate / phases, 0, time.monotonic()
    while True:
        due = max(due, time.monotonic() - 0.25) + interval  # of a pause little is made up for
        data = chunked(b"data: " + (CHUNK % f"t{time.monotonic_ns()} ").encode() + b"\n\n")
        for stream in ModelProtocol.live[phase]:
            stream.transport.write(data)
        phase = (phase + 1) % phases
        pause = due - time.monotonic()
        if pause > 0:
            await asyncio.sleep(pause)


# --- the readers --------------------------------------------------------------------------------

_STAMP = re.compile(rb"t([0-9]{9,20}) ")


class Reader(asyncio.Protocol):
    """Counts the tokens that arrive within the window, and how long each was under way."""

    window: tuple[float, float] = (0.0, 0.0)
    delays: list[float] = []

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.tokens = 0
        self.begun = False
        self.tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self.tail + data
        begin, stop = Reader.window
        counted = begin <= now / 1e9 < stop
        end = 0
        for found in _STAMP.finditer(data):
            end = found.end()
            if counted:
                self.tokens += 1
                Reader.delays.append((now - int(found.group(1))) / 1e6)
        self.begun = self.begun or end > 0
        self.tail = data[max(end, len(data) - 24) :]


def post(port: int, path: str, body: bytes, *headers: str) -> bytes:
    """A request that asks for a stream."""
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", "accept: text/event-stream"]
    lines += ["content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process, by the scheduler's clock: the ticks of
    ``/proc`` are 10 ms long, which is much of a short window."""
    return time.clock_gettime((~pid << 3) | 2)  # as `clock_getcpuclockid` of the C library


def rss(pid: int) -> int:
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().split("\n") if "VmRSS" in x)
    return int(line.split()[1]) * 1024


async def measure(
    port: int, pid: int, streams: int, rate: float, seconds: float, request: bytes
) -> dict[str, float]:
    """Open ``streams`` streams, wait until all have begun, and watch a window of ``seconds``."""
    loop = asyncio.get_running_loop()
    before = rss(pid)
    Reader.window = (time.monotonic() + 1e9, time.monotonic() + 2e9)
    readers = []
    for number in range(streams):
        _, reader = await loop.create_connection(lambda: Reader(request), "127.0.0.1", port)
        readers.append(reader)
        if number % 50 == 49:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    patience = time.monotonic() + 10
    while not all(r.begun for r in readers) and time.monotonic() < patience:
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
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


def held(row: dict[str, float]) -> bool:
    """Whether that many streams were served as they should be."""
    return row["delivered"] >= 0.99 and row["p99_ms"] < 50


HEADING = "streams  delivered  us/token   core    p50 ms   p99 ms  kB/stream"


def line(row: dict[str, float]) -> str:
    return (
        f"{int(row['streams']):7d}  {row['delivered']:9.3f}  {row['us_per_token']:8.1f}  "
        f"{row['core']:5.2f}  {row['p50_ms']:8.1f} {row['p99_ms']:8.1f}  "
        f"{row['kb_per_stream']:9.1f}"
    )


# --- processes ----------------------------------------------------------------------------------


@contextlib.contextmanager
def process(
    *command: str, core: int, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A child pinned to ``core``, told to end on the way out."""
    child = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **(env or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
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
    """A port below those that the kernel gives to connections: one of them would else get it
    before the server that is to have it."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as s:
            s.bind(("127.0.0.1", port))
            return port


def wait_for(port: int, child: subprocess.Popen[bytes], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        if child.poll() is not None:
            raise SystemExit("the server ended")
        time.sleep(0.05)
    raise SystemExit("the server did not start")


@contextlib.contextmanager
def running_model(rate: float = 50.0, tls: tuple[Path, Path] | None = None) -> Iterator[str]:
    """A model process on the last core; its address, up to and with ``/v1``. ``tls``: the files of
    its certificate and key."""
    with running_model_process(rate, tls) as (upstream, _):
        yield upstream


@contextlib.contextmanager
def running_model_process(
    rate: float = 50.0, tls: tuple[Path, Path] | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """As `running_model`, with the process: stopped (``SIGSTOP``) its streams are silent."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "port")
        command = [sys.executable, __file__, "--rate", str(rate), "--port-file", str(file)]
        command += ["--tls", *map(str, tls)] if tls else []
        with process(*command, core=other_core()) as child:
            while not file.exists() or not file.read_text():
                if child.poll() is not None:
                    raise SystemExit("the model process ended")
                time.sleep(0.05)
            try:
                yield f"http{'s' if tls else ''}://127.0.0.1:{file.read_text()}/v1", child
            finally:
                child.send_signal(signal.SIGCONT)  # one that is stopped would not end


#: Limits out of the way; a run whose reader has gone must not go on into the next measurement.
ENVIRONMENT = {
    "TOKENWIRE_CONNECTIONS": "20000",
    "TOKENWIRE_CONNECTIONS_PER_IP": "20000",
    "TOKENWIRE_RUNS": "20000",
    "TOKENWIRE_MAX_LAG": "0",
    "TOKENWIRE_ACCESS_LOG": "false",
    "TOKENWIRE_ON_DISCONNECT": "stop",
    # The lane in Python, unless a benchmark says otherwise: the goals and older figures are its.
    "TOKENWIRE_SPEEDUPS": os.environ.get("TOKENWIRE_SPEEDUPS", "0"),
}


@contextlib.contextmanager
def running_tokenwire(
    upstream: str,
    store: str = "memory:",
    *,
    tree: Path = ROOT,
    options: Sequence[str] = (),
    native: bool = False,
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A tokenwire server with further ``options`` on the first core: its port and its process.
    ``native``: with the twin of the lane, which must be installed."""
    port = free_port()
    command = [sys.executable, "-m", "tokenwire", "serve", "--port", str(port)]
    command += ["--model", f"{upstream}#bench", "--store", store, *options]
    env = {**ENVIRONMENT, "PYTHONPATH": str(tree / "src")}
    if native:
        env["TOKENWIRE_SPEEDUPS"] = "1"
    with process(*command, core=server_core(), env=env) as child:
        wait_for(port, child)
        yield port, child


@contextlib.contextmanager
def running_side_by_side(
    upstream: str, store: str, against: Path | None, options: Sequence[str] = ()
) -> Iterator[dict[str, tuple[int, subprocess.Popen[bytes]]]]:
    """A server of this checkout and, when there is one, of another, or of this one with further
    ``options``, each with a store of its own (``TEMP`` in its URL is a folder): name -> port and
    process."""
    kinds: dict[str, tuple[Path, Sequence[str]]] = {"this": (ROOT, ())}
    if against is not None:
        kinds["other"] = (against.resolve(), ())
    if options:
        kinds["with options"] = (ROOT, options)
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, (tree, more) in kinds.items():
            url = store.replace("TEMP", stack.enter_context(tempfile.TemporaryDirectory()))
            running = running_tokenwire(upstream, url, tree=tree, options=more)
            servers[name] = stack.enter_context(running)
        yield servers


@contextlib.contextmanager
def running_floor(upstream: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The bare server of `floor.py` on the first core: its port and its process."""
    port, model = free_port(), upstream.split(":")[2].partition("/")[0]
    command = [sys.executable, str(ROOT / "benchmarks" / "floor.py"), "--port", str(port)]
    with process(*command, "--upstream", model, core=server_core()) as child:
        wait_for(port, child)
        yield port, child


def server_core() -> int:
    """Where what is measured runs."""
    return min(CORES)


def other_core() -> int:
    """Where everything else runs."""
    return max(CORES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The model process of the benchmarks.")
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    given = parser.parse_args()
    context = None
    if given.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*given.tls)
    uvloop.run(model(given.rate, given.port_file, context))
