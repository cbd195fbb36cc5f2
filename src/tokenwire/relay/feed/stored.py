"""What the store knows of a conversation, and its feed has not told.

Always true: each of these may be asked at any time, by any process, as often as it likes: what the
feed has told already makes no event; what is read is read after the feed, so that a publisher that
is late tells nothing that is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from hashlib import blake2b
from typing import Any

import msgspec

from tokenwire.errors import GoneError, NotFoundError, StoreDamagedError
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer
from tokenwire.events.principal import parts_of
from tokenwire.events.state import ToolState
from tokenwire.log.base import Store
from tokenwire.relay.conversation.queue import STATE, Queue
from tokenwire.relay.conversation.scope import principal_of
from tokenwire.relay.description import meta_of
from tokenwire.relay.feed.segment import Event
from tokenwire.relay.feed.state import Running, State, queue_events
from tokenwire.relay.members.members import Members
from tokenwire.relay.replay import read_run
from tokenwire.relay.thread_list.entries import title_of
from tokenwire.run.expiry import EXPIRED

__all__ = ["Difference", "Stored", "approval_event", "waits_news"]

#: Makes the events that bring a state up to date.
Difference = Callable[[State], Awaitable[list[Event]]]

#: Runs of a conversation that a new feed looks at.
_NEWEST_RUNS = 20


class Stored:
    """The conversations of a store. What is returned raises `LogError` when it is called."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._members = Members(store)

    async def beginning(self, scope: str) -> list[Event | Difference]:
        """What a new feed begins with: what is under way already, and nothing of what was."""
        runs = await self._store.thread(scope, most=_NEWEST_RUNS)
        newest, newest_runs = 0, list[str]()
        for run in runs:
            created = await self._created(run)
            if created < newest:
                break
            newest = created
            newest_runs.append(run)
        floor: Event = {
            "type": "floor",
            "floor": newest,
            "runs": newest_runs,
            "members": await self._roles(scope),
            "title": await self._mark(scope),
        }
        return [floor, *(self.run(run) for run in reversed(runs)), self.queue(scope)]

    def run(self, run: str) -> Difference:
        """What has become of a run: it was started, has ended, is there no more."""

        async def news(state: State) -> list[Event]:
            try:
                info = await self._store.describe(run)
            except (NotFoundError, GoneError):
                was_there = run in state.running or run in state.turns
                return [{"type": "run-erased", "run": run}] if was_there else []
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
                running = state.running.get(run)
                if running is not None and running.approvals:
                    events += await self._decisions(running)
                events.append({"type": "run-ended", "run": run, "outcome": info.closed})
            return events

        return news

    def queue(self, scope: str) -> Difference:
        """What has become of head and queue."""

        async def news(state: State) -> list[Event]:
            data = await self._store.document(STATE, scope)
            queue = msgspec.json.decode(data, type=Queue) if data is not None else Queue()
            events: list[Event] = []
            names = [run for run in [*queue.open, queue.head] if run is not None]
            waiting = {entry.run for entry in queue.waiting}
            if queue.starting is not None:
                waiting.add(queue.starting.run)
            for run in dict.fromkeys(names):
                events += await self.run(run)(state)
            for turn in state.queue:
                if turn.turn in waiting or turn.turn in names:
                    continue
                begun = await self.run(turn.turn)(state)
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

    def title(self, scope: str, *, has_changed: bool) -> Difference:
        """That there is another title. Without its words: a feed outlives a run whose question
        names the conversation. ``has_changed``: whether that is sure, should the feed know no
        title."""

        async def news(state: State) -> list[Event]:
            mark = await self._mark(scope)
            if state.title is None and not has_changed:
                return [{"type": "floor", "title": mark}]
            return [{"type": "title", "mark": mark}] if state.title != mark else []

        return news

    def members(self, scope: str, changes: Iterable[Event] = ()) -> Difference:
        """Who belongs to the conversation now, and may do what. ``changes``: what is known to have
        happened, and by whom."""
        events = {(event["type"], event["principal"]): event for event in changes}

        async def news(state: State) -> list[Event]:
            roles = await self._roles(scope)
            before = state.members
            if before is None:
                return [*events.values(), {"type": "floor", "members": roles}]
            differences: list[Event] = []
            for name in [*before, *(name for name in roles if name not in before)]:
                role = roles.get(name)
                if role == before.get(name):
                    continue
                what = "left" if role is None else "changed" if name in before else "joined"
                kind = f"member-{what}"
                event: Event = {"type": kind, "principal": name, "by": None}
                event |= events.get((kind, name), {})
                differences.append(event if role is None else {**event, "role": role})
            return differences

        return news

    # --- inside --------------------------------------------------------------------------------

    async def _created(self, run: str) -> int:
        """When a run was created, in Unix milliseconds; 0 for one that is there no more."""
        try:
            return int((await self._store.describe(run)).created * 1000)
        except (NotFoundError, GoneError):
            return 0

    async def _roles(self, scope: str) -> dict[str, str]:
        roster = await self._members.roster(scope)
        if roster is None:
            owner = parts_of(principal_of(scope))[0]
            return {owner: "own"} if owner else {}
        return {parts_of(name)[0]: member.role for name, member in roster.members.items()}

    async def _mark(self, scope: str) -> str:
        """What tells one title from another, and does not tell what it is."""
        title = await title_of(self._store, scope) or ""
        return blake2b(f"{scope}\0{title}".encode(), digest_size=4).hexdigest()

    async def _decisions(self, running: Running) -> list[Event]:
        """What was decided of what a run waited for, by its log."""
        try:
            fold = (await read_run(self._store, running.run)).fold
        except (NotFoundError, GoneError, StoreDamagedError):
            return []
        return _decided(running, _answers(running.run, fold))


