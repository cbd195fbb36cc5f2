"""A WebSocket of the other wires: many requests on one socket, each a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any

from starlette.types import Receive, Scope, Send

from tokenwire.errors import GoneError, LogError, NotFoundError, TokenwireError
from tokenwire.events.codec import AnyEvent
from tokenwire.observe.facts import FollowerOpened
from tokenwire.observe.hooks import report
from tokenwire.server.sockets.base import MANY, POLICY, RESTART, Socket, erased_under_reader
from tokenwire.server.state import State
from tokenwire.wire.chunk_encoder import ChunkEncoder
from tokenwire.wire.place import Place

__all__ = ["MAX_REQUESTS", "RequestSocket"]

#: Requests under way on one socket.
MAX_REQUESTS = 64


class RequestSocket(Socket):
    """Base. A subclass implements `take` and starts its requests with `start`."""

    def __init__(self, state: State, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(state, scope, receive, send)
        self.requests: dict[str, asyncio.Task[None]] = {}

    async def admit(self) -> bool:
        """These transports have no place for a key; a cookie or header must bring it."""
        if self.state.auth.on and self.info.how == "later":
            await self.close(POLICY, "no key")
            return False
        if self.transport.accept_up_to is not None:  # a turn holds what a request's body holds
            self.transport.accept_up_to(self.state.settings.body_limit)
        return True

    async def leave(self, reason: str) -> None:
        """These wires have no farewell: their clients reconnect after this code."""
        await self.close(RESTART, "come back")

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """A request as a task; another of the same name takes its place."""
        self.stop(name)
        task = self.requests[name] = self.spawn(work)

        def forget(_: asyncio.Task[None]) -> None:
            if self.requests.get(name) is task:
                del self.requests[name]

        task.add_done_callback(forget)

    def stop(self, name: str) -> None:
        """Detach the reader of a request, if it is under way."""
        task = self.requests.pop(name, None)
        if task is not None:
            task.cancel()

    async def follow(
        self, run: str, encoder: ChunkEncoder, place: Place | None
    ) -> AsyncGenerator[list[tuple[str, AnyEvent]], None]:
        """Batches of ``(cursor, event)`` that come after ``place``, until the run, or the wire's
        answer, is over. ``encoder`` skips what the reader has received."""
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
        opened_at, why = asyncio.get_running_loop().time(), "closed"
        report(FollowerOpened(run, self.wire, skip > 0))
        try:
            while not encoder.ended and (batch := await follower.next()) is not None:
                events = batch.events()
                skipped = max(0, skip + 1 - batch.first)
                for _, event in events[:skipped]:
                    encoder.skip(event)
                if events[skipped:]:
                    yield events[skipped:]
                if len(events) >= MANY:  # neither store nor socket may have made it wait
                    await asyncio.sleep(0)
            why = "end"
        except (NotFoundError, GoneError) as error:
            why = "gone"
            raise erased_under_reader() from error
        except TokenwireError as error:
            why = "store" if isinstance(error, LogError) else "error"
            raise
        finally:
            # A request that was aborted, and a socket that the peer closed, are people who go.
            has_left = self.is_left or asyncio.current_task() not in self.requests.values()
            follower.close(returning=not has_left)
            self.report_gone(run, why, has_left, max(0, follower.after - skip), opened_at)
            release()
