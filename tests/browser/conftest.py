"""A real Chromium against a real server, each on this machine only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BUILT = (ROOT / "src/tokenwire/server/static/index.html").exists()
ARGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()

if not CHROMIUM:
    collect_ignore_glob = ["test_*.py"]


class Served:
    """A `tokenwire serve` of one's own; `stop` and `start` keep its port and its store."""

    def __init__(self, *args: str, env: dict[str, str] | None = None) -> None:
        # Of its own, whatever the machine's settings say.
        self.args = [*args] if "--store" in args else ["--store", "memory:", *args]
        self.env = env or {}
        self.port = 0
        self._drain = threading.Thread()
        self.process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> Served:
        command = [sys.executable, "-m", "tokenwire", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, *self.args],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **self.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        seen: list[str] = []
        for line in self.process.stdout:
            seen.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        else:
            raise AssertionError("the server did not start:\n" + "".join(seen))
        # What it says later must not fill its pipe.
        self._drain = threading.Thread(target=self.process.stdout.read, daemon=True)
        self._drain.start()
        return self

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(30)
        if self.process is not None and self.process.stdout is not None:
            self._drain.join(30)
            self.process.stdout.close()


@pytest.fixture(scope="session")
def _page_is_built() -> None:
    if not BUILT:
        pytest.skip("the page is not built (npm run build -w packages/page)")


@pytest.fixture
def serve(_page_is_built: None) -> Iterator[Callable[..., Served]]:
    """Starts servers that end with the test."""
    running: list[Served] = []

    def begin(*args: str, **more: Any) -> Served:
        served = Served(*args, **more)
        running.append(served)
        return served.start()

    yield begin
    for served in running:
        served.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(_page_is_built: None) -> Iterator[Served]:
    """One server with the demo model for the tests of a module."""
    served = Served().start()
    yield served
    served.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """For one file only: while Playwright is open its event loop counts as this thread's running
    one, and the `asyncio.run` of every later test would fail."""
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


class Watched:
    """A context that remembers what must not happen: foreign requests, dialogs, page errors."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.bad: list[str] = []
        self.requests: list[str] = []
        context.on("page", self._watch)

    def _watch(self, page: Any) -> None:
        page.on("dialog", lambda d: (self.bad.append(f"dialog {d.message}"), d.dismiss()))
        page.on("pageerror", lambda e: self.bad.append(f"error {e}"))
        page.on("console", self._console)
        page.on("request", lambda r: self.requests.append(r.url))

    def _console(self, message: Any) -> None:
        if "Content Security Policy" in message.text or "Trusted" in message.text:
            self.bad.append(message.text)

    def page(self) -> Any:
        return self.context.new_page()

    def foreign(self, url: str) -> list[str]:
        own = (url, url.replace("http", "ws", 1), "data:", "blob:", "about:")
        return [request for request in self.requests if not request.startswith(own)]


@pytest.fixture
def watched(chromium: Any) -> Iterator[Watched]:
    context = chromium.new_context(viewport={"width": 1200, "height": 800})
    context.set_default_timeout(60_000)
    yield Watched(context)
    context.close()


class Line:
    """A line to a server that can be cut: open connections break, new ones are refused."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.open = True
        self.sockets: set[socket.socket] = set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self.open = False
        self.drop()

    def mend(self) -> None:
        self.open = True

    def drop(self) -> None:
        """What is open breaks with a reset; what comes next gets through."""
        for one in list(self.sockets):
            linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self.target))
            self.sockets |= {near, far}
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)
        self.sockets.discard(one)
        one.close()


@pytest.fixture
def line(server: Served) -> Iterator[Line]:
    """A line to the module's server."""
    made = Line(server.port)
    yield made
    made.close()


class Model:
    """An OpenAI-compatible model that says what it was told to say, in the pieces given: texts, or
    whole deltas of its wire."""

    def __init__(self) -> None:
        self.pieces: list[str | dict[str, Any]] = []
        self.pause = 0.0
        #: Where it says nothing more until the event is set.
        self.gate: tuple[int, threading.Event] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                stopped = threading.Event()
                for number, piece in enumerate(outer.pieces):
                    if outer.gate is not None and outer.gate[0] == number:
                        outer.gate[1].wait(60)
                    delta = {"content": piece} if isinstance(piece, str) else piece
                    self._say({"delta": delta, "index": 0})
                    if outer.pause:
                        stopped.wait(outer.pause)
                self._say({"delta": {}, "index": 0, "finish_reason": "stop"})
                self.wfile.write(b"data: [DONE]\n\n")

            def _say(self, choice: dict[str, Any]) -> None:
                chunk = {"id": "x", "object": "chat.completion.chunk", "choices": [choice]}
                self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def name(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1#told"


@pytest.fixture
def model() -> Iterator[Model]:
    told = Model()
    yield told
    told.server.shutdown()
    told.server.server_close()


@pytest.fixture
def ask() -> Callable[..., Any]:
    """Writes a question and sends it; the answer's locator."""

    def send(page: Any, question: str) -> Any:
        count = page.locator(".answer").count()
        page.get_by_label("Your question").fill(question)
        page.keyboard.press("Enter")
        return page.locator(".answer").nth(count)

    return send


COUNTED = "".join(f"{n} " for n in range(1, 91)).strip()


@pytest.fixture
def counted() -> str:
    """What ``scenario:slow`` says, as it stands in a paragraph."""
    return COUNTED
