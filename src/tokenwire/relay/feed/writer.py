"""Publishing to feeds: what is new of the news, at the end, once.

Always true: a feed begins with its first reader, and who nobody follows costs one look at the store
for each publication; a publisher that was overtaken reads what came before it, and appends what of
its news is still new; nothing here is promised beyond the call: who publishes repeats what fails.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from tokenwire.errors import CursorError, GoneError, NotFoundError, StoreDamagedError
from tokenwire.log.base import Store
from tokenwire.relay.feed.segment import Event, FeedKind, FeedState, Segment, open_segment

__all__ = ["News", "Writer"]

#: Feeds whose state is remembered; others are read again.
_MOST_CACHED = 1000
#: Events of one append.
_MOST_AT_ONCE = 64

S = TypeVar("S", bound=FeedState)
#: What is to be told: an event, or what makes events of the state so far.
News = Event | Callable[[S], Awaitable[list[Event]]]


class Writer(Generic[S]):
    """The feeds of one kind, as one process writes them. ``begin``: what a new feed of a scope
    begins with; ``head``: what each of its events has. Methods raise `LogError`."""

    def __init__(
        self,
        store: Store,
        kind: FeedKind[S],
        *,
        begin: Callable[[str], Awaitable[list[News[S]]]],
        head: Callable[[str], Event],
    ) -> None:
        self._store, self.kind = store, kind
        self._first, self._head = begin, head
        self._segments: OrderedDict[str, Segment[S]] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def publish(self, scope: str, news: list[News[S]]) -> None:
        """Append what of ``news`` is not told yet, unless nobody ever followed the feed."""
        async with self._lock(scope):
            for start in range(0, len(news), _MOST_AT_ONCE):
                await self._publish(scope, news[start : start + _MOST_AT_ONCE])

    async def follow(self, scope: str) -> Segment[S]:
        """The feed's newest log, read to its end; a feed is begun where there is none."""
        async with self._lock(scope):
            while True:
                segment = await self._segment(scope)
                if segment is None:
                    await open_segment(self._store, self.kind, scope, make=True)
                    await self._publish(scope, await self._first(scope))
                    continue
                await self._advance(scope, segment)
                if self._segments.get(scope) is segment and not segment.is_full:
                    return segment

    async def state(self, scope: str) -> S | None:
        """What the feed has told, as this process has read it; None where there is no feed."""
        async with self._lock(scope):
            segment = await self._segment(scope)
            return segment.state.copied() if segment is not None else None

    def read_at(self, scope: str) -> float:
        """When this process saw the newest state of a feed last, by the monotonic clock; for news
        that are being published there."""
        segment = self._segments.get(scope)
        return segment.read_at if segment is not None else time.monotonic()

    async def _publish(self, scope: str, news: list[News[S]]) -> None:
        while (segment := await self._segment(scope)) is not None:
            state = segment.state.copied()
            events = await self._fresh(scope, news, state)
            if not events or await self._append(scope, segment, events, state):
                return

    async def _fresh(self, scope: str, news: list[News[S]], state: S) -> list[Event]:
        """The events of ``news`` that are to be told, after which the state is ``state``."""
        events: list[Event] = []
        head = self._head(scope)
        for one in news:
            for event in [one] if isinstance(one, dict) else await one(state):
                whole = {"type": event["type"], **head, **event}
                if state.take(whole):
                    events.append(whole)
        return events

    async def _append(self, scope: str, segment: Segment[S], events: list[Event], state: S) -> bool:
        try:
            if await segment.append(events, state):
                return True
        except (NotFoundError, GoneError):
            self._segments.pop(scope, None)  # it was erased, or goes on elsewhere
            return False
        await self._advance(scope, segment)  # others have told something meanwhile
        return False

    async def _advance(self, scope: str, segment: Segment[S]) -> None:
        """Read what others have told. What does not go on as it was read, is read anew."""
        try:
            await segment.advance()
        except (NotFoundError, GoneError, CursorError, StoreDamagedError):
            self._segments.pop(scope, None)

    async def _segment(self, scope: str) -> Segment[S] | None:
        """The feed's newest log; None where it has none."""
        segment = self._segments.get(scope)
        if segment is None or segment.is_full:
            segment = await open_segment(self._store, self.kind, scope, make=False)
            if segment is None:
                self._segments.pop(scope, None)
                return None
            self._segments[scope] = segment
            if len(self._segments) > _MOST_CACHED:
                self._segments.popitem(last=False)
        self._segments.move_to_end(scope)
        return segment

    def _lock(self, scope: str) -> asyncio.Lock:
        return self._locks.setdefault(scope, asyncio.Lock())
