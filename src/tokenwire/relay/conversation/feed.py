"""The feed of a conversation: whoever changes it tells what happened, and every device hears it.

Always true: an event is told after what it tells of took place, in the store, and once; a feed
begins with its first reader, and a conversation that nobody follows costs one look at the store for
each change; telling delays nobody; what the store does not take is told again; what a crash left
untold, the promoter of a process where somebody follows the conversation tells.

To publish, from any process, beside the change and after it::

    feeds.tell_run(scope, run)     # it was started, has ended or was erased: the store knows
    feeds.tell_queue(scope)        # head or queue has changed: the store knows
    feeds.tell(scope, {"type": "note"}, identity="x")

``scope`` is the conversation's name (`scope_of`); ``thread`` and ``at`` are added. ``identity``
names an event: a second publisher, or a repetition, adds nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import Protocol, cast

from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer
from tokenwire.log.base import Store
from tokenwire.relay.conversation.scope import thread_of
from tokenwire.relay.feed.segment import Event, FeedKind, Segment
from tokenwire.relay.feed.state import CONVERSATION, State
from tokenwire.relay.feed.stored import Stored, approval_event, waits_news
from tokenwire.relay.feed.telling import Telling
from tokenwire.relay.feed.writer import News, Writer

__all__ = ["Feeds"]


class ListNews(Protocol):
    """Who publishes to the lists in which a conversation stands."""

    def changed(self, scope: str, removed: dict[str, str] | None = None) -> None:
        """What a list shows of the conversation may be another; ``removed``: the principals who
        belong to it no more, with what they called it."""
        ...


class Feeds:
    """The feeds that one process publishes to, and the ``lists`` that follow from them. Methods
    raise `LogError`, those named ``tell`` nothing."""

    kind: FeedKind[State] = CONVERSATION

    def __init__(self, store: Store, lists: ListNews | None = None) -> None:
        self._stored, self._lists = Stored(store), lists
        self._writer = Writer(store, CONVERSATION, begin=self._stored.beginning, head=_head)
        self._telling = Telling(self._writer.publish, "a conversation")
        #: How many follow a conversation here.
        self._followers: Counter[str] = Counter()

    # --- telling -------------------------------------------------------------------------------

    def tell(self, scope: str, *news: News[State], identity: str | None = None) -> None:
        """Publish soon, in this order; see the head of this module."""
        for one in news:
            is_named = isinstance(one, dict) and identity is not None
            self._tell(scope, cast("Event", one) | {"identity": identity} if is_named else one)

    def tell_run(self, scope: str, run: str) -> None:
        """Tell what has become of a run: it was started, has ended, is there no more."""
        self._tell(scope, self._stored.run(run), ("run", run))

    def tell_waits(self, scope: str, run: str, fold: Fold) -> None:
        """Tell what a run waits for, which is another now."""
        self._tell(scope, waits_news(run, fold))

    def tell_approval(self, scope: str, run: str, answer: ApprovalAnswer) -> None:
        """Tell a person's decision."""
        self._tell(scope, approval_event(run, answer))

    def tell_queue(self, scope: str) -> None:
        """Tell what of head and queue is not told yet."""
        self._tell(scope, self._stored.queue(scope), "queue")

    def tell_title(self, scope: str) -> None:
        """Tell that the conversation may have another title."""
        self._tell(scope, self._stored.title(scope, has_changed=True), "title")

    def tell_members(self, scope: str, changes: Iterable[Event], removed: dict[str, str]) -> None:
        """Tell who joined, left, or may do something else; ``changes``: the events of it;
        ``removed``: the principals who left, with what they called the conversation."""
        self._telling.tell(scope, self._stored.members(scope, changes))
        self.tell_lists(scope, removed)

    def tell_lists(self, scope: str, removed: dict[str, str] | None = None) -> None:
        """Tell only those who follow a list that what it shows of the conversation is another."""
        if self._lists is not None:
            self._lists.changed(scope, removed)

    def repair(self, scope: str) -> None:
        """Tell what a process that died between a change and its news has left untold of title and
        members."""
        self._telling.tell(scope, self._stored.title(scope, has_changed=False), "title?")
        self._telling.tell(scope, self._stored.members(scope), "members?")

    def _tell(self, scope: str, news: News[State], key: Hashable = None) -> None:
        self._telling.tell(scope, news, key)
        self.tell_lists(scope)

    async def publish(self, scope: str, news: list[News[State]]) -> None:
        """Append what of ``news`` is not told yet, unless nobody ever followed the
        conversation."""
        await self._writer.publish(scope, news)

    async def flush(self) -> None:
        """Wait until all is told that was to be told, a few seconds at most."""
        await self._telling.flush()

    async def aclose(self) -> None:
        """Tell what is left, and stop."""
        await self._telling.aclose()

    # --- reading -------------------------------------------------------------------------------

    async def follow(self, scope: str) -> Segment[State]:
        """The feed's newest log, read to its end; a feed that is new tells of what is under way
        already."""
        return await self._writer.follow(scope)

    def join(self, scope: str) -> Callable[[], None]:
        """Somebody follows the conversation here, until the returned call."""
        self._followers[scope] += 1

        def leave() -> None:
            self._followers[scope] -= 1
            if self._followers[scope] <= 0:
                del self._followers[scope]

        return leave

    def followed(self) -> list[str]:
        """The conversations that somebody follows here."""
        return list(self._followers)

    async def state(self, scope: str) -> State | None:
        """What the feed has told, as this process has read it; None where there is no feed."""
        return await self._writer.state(scope)


def _head(scope: str) -> Event:
    return {"thread": thread_of(scope), "at": int(time.time() * 1000), "by": None}
