"""A provider for tests of what stands before it, in a thread: the simulator, and odd answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.http import Connection, Exchange
from tokenwire.simulator.settings import Settings

__all__ = ["Upstream", "upstream"]

TEXT = {"content-type": "text/plain"}


class Upstream:
    """``models``: the simulator's address; ``odd``: that of the answers of `_ODD`, by path."""

    def __init__(self) -> None:
        self.models = self.odd = ""
        #: What came to ``odd``: method, target, headers, body.
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        #: Set it, and the answers of ``/held`` go on.
        self.release = threading.Event()
        self._connections: set[Connection] = set()

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        async with SimulatorServer(Settings()) as simulator:
            odd = await loop.create_server(
                lambda: Connection(self._answer, self._connections), "127.0.0.1", 0
            )
            self.models = simulator.url
            self.odd = f"http://127.0.0.1:{odd.sockets[0].getsockname()[1]}"
            ready.set()
            await stop.wait()
            odd.close()
            for connection in list(self._connections):
                connection.abort()

    def _answer(self, client: Exchange) -> None:
        request = client.request
        seen = (request.method, request.target, dict(request.headers), request.body)
        self.requests.append(seen)
        if request.path == "/held":
            client.begin(200, TEXT)
            client.write(b"first ")
            asyncio.get_running_loop().create_task(self._held(client))
            return
        answer = _ODD.get(request.path)
        if answer is None:
            headers = {**TEXT, "set-cookie": "session=cookie-of-theirs", "x-request-id": "req-1"}
            client.answer(200, headers, f"{len(self.requests)}".encode())
        else:
            answer(client)

    async def _held(self, client: Exchange) -> None:
        while not self.release.is_set():
            await asyncio.sleep(0.005)
        client.write(b"second")
        client.finish()


def _pieces(client: Exchange, headers: dict[str, str], data: bytes, size: int) -> None:
    client.begin(200, headers)
    for at in range(0, len(data), size):
        client.write(data[at : at + size])
    client.finish()


def _broken(*, reset: bool) -> Callable[[Exchange], None]:
    def answer(client: Exchange) -> None:
        client.begin(200, {"content-type": "text/event-stream"})
        client.write(b"data: 1\n\n")
        # After the client has what was written.
        asyncio.get_running_loop().call_later(0.05, lambda: client.cut(reset=reset))

    return answer


def _stalled(client: Exchange) -> None:
    client.begin(200, TEXT)
    client.write(b"first")


_ODD: dict[str, Callable[[Exchange], None]] = {
    "/gzip": lambda c: _pieces(
        c, {**TEXT, "content-encoding": "gzip"}, gzip.compress(b"a secret sk-abcdefgh1234"), 3
    ),
    "/deflate": lambda c: _pieces(
        c, {**TEXT, "content-encoding": "deflate"}, zlib.compress(b"text"), 5
    ),
    "/damaged": lambda c: c.answer(200, {**TEXT, "content-encoding": "gzip"}, b"no gzip"),
    "/br": lambda c: c.answer(200, {**TEXT, "content-encoding": "br"}, b"\x0b\x02\x80hello\x03"),
    "/image": lambda c: c.answer(200, {"content-type": "image/png"}, bytes(range(256))),
    "/nothing": lambda c: c.answer(204, {}, b""),
    "/busy": lambda c: c.answer(
        429,
        {"content-type": "application/json", "retry-after": "7", "openai-organization": "acme"},
        json.dumps({"error": {"message": "Rate limit of org-AbCdEfGh1234"}}).encode(),
    ),
    "/cut": _broken(reset=False),
    "/reset": _broken(reset=True),
    "/stalled": _stalled,
    "/leak": lambda c: c.answer(200, TEXT, b"-----BEGIN PRIVATE KEY-----"),
}


@contextmanager
def upstream() -> Iterator[Upstream]:
    """It serves meanwhile."""
    served, ready, box = Upstream(), threading.Event(), []

    async def main() -> None:
        stop = asyncio.Event()
        box.append((asyncio.get_running_loop(), stop))
        await served.serve(ready, stop)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    try:
        yield served
    finally:
        served.release.set()
        loop, stop = box[0]
        loop.call_soon_threadsafe(stop.set)
        thread.join()
