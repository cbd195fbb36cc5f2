"""Where a feed is kept: a short log for its newest events, and the one before.

Always true: a feed's events are numbered from its beginning, whichever log they are in; a log that
is full ends, and the next one begins with the state so far, so that a feed is read from there; any
process appends, at the end that it knows, and is told when another was quicker; a record proves its
place as a run's does (`tokenwire.relay.record`), so that a cursor of another feed fits nowhere.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, Protocol, Self, TypeVar

import msgspec

from tokenwire.errors import ConflictError, GoneError, NotFoundError, StoreDamagedError
from tokenwire.log.base import FOR_GOOD, Store
from tokenwire.relay.record import CHECK, Chain, follows

__all__ = [
    "FULL",
    "OWNER",
    "UNLEASED",
    "Event",
    "FeedKind",
    "FeedState",
    "Place",
    "Segment",
    "forget_feed",
    "open_segment",
]

OWNER = "thread-feed"
#: Seconds of the lease of a log that nobody owns.
UNLEASED = 10 * FOR_GOOD
#: Why a log of a feed has ended; the next one has what follows.
FULL = "full"
#: Records of one log of a feed.
MOST_RECORDS = 512
#: Seconds between two signs of life of a log that may end by itself.
_ALIVE_SECONDS = 3600.0
_PAGE = 1024


#: An event of a feed: a JSON object with a ``type``.
Event = dict[str, Any]


class FeedState(Protocol):
    """What a feed has told so far."""

    def copied(self) -> Self:
        """A state that `take` changes, and this one stays."""
        ...

    def take(self, event: Event) -> bool:
        """Bring the state after ``event``; False, and nothing has changed, where it is told
        already."""
        ...


S = TypeVar("S", bound=FeedState)


@dataclass(frozen=True)
class FeedKind(Generic[S]):
    """Feeds of one kind. ``documents``: the kind of the documents that say where each is;
    ``state``: what their events amount to, made without arguments."""

    documents: str
    state: type[S]


class Place(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """The newest ``log`` of a feed, with the number of events ``base`` before it; and the one
    ``before``, if that is still there."""

    log: str
    base: int = 0
    before: str | None = None
    before_base: int = 0


class Segment(Generic[S]):
    """The newest log of a feed, as far as one process has read it. ``scope``: whose feed it is."""

    def __init__(self, store: Store, kind: FeedKind[S], scope: str, data: bytes) -> None:
        self._store, self._kind, self.scope = store, kind, scope
        self.data = data
        self.place = msgspec.json.decode(data, type=Place)
        self.tail = 0
        self.last = Chain(self.place.log).last
        self.state = kind.state()
        self.is_full = False
        #: When the state was the newest one, by the monotonic clock.
        self.read_at = 0.0
        self._alive = time.monotonic()

    @property
    def cursor(self) -> str:
        """The cursor of the newest event that was read."""
        return f"{self.place.base + self.tail}-{self.last.decode()}"

    async def advance(self) -> None:
        """Read what was appended. Raises `NotFoundError`, `GoneError` where the log is not
        there, `StoreDamagedError` where it does not go on as it was read."""
        while True:
            page = await self._store.read(self.place.log, after=self.tail, most=_PAGE, fresh=True)
            for record in page.records:
                self._fold(record)
            self.is_full = page.closed is not None
            if self.tail >= page.tail:
                self.read_at = time.monotonic()
                return

    def _fold(self, record: bytes) -> None:
        if not follows(self.last, record):
            raise StoreDamagedError("a feed does not continue as it was read")
        event = msgspec.json.decode(record[CHECK:])
        if event["type"] == "base":
            self.state = msgspec.convert(event["state"], self._kind.state)
        else:
            self.state.take(event)
        self.tail, self.last = self.tail + 1, record[:CHECK]

    async def append(self, events: list[Event], state: S) -> bool:
        """Append ``events``, after which the state is ``state``; False where the log has other
        records there, or has ended."""
        last, records = self.last, []
        for event in events:
            data = msgspec.json.encode(event)
            last = blake2b(last + data, digest_size=8).hexdigest().encode()
            records.append(last + data)
        ends = self.tail + len(records) >= MOST_RECORDS
        await self._live()
        appended = await self._store.append(
            self.place.log,
            epoch=1,
            first=self.tail + 1,
            records=records,
            close=FULL if ends else None,
        )
        if appended.status not in ("ok", "duplicate"):
            return False
        self.tail, self.last, self.state = self.tail + len(records), last, state
        self.is_full, self.read_at = ends, time.monotonic()
        return True

    async def _live(self) -> None:
        """In a store where logs end by themselves: a sign of life, now and then."""
        now = time.monotonic()
        if now - self._alive > _ALIVE_SECONDS:
            self._alive = now
            await self._store.renew({self.place.log: 1}, owner=OWNER, lease=UNLEASED)

    async def roll(self) -> None:
        """Begin the log after this one, which is full, unless somebody has."""
        place = Place(
            log=_new_name(),
            base=self.place.base + self.tail,
            before=self.place.log,
            before_base=self.place.base,
        )
        # The place first: a log that no place names would stay for ever.
        new = msgspec.json.encode(place)
        if await self._store.swap_document(self._kind.documents, self.scope, self.data, new):
            await _make(self._store, self._kind, self.scope, new, self.state)
            if self.place.before is not None:
                await self._store.delete(self.place.before)


async def open_segment(
    store: Store, kind: FeedKind[S], scope: str, *, make: bool
) -> Segment[S] | None:
    """The newest log of the feed of ``scope``, read to its end. Without ``make`` None where there
    is no feed. One that the store has lost begins anew. Raises `LogError`."""
    while True:
        data = await store.document(kind.documents, scope)
        if data is None:
            if not make:
                return None
            data = msgspec.json.encode(Place(log=_new_name()))
            if not await store.swap_document(kind.documents, scope, None, data):
                continue
        segment = Segment(store, kind, scope, data)
        try:
            await segment.advance()
        except (NotFoundError, GoneError):
            state = await _state_before(store, kind, scope, segment.place)
            await _make(store, kind, scope, data, state)
            continue
        except StoreDamagedError:
            await store.delete(segment.place.log)
            continue
        if segment.tail == 0:
            await _begin(store, segment.place.log, kind.state())
            continue
        if not segment.is_full:
            return segment
        await segment.roll()


async def _state_before(store: Store, kind: FeedKind[S], scope: str, place: Place) -> S:
    """The state with which a log of a feed begins whose maker has died."""
    if place.before is None:
        return kind.state()
    before = Place(log=place.before, base=place.before_base)
    segment = Segment(store, kind, scope, msgspec.json.encode(before))
    try:
        await segment.advance()
    except (NotFoundError, GoneError, StoreDamagedError):
        return kind.state()
    return segment.state


async def _make(store: Store, kind: FeedKind[S], scope: str, data: bytes, state: FeedState) -> None:
    """Create the log that the place ``data`` names, and write its beginning."""
    place = msgspec.json.decode(data, type=Place)
    try:
        await store.create(place.log, owner=OWNER, lease=UNLEASED, shared=True)
    except ConflictError:
        try:
            await store.describe(place.log)
        except (NotFoundError, GoneError):  # its name is used up
            other = msgspec.json.encode(msgspec.structs.replace(place, log=_new_name()))
            await store.swap_document(kind.documents, scope, data, other)
            return
    if await store.document(kind.documents, scope) != data:  # erased, or anew, meanwhile
        await store.delete(place.log)
        return
    await _begin(store, place.log, state)


async def _begin(store: Store, log: str, state: FeedState) -> None:
    """Write the first record of a log; another process's counts where that was quicker."""
    # By its nonce no two beginnings are alike, so a cursor of one log fits no other.
    event = {"type": "base", "state": state, "nonce": secrets.token_hex(8)}
    data = msgspec.json.encode(event)
    check = blake2b(Chain(log).last + data, digest_size=8).hexdigest().encode()
    try:
        await store.append(log, epoch=1, first=1, records=[check + data])
    except (NotFoundError, GoneError):
        return  # erased meanwhile; whoever needs the feed sees that


async def forget_feed(store: Store, kind: FeedKind[S], scope: str) -> None:
    """Erase the feed of ``scope``: its place first, so that nobody goes on with it."""
    while (data := await store.document(kind.documents, scope)) is not None:
        if await store.swap_document(kind.documents, scope, data, None):
            place = msgspec.json.decode(data, type=Place)
            await store.delete(place.log)
            if place.before is not None:
                await store.delete(place.before)


def _new_name() -> str:
    """With a character that ids of runs do not have, so that no run is called so."""
    return f"feed.{secrets.token_hex(12)}"
