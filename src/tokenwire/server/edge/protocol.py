"""uvicorn's HTTP protocol with the clocks and bounds it lacks, swept by the shared ticker.

Always true: a connection that does not finish its headers, does not read its answer, or comes above
the connection limits is closed on time; keeping watch costs no timer a connection.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tokenwire.server.edge.connections import Connections
from tokenwire.server.edge.limits import network_of
from tokenwire.server.edge.transport import transport_of
from tokenwire.server.settings import Settings, is_loopback

__all__ = ["GuardedProtocol", "GuardedWebSocket", "Watch", "protocol_classes"]

#: A message of more fragments than this is refused: empty ones would cost without end.
_MOST_FRAGMENTS = 64
#: Seconds that a peer which did not read has for the close frame.
_LAST_WORD = 5.0

_REFUSALS = {
    408: b"HTTP/1.1 408 Request Timeout\r\n",
    431: b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
    503: b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n",
}
_CODES = {408: "timeout", 431: "headers_too_large", 503: "busy"}


class Watch:
    """All HTTP connections of a process: their count by address, their clocks."""

    def __init__(self, settings: Settings, connections: Connections) -> None:
        self.settings = settings
        self.connections = connections
        self.open: set[GuardedProtocol | GuardedWebSocket] = set()
        self._by_address: Counter[str] = Counter()
        connections.sweep_with(self.sweep)

    def enter(self, protocol: GuardedProtocol | GuardedWebSocket, address: str) -> bool:
        """Count a connection; False when there are too many (it is counted all the same)."""
        self.open.add(protocol)
        network = network_of(address)
        self._by_address[network] += 1
        self.connections.wake()
        if len(self.open) > self.settings.connections:
            return False
        if is_loopback(address) or address in self.settings.trust_proxy:
            return True
        return self._by_address[network] <= self.settings.connections_per_ip

    def leave(self, protocol: GuardedProtocol | GuardedWebSocket, address: str) -> None:
        """It has ended."""
        if protocol in self.open:
            self.open.discard(protocol)
            network = network_of(address)
            self._by_address[network] -= 1
            if not self._by_address[network]:
                del self._by_address[network]

    def sweep(self, now: float) -> bool:
        """Look at every clock once."""
        for protocol in list(self.open):
            protocol.check(now)
        return bool(self.open)


class Progress:
    """Whether what was written goes out: the bytes not yet sent must shrink."""

    __slots__ = ("_since", "_unsent")

    def __init__(self, now: float) -> None:
        self._unsent, self._since = 0, now

    def stuck(self, unsent: int, now: float) -> float:
        """For how many seconds nothing has gone out; 0 when nothing waits."""
        if unsent == 0 or unsent < self._unsent:
            self._since = now
        self._unsent = unsent
        return now - self._since


class _Body:
    """The chunked body of one response, written past ASGI's `send`: no task, no message."""

    __slots__ = ("_cycle", "_flow", "_write")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._flow, self._write = cycle, cycle.flow, cycle.transport.write

    def ready(self) -> bool:
        cycle = self._cycle
        return (
            cycle.chunked_encoding is True
            and cycle.response_started
            and not cycle.response_complete
            and not cycle.disconnected
            and not self._flow.write_paused
        )

    def write(self, data: bytes) -> None:
        self._write(b"%x\r\n%b\r\n" % (len(data), data))


