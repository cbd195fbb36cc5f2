"""Reading a feed from a cursor: what is there, then what comes.

Always true: events come once, in order, without gap; a cursor that the feed does not hold, be it
older than what is kept, of another feed, or of the one before an erasure, is never joined to what
follows: the reader is told why, and begins anew; a feed that ends under its reader is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from tokenwire.errors import CursorError, GoneError, NotFoundError
from tokenwire.log.base import Store
from tokenwire.relay.feed.segment import FeedKind, Place, Segment
from tokenwire.relay.record import CHECK, Chain, follows, parse_cursor

__all__ = ["FeedFollower", "Lost", "open_feed"]

#: Events that only the feed itself needs.
_INNER = (b'{"type":"base"', b'{"type":"floor"')
_MOST = 256


class Lost(Exception):
    """The reader's place in the feed is not to be had. ``reason``: ``expired``: older than what is
    kept; ``unknown``: of another feed, of one that was erased since, or without the places in runs
    that are to be read; ``rewound``: the store lost what the reader has seen."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Source(Protocol):
    """What `open_feed` needs of the feeds of one kind (`tokenwire.relay.feed.writer.Writer`)."""

    @property
    def kind(self) -> FeedKind[Any]:
        """Which feeds."""
        ...

    async def follow(self, scope: str) -> Segment[Any]:
        """The newest log of a feed, read to its end."""
        ...


class FeedFollower:
    """One reader of one feed. ``wake`` is called when there may be more to `pull`."""

    def __init__(
        self,
        store: Store,
        source: Source,
        scope: str,
        place: Place,
        wake: Callable[[], None],
        *,
        after: int,
        check: bytes,
        log: str,
        base: int,
    ) -> None:
        self._store, self._source, self.scope = store, source, scope
        self._place, self._wake_reader = place, wake
        self._log, self._base = log, base
        #: The record of the log that was handed out last, and its check.
        self._after, self._check = after, check
        self._is_dirty = True
        self._end = store.subscribe(log, self._wake)

    @property
    def cursor(self) -> str:
        """The cursor of the event that was handed out last."""
        return f"{self._base + self._after}-{self._check.decode()}"

    @property
    def may_have_more(self) -> bool:
        """Whether `pull` is to be called again."""
        return self._is_dirty

    def _wake(self) -> None:
        self._is_dirty = True
        self._wake_reader()

    def close(self) -> None:
        """Stop following."""
        self._end()

    async def pull(self) -> list[tuple[str, bytes]]:
        """``[(cursor, event JSON), ...]`` that came; none where nothing did. Raises `Lost`;
        `GoneError` where the feed was erased; `LogError`."""
        while self._is_dirty:
            self._is_dirty = False
            try:
                page = await self._store.read(self._log, after=self._after, most=_MOST)
            except CursorError:
                raise Lost("rewound") from None
            except (NotFoundError, GoneError):
                await self._after_the_end(is_gone=True)
                continue
            # A wake-up during the read must not be lost: never cleared here.
            if page.closed is not None or self._after + len(page.records) < page.tail:
                self._is_dirty = True
            items = self._items(page.records)
            if page.closed is not None and not page.records:
                await self._after_the_end(is_gone=False)
            if items:
                return items
        return []

    def _items(self, records: list[bytes]) -> list[tuple[str, bytes]]:
        items: list[tuple[str, bytes]] = []
        for record in records:
            if not follows(self._check, record):
                raise Lost("rewound")
            self._after, self._check = self._after + 1, record[:CHECK]
            data = record[CHECK:]
            if not data.startswith(_INNER):
                items.append((self.cursor, data))
        return items

    async def _after_the_end(self, *, is_gone: bool) -> None:
        """Go on with the next log, which follows this one."""
        data = await self._store.document(self._source.kind.documents, self.scope)
        place = msgspec.json.decode(data, type=Place) if data is not None else None
        if place is None:
            raise GoneError("the conversation was erased")
        if place.log == self._log and not is_gone:
            # Whoever filled it did not begin the next one.
            place = (await self._source.follow(self.scope)).place
        if place.before != self._log or is_gone:
            raise Lost("expired" if place.base > self._base else "unknown")
        self._end()
        self._place, self._log, self._base = place, place.log, place.base
        self._after, self._check = 0, Chain(place.log).last
        self._is_dirty = True
        self._end = self._store.subscribe(self._log, self._wake)


async def open_feed(
    store: Store, source: Source, scope: str, cursor: str | None, wake: Callable[[], None]
) -> tuple[FeedFollower, Segment[Any]]:
    """A follower after ``cursor`` (None: after what was told so far), and the feed as it was just
    read: the follower begins there, or before. Raises `Lost`, and `CursorError` for what is no
    cursor."""
    number, check = parse_cursor(cursor)
    segment = await source.follow(scope)
    place = segment.place
    if number == 0:
        follower = FeedFollower(
            store,
            source,
            scope,
            place,
            wake,
            after=segment.tail,
            check=segment.last,
            log=place.log,
            base=place.base,
        )
        return follower, segment
    log, base = place.log, place.base
    if number <= base and place.before is not None:
        log, base = place.before, place.before_base
    if check is None:
        raise CursorError("invalid cursor; send the id of the last event received, or omit it")
    if number <= base:
        raise Lost("expired")
    try:
        page = await store.read(log, after=number - base - 1, most=1, fresh=True)
    except (CursorError, NotFoundError, GoneError):
        raise Lost("unknown") from None
    if not page.records or page.records[0][:CHECK] != check:
        raise Lost("unknown")
    follower = FeedFollower(
        store, source, scope, place, wake, after=number - base, check=check, log=log, base=base
    )
    return follower, segment
