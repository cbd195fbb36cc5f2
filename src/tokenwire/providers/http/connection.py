"""HTTP/1.1 to providers on a bare asyncio protocol: the reader of the hot path.

A model's answer is one wake-up per token; what is saved here is saved for every token. Parsing is
`httptools` (llhttp); connecting, TLS and flow control are asyncio's. `benchmarks/http_reader.py`
compares it with aiohttp.

Always true: one request at a time on a connection; a connection goes back to the pool only after a
whole answer whose framing allows it; what is buffered is bounded, beyond it the socket is not read.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urlsplit

import httptools

from tokenwire.errors import NetworkError, ProtocolError, ProviderError
from tokenwire.express import YES, Taken

__all__ = ["Connection", "Pool", "Response"]

#: Largest head of a response.
MOST_HEAD_BYTES = 64 << 10
#: Unread body at which the socket is no longer read, and at which it is read again.
HIGH_WATER, LOW_WATER = 256 << 10, 64 << 10
#: Seconds that an idle connection is kept. Providers' load balancers close at 60 or later.
KEEP_IDLE = 30.0
#: After the end marker of an answer: seconds and bytes in which its body may end, so that the
#: connection can be used again.
LINGER = 0.25
MOST_REST_BYTES = 16 << 10
_Key = tuple[str, int, bool]


class Response:
    """One answer, from its head to its end: what `providers.http.ByteStream` promises."""

    __slots__ = (
        "_connection",
        "_ended",
        "_error",
        "_lingering",
        "_pieces",
        "_settle",
        "_size",
        "_take",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: ProviderError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], Taken] | None = None
        self._settle = self._lingering = False

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; ``b""`` at the end."""
        return await self.read_express(None) or b""

    async def read_express(self, take: Callable[[bytes], Taken] | None) -> bytes | None:
        """`read`, but pieces that arrive during the wait go to ``take`` first (which must not
        raise; see `tokenwire.express`). ``SETTLE`` makes this return None, before anything that
        arrives later and before an error."""
        while True:
            if self._pieces:
                return self._drain()
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._waiter, self._take = self._connection.loop.create_future(), take
            try:
                await self._waiter
            finally:
                self._waiter = self._take = None
            if self._settle:
                self._settle = False
                return None

    def _drain(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._connection.resume()
        return data

    @property
    def hungry(self) -> bool:
        """Whether there is room for more."""
        return self._size <= HIGH_WATER

    def abort(self, error: ProviderError) -> None:
        """Close the connection now; a pending or the next `read` raises ``error``."""
        if self._error is None:
            self._error = error
        self._pieces.clear()
        self._size = 0
        self._connection.abort()
        self.wake()

    def hold(self) -> Callable[[], None]:
        """Stop reading the socket until the returned function is called."""
        return self._connection.hold()

    async def aclose(self) -> None:
        """Release the connection; before the end of the body this closes it."""
        self._connection.release(reusable=self._ended and self._error is None)

    def linger(self) -> None:
        """Release the connection, now or when the body ends within `LINGER` seconds and
        `MOST_REST_BYTES`; otherwise it is closed."""
        if self._ended or self._error is not None:
            self._connection.release(reusable=self._error is None)
            return
        self._lingering, self._size = True, 0
        self._pieces.clear()
        self._connection.linger()

    # --- from the connection -------------------------------------------------------------------

    def arrived(self) -> None:
        """Hand new pieces to the reader's ``take``, or wake the reader."""
        waiter = self._waiter
        if waiter is None or waiter.done() or not self._pieces:
            return
        if self._take is not None and self._error is None:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            outcome = self._take(data)
            if outcome:
                self._pieces.clear()
                self._size = 0
                self._connection.resume()
                if outcome is YES:
                    return
                self._settle = True
        waiter.set_result(None)

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._lingering:
            if self._size > MOST_REST_BYTES:
                self._connection.abort()
            return
        self._pieces.append(data)
        if self._size > HIGH_WATER:
            self._connection.pause()

    def end(self) -> None:
        self._ended = True
        if self._lingering:
            self._connection.release(reusable=True)
        self.wake()

    def fail(self, error: ProviderError) -> None:
        if not self._ended and self._error is None:
            self._error = error
        self.wake()

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)