class GuardedProtocol(HttpToolsProtocol):
    """One connection. ``watch`` is set by `protocol_classes`."""

    watch: ClassVar[Watch]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection; the clock for its headers starts."""
        super().connection_made(transport)
        settings = self.watch.settings
        self._address = self.client[0] if self.client else ""
        self._headers_until = self.loop.time() + settings.header_deadline
        self._in_headers = True
        self._header_bytes = 0
        self._progress = Progress(self.loop.time())
        self._refused = False
        if not self.watch.enter(self, self._address):
            self._refuse(503, "too many connections")

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self.watch.leave(self, self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; those of its headers are counted."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_headers and not self._refused:
            self._header_bytes += len(data)
            if self._header_bytes > self.watch.settings.header_limit:
                self._refuse(431, "request line and headers too large")

    def on_message_begin(self) -> None:
        """A request begins; so does its clock, unless the connection's own is still running."""
        super().on_message_begin()
        own = transport_of(cast(dict[str, Any], self.scope))
        own.unsent, own.abort = self.transport.get_write_buffer_size, self.transport.abort
        self._header_bytes = 0
        self._in_headers = True
        if not self._headers_until:
            self._headers_until = self.loop.time() + self.watch.settings.header_deadline

    def on_headers_complete(self) -> None:
        """Headers are there: refuse too many or too large ones before anything sees them."""
        self._in_headers = False
        self._headers_until = 0.0
        settings = self.watch.settings
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self._refused:
            return
        if size > settings.header_limit or len(self.headers) > settings.header_fields:
            self._refuse(431, "request line and headers too large")
            return
        scope = cast(dict[str, Any], self.scope)
        super().on_headers_complete()
        if self.cycle is not None:
            transport_of(scope).body = _Body(self.cycle)

    def on_body(self, body: bytes) -> None:
        """Part of a body, unless the request was refused."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End of a request, unless it was refused."""
        if not self._refused:
            super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """The WebSocket protocol has clocks of its own."""
        if not self._refused:
            self.watch.leave(self, self._address)
            super().handle_websocket_upgrade()

    def check(self, now: float) -> None:
        """Close what is late. Called by the ticker."""
        if self._headers_until and now > self._headers_until:
            # Nothing of a first request ever came, or its headers trickle.
            self._refuse(408, "request headers not received in time")
            self._headers_until = 0.0
        stuck = self._progress.stuck(self.transport.get_write_buffer_size(), now)
        if stuck > self.watch.settings.write_deadline:
            self.watch.leave(self, self._address)
            self.transport.abort()

    def _refuse(self, status: int, message: str) -> None:
        """Answer without an application, and close."""
        self._refused = True
        if self.transport.is_closing():
            return
        body = b'{"error":{"code":"%b","message":"%b"}}' % (
            _CODES[status].encode(),
            message.encode(),
        )
        self.transport.write(
            _REFUSALS[status]
            + b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body)
            + b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n"
            + b"connection: close\r\n\r\n"
            + body
        )
        self.transport.close()


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket, after its upgrade. ``watch`` is set by `protocol_classes`."""

    watch: ClassVar[Watch]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it again: the HTTP protocol has let go of it."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._progress = Progress(self.loop.time())
        self._given_up = False
        self.watch.enter(self, self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self.watch.leave(self, self._address)
        super().connection_lost(exc)

    async def run_asgi(self) -> None:
        """Run the application, which may give up on a peer that does not read."""
        own = transport_of(cast(dict[str, Any], self.scope))
        own.unsent = self.transport.get_write_buffer_size
        own.give_up, own.accept_up_to = self.give_up, self.accept_up_to
        app = self.app

        async def run_app(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            if self.close_sent:  # refused with an HTTP answer, which uvicorn takes for a mistake
                self.handshake_complete = True

        self.app = run_app  # type: ignore[assignment]
        await super().run_asgi()

    def accept_up_to(self, most: int) -> None:
        """Accept messages of up to ``most`` bytes: on sockets whose messages hold conversations."""
        self.conn.max_message_size = most

    def handle_cont(self, event: Any) -> None:
        """Another fragment of a message, up to a bound."""
        if len(self.frames) >= _MOST_FRAGMENTS:
            self.give_up(1009, "too many fragments")
            return
        super().handle_cont(event)

    def give_up(self, code: int, reason: str) -> None:
        """Queue a close frame behind what waits, and abort when that does not go out either."""
        if self._given_up or self.close_sent or self.transport.is_closing():
            return
        self._given_up = True
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.close_timer = self.loop.call_later(_LAST_WORD, self.transport.abort)

    def check(self, now: float) -> None:
        """Abort a peer that reads nothing, well after the application has given up on it."""
        stuck = self._progress.stuck(self.transport.get_write_buffer_size(), now)
        if stuck > self.watch.settings.write_deadline + 2 * _LAST_WORD:
            self.watch.leave(self, self._address)
            self.transport.abort()


def protocol_classes(watch: Watch) -> tuple[type[GuardedProtocol], type[GuardedWebSocket]]:
    """Protocol classes bound to one server's watch."""
    bound: dict[str, Any] = {"watch": watch}
    http = type("BoundProtocol", (GuardedProtocol,), bound)
    return http, type("BoundWebSocket", (GuardedWebSocket,), bound)
