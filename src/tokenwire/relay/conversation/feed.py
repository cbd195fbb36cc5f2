"""The feed of a conversation: each change is published as an event, which every device receives.

Always true: an event is published once, and after the change that it reports is in the store; a
feed begins with its first reader, and a change of a conversation without followers costs one look
at the store; publishing delays nobody; what the store refuses is published again; what a crash
prevented is published by the promoter of a process in which somebody follows the conversation.

To publish, from any process, beside the change and after it::

    feeds.announce_run(scope, run)     # it was started, has ended or was erased: the store knows
    feeds.announce_queue(scope)        # head or queue has changed: the store knows
    feeds.announce(scope, {"type": "note"}, identity="x")

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
from tokenwire.relay.feed.announcer import Announcer
from tokenwire.relay.feed.segment import Event, FeedKind, Segment
from tokenwire.relay.feed.state import CONVERSATION, State
from tokenwire.relay.feed.stored import Stored, approval_event, waits_news
from tokenwire.relay.feed.writer import News, Writer

__all__ = ["Feeds"]


class ListNews(Protocol):
    """Publishes to the lists in which a conversation stands."""

    def changed(self, scope: str, removed: dict[str, str] | None = None) -> None:
        """What lists show of the conversation may have changed. ``removed``: the principals who
        are no members any more, with their names of it."""
        ...


class Feeds:
    """The feeds that one process publishes to, and the ``lists`` that follow from them. Methods
    raise `LogError`, those named ``announce`` nothing: they publish later, in a task."""

    kind: FeedKind[State] = CONVERSATION

    def __init__(self, store: Store, lists: ListNews | None = None) -> None:
        self._stored, self._lists = Stored(store), lists
        self._writer = Writer(store, CONVERSATION, begin=self._stored.beginning, head=_head)
        self._announcer = Announcer(self._writer.publish, "a conversation")
        #: How many follow a conversation here.
        self._followers: Counter[str] = Counter()

    # --- publishing ----------------------------------------------------------------------------

    def announce(self, scope: str, *news: News[State], identity: str | None = None) -> None:
        """Publish ``news`` soon, in this order. ``identity``: the name of an event, which is
        published once, whoever announces it again."""
        for one in news:
            is_named = isinstance(one, dict) and identity is not None
            self._announce(scope, cast("Event", one) | {"identity": identity} if is_named else one)

    def announce_run(self, scope: str, run: str) -> None:
        """Publish the state of a run: it was started, has ended, or was erased."""
        self._announce(scope, self._stored.run(run), ("run", run))

    def announce_waits(self, scope: str, run: str, fold: Fold) -> None:
        """Publish what a run waits for, which has changed."""
        self._announce(scope, waits_news(run, fold))

    def announce_approval(self, scope: str, run: str, answer: ApprovalAnswer) -> None:
        """Publish a person's decision."""
        self._announce(scope, approval_event(run, answer))

    def announce_queue(self, scope: str) -> None:
        """Publish the changes of head and queue that are not published yet."""
        self._announce(scope, self._stored.queue(scope), "queue")

    def announce_title(self, scope: str) -> None:
        """Publish the title, if it has changed."""
        self._announce(scope, self._stored.title(scope, has_changed=True), "title")

    def announce_members(
        self, scope: str, changes: Iterable[Event], removed: dict[str, str]
    ) -> None:
        """Publish who joined, left, or has another role. ``changes``: the events of it;
        ``removed``: the principals who left, with their names of the conversation."""
        self._announcer.announce(scope, self._stored.members(scope, changes))
        self.announce_lists(scope, removed)

    def announce_lists(self, scope: str, removed: dict[str, str] | None = None) -> None:
        """Notify followers of lists in which the conversation stands, and nobody else."""
        if self._lists is not None:
            self._lists.changed(scope, removed)

    def repair(self, scope: str) -> None:
        """Publish changes of title and members whose process died before it announced them."""
        self._announcer.announce(scope, self._stored.title(scope, has_changed=False), "title?")
        self._announcer.announce(scope, self._stored.members(scope), "members?")

    def _announce(self, scope: str, news: News[State], key: Hashable = None) -> None:
        self._announcer.announce(scope, news, key)
        self.announce_lists(scope)

    async def publish(self, scope: str, news: list[News[State]]) -> None:
        """Append those of ``news`` that are not published yet, unless nobody ever followed the
        conversation. Raises `LogError`."""
        await self._writer.publish(scope, news)

    async def flush(self) -> None:
        """Wait until everything announced is published, a few seconds at most."""
        await self._announcer.flush()

    async def aclose(self) -> None:
        """Publish what remains, with one attempt, and stop."""
        await self._announcer.aclose()

    # --- reading -------------------------------------------------------------------------------

    async def follow(self, scope: str) -> Segment[State]:
        """The feed's newest log, read to its end. A new feed begins with what is under way. Raises
        `LogError`."""
        return await self._writer.follow(scope)

    def join(self, scope: str) -> Callable[[], None]:
        """Count a follower of the conversation in this process; the returned function ends that."""
        self._followers[scope] += 1

        def leave() -> None:
            self._followers[scope] -= 1
            if self._followers[scope] <= 0:
                del self._followers[scope]

        return leave

    def followed(self) -> list[str]:
        """The conversations with followers in this process."""
        return list(self._followers)

    async def state(self, scope: str) -> State | None:
        """The state after all published events that this process has read; None without a feed."""
        return await self._writer.state(scope)


def _head(scope: str) -> Event:
    return {"thread": thread_of(scope), "at": int(time.time() * 1000), "by": None}
