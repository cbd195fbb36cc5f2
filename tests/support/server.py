"""A real server on a free port, reading the simulator: what tests of the server share."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tokenwire.framing.sse import Frame, SSEDecoder
from tokenwire.log.base import LogInfo
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.registry import Registry
from tokenwire.server.app import App, create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.simulator.app import Record, SimulatorServer
from tokenwire.simulator.settings import Settings as SimulatorSettings
from tokenwire.tools.demo import demo_tools

KEY_A = "test-key-of-person-a"
KEY_B = "test-key-of-person-b"
AS_A = {"authorization": f"Bearer {KEY_A}"}
AS_B = {"authorization": f"Bearer {KEY_B}"}
KEYS = [f"a:{KEY_A}", f"b:{KEY_B}"]


class Simulator:
    """The simulator in a thread; as fast as it is read, unless ``settings`` say otherwise."""

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self.server: SimulatorServer
        self.loop: asyncio.AbstractEventLoop
        ready = threading.Event()

        async def main() -> None:
            self.server = await SimulatorServer(settings).start()
            self.loop = asyncio.get_running_loop()
            ready.set()
            await asyncio.Event().wait()

        threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
        assert ready.wait(30)

    def newest(self, scenario: str) -> Record:
        """The newest request for ``scenario``; others may have come after it."""
        return next(r for r in reversed(self.server.requests) if r.scenario == scenario)


_simulator: Simulator | None = None


def simulator() -> Simulator:
    """The one simulator of this test process."""
    global _simulator
    if _simulator is None:
        _simulator = Simulator()
    return _simulator


class CountedLog(MemoryStore):
    """A log that counts the runs that were created in it.

    A run is in the log before its request is answered, and only a run asks a provider. The
    requests that the simulator has seen say less: those of runs that an earlier test started may
    still be on their way to it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.runs_started = 0

    async def create(self, stream: str, **more: Any) -> LogInfo:
        created = await super().create(stream, **more)
        self.runs_started += created.log == stream
        return created


def make_app(**settings: Any) -> App:
    settings.setdefault("port", 0)
    settings.setdefault("graceful_stop", 2.0)
    settings.setdefault("access_log", False)
    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    log = None if settings.get("store") else CountedLog()
    wires, auth = settings.pop("wires", ()), settings.pop("auth", None)
    return create_app(
        Settings(**settings),
        registry=registry,
        store=log,
        tools=demo_tools(),
        wires=wires,
        auth=auth,
    )


class Site:
    """A running server and a client for it."""

    def __init__(self, app: App, server: ThreadedServer, client: httpx.Client) -> None:
        self.app, self.server, self.client = app, server, client
        self.url, self.port = server.url, server.port

    @property
    def runs_started(self) -> int:
        """How many runs there have been: what was asked of the provider, and so paid for."""
        log = self.app.state.store
        assert isinstance(log, CountedLog)
        return log.runs_started

    def start(self, prompt: str = "scenario:text", **fields: Any) -> str:
        """Start a run; its id."""
        headers = fields.pop("headers", {})
        answer = self.client.post("/v1/runs", json={"prompt": prompt, **fields}, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def frames(self, path: str, **more: Any) -> list[Frame]:
        """All frames of a stream that ends."""
        with self.client.stream(more.pop("method", "GET"), path, **more) as answer:
            assert answer.status_code < 300, answer.read()
            decoder = SSEDecoder()
            found = [f for data in answer.iter_bytes() for f in decoder.feed(data)]
            return found + decoder.finish()

    def raw(self, request: bytes, *, most: float = 10.0) -> bytes:
        """What the server answers to these very bytes until it closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=most) as wire:
            wire.sendall(request)
            pieces: list[bytes] = []
            while piece := wire.recv(65536):
                pieces.append(piece)
        return b"".join(pieces)


@contextmanager
def site(**settings: Any) -> Iterator[Site]:
    app = make_app(**settings)
    with (
        ThreadedServer(app) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client,
    ):
        yield Site(app, server, client)


def text_of(frames: list[Frame]) -> str:
    """The visible text of native frames."""
    events = [json.loads(frame.data) for frame in frames]
    return "".join(e["text"] for e in events if e["type"] == "text-delta")


def types_of(frames: list[Frame]) -> list[str]:
    return [json.loads(frame.data)["type"] for frame in frames]


def status_of(answer: bytes) -> int:
    found = re.match(rb"HTTP/1\.1 (\d{3})", answer)
    return int(found[1]) if found else 0


class Reading:
    """A stream that is read piece by piece on a plain socket."""

    def __init__(self, port: int, request: bytes) -> None:
        self.wire = socket.create_connection(("127.0.0.1", port), timeout=40)
        self.wire.sendall(request)
        self.seen = b""

    @classmethod
    def get(cls, port: int, path: str, *headers: str) -> Reading:
        lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers, "", ""]
        return cls(port, "\r\n".join(lines).encode())

    def until(self, wanted: bytes) -> bytes:
        """Read until ``wanted`` is there."""
        while wanted not in self.seen:
            piece = self.wire.recv(65536)
            if not piece:
                raise AssertionError(f"the stream ended before {wanted!r}: {self.seen[-500:]!r}")
            self.seen += piece
        return self.seen

    def rest(self) -> bytes:
        """Read to the end of the connection, or of its chunked body."""
        while not self.seen.endswith(b"0\r\n\r\n"):
            piece = self.wire.recv(65536)
            if not piece:
                break
            self.seen += piece
        return self.seen

    def close(self) -> None:
        self.wire.close()

    __del__ = close
