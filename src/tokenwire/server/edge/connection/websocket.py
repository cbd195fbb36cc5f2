"""uvicorn's WebSocket protocol with the bounds it lacks.

Always true: a peer that does not read gets a close frame behind what it has not read, and is
aborted when that does not go out either.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, NamedTuple, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from tokenwire.server.edge.connection.refusal import CODES, refusal
from tokenwire.server.edge.connection.watch import Progress, Watch
from tokenwire.server.edge.limits import network_of
from tokenwire.server.edge.transport import transport_of

__all__ = ["GuardedWebSocket"]

#: The headers that the handshake itself needs.
_HANDSHAKE = {b"host", b"upgrade", b"connection", b"origin"} | {
    b"sec-websocket-" + name for name in (b"key", b"version", b"protocol", b"extensions")
}
#: Characters of a refusal.
_MOST_TEXT = 200

#: A message of more fragments than this is refused: empty ones would cost without end.
_MOST_FRAGMENTS = 64
#: Seconds that a peer which did not read has for the close frame.
_LAST_WORD = 5.0


class _Head(NamedTuple):
    """Of an upgrade's request: its URL and all its headers, as HTTP requests have them."""

    url: bytes
    headers: list[tuple[bytes, bytes]]

    def write_into(self, scope: dict[str, Any]) -> None:
        url = httptools.parse_url(self.url)
        root, raw_path = scope["root_path"], url.path or b"/"
        scope["headers"] = self.headers
        scope["path"] = root + unquote(raw_path.decode("ascii"))
        scope["raw_path"] = root.encode("ascii") + raw_path
        scope["query_string"] = url.query or b""


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket, after its upgrade. ``watch`` is set by the subclass of one server."""

    watch: ClassVar[Watch]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it again: the HTTP protocol has let go of it."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._progress = Progress(self.loop.time())
        self._given_up = False
        self._head = _Head(b"", [])
        #: What the peer sent before the WebSocket was accepted; None from then on.
        self._early: bytes | None = b""
        self.account = network_of(self._address)
        self.watch.enter(self, self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self.watch.leave(self, self._address)
        super().connection_lost(exc)

    def open(
        self, method: bytes, url: bytes, headers: list[tuple[bytes, bytes]], early: bytes
    ) -> None:
        """The upgrade, as the HTTP parser read it. The handshake sees its own headers only: its
        parser has bounds of its own, below ours."""
        self._head = _Head(url, headers)
        lines = [b"%b / HTTP/1.1" % method]
        lines += [b"%b: %b" % pair for pair in headers if pair[0] in _HANDSHAKE]
        try:
            httptools.parse_url(url)
            self.conn.receive_data(b"\r\n".join(lines) + b"\r\n\r\n")
        except httptools.HttpParserError:
            self._reject(400, "malformed HTTP request")
            return
        self.handle_events()
        if not self.handshake_initiated:
            self._reject(400, "malformed WebSocket handshake")
        elif not self.close_sent:
            self._keep_early(early)

    def handle_connect(self, event: Request) -> None:
        """The handshake: refused in our own form."""
        response = self.conn.accept(event)
        if response.status_code == 101:
            super().handle_connect(event)
            return
        self.handshake_initiated = True
        status = response.status_code if response.status_code in CODES else 400
        self._reject(status, f"not a WebSocket handshake: {self.conn.handshake_exc}")

    def _reject(self, status: int, message: str) -> None:
        self.handshake_complete = self.close_sent = True
        self.transport.write(refusal(status, _line(message)))
        self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Frames. Those that come before the WebSocket is accepted wait for it: their answers would
        stand before the head of the response."""
        if self._early is not None:
            self._keep_early(data)
        else:
            super().data_received(data)

    def _keep_early(self, data: bytes) -> None:
        self._early = (self._early or b"") + data
        if data and not self.transport.is_closing():
            self.transport.pause_reading()

    def start_keepalive(self) -> None:
        """The WebSocket has been accepted."""
        super().start_keepalive()
        early, self._early = self._early, None
        if early and not self.transport.is_closing():
            self.transport.resume_reading()
            self.data_received(early)

    async def run_asgi(self) -> None:
        """Run the application, which may give up on a peer that does not read."""
        self._head.write_into(cast(dict[str, Any], self.scope))
        own = transport_of(cast(dict[str, Any], self.scope))
        own.unsent = self.transport.get_write_buffer_size
        own.rename = self._rename
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

    def send_receive_event_to_app(self) -> None:
        """A whole message. Text that is none closes the WebSocket, without a line in the log."""
        if self.curr_msg_data_type == "text" and not self.close_sent:
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(1007, "text is not valid UTF-8")
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """A frame broke the protocol: the close frame is written, and the application can send
        nothing behind it."""
        super().handle_parser_exception()
        self.disconnected = True

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

    def pause_writing(self) -> None:
        """The peer does not read: what it sends would be answered into the same full buffer."""
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def held(self) -> int:
        """Bytes that wait here."""
        unread = len(self.conn.reader.buffer) + sum(map(len, self.frames))
        return self.transport.get_write_buffer_size() + unread

    def drop(self) -> None:
        """Close at once."""
        self.watch.leave(self, self._address)
        self.transport.abort()

    def _rename(self, account: str) -> None:
        self.account = account

    def check(self, now: float) -> None:
        """Abort a peer that reads nothing, well after the application has given up on it."""
        stuck = self._progress.stuck(self.transport.get_write_buffer_size(), now)
        if stuck > self.watch.settings.write_deadline + 2 * _LAST_WORD:
            self.watch.leave(self, self._address)
            self.transport.abort()


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:_MOST_TEXT]
