"""What one reader gets of a conversation: a snapshot, its feed, and on request its runs' events.

Always true: the snapshot is of the very place in the feed after which the events go on; each event
of the feed, and of each run that is followed, comes once and in order; a run's events come after
its ``run-started`` and before its ``run-ended``; the cursor of an event says where the reader is in
the feed and in every run that is open, so that whoever comes back with it misses and repeats
nothing; what only passes (who types, who is there) has no cursor and is never repeated.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import msgspec

from tokenwire.errors import CursorError, GoneError, NotFoundError
from tokenwire.log.base import Store
from tokenwire.relay.conversation.feed import Feeds
from tokenwire.relay.conversation.queue import STATE, Queue
from tokenwire.relay.conversation.scope import thread_of
from tokenwire.relay.feed.follower import FeedFollower, Lost, open_feed
from tokenwire.relay.feed.live import LiveStream
from tokenwire.relay.feed.place import MOST_RUNS, StreamPlace, parse_place
from tokenwire.relay.feed.presence import Presence, Seat
from tokenwire.relay.feed.state import State
from tokenwire.relay.follow import Follower
from tokenwire.relay.readers import Readers, follow

__all__ = ["About", "ThreadStream"]


class About(Protocol):
    """What a conversation's events do not say themselves: it is asked when they go out."""

    async def title(self) -> str | None:
        """The title as it is now."""
        ...

    async def members(self) -> dict[str, str] | None:
        """Who may do what in the conversation; None where it has no members."""
        ...


