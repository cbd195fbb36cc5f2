"""What a feed has told so far, and what of the news it has not: pure.

Always true: the state after an event depends on the events up to it alone; an event that tells
nothing new is refused, so that whoever publishes twice is heard once; a state is bounded, however
long the conversation is.
"""

from __future__ import annotations

import copy
from typing import Any, Self

import msgspec

from tokenwire.relay.conversation.queue import Queue
from tokenwire.relay.feed.segment import Event, FeedKind

__all__ = ["CONVERSATION", "Running", "State", "WaitingTurn", "queue_events"]

#: Names of events that were told, runs whose start was, runs under way, and newest turns.
_MOST_NAMES, _MOST_STARTED, _MOST_RUNNING, _MOST_TURNS = 128, 128, 256, 20


class Running(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A run under way. ``state``: ``running`` or ``waiting``; ``approvals``: what it waits for."""

    run: str
    state: str = "running"
    parent: str | None = None
    by: str | None = None
    at: int = 0
    approvals: list[dict[str, Any]] = []


class WaitingTurn(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A turn that waits, as the feed told of it."""

    turn: str
    edits: int = 0
    steers: str | None = None
    by: str | None = None


class State(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the events so far amount to. ``turns``: the newest runs, ended ones with their outcome;
    ``identities``: the newest of events that are told once. ``starts``: the newest runs whose
    start was told, with the milliseconds of it. One that has ended and began before ``floor`` is
    history, and never told; so are the ``floor_runs`` that began in that very millisecond, and all
    that did where these are None, in a feed from before they were kept. ``members``: the members'
    roles, and ``title``: the mark of the title, as they were told last; None in such a feed."""

    head: str | None = None
    queue: list[WaitingTurn] = []
    running: dict[str, Running] = {}
    turns: dict[str, str] = {}
    identities: dict[str, bool] = {}
    starts: dict[str, int] = {}
    floor: int = 0
    floor_runs: list[str] | None = None
    members: dict[str, str] | None = None
    title: str | None = None

    def copied(self) -> Self:
        """A state that `take` changes, and this one stays."""
        other = copy.copy(self)
        other.queue, other.running = list(self.queue), dict(self.running)
        other.turns, other.identities = dict(self.turns), dict(self.identities)
        other.starts = dict(self.starts)
        other.members = dict(self.members) if self.members is not None else None
        return other

    def is_history(self, run: str, at: int) -> bool:
        """Whether nothing is to be told any more of a run that has ended, and was started at
        ``at``."""
        if run in self.running:
            return False
        if run in self.starts or at < self.floor:
            return True
        return at == self.floor and (self.floor_runs is None or run in self.floor_runs)

    def raise_floor(self, floor: int, runs: list[str]) -> None:
        """What began before ``floor`` is history, and so are the ``runs`` that began at it."""
        if floor > self.floor:
            self.floor, self.floor_runs = floor, runs
        elif floor == self.floor and self.floor_runs is not None:
            self.floor_runs = [*self.floor_runs, *runs]

    def take(self, event: Event) -> bool:
        """Bring the state after ``event``; False, and nothing has changed, where it is told
        already."""
        name = event.get("identity")
        if name is not None and name in self.identities:
            return False
        act = _ACTS.get(event["type"])
        if act is not None and not act(self, event):
            return False
        if name is not None:
            self.identities[name] = True
            _bound(self.identities, _MOST_NAMES)
        return True


def _bound(values: dict[str, Any], most: int) -> None:
    while len(values) > most:
        del values[next(iter(values))]


def _run_started(state: State, event: Event) -> bool:
    run = event["run"]
    if run in state.running or run in state.starts:
        return False
    state.starts[run] = event["at"]
    while len(state.starts) > _MOST_STARTED:
        oldest = next(iter(state.starts))
        state.raise_floor(state.starts.pop(oldest), [oldest])
    state.running[run] = Running(
        run=run, parent=event.get("parent"), by=event.get("by"), at=event["at"]
    )
    _bound(state.running, _MOST_RUNNING)
    state.turns[run] = "running"
    _bound(state.turns, _MOST_TURNS)
    state.head = run
    state.queue = [turn for turn in state.queue if turn.turn != run]
    return True


def _floor(state: State, event: Event) -> bool:
    """With what the feed begins, told to nobody."""
    if event.get("floor"):
        state.raise_floor(event["floor"], event.get("runs", []))
    state.members = event.get("members", state.members)
    state.title = event.get("title", state.title)
    return True


def _title(state: State, event: Event) -> bool:
    mark = event.get("mark")
    if mark is None:  # of an older process
        return True
    if state.title == mark:
        return False
    state.title = mark
    return True


def _member_put(state: State, event: Event) -> bool:
    if state.members is None:
        return True
    if state.members.get(event["principal"]) == event["role"]:
        return False
    state.members[event["principal"]] = event["role"]
    return True


def _member_left(state: State, event: Event) -> bool:
    if state.members is None:
        return True
    return state.members.pop(event["principal"], None) is not None


def _run_waiting(state: State, event: Event) -> bool:
    running = state.running.get(event["run"])
    if running is None or running.approvals == event["approvals"]:
        return False
    state.running[running.run] = msgspec.structs.replace(
        running, state="waiting", approvals=event["approvals"]
    )
    return True


def _run_resumed(state: State, event: Event) -> bool:
    running = state.running.get(event["run"])
    if running is None or running.state != "waiting":
        return False
    state.running[running.run] = msgspec.structs.replace(running, state="running", approvals=[])
    return True


def _run_ended(state: State, event: Event) -> bool:
    if state.running.pop(event["run"], None) is None:
        return False
    if event["run"] in state.turns:
        state.turns[event["run"]] = event["outcome"]
    return True


def _run_erased(state: State, event: Event) -> bool:
    state.running.pop(event["run"], None)
    state.turns.pop(event["run"], None)
    return True


def _turn_put(state: State, event: Event) -> bool:
    turn = WaitingTurn(
        turn=event["turn"],
        edits=event.get("edits", 0),
        steers=event.get("run"),
        by=event.get("by"),
    )
    state.queue = [one for one in state.queue if one.turn != turn.turn]
    state.queue.insert(event["position"] - 1, turn)
    return True


def _turn_changed(state: State, event: Event) -> bool:
    for turn in state.queue:
        if turn.turn == event["turn"]:
            changed = msgspec.structs.replace(turn, edits=event.get("edits", turn.edits))
            state.queue = [one for one in state.queue if one.turn != turn.turn]
            state.queue.insert(event["position"] - 1, changed)
            return True
    return False


def _turn_gone(state: State, event: Event) -> bool:
    rest = [turn for turn in state.queue if turn.turn != event["turn"]]
    if len(rest) == len(state.queue):
        return False
    state.queue = rest
    return True


def _head(state: State, event: Event) -> bool:
    if state.head == event["run"]:
        return False
    state.head = event["run"]
    return True


_ACTS = {
    "floor": _floor,
    "title": _title,
    "member-joined": _member_put,
    "member-changed": _member_put,
    "member-left": _member_left,
    "run-started": _run_started,
    "run-waiting": _run_waiting,
    "run-resumed": _run_resumed,
    "run-ended": _run_ended,
    "run-erased": _run_erased,
    "turn-queued": _turn_put,
    "turn-steering": _turn_put,
    "turn-changed": _turn_changed,
    "turn-withdrawn": _turn_gone,
    "turn-steered": _turn_gone,
    "head": _head,
}


#: The feeds of conversations.
CONVERSATION = FeedKind("thread-feed", State)


def queue_events(state: State, queue: Queue) -> list[Event]:
    """What of ``queue``, as it is stored now, the feed has not told. Turns that are in the queue no
    more are not among them: what became of those, their runs say."""
    events: list[Event] = []
    waiting = {entry.run for entry in queue.waiting}
    places = [turn for turn in state.queue if turn.turn in waiting]
    for index, entry in enumerate(queue.waiting):
        event: Event = {"turn": entry.run, "position": index + 1, "by": entry.by}
        turn = next((one for one in places if one.turn == entry.run), None)
        if turn is None and entry.steers is not None:
            events.append({"type": "turn-steering", **event, "run": entry.steers})
        elif turn is None:
            events.append({"type": "turn-queued", **event, "edits": entry.edits})
        elif turn.edits != entry.edits or places[index] is not turn:
            events.append({"type": "turn-changed", **event, "edits": entry.edits})
            places.remove(turn)
        else:
            continue
        if turn is None:
            turn = WaitingTurn(turn=entry.run, edits=entry.edits, steers=entry.steers)
        places.insert(index, turn)
    return events
