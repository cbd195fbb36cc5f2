"""The checker of conversations can fail: histories that break each invariant are found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import msgspec

from faults.checker import Dump
from faults.journal import CHECK
from faults.thread_checker import Said, Turn, check_thread
from faults.threads import Told
from tokenwire.events.message import user
from tokenwire.events.model import Control, Event, HistoryDescription, RunStart
from tokenwire.events.request import Request
from tokenwire.relay.conversation.history import History
from tokenwire.relay.description import RunMeta


def turn(number: int, *, steer: str | None = None, **changes: Any) -> Turn:
    """The turn ``r1``, ``r2``, ..., which continues all before it."""
    before = [f"r{earlier}" for earlier in range(1, number)]
    history = History(parent=before[-1] if before else None, turns=before)
    for name, value in changes.items():
        setattr(history, name, value)
    start = HistoryDescription(turns=len(before), policy="all")
    events: list[Event] = [RunStart(run=f"r{number}", history=start)]
    if steer is not None:
        events.append(Control(command="steer", id="s", text=steer))
    records = [b"0" * CHECK + msgspec.json.encode(event) for event in events]
    meta = RunMeta(model="m", request=Request(messages=[user(f"text {number}")]), history=history)
    return Turn(f"r{number}", meta, Dump(f"r{number}", records, 1, "complete"))


def said(number: int, **changes: Any) -> Said:
    one = Said(f"key {number}", "t", "queue", "m", [f"text {number}"], runs={f"r{number}"})
    one.sent, one.answered = number * 10, number * 10 + 1
    return replace(one, **changes)


SAID = [said(1), said(2), said(3)]
TURNS = [turn(1), turn(2), turn(3)]


def found(given: list[Said], turns: list[Turn], queue: tuple[str, ...] = ()) -> str:
    return " ".join(sorted({text[:2] for text in check_thread(given, turns, list(queue))}))


def test_what_is_whole_passes() -> None:
    assert check_thread(SAID, TURNS, []) == []
    steered = [*SAID[:2], said(3, rule="steer")]
    assert check_thread(steered, [turn(1), turn(2, steer="text 3")], []) == []
    edited = [said(1), said(2), said(3, texts=["before", "text 3"])]
    assert check_thread(edited, TURNS, []) == []
    assert check_thread([*SAID, said(4, withdrawn="maybe")], TURNS, []) == []
    assert check_thread([*SAID, said(4, runs=set(), refusal="thread_busy")], TURNS, []) == []


def test_a_turn_that_is_lost() -> None:
    assert found(SAID, TURNS[:2]) == "T1"
    assert found(SAID, TURNS, ("r4",)) == "T1"
    assert found([*SAID[:2], said(3, runs={"r9"})], TURNS) == "T1"


def test_a_turn_that_stands_twice() -> None:
    assert found(SAID, [turn(1), turn(2), turn(3, steer="text 2")]) == "T2"
    assert found([*SAID[:2], said(3, runs={"r3", "r9"})], TURNS) == "T2"
    assert found(SAID[:2], TURNS) == "T2"  # nobody said it
    assert found([*SAID[:2], said(3, withdrawn="yes")], TURNS) == "T2"
    assert found([*SAID[:2], said(3, runs=set(), refusal="thread_busy")], TURNS) == "T2"


def test_a_branch_that_nobody_made() -> None:
    assert "T3" in found(SAID, [turn(1), turn(2), turn(3, parent="r1")])
    assert "T3" in found(SAID, [turn(1), turn(2), turn(3, parent=None)])


def test_a_turn_that_overtakes() -> None:
    assert found([said(1, sent=50, answered=51), *SAID[1:]], TURNS) == "T4"
    assert found([said(1, sent=50, answered=51, moved=True), *SAID[1:]], TURNS) == ""


def test_two_at_a_time() -> None:
    turns = [turn(1), turn(2, unanswered=["r1"]), turn(3)]
    assert found(SAID, turns) == "T5"
    assert found([SAID[0], said(2, rule="parallel"), SAID[2]], turns) == ""


def test_a_model_that_was_given_something_else() -> None:
    assert found(SAID, [turn(1), turn(2), turn(3, turns=["r2"])]) == "T6"
    silent = turn(3)
    silent.dump.records[0] = b"0" * CHECK + msgspec.json.encode(RunStart(run="r3"))
    assert found(SAID, [turn(1), turn(2), silent]) == "T6"


class _Feed:
    """A follower that hands out events."""

    def __init__(self, *events: tuple[str, str]) -> None:
        self._batches = [[("1", msgspec.json.encode({"type": t, "run": r})) for t, r in events]]

    async def pull(self) -> list[tuple[str, bytes]]:
        return self._batches.pop() if self._batches else []


def test_a_feed_that_tells_too_little_or_too_much() -> None:
    whole = [(kind, f"r{n}") for n in (1, 2, 3) for kind in ("run-started", "run-ended")]

    def broken(*events: tuple[str, str]) -> str:
        told = Told(_Feed(*events))  # type: ignore[arg-type]
        asyncio.run(told.pull())
        return " ".join(told.broken(TURNS))

    assert broken(*whole, ("head", "r3")) == ""
    assert broken(*whole[:-1]) == "T7: run-ended of r3 was not told"
    assert broken(*whole, whole[2]) == "T7: run-started of r2 was told 2 times"