class ThreadStream(LiveStream):
    """One reader of one conversation."""

    def __init__(
        self,
        store: Store,
        feeds: Feeds,
        readers: Readers,
        scope: str,
        about: About,
        *,
        whole: bool,
        thread: str | None = None,
    ) -> None:
        super().__init__()
        self._store, self._feeds, self._readers = store, feeds, readers
        #: ``thread``: what the reader calls it; members have another name than who began it.
        self.scope, self.thread = scope, thread or thread_of(scope)
        self._about, self._whole = about, whole
        self._feed: FeedFollower | None = None
        #: Events of the feed that were read, and not taken yet.
        self._news: deque[tuple[str, bytes]] = deque()
        self._runs: dict[str, Follower] = {}
        #: Where the reader is.
        self._place = StreamPlace("0", {} if whole else None)
        self._seat: Seat | None = None
        self._leave_feed = feeds.join(scope)

    @property
    def cursor(self) -> str:
        """Where the reader is."""
        return str(self._place)

    def sit(self, presence: Presence, person: str, *, hears_who: bool = True) -> None:
        """Be among those who are there, and hear of the others; first, unless not ``hears_who``,
        who is there now."""
        self._seat = presence.sit(self.scope, person, self.wake, has_changed=hears_who)

    def _let_go(self, *, returning: bool) -> None:
        self._leave_feed()
        if self._seat is not None:
            self._seat.leave(returning=returning)
        if self._feed is not None:
            self._feed.close()
        for follower in self._runs.values():
            follower.close(returning=returning)

    # --- beginning -----------------------------------------------------------------------------

    async def begin(self, cursor: str | None) -> None:
        """Begin after ``cursor``, or with a snapshot. A place that is not to be had is told with
        ``reset`` and its reason. Raises `CursorError` for what is no cursor, `LogError`."""
        place = parse_place(cursor)
        try:
            await self._open(place.feed if place is not None else None)
            if place is not None and self._whole:
                if place.runs is None:  # where the reader is in them, nobody knows
                    raise Lost("unknown")
                for run, at in place.runs.items():
                    await self._follow(run, at)
        except Lost as lost:
            await self._reset(lost.reason)

    async def _open(self, cursor: str | None) -> None:
        self._feed, segment = await open_feed(
            self._store, self._feeds, self.scope, cursor, self.wake
        )
        self._place.feed = self._feed.cursor
        if cursor is None:
            state = segment.state.copied()
            for run in state.running if self._whole else ():
                await self._follow(run, "0")
            await self._snapshot(state)

    async def _reset(self, reason: str) -> None:
        """The reader has to begin anew."""
        if self._feed is not None:
            self._feed.close()
        for run in list(self._runs):
            self._unfollow(run)
        self._news.clear()
        self._pass({"type": "reset", "reason": reason})
        await self._open(None)

    async def _snapshot(self, state: State) -> None:
        data = await self._store.document(STATE, self.scope)
        queue = msgspec.json.decode(data, type=Queue) if data is not None else Queue()
        entries = {entry.run: entry for entry in queue.waiting}
        waiting: list[dict[str, Any]] = []
        for position, turn in enumerate(state.queue, 1):
            entry = entries.get(turn.turn)
            texts = {"text": entry.text, "created": entry.created} if entry is not None else {}
            steers = {"run": turn.steers} if turn.steers is not None else {}
            about = {"turn": turn.turn, "position": position, "by": turn.by, "edits": turn.edits}
            waiting.append({**about, **texts, **steers})
        event = {
            "type": "snapshot",
            "thread": self.thread,
            "at": int(time.time() * 1000),
            "by": None,
            "title": await self._about.title(),
            "members": await self._about.members(),
            "head": state.head,
            "queue": waiting,
            "running": list(state.running.values()),
            "turns": [{"run": run, "state": outcome} for run, outcome in state.turns.items()],
        }
        self._items.append((str(self._place), msgspec.json.encode(event)))

    # --- collecting ----------------------------------------------------------------------------

    async def _collect(self) -> None:
        """One page of each source, so that a reader that does not read holds no more than that."""
        if self._seat is not None:
            self._take_passing(self._seat)
        feed = self._feed
        if feed is None:
            return
        try:
            if not self._news:
                self._news += await feed.pull()
            await self._take_news()
        except Lost as lost:
            await self._reset(lost.reason)
            self._is_dirty = True
            return
        for run in list(self._runs):
            await self._take_run(run)
        runs = any(follower.may_have_more for follower in self._runs.values())
        self._is_dirty = self._is_dirty or bool(self._news) or feed.may_have_more or runs

    async def _take_news(self) -> None:
        while self._news:
            cursor, data = self._news[0]
            event = msgspec.json.decode(data)
            kind, run = event["type"], event.get("run")
            if kind in ("run-ended", "run-erased") and run in self._runs:
                await self._take_run(run)
                if run in self._runs:
                    return  # first what the run still has
            self._news.popleft()
            self._place.feed = cursor
            if event.get("thread") != self.thread:
                event["thread"] = self.thread
                data = msgspec.json.encode(event)
            if kind == "title":
                event.pop("mark", None)
                data = msgspec.json.encode({**event, "title": await self._about.title()})
            elif kind == "run-started" and self._whole and not await self._follow(run, "0"):
                data = msgspec.json.encode({**event, "followed": False})
            self._items.append((str(self._place), data))

    async def _follow(self, run: str, at: str) -> bool:
        """Read a run after its cursor ``at``; False where too many are read already."""
        if run in self._runs:
            return True
        if len(self._runs) >= MOST_RUNS or self._place.runs is None:
            return False
        try:
            # The run of a cursor is whatever a client says.
            if (await self._store.describe(run)).thread != self.scope:
                raise Lost("unknown")
            after = at if at != "0" else None
            follower = await follow(self._readers, self._store, run, after)
        except CursorError:
            # A failover lost what the reader has, or the cursor is not ours.
            self._pass({"type": "run-reset", "run": run})
            return await self._follow(run, "0")
        except (NotFoundError, GoneError):
            return True  # erased meanwhile, which the feed tells
        follower.watch(self.wake)
        self._runs[run] = follower
        self._place.runs[run] = at
        self._is_dirty = True
        return True

    def _unfollow(self, run: str) -> None:
        self._runs.pop(run).close(returning=True)
        if self._place.runs is not None:
            del self._place.runs[run]

    async def _take_run(self, run: str) -> None:
        follower, places = self._runs[run], self._place.runs or {}
        try:
            batch = await follower.pull()
        except (NotFoundError, GoneError):
            self._unfollow(run)
            return
        except CursorError:
            self._unfollow(run)
            self._pass({"type": "run-reset", "run": run})
            await self._follow(run, "0")
            return
        head = b'{"type":"run-event","run":"%b","cursor":"' % run.encode()
        for cursor, data in batch.items() if batch is not None else ():
            places[run] = cursor
            whole = b'%b%b","event":%b}' % (head, cursor.encode(), data)
            self._items.append((str(self._place), whole))
        if follower.has_ended:
            self._unfollow(run)

    def _pass(self, event: dict[str, Any]) -> None:
        at = int(time.time() * 1000)
        whole = {"type": event["type"], "thread": self.thread, "at": at, "by": None, **event}
        self._items.append((None, msgspec.json.encode(whole)))

    def _take_passing(self, seat: Seat) -> None:
        there, typing = seat.news()
        if there is not None:
            self._pass({"type": "presence", "principals": there})
        for person in typing:
            self._pass({"type": "typing", "by": person or None})
