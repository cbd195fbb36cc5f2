"""Records that the lane appends by hand on SQLite, and that go to readers when they are in the
file: nobody can tell them from those that each layer passed on."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from run.test_lane import (
    ACTIONS,
    BEGIN,
    CALL,
    DONE,
    STOP,
    TEXT,
    cancel,
    chat,
    heartbeat,
    join,
    look,
)
from support.both_ways import END, RUN, Outcome, Scene, Step, chunked, run_over
from tokenwire.log.spool import Spools
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.sqlite.writer import Writer
from tokenwire.providers.openai.chat import DIALECT as CHAT

_numbers = itertools.count()


def refused(self: Spools, *arguments: Any) -> bool:
    """`Spools.append`, where every append is a job of its own."""
    return False


def same(folder: Path, steps: list[Step], **options: Any) -> Outcome:
    """The outcome with records appended by hand; fails where it differs from that without."""

    def store() -> SQLiteStore:
        return SQLiteStore(f"{folder}/{next(_numbers)}.db")

    with patch.object(Spools, "append", refused):
        plain = run_over(CHAT, steps, lane=True, store=store, **options)
    by_hand = run_over(CHAT, steps, lane=True, store=store, **options)
    assert plain.by_hand == 0
    assert by_hand.records == plain.records
    assert by_hand.readers == plain.readers
    assert by_hand.seen() == plain.seen()
    return by_hand


@pytest.mark.parametrize("wires", [("native",), ("native", "ui", "openai-chat")])
def test_readers_get_the_same_bytes(tmp_path: Path, wires: tuple[str, ...]) -> None:
    found = same(tmp_path, [*chunked(*TEXT), END], wires=wires)
    assert found.by_hand > 20
    assert found.closed == "complete"


def test_arguments_of_a_tool_and_long_answers_are_the_same(tmp_path: Path) -> None:
    assert same(tmp_path, [*chunked(*CALL), END]).by_hand > 3
    words = [chat(content=f"{n} ") for n in range(300)]  # longer than what is settled at once
    found = same(tmp_path, [*chunked(BEGIN, *words, STOP, DONE), END])
    assert found.by_hand > 280


#: A snapshot says when its run was created; how many heartbeats of no pause go out depends on when
#: the disk answers.
_ACTIONS = [action for action in ACTIONS if action not in (look, heartbeat)]


@pytest.mark.parametrize("action", _ACTIONS, ids=lambda a: a.__name__)
def test_what_happens_between_two_tokens_is_the_same(tmp_path: Path, action: Step) -> None:
    chunks = chunked(*TEXT)
    for place in (6, 9):
        steps = [*chunks[:place], action, *chunks[place:], END]
        ends = action.__name__ != "stop"  # type: ignore[union-attr]
        same(tmp_path, steps, wires=("native", "ui"), ends=ends)


def test_several_readers_of_one_wire(tmp_path: Path) -> None:
    chunks = chunked(*TEXT)
    found = same(tmp_path, [*chunks[:8], join, *chunks[8:20], cancel, *chunks[20:], END])
    assert found.by_hand > 10


async def another_owner(scene: Scene) -> None:
    """The lease ran out, and another process took the run."""
    await scene.store._write(
        lambda writer: writer._connection.execute("UPDATE stream SET lease_until = 0").rowcount
    )
    assert await scene.store.claim(RUN, owner="another") is not None


@pytest.mark.parametrize("place", [5, 8, 12])
def test_a_run_that_another_took_writes_no_more(tmp_path: Path, place: int) -> None:
    chunks = chunked(*TEXT)
    steps = [*chunks[:place], another_owner, *chunks[place:], END]
    found = same(tmp_path, steps, ends=False)
    assert found.closed is None
    assert len(found.records) < place + 4


def failing(numbers: list[int], *, late: bool) -> Any:
    """`Writer._append_all`, failing at the groups of these numbers; ``late``: after its work."""
    count, real = itertools.count(), Writer._append_all

    def append_all(self: Writer, items: Any) -> Any:
        is_failing = next(count) in numbers
        if is_failing and not late:
            raise sqlite3.OperationalError("the disk failed")
        result = real(self, items)
        if is_failing:
            raise sqlite3.OperationalError("the disk failed")
        return result

    return patch.object(Writer, "_append_all", append_all)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("numbers", [[0], [1], [5], [5, 6], [3, 9, 20]], ids=str)
def test_a_commit_that_fails_loses_and_doubles_nothing(
    tmp_path: Path, numbers: list[int], late: bool
) -> None:
    def store() -> SQLiteStore:
        return SQLiteStore(f"{tmp_path}/{next(_numbers)}.db")

    steps: list[Step] = [*chunked(*TEXT), END]
    whole = run_over(CHAT, steps, lane=True, store=store, wires=("native", "ui"))
    with failing(numbers, late=late):
        found = run_over(CHAT, steps, lane=True, store=store, wires=("native", "ui"))
    assert found.records == whole.records
    assert found.readers == whole.readers
    assert found.closed == "complete"
