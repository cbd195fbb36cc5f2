"""A WebSocket of the other wires: many requests on one socket, each a task of its own.

Always true: messages go out whole and in order; a socket that closes detaches its readers and stops
no run; when the server stops, it closes the socket so that the client reconnects.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from tokenwire.events.codec import AnyEvent
from tokenwire.server.edge.connections import Connection
from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.state import State
from tokenwire.wire.chunk_encoder import ChunkEncoder
from tokenwire.wire.place import Place

__all__ = ["MOST_REQUESTS", "WireSocket"]

#: Requests under way on one socket.
MOST_REQUESTS = 64
#: A close reason has at most 123 bytes.
_MOST_REASON = 123


class WireSocket:
    """Base. A subclass gives `take`, and may give `opened` and `ping`."""

    def __init__(self, state: State, scope: Scope, receive: Receive, send: Send) -> None:
        self.state, self.scope = state, scope
        self.info: RequestInfo = scope["tokenwire"]
        self._receive, self._asgi_send = receive, send
        self._lock = asyncio.Lock()
        self.requests: dict[str, asyncio.Task[None]] = {}
        self._connection: Connection | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._leaving = self._closed = False

    async def opened(self) -> None:
        """The socket was accepted."""

    async def take(self, text: str) -> None:
        """A message came."""
        raise NotImplementedError

    def ping(self) -> dict[str, Any] | None:
        """What keeps the socket alive; None where the protocol's own pings do."""
        return None

    async def run(self) -> None:
        """Until the socket closes."""
        await self._receive()
        if self.state.auth.on and self.info.how == "later":
            # These transports have no place for a key; a cookie or header must bring it.
            await self.close(1008, "no key")
            return
        take_up_to = self.scope.get("tokenwire.take_up_to")
        if take_up_to is not None:  # a turn holds what a request's body holds
            take_up_to(self.state.settings.body_limit)
        await self._asgi_send({"type": "websocket.accept"})
        # Registered so that the server can close it when it stops.
        connection = self._connection = self.state.connections.open(self)
        connection.expires = float("inf")
        try:
            await self.opened()
            while True:
                message = await self._receive()
                if message["type"] != "websocket.receive":
                    break
                await self.take(message.get("text") or "")
        finally:
            for task in [*self.requests.values(), *self._background]:
                task.cancel()
            self.state.connections.close(connection)

    def poke(self) -> None:
        """The ticker: time for a ping, or to leave."""
        connection = self._connection
        if connection is None:
            return
        connection.last_write = asyncio.get_running_loop().time()
        if connection.leaving is not None and not self._leaving:
            self._leaving = True
            self._later(self.close(1012, "come back"))
        elif (frame := self.ping()) is not None and not self._lock.locked():
            self._later(self.send(frame))

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """A request as a task; another of the same name takes its place."""
        before = self.requests.pop(name, None)
        if before is not None:
            before.cancel()
        task = self.requests[name] = asyncio.create_task(work)

        def done(_: asyncio.Task[None]) -> None:
            if self.requests.get(name) is task:
                del self.requests[name]

        task.add_done_callback(done)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def follow(
        self, run: str, encoder: ChunkEncoder, place: Place | None
    ) -> AsyncGenerator[list[tuple[str, AnyEvent]], None]:
        """Batches of ``(cursor, event)`` that come after ``place``, until the run, or the wire's
        answer, is over. What the reader has seen is skipped by ``encoder``."""
        principal = self.info.principal
        if place is not None:
            await self.state.runs.check_cursor(run, place.cursor, principal=principal)
        release = self.state.limits.attach(run, principal)
        try:
            follower = await self.state.runs.follow(run, principal=principal)
        except BaseException:
            release()
            raise
        skip = 0 if place is None else place.offset - (place.frames is not None)
        try:
            while not encoder.ended and (batch := await follower.next()) is not None:
                events = batch.events()
                skipped = max(0, skip + 1 - batch.first)
                for _, event in events[:skipped]:
                    encoder.skip(event)
                if events[skipped:]:
                    yield events[skipped:]
        finally:
            follower.close()
            release()

    async def send(self, frame: dict[str, Any]) -> None:
        """One JSON message."""
        await self.send_text(msgspec.json.encode(frame).decode())

    async def send_text(self, text: str) -> None:
        """One message."""
        async with self._lock:
            if self._closed:
                return
            try:
                await self._asgi_send({"type": "websocket.send", "text": text})
            except OSError:
                pass  # the peer is gone; the receive loop notices by itself

    async def close(self, code: int, reason: str = "") -> None:
        """Close the socket, once what is being sent is out."""
        async with self._lock:
            if self._closed:
                return
            self._closed = True
            text = reason.encode("ascii", "replace")[:_MOST_REASON].decode()
            try:
                await self._asgi_send({"type": "websocket.close", "code": code, "reason": text})
            except (OSError, RuntimeError):
                pass  # the peer closed it meanwhile
