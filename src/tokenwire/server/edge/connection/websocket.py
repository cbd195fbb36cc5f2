"""uvicorn's WebSocket protocol with the bounds it lacks.

Always true: a peer that does not read gets a close frame behind what it has not read, and is
aborted when that does not go out either.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from tokenwire.server.edge.connection.watch import Progress, Watch
from tokenwire.server.edge.limits import network_of
from tokenwire.server.edge.transport import transport_of

__all__ = ["GuardedWebSocket"]

#: A message of more fragments than this is refused: empty ones would cost without end.
_MOST_FRAGMENTS = 64
#: Seconds that a peer which did not read has for the close frame.
_LAST_WORD = 5.0


class GuardedWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket, after its upgrade. ``watch`` is set by the subclass of one server."""

    watch: ClassVar[Watch]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it again: the HTTP protocol has let go of it."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._progress = Progress(self.loop.time())
        self._given_up = False
        self.account = network_of(self._address)
        self.watch.enter(self, self._address)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place back."""
        self.watch.leave(self, self._address)
        super().connection_lost(exc)

    async def run_asgi(self) -> None:
        """Run the application, which may give up on a peer that does not read."""
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
