"""What one open stream holds, and how long the event loop stands still among a thousand.

Memory: streams that have had one word, on the native SSE wire, by the growth of the process (RSS)
from N streams to 2N; ``--what`` says what holds it: bytes by file and line (`tracemalloc`) and
objects by type, in a server of its own. Beside it the bare server of `floor.py`.

Pauses: the longest turn of the server's event loop, in CPU milliseconds of its thread, so that
other work on the machine counts little; and the longest collection of garbage.

    python benchmarks/memory.py
    python benchmarks/memory.py --what
    python benchmarks/memory.py --pauses --against ../before
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop
from harness import (
    CHUNK,
    ENVIRONMENT,
    HEAD,
    ROOT,
    chunked,
    free_port,
    other_core,
    post,
    rss,
    running_floor,
    server_core,
    wait_for,
)

GOAL_KB, GOAL_MS = 25.0, 10.0
STREAMS = 1_000
#: Readers that come or go, answers that end, and providers that are lost, at the same moment.
AT_ONCE = 600
WORD = chunked(b"data: " + (CHUNK % "word ").encode() + b"\n\n")
STOP = CHUNK.replace('"delta":{"content":"%s"}', '"delta":{}').replace(
    '"finish_reason":null', '"finish_reason":"stop"'
)
END = chunked(b"data: " + STOP.encode() + b"\n\ndata: [DONE]\n\n") + b"0\r\n\r\n"
BODY = json.dumps({"prompt": "Hello"}).encode()


# --- inside the server --------------------------------------------------------------------------


class Probe:
    """Looks at the server from within it: commands come on its standard input, one a line."""

    def __init__(self) -> None:
        self.turn = self.collection = 0.0
        self._before = 0.0
        self._collecting = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread_clock = time.clock_gettime_ns
        self._before = time.thread_time()
        gc.callbacks.append(self._collected)
        self._tick()

    def _tick(self) -> None:
        now = time.thread_time()
        self.turn = max(self.turn, now - self._before)
        self._before = now
        self._loop.call_later(0.001, self._tick)

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            self.collection = max(self.collection, time.thread_time() - self._collecting)

    def answer(self, command: str) -> object:
        if command == "pauses":
            turn, collection = self.turn * 1000, self.collection * 1000
            self.turn = self.collection = 0.0
            return {"turn": turn, "collection": collection}
        return {"types": self._types(), "lines": self._lines()}

    def _types(self) -> dict[str, int]:
        done = threading.Event()
        types: Counter[str] = Counter()

        def count() -> None:
            gc.unfreeze()
            gc.collect()
            for each in gc.get_objects():
                kind = type(each)
                types[f"{kind.__module__}.{kind.__qualname__}"] += 1
            done.set()

        self._loop.call_soon_threadsafe(count)
        done.wait()
        return dict(types)

    def _lines(self) -> dict[str, int]:
        import tracemalloc

        if not tracemalloc.is_tracing():
            return {}
        lines: Counter[str] = Counter()
        for trace in tracemalloc.take_snapshot().traces:
            frame = trace.traceback[-1]
            lines[f"{frame.filename}:{frame.lineno}"] += trace.size
        return dict(lines)

    def listen(self) -> None:
        for line in sys.stdin:
            print(json.dumps(self.answer(line.strip())), file=sys.stderr, flush=True)


def serve(arguments: list[str]) -> None:
    """`tokenwire serve` with a probe."""
    from tokenwire.cli import main as cli
    from tokenwire.server.start import Server

    probe, startup = Probe(), Server.startup

    async def started(self: Server, sockets: Any = None) -> None:
        await startup(self, sockets)
        probe.begin(asyncio.get_running_loop())
        threading.Thread(target=probe.listen, daemon=True).start()

    Server.startup = started  # type: ignore[method-assign]
    sys.argv = ["tokenwire", "serve", *arguments]
    sys.exit(cli.main())


class Server:
    """A server with a probe, and its process."""

    def __init__(self, port: int, child: subprocess.Popen[str]) -> None:
        self.port, self.child = port, child

    def ask(self, command: str) -> Any:
        assert self.child.stdin is not None
        assert self.child.stderr is not None
        self.child.stdin.write(f"{command}\n")
        self.child.stdin.flush()
        for line in self.child.stderr:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit("the server ended")


@contextlib.contextmanager
def probed(
    model: int, tree: Path, *, traced: bool = False, keeps: bool = False
) -> Iterator[Server]:
    """A server of ``tree``. ``traced``: it counts bytes by line; ``keeps``: its runs go on without
    readers."""
    port = free_port()
    env = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(tree / "src")}
    if traced:
        env["PYTHONTRACEMALLOC"] = "1"
    if keeps:
        env["TOKENWIRE_ON_DISCONNECT"] = "continue"
    command = [sys.executable, __file__, "--serve", "--port", str(port), "--store", "memory:"]
    child = subprocess.Popen(
        [*command, "--model", f"http://127.0.0.1:{model}/v1#bench"],
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {server_core()}),
    )
    try:
        wait_for(port, child)  # type: ignore[arg-type]
        yield Server(port, child)
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()


# --- model and readers --------------------------------------------------------------------------


class Model(asyncio.Protocol):
    """Answers any POST with one word; more words and the end come when the benchmark says so."""

    live: set[Model] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.seen = b""

    def data_received(self, data: bytes) -> None:
        self.seen += data
        head, found, body = self.seen.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = sum(int(x.split(b":")[1]) for x in lines if x.startswith(b"content-length"))
        if found and len(body) >= length:
            self.seen = b""
            self.transport.write(HEAD + WORD)
            Model.live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        Model.live.discard(self)

    def end(self) -> None:
        Model.live.discard(self)
        self.transport.write(END)


class Reader(asyncio.Protocol):
    """A reader, and what it has had."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.has_word = self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.has_word = self.has_word or b"word" in data
        self.has_ended = self.has_ended or data.endswith(b"0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self.has_ended = True


async def open_readers(port: int, count: int, *, a_second: float = 200.0) -> list[Reader]:
    """Readers who come one after the other, and have their first word."""
    loop, readers = asyncio.get_running_loop(), []
    request = post(port, "/v1/runs", BODY)
    for _ in range(count):
        _, reader = await loop.create_connection(lambda: Reader(request), "127.0.0.1", port)
        readers.append(reader)
        await asyncio.sleep(1 / a_second)
    await until(lambda: all(reader.has_word for reader in readers))
    return readers


async def open_at_once(port: int, count: int) -> list[Reader]:
    """Readers who come as fast as they can connect, and have their first word."""
    loop, request = asyncio.get_running_loop(), post(port, "/v1/runs", BODY)
    opened = await asyncio.gather(
        *(loop.create_connection(lambda: Reader(request), "127.0.0.1", port) for _ in range(count))
    )
    readers = [reader for _, reader in opened]
    await until(lambda: all(reader.has_word for reader in readers))
    return readers


async def until(done: Any, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            raise SystemExit("readers did not get what they wait for")
        await asyncio.sleep(0.05)


async def start_model() -> int:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Model, "127.0.0.1", 0, backlog=4096)
    return server.sockets[0].getsockname()[1]


# --- memory -------------------------------------------------------------------------------------


async def kb_of(port: int, pid: int, streams: int) -> float:
    """kB by which the process grows for each stream, from ``streams`` to twice as many."""
    readers = await open_readers(port, streams)
    await asyncio.sleep(2)
    before = rss(pid)
    readers += await open_readers(port, streams)
    await asyncio.sleep(2)
    grown = rss(pid) - before
    for reader in readers:
        reader.transport.abort()
    await asyncio.sleep(1)
    return grown / streams / 1024


async def memory(streams: int, trees: dict[str, Path], rounds: int) -> None:
    model = await start_model()
    print(f"kB a stream, from {streams} to {2 * streams} streams after one word (RSS)")
    rows: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, tree in trees.items():
            with probed(model, tree) as server:
                size = await kb_of(server.port, server.child.pid, streams)
            rows.setdefault(name, []).append(size)
        with running_floor(f"http://127.0.0.1:{model}/v1") as (port, child):
            size = await kb_of(port, child.pid, streams)
        rows.setdefault("bare server (floor.py)", []).append(size)
    for name, sizes in rows.items():
        size = sorted(sizes)[len(sizes) // 2]
        mark = "" if size <= GOAL_KB else f"  <-- goal {GOAL_KB:g}"
        print(f"  {name:24} {size:6.1f}{mark}")


async def what(streams: int, tree: Path, most: int) -> None:
    """What holds it, per stream."""
    model = await start_model()
    with probed(model, tree, traced=True) as server:
        readers = await open_readers(server.port, streams // 2)
        await asyncio.sleep(1)
        first = server.ask("what")
        readers += await open_readers(server.port, streams)
        await asyncio.sleep(1)
        second = server.ask("what")
        for reader in readers:
            reader.transport.abort()
    for title, key, unit in (("bytes by line", "lines", 1), ("objects by type", "types", 1)):
        grown = Counter(
            {
                name: (size - first[key].get(name, 0)) / streams / unit
                for name, size in second[key].items()
            }
        )
        print(f"{title}: {sum(grown.values()):.0f} a stream")
        if key == "lines":
            files: Counter[str] = Counter()
            for name, size in grown.items():
                files[_short(name.rpartition(":")[0])] += size  # type: ignore[assignment]
            for name, size in files.most_common(most):
                print(f"  {size:9.0f}  {name}")
            print()
        for name, size in grown.most_common(most):
            if size >= 0.1:
                print(f"  {size:9.1f}  {_short(name)}")
        print()


def _short(name: str) -> str:
    for part in ("/src/", "/site-packages/", "/lib/python3"):
        name = name.rpartition(part)[2]
    return name


# --- pauses -------------------------------------------------------------------------------------


async def speak(words: float) -> None:
    """Every stream gets so many words a second, spread over it."""
    while True:
        live = list(Model.live)
        slots = 50
        for slot in range(slots):
            for stream in live[slot::slots]:
                if stream in Model.live:
                    stream.transport.write(WORD)
            await asyncio.sleep(1 / words / slots)


async def pauses_of(server: Server, streams: int) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}

    def note(name: str) -> None:
        pauses = server.ask("pauses")
        found[name] = pauses["turn"], pauses["collection"]

    for reader in await open_readers(server.port, 1):  # what is made once is made
        reader.transport.abort()
    await asyncio.sleep(1)
    server.ask("pauses")
    readers = await open_readers(server.port, streams)
    note(f"{streams} readers come, 200 a second")
    await asyncio.sleep(6)
    note("6 s of words, two a second each")
    going, readers = readers[:AT_ONCE], readers[AT_ONCE:]
    for reader in going:
        reader.transport.abort()
    await asyncio.sleep(3)
    note(f"{AT_ONCE} of them leave at once")
    server.ask("pauses")
    readers += await open_at_once(server.port, AT_ONCE)
    await asyncio.sleep(2)
    note(f"{AT_ONCE} readers come at once")
    for stream in list(Model.live)[:AT_ONCE]:
        stream.end()
    await asyncio.sleep(3)
    note(f"{AT_ONCE} answers end at once")
    readers = [reader for reader in readers if not reader.has_ended]
    readers += await open_readers(server.port, AT_ONCE)
    server.ask("pauses")
    for stream in list(Model.live)[:AT_ONCE]:
        stream.transport.abort()
    await asyncio.sleep(3)
    note(f"{AT_ONCE} providers are lost at once")
    readers = [reader for reader in readers if not reader.has_ended]
    for stream in list(Model.live):
        stream.end()
        await asyncio.sleep(1 / 200)
    await asyncio.sleep(1)
    note("the others end, 200 a second")
    for reader in readers[:AT_ONCE]:
        reader.transport.abort()
    await asyncio.sleep(1)
    note(f"{AT_ONCE} connections without a request close")
    for reader in readers[AT_ONCE:]:
        reader.transport.abort()
        await asyncio.sleep(1 / 200)
    server.ask("pauses")
    await asyncio.sleep(6)
    note("6 s of silence")
    return found


async def pauses(streams: int, trees: dict[str, Path], rounds: int, words: float) -> None:
    model = await start_model()
    speaking = asyncio.create_task(speak(words))
    for name, tree in trees.items():
        for keeps in (False, True):
            worst: dict[str, tuple[float, float]] = {}
            for _ in range(rounds):
                with probed(model, tree, keeps=keeps) as server:
                    for key, (turn, collection) in (await pauses_of(server, streams)).items():
                        before = worst.get(key, (0.0, 0.0))
                        worst[key] = max(before[0], turn), max(before[1], collection)
            policy = "continue" if keeps else "stop"
            print(f"{name}, on_disconnect={policy}: longest turn, and collection, CPU ms")
            for key, (turn, collection) in worst.items():
                mark = "" if turn <= GOAL_MS else f"  <-- goal {GOAL_MS:g}"
                print(f"  {key:36} {turn:7.1f} {collection:7.1f}{mark}")
    speaking.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=0, help="400 for memory, 1000 for pauses")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--against", type=Path, help="another checkout, in turns")
    parser.add_argument("--what", action="store_true", help="what holds it")
    parser.add_argument("--most", type=int, default=40, help="lines and types of --what")
    parser.add_argument("--pauses", action="store_true")
    given = parser.parse_args()
    os.sched_setaffinity(0, {other_core()})
    trees = {"this": ROOT}
    if given.against is not None:
        trees["other"] = given.against.resolve()
    if given.what:
        uvloop.run(what(given.streams or 400, trees.get("other", ROOT), given.most))
    elif given.pauses:
        uvloop.run(pauses(given.streams or STREAMS, trees, given.rounds, 2.0))
    else:
        uvloop.run(memory(given.streams or 400, trees, given.rounds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2:])
    main()