def waits_news(run: str, fold: Fold) -> Difference:
    """What a run waits for now: ``run-waiting``, or ``run-resumed`` for nothing; before it what was
    decided of what it waited for."""
    event, answers = _waiting_event(run, fold), _answers(run, fold)

    async def news(state: State) -> list[Event]:
        running = state.running.get(run)
        return [*(_decided(running, answers) if running is not None else ()), event]

    return news


def approval_event(run: str, answer: ApprovalAnswer) -> Event:
    """A person's decision."""
    return _decision(
        run,
        answer.approval_id,
        answer.call_id,
        is_approved=answer.approved,
        reason=answer.reason,
        by=answer.by,
    )


def _waiting_event(run: str, fold: Fold) -> Event:
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


def _answers(run: str, fold: Fold) -> dict[str, Event]:
    """The decisions of a run, by the approval."""
    return {
        tool.approval_id: _of_tool(run, tool.approval_id, tool, fold)
        for tool in fold.tools.values()
        if tool.approval_id is not None and tool.approved is not None
    }


def _of_tool(run: str, approval: str, tool: ToolState, fold: Fold) -> Event:
    question = fold.approvals.get(approval)
    return _decision(
        run,
        approval,
        tool.call_id,
        is_approved=bool(tool.approved),
        reason=tool.approval_reason,
        by=question.by if question is not None else None,
    )


def _decided(running: Running, answers: dict[str, Event]) -> list[Event]:
    """The decisions about what the feed knows to wait."""
    names = (one.get("approval") for one in running.approvals)
    return [answers[name] for name in names if name in answers]


def _decision(
    run: str, approval: str, call: str, *, is_approved: bool, reason: str | None, by: str | None
) -> Event:
    denial = "expired" if reason == EXPIRED else "denied"
    return {
        "type": "approval",
        "run": run,
        "call": call,
        "decision": "approved" if is_approved else denial,
        "by": by,
        # The same id of a call may come in another run.
        "identity": f"approval:{run}:{approval}",
    }
