"""The feeds of lists: each principal who follows its list of conversations has one.

Always true: an event says that something of one conversation is another in this list, and nothing
of what; what it is, is read when the event is read, by whoever may read it then. A change costs one
look at the store where nobody follows a list, and at most one for each member where somebody does;
a feed begins with its first reader, and ends a day after its last one.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from tokenwire.errors import LogError
from tokenwire.log.base import Store
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.feed.announcer import Announcer
from tokenwire.relay.feed.segment import Event, FeedKind, Segment, forget_feed
from tokenwire.relay.feed.writer import News, Writer
from tokenwire.relay.members.members import Members
from tokenwire.relay.thread_list.catalogue import Catalogue
from tokenwire.relay.thread_list.entries import BUSY, Facts, Waits

__all__ = ["FIRST_PAGE", "LISTS", "ListState", "Lists", "feed_of"]

_log = logging.getLogger("tokenwire.relay")

#: Conversations of a snapshot, and of which a feed knows how it told of them last.
FIRST_PAGE, _MOST_MARKS = 50, 200
#: When a list was followed last, by the name of its feed, in Unix seconds.
_READ = "thread-list-read"
#: Seconds for which a feed is kept without a reader; between two notes of a reader; and between two
#: looks for feeds that are to go.
_KEPT_SECONDS, _NOTE_SECONDS, _SWEEP_SECONDS = 86_400.0, 3600.0, 3600.0
#: Seconds to wait for more changes of a conversation before they are told.
_DELAY = 0.02
#: Seconds between two looks at conversations in which something is under way, of lists that are
#: followed here; and the looks between two at whole lists: a process that died told less.
LOOK_SECONDS, WHOLE_LOOKS = 2.0, 15
#: Feeds that are published to at the same time.
_AT_ONCE = 16


class ListState(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``marks``: by what the reader calls it, how each of the newest conversations was told of last
    (`Facts.mark`)."""

    marks: dict[str, str] = {}

    def copied(self) -> ListState:
        """A state that `take` changes, and this one stays."""
        return ListState(marks=dict(self.marks))

    def take(self, event: Event) -> bool:
        """Bring the state after ``event``; False, and nothing has changed, where it is told
        already."""
        if event["type"] == "floor":
            self.marks |= event["marks"]
        else:
            name, mark = event["thread"], event["mark"]
            if self.marks.get(name) == mark:
                return False
            self.marks.pop(name, None)
            self.marks[name] = mark
        while len(self.marks) > _MOST_MARKS:
            del self.marks[next(iter(self.marks))]
        return True


LISTS = FeedKind("thread-list", ListState)


class _Fresh:
    """What lists show of one conversation, read again where it is too old."""

    def __init__(self, catalogue: Catalogue, scope: str) -> None:
        self._catalogue, self._scope = catalogue, scope
        self._facts: Facts | None = None
        self._read_at = 0.0

    async def facts(self, after: float) -> Facts:
        """As they were after this monotonic time."""
        facts = self._facts
        if facts is None or self._read_at <= after:
            at = time.monotonic()
            facts = await self._catalogue.facts(self._scope)
            if self._facts is None or at > self._read_at:
                self._facts, self._read_at = facts, at
        return facts


