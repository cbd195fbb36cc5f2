"""An application behind a real socket, and a reader that can be cut at any byte.

Always true: a read ends at its deadline; nothing is kept open after a reader was closed.
"""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from tokenwire.framing.sse import Frame, SSEDecoder

__all__ = ["Reader", "request", "serving"]

_START_SECONDS = 30.0
_STOP_SECONDS = 5


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of ``app``: itself, where it is one; else of a server that runs meanwhile."""
    if isinstance(app, str):
        yield app.rstrip("/")
        return
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=_STOP_SECONDS, ws="none"
    )
    server = uvicorn.Server(config)
    failure: list[BaseException] = []

    def run() -> None:
        try:
            server.run(sockets=[listener])
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="tokenwire-testing", daemon=True)
    thread.start()
    deadline = time.monotonic() + _START_SECONDS
    try:
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                reason = failure[0] if failure else "see its log"
                raise AssertionError(f"the application did not start: {reason}")
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(2 * _STOP_SECONDS + 5)
        listener.close()


class Reader:
    """One response. `frames` are those of the bytes that were read so far."""

    def __init__(
        self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse
    ) -> None:
        self._connection, self._response = connection, response
        self._decoder = SSEDecoder()
        self.status = response.status
        self.frames: list[Frame] = []
        #: How many bytes were read.
        self.size = 0
        #: Why it ended other than in order.
        self.failure = ""

    def header(self, name: str) -> str:
        """A header's value; empty without one."""
        return self._response.headers.get(name, "")

    def body(self) -> bytes:
        """All of it, for a response that is no stream."""
        try:
            return self._response.read()
        finally:
            self.close()

    def read(self, deadline: float, most: int = 65536) -> bool:
        """Read some bytes, at most ``most``; False at the end. Raises `TimeoutError` when there is
        none at ``deadline`` (of the monotonic clock)."""
        seconds = deadline - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)
        try:
            data = self._response.read1(most)
        except TimeoutError:
            raise
        except (http.client.HTTPException, OSError) as error:
            self.failure = f"{type(error).__name__}: {error}".rstrip(": ")
            data = b""
        if not data:
            self.close()
            return False
        self.size += len(data)
        self.frames += self._decoder.feed(data)
        return True

    def close(self) -> None:
        """Cut it here."""
        self._response.close()
        self._connection.close()


def request(
    base: str,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    timeout: float,
) -> Reader:
    """Send a request. ``path``: below ``base``, or an address. Raises `AssertionError` without a
    response in ``timeout`` seconds."""
    url = urlsplit(path if "://" in path else base + path)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=timeout)
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    try:
        connection.request(method, target, body=body, headers=dict(headers))
        # The response keeps its socket; the connection's stays known, for its timeouts.
        sock = connection.sock
        response = connection.getresponse()
        connection.sock = connection.sock or sock
    except (http.client.HTTPException, OSError) as error:
        connection.close()
        reason = f"{type(error).__name__}: {error}"
        raise AssertionError(f"{method} {path}: no response in {timeout:g} s ({reason})") from None
    return Reader(connection, response)
