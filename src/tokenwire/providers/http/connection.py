"""HTTP/1.1 to providers on a bare asyncio protocol: the reader of the hot path.

A model's answer is one wake-up per token; what is saved here is saved for every token. Parsing is
`httptools` (llhttp); connecting, TLS and flow control are asyncio's. `benchmarks/http_reader.py`
compares it with aiohttp.

Always true: one request at a time on a connection; a connection goes back to the pool only after a
whole answer whose framing allows it; what is buffered is bounded, beyond it the socket is not read;
reads that wait for their turn (`tokenwire.turns`) are parsed in order, and before the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import ssl
import sys
from typing import NamedTuple, Protocol

import httptools

from tokenwire.errors import NetworkError, ProtocolError, ProviderError
from tokenwire.express import Diversion
from tokenwire.providers.http.heads import MOST_HEAD_BYTES, HeadReader
from tokenwire.providers.http.late import Late
from tokenwire.providers.http.proxy import Proxy
from tokenwire.providers.http.response import HIGH_WATER, Response
from tokenwire.turns import turns

__all__ = ["Connection", "Keeper", "Route"]

#: Seconds after the end marker of an answer in which its body may end, so that the connection can
#: be used again.
LINGER = 0.25
#: Bytes of one read past the event loop.
MOST_PULLED = 16 << 10
#: Transports of plain sockets, which have no bytes of their own while they do not read.
_PLAIN = ("TCPTransport", "_SelectorSocketTransport") if sys.platform != "win32" else ()


class Route(NamedTuple):
    """Where a connection leads; those of one route can stand in for each other."""

    host: str
    port: int
    tls: bool
    #: The proxy that it takes.
    proxy: Proxy | None = None


class Keeper(Protocol):
    """Who has a connection while no response does."""

    def keep(self, route: Route, connection: Connection) -> None:
        """It may be used again."""
        ...

    def forget(self, route: Route, connection: Connection) -> None:
        """It is closed."""
        ...


#: How servers write the head of a chunk.
_CHUNK_HEADS = (b"%x\r\n", b"%X\r\n")


class Connection(asyncio.Protocol):
    """A socket and its parser."""

    __slots__ = (
        "_field_bytes",
        "_head",
        "_head_reader",
        "_headers",
        "_keep",
        "_key",
        "_late",
        "_on_hold",
        "_parser",
        "_paused",
        "_pool",
        "_pulled",
        "_read",
        "_response",
        "_route",
        "_socket",
        "_timer",
        "_transport",
        "_turns",
        "_until_close",
        "diversion",
        "idle_since",
        "loop",
        "on_body",
    )

    def __init__(self, pool: Keeper, route: Route) -> None:
        self.loop = asyncio.get_running_loop()
        self._pool, self._route = pool, route
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._response: Response | None = None
        self._head: asyncio.Future[Response] | None = None
        self._head_reader: HeadReader | None = None
        self._field_bytes = 0
        self._headers: dict[str, str] | None = None
        self._until_close = False
        self._keep = True
        self._paused = self._on_hold = False
        self._turns = turns()
        #: What waits for its turn.
        self._late: Late | None = None
        #: The descriptor of the socket, where it may be read past the transport, and the same while
        #: that is wanted; else negative.
        self._socket = self._pulled = -1
        self._timer: asyncio.TimerHandle | None = None
        self.idle_since = 0.0
        #: Who takes what comes before it is parsed.
        self.diversion: Diversion | None = None
        #: The read that is being parsed.
        self._read = b""

    @property
    def forwarder(self) -> Proxy | None:
        """The proxy that forwards requests; none where it only connects."""
        return None if self._route.tls else self._route.proxy

    @property
    def tls(self) -> ssl.SSLObject | None:
        """The TLS of the connection, while it is open."""
        return self._transport and self._transport.get_extra_info("ssl_object")

    @property
    def usable(self) -> bool:
        """Whether another request may be sent on it: open, and without unread bytes. Those are its
        end, or an answer to nothing; the event loop may not have read them yet."""
        transport = self._transport
        if transport is None or self._late is not None or transport.is_closing():
            return False
        sock = transport.get_extra_info("socket")
        return sock is None or not _has_unread(sock.fileno())

    async def ask(self, data: bytes) -> Response:
        """Send a request and wait for the head of its response."""
        if self._transport is None:
            raise NetworkError(f"the connection to {self._name} closed before a response")
        self._response = Response(self)
        self.on_body = self._response.body  # the parser calls it; one step less for every token
        self._parser = httptools.HttpResponseParser(self)
        self._head = self.loop.create_future()
        self._head_reader, self._field_bytes = HeadReader(self._name), 0
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
            if type(transport).__name__ in _PLAIN:
                self._socket = sock.fileno()

    def data_received(self, data: bytes) -> None:
        diversion = self.diversion
        if diversion is None or not diversion.received(data):
            self.parse(data)

    def pull(self) -> bool:
        """See `tokenwire.express.Hold`."""
        fd, transport = self._pulled, self._transport
        if fd < 0 or transport is None or transport.is_closing():
            return False
        try:
            data = os.read(fd, MOST_PULLED)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:  # which the socket does not tell again
            self._lose(transport, error)
            return False
        if not data:
            return False  # the event loop reads the end as well
        try:
            self.data_received(data)
        except Exception as error:
            self._break_down(transport, error)
        return self._pulled >= 0 and len(data) < MOST_PULLED

    def parse(self, data: bytes) -> None:
        """A read that nobody else took: now, or in a later turn."""
        if self._response is None or self._turns.admit():
            self._parse(data)
        else:
            self._wait().received(data)

    def _wait(self) -> Late:
        """Something has to wait for its turn."""
        late = Late(self.diversion, most=HIGH_WATER, on_full=self.pause)
        self._late = self.diversion = late
        self._turns.wait(self._catch_up)
        return late

    def _catch_up(self) -> None:
        """It is the turn of what waits."""
        late, self._late = self._late, None
        if late is None:
            return
        self.diversion = late.lane
        data = late.take()
        try:
            if data:
                self._parse(data)
        except Exception as error:
            self._report(error)
            late.end = late.end or (error,)
            if self._transport is not None:
                self._transport.abort()
        if late.end is not None:
            self._end(*late.end)
        elif self._response is None or self._response.hungry:
            self.resume()

    def _parse(self, data: bytes) -> None:
        self.end_diversion()
        parser, response = self._parser, self._response
        if parser is None or response is None:
            self.abort()  # bytes without a request
            return
        try:
            reader = self._head_reader
            if reader is not None:
                data, complete = reader.feed(data)
                if complete:
                    self._head_reader = None
            self._read = data
            parser.feed_data(data)
        except ProtocolError as error:
            self._broken(error)
            return
        except httptools.HttpParserError:
            where = "the head" if self._in_head else "a part"
            self._broken(ProtocolError(f"{where} of the response of {self._name} is not HTTP"))
            return
        response.arrived()
        self._read = b""

    def _break_down(self, transport: asyncio.Transport, error: Exception) -> None:
        """A fault of ours: as event loops treat it."""
        self._report(error)
        self._lose(transport, error)

    def _report(self, error: Exception) -> None:
        message = "a read of a provider's answer failed"
        self.loop.call_exception_handler({"message": message, "exception": error})

    def _lose(self, transport: asyncio.Transport, error: Exception) -> None:
        transport.abort()  # which tells its end once more, without the error
        self._until_close = False
        self.connection_lost(error)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pulled = -1
        late = self._late
        if late is None and (self._response is None or self._turns.admit()):
            self._end(exc)
            return
        late = late or self._wait()
        late.end = late.end or (exc,)

    def _end(self, exc: Exception | None) -> None:
        self._transport = self._parser = None  # the parser has this connection
        self._pulled = -1
        self._stop_timer()
        self._pool.forget(self._route, self)
        response = self._response
        if response is None:
            return
        # Head and end may come in one turn, before the task that waits for the head goes on.
        in_head = self._in_head
        if not in_head and exc is None and self._until_close and not response._ended:
            response.end()  # the body's end was the connection's
            return
        where = "before a response" if in_head else "within the response"
        error = NetworkError(f"the connection to {self._name} closed {where}")
        error.__cause__ = exc  # a reset, if it was one
        self._broken(error)

    # --- httptools -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._response is None or self._response._ended:
            raise ValueError("an answer to nothing")  # the parser makes it an HttpParserError

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._response is None:
            return
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > MOST_HEAD_BYTES:
            raise ValueError("head too large")  # the parser makes it an HttpParserError
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        fields = self._headers = self._headers or {}
        before = fields.get(key)
        fields[key] = f"{before}, {text}" if before is not None else text

    def on_headers_complete(self) -> None:
        response, parser = self._response, self._parser
        if response is None or parser is None:
            return
        response.status = parser.get_status_code()
        headers, self._headers = self._headers or {}, None
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

    # --- past the parser -----------------------------------------------------------------------

    def divert(self, lane: Diversion, pieces: list[bytes], body: bytes) -> bytes | None:
        """See `providers.http.client.PushStream`. ``pieces``: what the parser gave of ``body``, one
        of each chunk. It stands between two chunks then."""
        if b"".join(pieces) != body:
            return None
        for head in _CHUNK_HEADS:
            chunks = [b"%b%b\r\n" % (head % len(piece), piece) for piece in pieces]
            if self._read == b"".join(chunks):
                self.diversion = lane
                return head
        return None

    def delay_acks(self) -> None:
        """See `providers.http.client.PushStream`."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and sys.platform == "linux":
            with contextlib.suppress(OSError):  # a socket that has just been closed
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)

    def end_diversion(self) -> None:
        """What comes is parsed again, in its turn."""
        diversion, self.diversion = self.diversion, self._late
        if diversion is not None:
            diversion.leave()

    # --- flow and life -------------------------------------------------------------------------

    def pause(self) -> None:
        self._pulled = -1
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._on_hold and self._transport is not None:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def hold(self) -> int:
        self.pause()
        self._on_hold, self._pulled = True, self._socket
        return self._socket

    def go_on(self) -> None:
        self._on_hold, self._pulled = False, -1
        if self._response is None or self._response.hungry:
            self.resume()

    def has(self, response: Response) -> bool:
        return self._response is response

    def linger(self) -> None:
        """The reader has gone: close, unless the body ends first."""
        self._on_hold, self._pulled = False, -1
        self.resume()
        if self._transport is not None:
            self._timer = self.loop.call_later(LINGER, self.abort)

    def release(self, *, reusable: bool) -> None:
        """Return the connection to the pool, or close it."""
        self.end_diversion()
        self._response, self.on_body = None, _drop
        self._on_hold, self._pulled = False, -1
        self._stop_timer()
        if reusable and self._keep and self.usable:
            self.resume()
            self._pool.keep(self._route, self)
        else:
            self.abort()

    def abort(self) -> None:
        self._stop_timer()
        transport, self._transport = self._transport, None
        self._pulled = -1
        if self._late is not None:
            self._late.drop()
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
    def _in_head(self) -> bool:
        return self._head is not None and not self._head.done()

    @property
    def _name(self) -> str:
        return f"{self._route.host}:{self._route.port}"


def _drop(data: bytes) -> None:
    """Bytes of no response."""


def _has_unread(fileno: int) -> bool:
    """Whether a socket has bytes or its end to read, now."""
    if fileno < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([fileno], [], [], 0)[0])
    poll = select.poll()
    poll.register(fileno, select.POLLIN)
    return bool(poll.poll(0))
