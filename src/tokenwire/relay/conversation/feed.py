"""The feed of a conversation: whoever changes it tells what happened, and every device hears it.

Always true: an event is told after what it tells of took place, in the store, and once; a feed
begins with its first reader, and a conversation that nobody follows costs one look at the store for
each change; telling delays nobody and fails in silence: what a crash left untold, the promoter of
a process where somebody follows the conversation tells.

To publish, from any process, beside the change and after it::

    feeds.tell(scope, {"type": "member-left", "principal": "bob", "by": "ada"}, identity="x")
    feeds.tell_run(scope, run)     # it was started, has ended or was erased: the store knows
    feeds.tell_queue(scope)        # head or queue has changed: the store knows

``scope`` is the conversation's name (`scope_of`); ``thread`` and ``at`` are added. ``identity``
names the event (``member-left:bob:3``): a second publisher, or a repetition, adds nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from tokenwire.errors import (
    CursorError,
    GoneError,
    LogError,
    NotFoundError,
    StoreDamagedError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer
from tokenwire.events.principal import parts_of
from tokenwire.log.base import Store
from tokenwire.relay.conversation.queue import Queue
from tokenwire.relay.conversation.scope import thread_of
from tokenwire.relay.description import meta_of
from tokenwire.relay.feed.segment import Segment, open_segment
from tokenwire.relay.feed.state import Event, State, queue_events
from tokenwire.run.expiry import EXPIRED

__all__ = ["STATE", "Feeds", "News", "approval_event", "waiting_event"]

_log = logging.getLogger("tokenwire.relay")

#: The documents with head and queue of a conversation.
STATE = "conversation"
#: Feeds whose state is remembered; others are read again.
_MOST_CACHED = 1000
#: Events of one append.
_MOST_AT_ONCE = 64
#: Conversations that are told of at the same time, and seconds that the end waits for them.
_AT_ONCE, _LAST_SECONDS = 16, 5.0
#: Runs of a conversation that a new feed looks at.
_NEWEST_RUNS = 20

#: What is to be told: an event, or what makes events of the state so far.
News = Event | Callable[[State], Awaitable[list[Event]]]


class Feeds:
    """The feeds that one process publishes to. Methods raise `LogError`, those named ``tell``
    nothing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._segments: OrderedDict[str, Segment] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._news: dict[str, list[News]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._is_closed = False
        #: How many follow a conversation here.
        self._followers: Counter[str] = Counter()

    # --- telling -------------------------------------------------------------------------------

    def tell(self, scope: str, *news: News, identity: str | None = None) -> None:
        """Publish soon, in this order; see the head of this module."""
        if identity is not None:
            news = tuple(
                {**one, "identity": identity} if isinstance(one, dict) else one for one in news
            )
        self._news.setdefault(scope, []).extend(news)
        if scope not in self._tasks and not self._is_closed:
            name = "feed of a conversation"
            self._tasks[scope] = asyncio.get_running_loop().create_task(
                self._work(scope), name=name
            )

    def tell_run(self, scope: str, run: str) -> None:
        """Tell what has become of a run: it was started, has ended, is there no more."""
        self.tell(scope, self.run_news(run))

    def tell_queue(self, scope: str) -> None:
        """Tell what of head and queue is not told yet."""
        self.tell(scope, self.queue_news(scope))

    async def flush(self) -> None:
        """Wait until all is told that was to be told, a few seconds at most."""
        while tasks := list(self._tasks.values()):
            _, pending = await asyncio.wait(tasks, timeout=_LAST_SECONDS)
            if pending:
                return

    async def aclose(self) -> None:
        """Tell what is left, and stop."""
        await self.flush()
        self._is_closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, scope: str) -> None:
        try:
            while news := self._news.pop(scope, None):
                async with self._gate:
                    await self.publish(scope, news)
        except LogError as error:
            _log.warning("a change of a conversation could not be told: %s", error)
        except Exception:
            _log.exception("telling of a conversation failed; it goes on")
        finally:
            del self._tasks[scope]
            if scope in self._news:
                self.tell(scope)

    async def publish(self, scope: str, news: list[News]) -> None:
        """Append what of ``news`` is not told yet, unless nobody ever followed the
        conversation."""
        async with self._lock(scope):
            for start in range(0, len(news), _MOST_AT_ONCE):
                await self._publish(scope, news[start : start + _MOST_AT_ONCE])

    async def _publish(self, scope: str, news: list[News]) -> None:
        while (segment := await self._segment(scope)) is not None:
            state = segment.state.copied()
            events = await self._fresh(scope, news, state)
            if not events or await self._append(scope, segment, events, state):
                return

    async def _fresh(self, scope: str, news: list[News], state: State) -> list[Event]:
        """The events of ``news`` that are to be told, after which the state is ``state``."""
        events: list[Event] = []
        head = {"thread": thread_of(scope), "at": int(time.time() * 1000), "by": None}
        for one in news:
            for event in [one] if isinstance(one, dict) else await one(state):
                whole = {"type": event["type"], **head, **event}
                if state.take(whole):
                    events.append(whole)
        return events

    async def _append(
        self, scope: str, segment: Segment, events: list[Event], state: State
    ) -> bool:
        try:
            if await segment.append(events, state):
                return True
        except (NotFoundError, GoneError):
            self._segments.pop(scope, None)  # it was erased, or goes on elsewhere
            return False
        await self._advance(scope, segment)  # others have told something meanwhile
        return False

    # --- reading -------------------------------------------------------------------------------

    async def follow(self, scope: str) -> Segment:
        """The feed's newest log, read to its end; a feed that is new tells of what is under way
        already."""
        async with self._lock(scope):
            while True:
                segment = await self._segment(scope)
                if segment is None:
                    await self._begin(scope)
                    continue
                await self._advance(scope, segment)
                if self._segments.get(scope) is segment and not segment.is_full:
                    return segment

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
        async with self._lock(scope):
            segment = await self._segment(scope)
            return segment.state.copied() if segment is not None else None

    async def _begin(self, scope: str) -> None:
        await open_segment(self._store, scope, make=True)
        runs = await self._store.thread(scope, most=_NEWEST_RUNS)
        newest = await self._created(runs[0]) if runs else 0
        floor: Event = {"type": "floor", "floor": newest}
        news: list[News] = [self.run_news(run) for run in reversed(runs)]
        await self._publish(scope, [floor, *news, self.queue_news(scope)])

    async def _created(self, run: str) -> int:
        """When a run was created, in Unix milliseconds; 0 for one that is there no more."""
        try:
            return int((await self._store.describe(run)).created * 1000)
        except (NotFoundError, GoneError):
            return 0

    async def _advance(self, scope: str, segment: Segment) -> None:
        """Read what others have told. What does not go on as it was read, is read anew."""
        try:
            await segment.advance()
        except (NotFoundError, GoneError, CursorError, StoreDamagedError):
            self._segments.pop(scope, None)

    async def _segment(self, scope: str) -> Segment | None:
        """The feed's newest log; None where it has none."""
        segment = self._segments.get(scope)
        if segment is None or segment.is_full:
            segment = await open_segment(self._store, scope, make=False)
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

    # --- what the store knows ------------------------------------------------------------------

    def run_news(self, run: str) -> Callable[[State], Awaitable[list[Event]]]:
        """What the feed has not told of a run."""

        async def news(state: State) -> list[Event]:
            try:
                info = await self._store.describe(run)
            except (NotFoundError, GoneError):
                known = run in state.running or run in state.turns
                return [{"type": "run-erased", "run": run}] if known else []
            if not info.meta:
                return []
            at = int(info.created * 1000)
            if info.closed is not None and state.is_history(run, at):
                return []
            meta = meta_of(info)
            history = meta.history
            events: list[Event] = [
                {
                    "type": "run-started",
                    "run": run,
                    "turn": run,
                    "parent": history.parent if history is not None else None,
                    "state": "running",
                    "by": parts_of(meta.principal)[0] or None,
                    "at": at,
                }
            ]
            if info.closed is not None:
                events.append({"type": "run-ended", "run": run, "outcome": info.closed})
            return events

        return news

    def queue_news(self, scope: str) -> Callable[[State], Awaitable[list[Event]]]:
        """What the feed has not told of head and queue. They are read after the feed, so that a
        publisher that is late tells nothing that is over."""

        async def news(state: State) -> list[Event]:
            data = await self._store.document(STATE, scope)
            queue = msgspec.json.decode(data, type=Queue) if data is not None else Queue()
            events: list[Event] = []
            names = [run for run in [*queue.open, queue.head] if run is not None]
            waiting = {entry.run for entry in queue.waiting}
            if queue.starting is not None:
                waiting.add(queue.starting.run)
            for run in dict.fromkeys(names):
                events += await self.run_news(run)(state)
            for turn in state.queue:
                if turn.turn in waiting or turn.turn in names:
                    continue
                begun = await self.run_news(turn.turn)(state)
                if begun:
                    events += begun
                elif turn.steers is not None:
                    event: Event = {"type": "turn-steered", "turn": turn.turn, "run": turn.steers}
                    events.append(event)
                else:
                    events.append({"type": "turn-withdrawn", "turn": turn.turn})
            events += queue_events(state, queue)
            if queue.head is not None:
                events.append({"type": "head", "run": queue.head})
            return events

        return news


def waiting_event(run: str, fold: Fold) -> Event:
    """What a run waits for now: ``run-waiting``, or ``run-resumed`` for nothing."""
    approvals: list[dict[str, Any]] = []
    for tool in fold.tools.values():
        if tool.approval_id is not None and tool.approval_id in fold.waiting:
            approvals.append(
                {"call": tool.call_id, "tool": tool.name, "approval": tool.approval_id}
            )
        elif tool.call_id in fold.waiting:
            approvals.append({"call": tool.call_id, "tool": tool.name})
    if not fold.waiting:
        return {"type": "run-resumed", "run": run}
    return {"type": "run-waiting", "run": run, "approvals": approvals}


def _decision(answer: ApprovalAnswer) -> str:
    if answer.approved:
        return "approved"
    return "expired" if answer.reason == EXPIRED else "denied"


def approval_event(run: str, answer: ApprovalAnswer) -> Event:
    """A person's decision."""
    return {
        "type": "approval",
        "run": run,
        "call": answer.call_id,
        "decision": _decision(answer),
        "by": answer.by,
    }
