"""Follow one run to its end, across any number of lost connections.

Always true: every event of the log is yielded once, in the log's order (by the offset in its
cursor); a run has ended with ``run-end``, or when the server responds that nothing follows; any
other end of a connection is a cut, after which the reader resumes from its cursor; an unreadable
event is requested once more and then raises.
"""

from __future__ import annotations

import asyncio
import random
import re
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from tokenwire.client.origin import Origin, is_final, run_of_path, wait_of
from tokenwire.client.reconnect import Patience, Reconnect
from tokenwire.client.sse import Connection
from tokenwire.errors import (
    ConflictError,
    CursorError,
    FramingError,
    InputError,
    ServerProtocolError,
    ServerUnavailableError,
    TokenwireError,
)
from tokenwire.events.codec import AnyEvent, decode
from tokenwire.events.fold import Fold
from tokenwire.events.model import Heartbeat, RunEnd, StepReset, TextDelta, TextEnd, Unknown
from tokenwire.events.model import Reconnect as PlannedReconnect

__all__ = ["Follow", "OnCut", "Open", "Reading"]

T = TypeVar("T")

#: Opens one connection: (origin, what is read, after, patience).
Open = Callable[[Origin, str, "str | None", Patience], Awaitable[Connection]]
#: Called at each cut with the error (None: a planned reconnect) and the seconds until the next
#: attempt.
OnCut = Callable[["TokenwireError | None", float], None]

_CURSOR = re.compile(r"([0-9]{1,15})(?:-[0-9a-f]{16})?")


class Reading(ABC, Generic[T]):
    """What a server tells in one stream, over any number of connections, after the cursor
    ``after``. Iterate it once; call `aclose` (or use ``async with``) to stop before the end.

    ``origin``: the server; ``subject``: what ``opener`` opens a connection to; ``patience``: waits
    and timeouts; ``on_cut``: called at each lost connection. A subclass implements `_take`.
    """

    def __init__(
        self,
        origin: Origin,
        subject: str,
        *,
        opener: Open,
        after: str | None = None,
        patience: Patience | None = None,
        on_cut: OnCut | None = None,
    ) -> None:
        #: The cursor of the last event yielded; resume from it.
        self.cursor: str | None = after
        self._subject = subject
        self._origin, self._open = origin, opener
        self._patience = patience or Patience()
        self._on_cut = on_cut
        self._after = after
        self._ready: deque[tuple[str | None, T]] = deque()
        self._connection: Connection | None = None
        self._link: Reconnect | None = None
        #: The cursor after which a connection delivered something unreadable.
        self._garbled: str | None = ""
        self._within: float | None = None
        self._ended = False
        self._error: TokenwireError | None = None
        self._reading = False
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = asyncio.Event()

    @abstractmethod
    def _take(self, cursor: str, data: bytes) -> None:
        """One event of a connection: new, a repetition, or about the connection itself."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next event."""
        if self._reading:
            raise ConflictError("another task is reading this; follow it again for a second reader")
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            self._reading = True
            try:
                await self._fill()
            finally:
                self._reading = False
        cursor, event = self._ready.popleft()
        self.cursor = cursor
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. The run continues."""
        self._ended = True
        self._closing.set()
        self._ready.clear()
        await self._drop()

    # --- connections ---------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Wait for more events, reconnecting as often as needed."""
        loop = asyncio.get_running_loop()
        link = self._link = self._link or Reconnect(self._patience, loop.time())
        opened = False
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = await self._open(
                    self._origin, self._subject, self._after, self._patience
                )
                link.opened(loop.time())
                if connection.beats:
                    self._timer = loop.call_later(self._patience.silence, self._watch)
            opened = True
            # However long the caller was busy: the server's silence begins now.
            self._since = loop.time()
            link.heard(self._since)
            # Closed while the connection was opening: nothing to wait for.
            frames = await connection.read() if not self._ended else []
            if frames is None and not connection.over:
                raise ServerUnavailableError("the stream ended too early")
            self._ended = self._ended or frames is None
            for cursor, data in frames or ():
                self._take(cursor, data)
        except (TokenwireError, OSError) as error:
            failure = (
                error if isinstance(error, TokenwireError) else ServerUnavailableError(str(error))
            )
            await self._cut(failure, opened=opened)
        if self._ended:
            await self._drop()

    def _watch(self) -> None:
        """One timer for a connection, not one for a read: abort a read that waits too long."""
        connection, silence = self._connection, self._patience.silence
        if connection is None:
            return
        loop = asyncio.get_running_loop()
        remaining = self._since + silence - loop.time() if self._reading else silence
        if remaining > 0:
            self._timer = loop.call_later(remaining, self._watch)
        else:
            connection.abort(ServerUnavailableError(f"no data from the server for {silence:g} s"))

    async def _cut(self, error: TokenwireError, *, opened: bool) -> None:
        """The connection is lost: wait, or give up."""
        await self._drop()
        if self._ended:
            return
        if isinstance(error, FramingError):
            error = ServerProtocolError(f"invalid stream from the server: {error.message}")
        if opened and isinstance(error, ServerProtocolError) and self._garbled != self._after:
            self._garbled = self._after  # perhaps damaged on the way: once more, from here
        elif is_final(error):
            self._ended, self._error = True, error
            return
        link = self._link
        within, self._within = self._within, None
        assert link is not None
        now = asyncio.get_running_loop().time()
        pause = link.cut(now, random.random(), within=within, wait=wait_of(error))
        if pause is None:
            self._ended, self._error = True, error
            return
        if self._on_cut is not None:
            self._on_cut(error if within is None else None, pause)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._closing.wait()

    async def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


