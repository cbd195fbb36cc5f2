"""The invariants T1-T6 of a conversation, checked on its final runs and queue, and on what its
devices were answered. Pure: values in, complaints out.

What a run was given is worked out here by hand, from the logs, not by the code under test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from faults.checker import Dump
from faults.journal import CHECK
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.events.fold import fold
from tokenwire.relay.description import RunMeta


@dataclass
class Said:
    """One turn as its device knows it. ``texts``: what it may ask by now: the words that it was
    sent with, and those of edits; with an edit that was acknowledged, that and later ones."""

    key: str
    thread: str
    rule: str
    model: str
    texts: list[str]
    #: Moments of the harness: sent first, answered.
    sent: int = 0
    answered: int = 0
    runs: set[str] = field(default_factory=set)
    refusal: str | None = None
    #: Some worker never answered, and may have done it, or do it later.
    is_unsure: bool = False
    #: Whether it was withdrawn: acknowledged, or perhaps.
    withdrawn: Literal["no", "maybe", "yes"] = "no"
    #: Another device, or this one, moved it to the front.
    moved: bool = False


@dataclass
class Turn:
    """One run of the conversation at the end: its description and its log."""

    run: str
    meta: RunMeta
    dump: Dump

    @property
    def events(self) -> list[m.Event]:
        return [decode(record[CHECK:]) for record in self.dump.records]  # type: ignore[misc]

    @property
    def text(self) -> str:
        return " ".join(message.text for message in self.meta.request.messages)


def check_thread(said: list[Said], turns: list[Turn], queue: list[str]) -> list[str]:
    """What is broken. ``turns``: all runs of the conversation, from first to last along its branch;
    those that are not on it come last. ``queue``: turns that wait still."""
    return [
        *_each_once(said, turns, queue),
        *_one_branch(turns),
        *_order(said, turns),
        *_one_at_a_time(said, turns),
        *_given(turns),
    ]


def _places(turns: list[Turn]) -> dict[str, list[str]]:
    """Words of people -> where they stand: runs that they began, or were given to."""
    places: dict[str, list[str]] = {}
    for turn in turns:
        places.setdefault(turn.text, []).append(turn.run)
        for event in turn.events:
            if isinstance(event, m.Control) and event.command == "steer":
                places.setdefault(event.text or "", []).append(f"steer of {turn.run}")
    return places


def _each_once(said: list[Said], turns: list[Turn], queue: list[str]) -> Iterable[str]:
    """T1: a turn that was accepted is there; T2: once; and nothing that nobody said."""
    places = _places(turns)
    for one in said:
        where = [place for text in one.texts for place in places.pop(text, [])]
        if len(one.runs) > 1:
            yield f"T2: {one.key} was answered with {len(one.runs)} runs"
        if len(where) > 1:
            yield f"T2: {one.key} ({one.rule}) stands {len(where)} times: {where}"
        if one.refusal is not None and where and not one.is_unsure:
            yield f"T2: {one.key} ({one.rule}) was refused ({one.refusal}), and is there: {where}"
        if one.withdrawn == "yes" and where:
            yield f"T2: {one.key} was withdrawn, and is there: {where}"
        is_due = one.runs and one.refusal is None and one.withdrawn == "no"
        if is_due and not where:
            yield f"T1: {one.key} ({one.rule}, {one.runs}) is lost"
        is_own = len(where) == 1 and not where[0].startswith("steer")
        if is_due and is_own and where[0] not in one.runs:
            yield f"T1: {one.key} was promised {one.runs}, and has {where[0]}"
    for text, where in places.items():
        yield f"T2: nobody said {text!r}, or something else instead: {where}"
    if queue:
        yield f"T1: {len(queue)} turns wait still, and nothing is under way: {queue}"


def _one_branch(turns: list[Turn]) -> Iterable[str]:
    """T3: nobody branched, so every run continues the one before it."""
    parents = Counter(turn.meta.history.parent if turn.meta.history else "?" for turn in turns)
    for parent, count in parents.items():
        if count > 1:
            yield f"T3: {count} runs continue {parent}"
    for before, turn in zip([None, *turns], turns, strict=False):
        parent = turn.meta.history.parent if turn.meta.history else "?"
        if parent != (before.run if before is not None else None):
            yield f"T3: {turn.run} continues {parent}, not the run before it"


def _order(said: list[Said], turns: list[Turn]) -> Iterable[str]:
    """T4: of turns that wait, who was accepted before another one was sent comes before it."""
    place = {turn.run: number for number, turn in enumerate(turns)}
    waiting = [
        (one, place[run])
        for one in said
        for run in one.runs
        if run in place and one.rule == "queue" and not one.moved
    ]
    for one, first in waiting:
        for other, second in waiting:
            if one.answered < other.sent and first > second:
                yield f"T4: {other.key} was sent after {one.key} was accepted, and came before it"


def _one_at_a_time(said: list[Said], turns: list[Turn]) -> Iterable[str]:
    """T5: but for `parallel` nothing begins while something is under way."""
    beside = {run for one in said if one.rule == "parallel" for run in one.runs}
    for turn in turns:
        history = turn.meta.history
        if history is not None and history.unanswered and turn.run not in beside:
            yield f"T5: {turn.run} began while {history.unanswered} were under way"


def _given(turns: list[Turn]) -> Iterable[str]:
    """T6: a run was given all that came before it, and its log says so."""
    for number, turn in enumerate(turns):
        history, before = turn.meta.history, [one.run for one in turns[:number]]
        if history is None or history.turns != before:
            yield f"T6: {turn.run} was given {history and history.turns}, not {before}"
            continue
        start = turn.events[0] if turn.events else None
        if not isinstance(start, m.RunStart):
            yield f"T6: {turn.run} has no beginning"
        elif start.history is None or start.history.turns != len(before):
            yield f"T6: the log of {turn.run} says that it was given {start.history}"


def steers_of(turns: list[Turn]) -> int:
    """How many turns were given to a run under way."""
    return sum(len(fold(list(turn.events)).steers) for turn in turns)
