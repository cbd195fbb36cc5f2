"""A small HTTP/1.1 server that can also break a connection in every way that networks do.

Always true: one request at a time per connection; a request that is read gets its exchange
closed exactly once; bytes written to an exchange reach the socket in order or not at all.
Written here because finished servers hide the transport, and a reset needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qsl, unquote

__all__ = ["MAX_BODY", "Connection", "Exchange", "HttpRequest"]

#: A request's head; real clients send under 8 KiB.
MAX_HEAD = 64 * 1024
#: A request's body: long conversations with files, and no more.
MAX_BODY = 64 * 1024 * 1024
#: Waiting bytes of the kernel and the transport before a stream pauses.
WRITE_HIGH = 256 * 1024


class HttpRequest:
    """A request that was read whole."""

    __slots__ = ("body", "headers", "method", "path", "query", "target", "version")

    def __init__(self, method: str, target: str, version: str, headers: Mapping[str, str]) -> None:
        path, _, query = target.partition("?")
        self.method = method
        #: Path and query as they were sent.
        self.target = target
        self.path = unquote(path)
        self.query = dict(parse_qsl(query, keep_blank_values=True))
        self.version = version
        #: Names in lower case.
        self.headers = headers
        self.body = b""


class Exchange:
    """The answering side of one request."""

    __slots__ = ("_chunked", "_connection", "_done", "on_close", "on_resume", "request", "sent")

    def __init__(self, connection: Connection, request: HttpRequest) -> None:
        self.request = request
        #: Bytes of the body handed to the socket.
        self.sent = 0
        #: Called once when the client goes away before the answer is whole.
        self.on_close: Callable[[], None] | None = None
        #: Called when the client has read enough for more to be written.
        self.on_resume: Callable[[], None] | None = None
        self._connection = connection
        self._chunked = False
        self._done = False

    @property
    def paused(self) -> bool:
        """The client reads more slowly than we write."""
        return self._connection.paused

    @property
    def done(self) -> bool:
        """The answer is complete, or its reader has left."""
        return self._done

    def begin(self, status: int, headers: Mapping[str, str], length: int | None = None) -> None:
        """Send the head; without ``length`` the body is chunked (closed at its end in HTTP/1.0)."""
        lines = [f"HTTP/1.1 {status} {_reason(status)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length is not None:
            lines.append(f"content-length: {length}")
        elif self.request.version == "HTTP/1.1":
            lines.append("transfer-encoding: chunked")
            self._chunked = True
        if not self._connection.keep_alive:
            lines.append("connection: close")
        self._connection.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if not data or self._done:
            return
        self.sent += len(data)
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.send(data)

    def finish(self) -> None:
        """The body is whole."""
        if self._done:
            return
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")
        self._done = True
        self._connection.exchange_done()

    def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """A whole answer at once."""
        self.begin(status, headers, len(body))
        self.write(body)
        self.finish()

    def cut(self, *, reset: bool = False) -> None:
        """Close in mid-answer: a FIN without the end of the body, or a reset."""
        if self._done:
            return
        self._done = True
        self.on_close = None
        self._connection.cut(reset=reset)

    def lost(self) -> None:
        """The client has gone."""
        if self._done:
            return
        self._done = True
        if self.on_close is not None:
            self.on_close()


class Connection(asyncio.Protocol):
    """One client connection. ``serve`` gets an `Exchange` per request and must not block."""

    def __init__(
        self, serve: Callable[[Exchange], None], open_connections: set[Connection]
    ) -> None:
        self._serve = serve
        self._open = open_connections
        self._buffer = bytearray()
        self._request: HttpRequest | None = None
        self._exchange: Exchange | None = None
        self._transport: asyncio.Transport | None = None
        self.paused = False
        self.keep_alive = True
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._transport = None
        self.closed.set()
        if self._exchange is not None:
            self._exchange.lost()
            self._exchange = None

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._exchange is not None and self._exchange.on_resume is not None:
            self._exchange.on_resume()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > MAX_HEAD + 2 * MAX_BODY:  # requests upon requests, none awaited
            self.abort()
            return
        self._read()

    def send(self, data: bytes) -> None:
        """Write to the socket, if there is one still."""
        if self._transport is not None:
            self._transport.write(data)

    def exchange_done(self) -> None:
        """The current answer is whole; read the next request."""
        self._exchange = None
        if not self.keep_alive:
            self.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._read)

    def close(self) -> None:
        """Close after what was written."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def cut(self, *, reset: bool) -> None:
        """FIN or RST. A reset waits one turn, so that what was written leaves first."""
        self._exchange = None
        if not reset:
            self.close()
            return
        raw = self._transport and self._transport.get_extra_info("socket")
        if raw is not None:
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        asyncio.get_running_loop().call_later(0.005, self.abort)

    def _read(self) -> None:
        if self._exchange is not None:  # the next request waits for this answer
            return
        if self._request is None and not self._read_head():
            return
        if not self._read_body():
            return
        request, self._request = self._request, None
        assert request is not None
        connection = request.headers.get("connection", "").lower()
        self.keep_alive = request.version == "HTTP/1.1" and connection != "close"
        self._exchange = Exchange(self, request)
        self._serve(self._exchange)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                self._refuse(431)
            return False
        lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        try:
            method, target, version = lines[0].split(" ")
            pairs = [line.split(":", 1) for line in lines[1:]]
            headers = {name.strip().lower(): value.strip() for name, value in pairs}
        except ValueError:
            self._refuse(400)
            return False
        self._request = HttpRequest(method, target, version, headers)
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _read_body(self) -> bool:
        request = self._request
        assert request is not None
        if request.headers.get("transfer-encoding", "").lower() == "chunked":
            return self._read_chunked(request)
        try:
            length = int(request.headers.get("content-length", "0"))
        except ValueError:
            length = -1
        if length < 0:
            self._refuse(400)
            return False
        if length > MAX_BODY:
            self._refuse(413)
            return False
        if len(self._buffer) < length:
            return False
        request.body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return True

    def _read_chunked(self, request: HttpRequest) -> bool:
        if len(self._buffer) > MAX_BODY:
            self._refuse(413)
            return False
        at, body = 0, bytearray()
        while True:
            line = self._buffer.find(b"\r\n", at)
            if line < 0:
                return False
            try:
                size = int(bytes(self._buffer[at:line]).split(b";")[0], 16)
            except ValueError:
                self._refuse(400)
                return False
            at = line + 2 + size + 2
            if len(self._buffer) < at:
                return False
            body += self._buffer[line + 2 : at - 2]
            if size == 0:
                break
        request.body = bytes(body)
        del self._buffer[:at]
        return True

    def _refuse(self, status: int) -> None:
        self._request = None
        self._buffer.clear()
        self.keep_alive = False
        head = (
            f"HTTP/1.1 {status} {_reason(status)}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        self.send(head.encode("latin-1"))
        self.close()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