class Follow(Reading[AnyEvent]):
    """The events of a run after the cursor ``after``. Iterate it once; call `aclose` (or use
    ``async with``) to stop before the end.

    `Client.follow` makes it. ``origin``: the server; ``run``: the run's id; ``opener``: opens one
    connection; ``patience``: waits and timeouts; ``on_cut``: called at each lost connection.
    """

    def __init__(
        self,
        origin: Origin,
        run: str,
        *,
        opener: Open,
        after: str | None = None,
        patience: Patience | None = None,
        on_cut: OnCut | None = None,
    ) -> None:
        self.run = run_of_path(run)
        super().__init__(
            origin, self.run, opener=opener, after=after, patience=patience, on_cut=on_cut
        )
        self._offset = _offset(after) if after else 0

    async def texts(self) -> AsyncIterator[str]:
        """The text of the run so far, whole, each time it changes: for displays. What a
        ``step-reset`` withdraws is gone from it; who joins `TextDelta` s by hand keeps the words of
        an attempt that was started again. Raises `ConflictError` on a reader that has a cursor."""
        if self.cursor is not None:
            raise ConflictError("only a whole run has a text; follow it without 'after'")
        state, text = Fold(), ""
        async for event in self:
            state.apply(event)
            if isinstance(event, StepReset | TextDelta | TextEnd) and text != state.text:
                text = state.text
                yield text

    async def text(self) -> str:
        """Read the whole run to its end and return its text."""
        return (await self.fold()).text

    async def fold(self) -> Fold:
        """Read the whole run to its end and return its state (`tokenwire.events.fold.Fold`). Raises
        `ConflictError` on a reader that has a cursor."""
        if self.cursor is not None:
            raise ConflictError("only a whole run can be folded; follow it without 'after'")
        state = Fold()
        async for event in self:
            state.apply(event)
        return state

    # --- events --------------------------------------------------------------------------------

    def _take(self, cursor: str, data: bytes) -> None:
        """One event of a connection: new, a repetition, or about the connection itself."""
        if self._ended:
            return
        try:
            event = decode(data)
        except InputError as error:
            raise ServerProtocolError("the server's stream contains an invalid event") from error
        if isinstance(event, Heartbeat):
            return
        if isinstance(event, PlannedReconnect):
            self._within = event.after_ms / 1000
            return
        if isinstance(event, Unknown) and not cursor:
            return  # about the connection, in the words of a newer server
        try:
            offset = _offset(cursor)
        except CursorError as error:
            raise ServerProtocolError("the server's stream contains an invalid cursor") from error
        if offset <= self._offset:
            return
        if offset != self._offset + 1:
            raise ServerProtocolError(
                f"events {self._offset + 1} to {offset - 1} of the run are missing"
            )
        self._offset, self._after = offset, cursor
        self._ended = isinstance(event, RunEnd)
        self._ready.append((cursor, event))


def _offset(cursor: str) -> int:
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise CursorError(f"invalid cursor {cursor[:80]!r}; use that of an event received")
    return int(match[1])