class Lists:
    """The lists that one process publishes to. ``waits``: whether an open run waits. Methods raise
    `LogError`, except `changed`."""

    kind: FeedKind[ListState] = LISTS

    def __init__(self, store: Store, waits: Waits) -> None:
        self._store = store
        self.members = Members(store)
        self.catalogue = Catalogue(store, self.members, waits)
        self._writer = Writer(store, LISTS, begin=self._beginning, head=_head)
        self._announcer = Announcer(self._publish, "lists of conversations", delay=_DELAY)
        #: How many follow the list of a principal here.
        self._followers: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._noted: dict[str, float] = {}
        self._next_sweep = 0.0

    # --- telling -------------------------------------------------------------------------------

    def changed(self, scope: str, removed: dict[str, str] | None = None) -> None:
        """What lists show of the conversation may be another; ``removed``: the principals who
        belong to it no more, with what they called it."""
        self._announcer.announce(scope, removed or {}, None if removed else "changed")

    async def flush(self) -> None:
        """Wait until all is told that was to be told, a few seconds at most."""
        await self._announcer.flush()

    async def aclose(self) -> None:
        """Tell what is left, and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._announcer.aclose()

    async def _publish(self, scope: str, news: list[dict[str, str]]) -> None:
        count = await self._store.count_documents(LISTS.documents)
        if not count:
            return
        await self._sweep()
        fresh = _Fresh(self.catalogue, scope)
        facts = await fresh.facts(0.0)
        names: dict[str, str] = {}
        for removed in news:
            names |= removed
        for principal in facts.principals():
            info = facts.info(principal)
            if info is not None:
                names[principal] = info.thread
        gate = asyncio.Semaphore(_AT_ONCE)

        async def publish(principal: str) -> None:
            async with gate:
                await self._tell(principal, names[principal], fresh)

        await asyncio.gather(*map(publish, await self._with_feeds(names, count)))

    async def _tell(self, principal: str, thread: str, fresh: _Fresh) -> None:
        """That the conversation stands otherwise in the list of ``principal``."""
        scope = feed_of(principal)

        async def news(state: ListState) -> list[Event]:
            # What others have told by now rests on nothing newer than what is read from now on.
            facts = await fresh.facts(self._writer.read_at(scope))
            return [{"type": "thread", "thread": thread, "mark": facts.mark(principal)}]

        await self._writer.publish(scope, [news])

    async def _with_feeds(self, principals: Iterable[str], count: int) -> list[str]:
        """Those of ``principals`` whose list somebody follows, unless to look costs more than to
        try."""
        everyone = list(principals)
        if count > 2 * len(everyone):
            return everyone
        feeds = await self._store.documents(LISTS.documents, most=count + _AT_ONCE)
        return [one for one in everyone if feed_of(one) in feeds]

    # --- reading -------------------------------------------------------------------------------

    async def follow(self, scope: str) -> Segment[ListState]:
        """The newest log of a list's feed (`feed_of`), read to its end."""
        await self._note(scope)
        return await self._writer.follow(scope)

    def join(self, principal: str) -> Callable[[], None]:
        """Somebody follows the list of ``principal`` here, until the returned call."""
        self._followers[principal] += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look(), name="lists")

        def leave() -> None:
            self._followers[principal] -= 1
            if self._followers[principal] <= 0:
                del self._followers[principal]
                self._noted.pop(feed_of(principal), None)

        return leave

    async def _beginning(self, scope: str) -> list[News[ListState]]:
        principal = scope.removesuffix(scope_of("", ""))
        marks, _ = await self._marks(principal)
        return [{"type": "floor", "marks": dict(reversed(marks.items()))}]

    async def _marks(self, principal: str) -> tuple[dict[str, str], bool]:
        """How the newest conversations stand in a list, and whether these are all."""
        page = await self.catalogue.page(principal, FIRST_PAGE)
        threads = zip(page.threads, page.facts, strict=True)
        return {info.thread: facts.mark(principal) for info, facts in threads}, page.next is None

    async def _note(self, scope: str) -> None:
        """Somebody reads this feed."""
        now = time.time()
        if not 0 <= now - self._noted.get(scope, 0.0) < _NOTE_SECONDS:
            await self._store.set_document(_READ, scope, str(now).encode())
            self._noted[scope] = now

    # --- what nobody told ----------------------------------------------------------------------

    async def _look(self) -> None:
        for number in itertools.count(1):
            await asyncio.sleep(LOOK_SECONDS)
            if not self._followers:
                return
            for principal in list(self._followers):
                try:
                    await self.repair(principal, is_whole=number % WHOLE_LOOKS == 0)
                except LogError as error:
                    _log.warning("a list of conversations could not be looked at: %s", error)
                except Exception:
                    _log.exception("a look at a list of conversations failed; it goes on")

    async def repair(self, principal: str, *, is_whole: bool) -> None:
        """Tell what a process that died between a change and its news has left untold: of the
        conversations in which something is under way, and where it ``is_whole`` of the first page,
        and of what stands in the list no more."""
        scope = feed_of(principal)
        await self._note(scope)
        state = await self._writer.state(scope)
        if state is None:
            return
        names = [name for name, mark in state.marks.items() if mark.endswith(BUSY)]
        if is_whole:
            marks, is_all = await self._marks(principal)
            names = [name for name, mark in marks.items() if mark != state.marks.get(name)]
            there = set(marks) if is_all else await self.catalogue.names(principal)
            names += [name for name, mark in state.marks.items() if mark and name not in there]
        for name in names:
            conversation = await self.members.scope(principal, name)
            await self._tell(principal, name, _Fresh(self.catalogue, conversation))

    async def _sweep(self) -> None:
        """Erase the feeds that nobody has read for a day."""
        if time.monotonic() < self._next_sweep:
            return
        self._next_sweep = time.monotonic() + _SWEEP_SECONDS
        after: str | None = ""
        while after is not None:
            page = await self._store.documents(LISTS.documents, after=after, most=1000)
            for scope in page:
                data = await self._store.document(_READ, scope)
                if data is None or abs(time.time() - float(data)) > _KEPT_SECONDS:
                    await forget_feed(self._store, LISTS, scope)
                    await self._store.set_document(_READ, scope, None)
            after = list(page)[-1] if len(page) == 1000 else None


def feed_of(principal: str) -> str:
    """The name of the feed of a principal's list."""
    return scope_of(principal, "")


def _head(scope: str) -> Event:
    return {"at": int(time.time() * 1000)}