class Connection(asyncio.Protocol):
    """A socket and its parser."""

    __slots__ = (
        "_field_bytes",
        "_head",
        "_head_size",
        "_headers",
        "_keep",
        "_key",
        "_on_hold",
        "_parser",
        "_paused",
        "_pool",
        "_response",
        "_timer",
        "_transport",
        "_until_close",
        "idle_since",
        "loop",
        "on_body",
    )

    def __init__(self, pool: Pool, key: _Key) -> None:
        self.loop = asyncio.get_running_loop()
        self._pool, self._key = pool, key
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._response: Response | None = None
        self._head: asyncio.Future[Response] | None = None
        self._head_size = 0
        self._field_bytes = 0
        self._headers: dict[str, str] = {}
        self._until_close = False
        self._keep = True
        self._paused = self._on_hold = False
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, data: bytes) -> Response:
        """Send a request and wait for the head of its response."""
        if self._transport is None:
            raise NetworkError(f"the connection to {self._name} closed before a response")
        self._response = Response(self)
        self.on_body = self._response.body  # the parser calls it; one step less for every token
        self._parser = httptools.HttpResponseParser(self)
        self._head = self.loop.create_future()
        self._head_size = self._field_bytes = 0
        self._until_close = True
        self._transport.write(data)
        try:
            return await self._head
        except BaseException:
            self.abort()
            raise
        finally:
            self._head = None

    # --- asyncio.Protocol ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        parser, response = self._parser, self._response
        if parser is None or response is None:
            self.abort()  # bytes without a request
            return
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            self._broken(ProtocolError(f"{self._name} did not reply with HTTP"))
            return
        if self._head is not None:
            self._head_size += len(data)
            if self._head_size > MOST_HEAD_BYTES and not self._head.done():
                self._broken(
                    ProtocolError(
                        f"the response head of {self._name} exceeds {MOST_HEAD_BYTES} bytes"
                    )
                )
                return
        response.arrived()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._stop_timer()
        self._pool.forget(self._key, self)
        response = self._response
        if response is None:
            return
        if self._head is None and exc is None and self._until_close and not response._ended:
            response.end()  # the body's end was the connection's
            return
        where = "within the response" if self._head is None else "before a response"
        self._broken(NetworkError(f"the connection to {self._name} closed {where}"))

    # --- httptools -----------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None:
            return
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > MOST_HEAD_BYTES:
            raise ValueError("head too large")  # the parser makes it an HttpParserError
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        before = self._headers.get(key)
        self._headers[key] = f"{before}, {text}" if before is not None else text

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        if response is None or parser is None:
            return
        response.status = parser.get_status_code()
        headers, self._headers = self._headers, {}
        if 100 <= response.status < 200:
            return
        response.headers = headers
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._until_close = not chunked and "content-length" not in headers
        self._keep = parser.should_keep_alive() and not self._until_close
        if self._head is not None and not self._head.done():
            self._head.set_result(response)

    def on_message_complete(self) -> None:
        response = self._response
        if response is not None and response.status >= 200:
            self._until_close = False
            response.end()

    # --- flow and life -------------------------------------------------------------------------

    def pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._on_hold and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def hold(self) -> Callable[[], None]:
        self._on_hold = True
        self.pause()
        return self._go_on

    def _go_on(self) -> None:
        self._on_hold = False
        if self._response is None or self._response.hungry:
            self.resume()

    def linger(self) -> None:
        """The reader has gone: close, unless the body ends first."""
        self._on_hold = False
        self.resume()
        if self._transport is not None:
            self._timer = self.loop.call_later(LINGER, self.abort)

    def release(self, *, reusable: bool) -> None:
        """Return the connection to the pool, or close it."""
        self._response, self._on_hold = None, False
        self._stop_timer()
        if reusable and self._keep and self.usable:
            self.resume()
            self._pool.keep(self._key, self)
        else:
            self.abort()

    def abort(self) -> None:
        self._stop_timer()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _broken(self, error: ProviderError) -> None:
        if self._head is not None and not self._head.done():
            self._head.set_exception(error)
        if self._response is not None:
            self._response.fail(error)
        self.abort()

    @property
    def _name(self) -> str:
        return f"{self._key[0]}:{self._key[1]}"


class Pool:
    """Idle connections by host, port and TLS."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._idle: dict[_Key, deque[Connection]] = {}
        self._all: set[Connection] = set()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        connect_timeout: float = 5.0,
    ) -> Response:
        """Send a request on an idle or a new connection; the answer's head has been read.

        A kept connection that was closed while it lay idle is replaced. Raises `TimeoutError` and
        `OSError` while connecting, then `NetworkError` and `ProtocolError`.
        """
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        key = (host, parts.port or (443 if tls else 80), tls)
        data = _head_bytes(method, parts, headers, body)
        while (idle := self._take(key)) is not None:
            try:
                return await idle.ask(data)
            except NetworkError:
                continue  # it was closed while it lay idle
        # Not `wait_for`: before Python 3.12 it loses a cancel that comes as the socket connects.
        async with asyncio.timeout(connect_timeout):
            connection = await self._connect(key)
        return await connection.ask(data)

    def keep(self, key: _Key, connection: Connection) -> None:
        connection.idle_since = connection.loop.time()
        self._idle.setdefault(key, deque()).append(connection)

    def forget(self, key: _Key, connection: Connection) -> None:
        self._all.discard(connection)
        idle = self._idle.get(key)
        if idle is not None and connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._all):
            connection.abort()
        self._all.clear()
        self._idle.clear()

    def _take(self, key: _Key) -> Connection | None:
        idle = self._idle.get(key)
        while idle:
            connection = idle.pop()
            if connection.usable and connection.loop.time() - connection.idle_since < KEEP_IDLE:
                return connection
            connection.abort()
        return None

    async def _connect(self, key: _Key) -> Connection:
        host, port, tls = key
        context = (self._context or _default_context()) if tls else None
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self, key), host, port, ssl=context
        )
        self._all.add(connection)
        return connection


_contexts: list[ssl.SSLContext] = []


def _default_context() -> ssl.SSLContext:
    if not _contexts:
        _contexts.append(ssl.create_default_context())
    return _contexts[0]


def _head_bytes(method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    target = parts.path or "/"
    if parts.query:
        target += f"?{parts.query}"
    lines = [f"{method} {target} HTTP/1.1", f"host: {parts.netloc.rpartition('@')[2]}"]
    for name, value in headers.items():
        if "\r" in name + value or "\n" in name + value:
            raise ProtocolError(f"the header '{name[:40]}' contains a line break")
        lines.append(f"{name}: {value}")
    if body or method not in ("GET", "HEAD", "DELETE"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
