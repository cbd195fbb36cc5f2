"""Follow one run to its end, through any number of cuts.

Always true: an event of the log is given once and in the log's order (what came before is known by
the offset in its cursor); a run has ended with ``run-end``, or when the server says that it was
read to its end before: any other end of a connection is a cut, after which the reader comes back
with its cursor; what was read is never asked for again; what cannot be read is asked for once more,
and then it is an error.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from types import TracebackType

from tokenwire.client.origin import Origin, is_final, run_of_path, wait_of
from tokenwire.client.reconnect import Patience, Reconnect
from tokenwire.client.sse import Connection
from tokenwire.errors import (
    ConflictError,
    CursorError,
    FramingError,
    InputError,
    NetworkError,
    ProtocolError,
    TokenwireError,
)
from tokenwire.events.codec import AnyEvent, decode
from tokenwire.events.fold import Fold
from tokenwire.events.model import Heartbeat, LogReset, RunEnd
from tokenwire.events.model import Reconnect as ComeBack

__all__ = ["Follow", "OnCut", "Open"]

#: Opens one connection: (origin, run, after, patience).
Open = Callable[[Origin, str, "str | None", Patience], Awaitable[Connection]]
#: Told of each cut: what happened (None: the server asked us to come back), seconds until the
#: next try.
OnCut = Callable[["TokenwireError | None", float], None]

_CURSOR = re.compile(r"([0-9]{1,15})(?:-[0-9a-f]{16})?")


class Follow:
    """The events of a run after ``after``. Iterate it once; `aclose` it (or use ``async with``)
    where you leave before the end."""

    def __init__(
        self,
        origin: Origin,
        run: str,
        *,
        way: Open,
        after: str | None = None,
        patience: Patience | None = None,
        on_cut: OnCut | None = None,
    ) -> None:
        self.run = run_of_path(run)
        #: The cursor of the last event that was given: what to come back with.
        self.cursor: str | None = after
        self._origin, self._open = origin, way
        self._patience = patience or Patience()
        self._on_cut = on_cut
        self._after = after
        self._offset = _offset(after) if after else 0
        self._ready: deque[tuple[str | None, AnyEvent]] = deque()
        self._connection: Connection | None = None
        self._link: Reconnect | None = None
        #: The offset after which a connection brought something unreadable, until it goes on.
        self._garbled: int | None = None
        self._told: float | None = None
        self._ended = False
        self._error: TokenwireError | None = None
        self._reading = False
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closing = asyncio.Event()

    def __aiter__(self) -> Follow:
        return self

    async def __anext__(self) -> AnyEvent:
        """The next event."""
        if self._reading:
            raise ConflictError("this run is being read already; follow it once more instead")
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

    async def __aenter__(self) -> Follow:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading. The run goes on."""
        self._ended = True
        self._closing.set()
        self._ready.clear()
        await self._drop()

    async def text(self) -> str:
        """Read the whole run to its end; the text that a person would see."""
        return (await self.fold()).text

    async def fold(self) -> Fold:
        """Read the whole run to its end; its state (`tokenwire.events.fold`). Needs a reader from
        the beginning of which nothing was taken yet."""
        if self.cursor is not None:
            raise ConflictError("only the whole run can be folded: follow it without 'after'")
        state = Fold()
        async for event in self:
            if isinstance(event, LogReset):
                state = Fold()
            else:
                state.apply(event)
        return state

    # --- connections ---------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Wait for more events, coming back as often as needed."""
        loop = asyncio.get_running_loop()
        link = self._link = self._link or Reconnect(self._patience, loop.time())
        opened = False
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = await self._open(
                    self._origin, self.run, self._after, self._patience
                )
                link.opened(loop.time())
                if connection.beats:
                    self._timer = loop.call_later(self._patience.silence, self._watch)
            opened = True
            # However long the reader was busy elsewhere: the server's silence begins now.
            self._since = loop.time()
            link.heard(self._since)
            # Closed while the connection was being opened: there is nothing to wait for.
            frames = await connection.read() if not self._ended else []
            if frames is None and not connection.over:
                raise NetworkError("the stream ended before the run did")
            self._ended = self._ended or frames is None
            for cursor, data in frames or ():
                self._take(cursor, data)
        except (TokenwireError, OSError) as error:
            known = error if isinstance(error, TokenwireError) else NetworkError(str(error))
            await self._cut(known, opened=opened)
        if self._ended:
            await self._drop()

    def _watch(self) -> None:
        """One timer a connection, not one a read: look whether a read waits for too long."""
        connection, silence = self._connection, self._patience.silence
        if connection is None:
            return
        loop = asyncio.get_running_loop()
        left = self._since + silence - loop.time() if self._reading else silence
        if left > 0:
            self._timer = loop.call_later(left, self._watch)
        else:
            connection.abort(NetworkError(f"nothing was heard for {silence:g} s"))

    async def _cut(self, error: TokenwireError, *, opened: bool) -> None:
        """The connection is gone: wait, or give up."""
        await self._drop()
        if self._ended:
            return
        if isinstance(error, FramingError):
            error = ProtocolError(f"the server's stream cannot be read: {error.message}")
        if opened and isinstance(error, ProtocolError) and self._garbled != self._offset:
            self._garbled = self._offset  # the line may have broken it: once more, from here
        elif is_final(error):
            self._ended, self._error = True, error
            return
        link = self._link
        told, self._told = self._told, None
        assert link is not None
        now = asyncio.get_running_loop().time()
        pause = link.cut(now, random.random(), told=told, wait=wait_of(error))
        if pause is None:
            self._ended, self._error = True, error
            return
        if self._on_cut is not None:
            self._on_cut(error if told is None else None, pause)
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

    # --- events --------------------------------------------------------------------------------

    def _take(self, cursor: str, data: bytes) -> None:
        """One event of a connection: new, known, or a word about the connection itself."""
        if self._ended:
            return
        try:
            event = decode(data)
        except InputError as error:
            raise ProtocolError("the server's stream holds something that is no event") from error
        if isinstance(event, Heartbeat):
            return
        if isinstance(event, ComeBack):
            self._told = event.after_ms / 1000
            return
        if isinstance(event, LogReset):
            self._after = str(event.to) if event.to else None
            self._offset = event.to
            self._ready.append((self._after, event))
            return
        try:
            offset = _offset(cursor)
        except CursorError as error:
            raise ProtocolError("the server's stream holds something that is no cursor") from error
        if offset <= self._offset:
            return
        if offset != self._offset + 1:
            raise ProtocolError(f"events {self._offset + 1} to {offset - 1} of the run are missing")
        self._offset, self._after = offset, cursor
        self._ended = isinstance(event, RunEnd)
        self._ready.append((cursor, event))


def _offset(cursor: str) -> int:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise CursorError(f"{cursor[:80]!r} is no cursor; give that of an event that you got")
    return int(found[1])
