"""What one reader gets of its list of conversations: a snapshot, then what is another in it.

Always true: a conversation is shown as it is when its event is read, and only to whoever may read
it then; of several events of one that wait to be read the last one counts; each event comes once,
and whoever comes back with a cursor misses nothing.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from tokenwire.errors import CursorError
from tokenwire.log.base import Store
from tokenwire.relay.feed.follower import FeedFollower, Lost, open_feed
from tokenwire.relay.feed.live import LiveStream
from tokenwire.relay.feed.place import parse_place
from tokenwire.relay.thread_list.entries import Facts
from tokenwire.relay.thread_list.lists import FIRST_PAGE, Lists, feed_of

__all__ = ["ListStream"]

#: Conversations that are read at the same time.
_AT_ONCE = 16


class ListStream(LiveStream):
    """One reader of the list of ``principal``."""

    def __init__(self, store: Store, lists: Lists, principal: str) -> None:
        super().__init__()
        self._store, self._lists, self._principal = store, lists, principal
        self._feed: FeedFollower | None = None
        self._leave_list = lists.join(principal)
        self._cursor = "0"

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        return self._cursor

    async def begin(self, cursor: str | None) -> None:
        """Begin after ``cursor``, or with a snapshot. A place that is not to be had is told with
        ``reset`` and its reason. Raises `CursorError` for what is no cursor, `LogError`."""
        place = parse_place(cursor)
        if place is not None and place.runs is not None:
            raise CursorError("that is the cursor of a conversation, not of the list of them")
        try:
            await self._open(place.feed if place is not None else None)
        except Lost as lost:
            await self._reset(lost.reason)

    async def _open(self, cursor: str | None) -> None:
        scope = feed_of(self._principal)
        feed, _ = await open_feed(self._store, self._lists, scope, cursor, self.wake)
        self._feed, self._cursor = feed, feed.cursor
        if cursor is None:
            page = await self._lists.catalogue.page(self._principal, FIRST_PAGE)
            event = {"type": "snapshot", "at": _now(), "threads": page.threads}
            if page.next is not None:
                event["next"] = page.next
            self._items.append((self.cursor, msgspec.json.encode(event)))

    async def _reset(self, reason: str) -> None:
        """The reader has to begin anew."""
        if self._feed is not None:
            self._feed.close()
        event = {"type": "reset", "at": _now(), "reason": reason}
        self._items.append((None, msgspec.json.encode(event)))
        await self._open(None)

    async def _collect(self) -> None:
        feed = self._feed
        if feed is None:
            return
        try:
            items = await feed.pull()
        except Lost as lost:
            await self._reset(lost.reason)
            self._is_dirty = True
            return
        self._is_dirty = self._is_dirty or feed.may_have_more
        newest: dict[str, tuple[str, int]] = {}
        for cursor, data in items:
            event = msgspec.json.decode(data)
            newest.pop(event["thread"], None)
            newest[event["thread"]] = cursor, event["at"]
        gate = asyncio.Semaphore(_AT_ONCE)

        async def read(thread: str) -> Facts:
            async with gate:
                members = self._lists.members
                return await self._lists.catalogue.facts(
                    await members.scope(self._principal, thread)
                )

        facts = await asyncio.gather(*map(read, newest))
        for (thread, (cursor, at)), now in zip(newest.items(), facts, strict=True):
            self._items.append((cursor, self._event(thread, at, now)))
            self._cursor = cursor

    def _event(self, thread: str, at: int, facts: Facts) -> bytes:
        info = facts.info(self._principal)
        if info is None or info.thread != thread:
            return msgspec.json.encode({"type": "thread-gone", "at": at, "thread": thread})
        return msgspec.json.encode({"type": "thread", "at": at, "thread": thread, "entry": info})

    def _let_go(self, *, returning: bool) -> None:
        self._leave_list()
        if self._feed is not None:
            self._feed.close()


def _now() -> int:
    return int(time.time() * 1000)
