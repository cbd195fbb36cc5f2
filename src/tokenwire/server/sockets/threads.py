"""Conversations on the native socket: ``follow-thread``, ``unfollow-thread``, ``typing``; and the
list of them: ``follow-threads``, ``unfollow-threads``.

Always true: a conversation's events are sent once and in order, whatever else the socket carries;
what the other ways of reading one refuse is refused here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from tokenwire.errors import (
    ConflictError,
    GoneError,
    InputError,
    LimitError,
    LogError,
    NotFoundError,
    TokenwireError,
)
from tokenwire.events.names import THREAD
from tokenwire.observe.facts import FollowerOpened
from tokenwire.observe.hooks import report
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.feed.live import LiveStream, StreamBatch
from tokenwire.server.routes.conversation.events import open_thread, type_in
from tokenwire.server.routes.conversation.listing import open_list, subject_of
from tokenwire.server.sockets.base import MANY, Socket
from tokenwire.server.tokens.grant import Scope as GrantScope
from tokenwire.server.tokens.grant import current_grant, only_by_login, within

__all__ = ["LIST", "MOST_THREADS", "SocketThreads"]

#: In the place of a conversation's name: the list of them.
LIST = ""
#: Conversations that one socket follows.
MOST_THREADS = 16
_MOST_MESSAGE = 48 << 10


class SocketThreads:
    """The conversations that one socket follows, and their list: one task each. ``fail(thread,
    error)`` tells the peer of an error in one, or of the `LIST`."""

    def __init__(
        self, socket: Socket, fail: Callable[[str, TokenwireError], Awaitable[None]]
    ) -> None:
        self._socket, self._fail = socket, fail
        self._tasks: dict[str, asyncio.Task[None]] = {}
        #: Where the reader is in each of them.
        self.cursors: dict[str, str] = {}

    async def follow_list(self, after: str | None) -> None:
        """Begin to send what changes in the list of conversations. Raises `ConflictError` where it
        is followed, `ForbiddenError` for a token, `CursorError`, `BusyError`."""
        only_by_login()
        if LIST in self._tasks:
            raise ConflictError("this socket already follows the list of conversations")
        socket = self._socket
        state, principal = socket.state, socket.info.principal
        release = state.limits.attach(subject_of(principal), principal)
        try:
            stream = await open_list(state, principal, after)
        except BaseException:
            release()
            raise
        self._begin(LIST, stream, release)

    async def follow(self, thread: str, after: str | None, runs: Literal["none", "full"]) -> None:
        """Begin to send a conversation's events. Raises `ConflictError` for one that is followed,
        `CursorError`, `LimitError`, `BusyError`."""
        self._check(thread)
        if thread in self._tasks:
            raise ConflictError("this socket already follows that conversation", field="thread")
        if len(self._tasks.keys() - {LIST}) >= MOST_THREADS:
            raise LimitError(
                f"a socket follows at most {MOST_THREADS} conversations",
                limit="followed",
                most=MOST_THREADS,
            )
        socket = self._socket
        state, info = socket.state, socket.info
        release = state.limits.attach(scope_of(info.principal, thread), info.principal)
        try:
            with within(None):  # it was held to its own conversation just now
                stream = await open_thread(state, info, thread, after, whole=runs == "full")
        except BaseException:
            release()
            raise
        self._begin(thread, stream, release)

    def _begin(self, thread: str, stream: LiveStream, release: Callable[[], None]) -> None:
        self.cursors[thread] = stream.cursor
        self._tasks[thread] = task = self._socket.spawn(self._pump(thread, stream))
        task.add_done_callback(lambda _: release())

    async def unfollow(self, thread: str) -> None:
        """Send no more of a conversation."""
        task = self._tasks.pop(thread, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.cursors.pop(thread, None)

    async def type(self, thread: str) -> None:
        """The person of this socket types in a conversation. Raises as `type_in`."""
        self._check(thread, "write")
        with within(None):
            await type_in(self._socket.state, self._socket.info, thread)

    def _check(self, thread: str, scope: GrantScope = "read") -> None:
        if not THREAD.fullmatch(thread):
            raise InputError("a thread has 1 to 128 of the characters A-Z a-z 0-9 _ . : @ -")
        grant = current_grant()
        if grant is not None:
            grant.require(scope)
            if (grant.kind, grant.name) != ("thread", thread):
                raise NotFoundError("no such conversation", what="thread")

    async def _pump(self, thread: str, stream: LiveStream) -> None:
        socket = self._socket
        started_at, why = asyncio.get_running_loop().time(), "closed"
        report(FollowerOpened("", "thread-socket", False))
        try:
            while (batch := await stream.next()) is not None:
                await self._send(thread, batch)
                if len(batch.records) >= MANY:  # neither store nor socket may have made it wait
                    await asyncio.sleep(0)
        except TokenwireError as error:
            why = "store" if isinstance(error, LogError) else "error"
            if isinstance(error, NotFoundError | GoneError):
                why = "gone"
            await self._fail(thread, error)
        finally:
            has_left = socket.is_left or self._tasks.get(thread) is not asyncio.current_task()
            stream.close(returning=not has_left)
            socket.report_gone("", why, has_left, stream.after, started_at)
            if self._tasks.get(thread) is asyncio.current_task():
                del self._tasks[thread]

    async def _send(self, thread: str, batch: StreamBatch) -> None:
        items: list[bytes] = []
        size, newest = 0, None
        for cursor, data in batch.parts():
            if items and size + len(data) > _MOST_MESSAGE:
                await self._send_events(thread, items, newest)
                items, size = [], 0
            newest = cursor or newest
            head = b'"cursor":"%b",' % cursor.encode() if cursor is not None else b""
            items.append(b'{%b"event":%b}' % (head, data))
            size += len(data) + len(head)
        if items:
            await self._send_events(thread, items, newest)

    async def _send_events(self, thread: str, items: list[bytes], newest: str | None) -> None:
        head = b'{"op":"thread","thread":"%b",' % thread.encode() if thread else b'{"op":"threads",'
        await self._socket.send_text((b'%b"events":[%b]}' % (head, b",".join(items))).decode())
        if newest is not None:
            self.cursors[thread] = newest

    def farewell(self) -> dict[str, Any]:
        """What a client needs to go on with its conversations, and with their list."""
        threads = {name: cursor for name, cursor in self.cursors.items() if name != LIST}
        fields: dict[str, Any] = {"threads": threads} if threads else {}
        return {**fields, "list": self.cursors[LIST]} if LIST in self.cursors else fields
