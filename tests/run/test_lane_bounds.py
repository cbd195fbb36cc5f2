"""Bounds of a lane, in both languages: when it makes up for what is outstanding, where a loan ends,
which texts pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from run.test_lane_native import CLOCK, HEAD, READ, TAIL, Desk, desk
from tokenwire.express import Loan, Tape, Usage
from tokenwire.run.call import lane as module
from tokenwire.run.call.lane import Lane, received_in_python, twin
from tokenwire.run.call.several import MOST
from tokenwire.run.call.template import is_plain, passes

WAYS = [received_in_python, *([twin.received] if twin.received is not None else [])]
SECONDS = module._MOST_SECONDS


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: CLOCK.now))


def made_up_at(received: Any, lane: Desk, gap: float, reads: int) -> list[int]:
    """The numbers of the records behind which a lane made up."""
    numbers: list[int] = []
    for number in range(reads):
        CLOCK.now = 1.0 + gap * (number + 1)
        lane.calls.clear()
        assert received(lane, READ) is True
        if "make_up" in lane.calls:
            assert "borrow" in lane.calls
            numbers.append(lane._seq)
    return numbers


@pytest.mark.parametrize("received", WAYS)
def test_it_is_made_up_at_some_records_once_it_is_due(received: Any) -> None:
    lane = desk()  # at record 4, and due at second 5
    lane._due = 1.0 + SECONDS
    assert made_up_at(received, lane, 0.1, 10) == []  # until 2.0
    lane = desk()
    lane._due = 1.0 + SECONDS
    assert made_up_at(received, lane, SECONDS / 2, 30) == [16, 32]


@pytest.mark.parametrize("received", WAYS)
@pytest.mark.parametrize("missing", [0, 1])
def test_it_is_made_up_when_much_is_outstanding(received: Any, missing: int) -> None:
    lane = desk()
    size = len(HEAD + b"word " + TAIL)
    lane._due = 1e9
    lane._free = lane._room - module._MOST_OUTSTANDING + 12 * size + missing
    assert made_up_at(received, lane, 0.1, 12) == ([] if missing else [16])


@pytest.mark.parametrize("received", WAYS)
def test_quarters_without_a_bound_are_not_counted(received: Any) -> None:
    lane = desk()
    lane._quarters = MOST
    assert received(lane, READ) is True
    assert lane._quarters == MOST
    lane._quarters = MOST - 1
    assert received(lane, READ) is True
    assert lane._quarters == MOST - 1 - len(b"word ")
    lane._quarters = len(b"word ") - 1
    assert received(lane, READ) is False


@given(
    seq=st.integers(0, 5000), last=st.integers(0, 1 << 63), room=st.integers(0, 1 << 63)
)  # fmt: skip
@example(seq=4, last=200_001, room=64 << 20)
@example(seq=1000, last=1 << 62, room=(8 << 10) * 1024)
@example(seq=1000, last=1 << 62, room=(8 << 10) * 1025)
def test_whatever_is_within_a_loan_has_room(seq: int, last: int, room: int) -> None:
    """So many records of any size fit into the loan; and as long as two do, one is lent."""
    tape = Tape(Usage(1 << 30))
    tape.records, tape.bytes, tape.takers = [b"x"] * seq, 7 * seq, ()
    lane = desk()
    lane._seq = seq
    lane._sink = SimpleNamespace(lend=lambda: Loan(tape, 1, b"c" * 16, last, room))  # type: ignore[assignment]
    Lane._borrow(lane)
    assert lane._tape is tape
    assert lane._last <= last
    assert (lane._last - seq) * module._MOST_RECORD <= room
    if last > seq and room >= module._MOST_RECORD:
        assert lane._last > seq


@pytest.mark.parametrize("received", WAYS)
def test_behind_a_loan_the_sink_gets_the_record(received: Any) -> None:
    lane = desk()
    lane._last = 5
    assert received(lane, READ) is True
    assert lane._tape is not None
    assert len(lane._tape.records) == lane._seq == 5
    lane.calls.clear()
    assert received(lane, READ) is True
    assert "repay" in lane.calls
    assert [call for call in lane.calls if isinstance(call, bytes)]
    assert lane._tape is None or len(lane._tape.records) == 5


def test_what_was_appended_by_hand_is_repaid_once() -> None:
    lane, repaid = desk(), list[Any]()
    lane._sink = SimpleNamespace(  # type: ignore[assignment]
        ready=True, repay=lambda *arguments: repaid.append(arguments)
    )
    CLOCK.now = 2.0
    assert received_in_python(lane, READ) is True
    assert lane._tape is not None
    size = len(lane._tape.records[-1])
    Lane._repay(lane)
    Lane._repay(lane)
    assert repaid == [(lane._check, 5, size)]


@given(st.binary(max_size=12), st.sampled_from([b"{", b"\0"]))
@example(b"word ", b"{")
@example(b"{", b"{")
@example(b'a"', b"\0")
@example(b"a\\n", b"\0")
@example(b"\x7f", b"\0")
@example(b"", b"\0")
def test_a_plain_text_passes_for_every_template(text: bytes, bar: bytes) -> None:
    if is_plain(text):
        assert passes(text, bar)


@pytest.mark.parametrize("code", range(128))
def test_which_characters_are_plain(code: int) -> None:
    assert (is_plain(bytes([code])) is not None) == (32 <= code < 127 and chr(code) not in '"\\{')
