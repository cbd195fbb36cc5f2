"""The times between chunks: gathered, told once a second, never twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.run.gaps import ChunkGaps


def test_gaps_are_told_once_a_second_and_at_the_end():
    gaps = ChunkGaps()
    assert gaps.chunk(10.0) is None
    assert gaps.chunk(10.25) is None
    assert gaps.chunk(10.75) is None
    assert gaps.chunk(11.25) == [0.25, 0.5, 0.5]
    assert gaps.chunk(11.5) is None
    assert gaps.end() == [0.25]
    assert gaps.end() is None
    # The next model call's first chunk has no gap: what lies before it is not between chunks.
    assert gaps.chunk(100.0) is None
    assert gaps.end() is None


def test_what_is_gathered_is_bounded():
    gaps = ChunkGaps()
    told = [len(found) for _ in range(2000) if (found := gaps.chunk(1.0)) is not None]
    assert told == [512, 512, 512]


@given(st.lists(st.floats(0, 10), max_size=200))
def test_every_gap_is_told_exactly_once(pauses):
    gaps, now, told = ChunkGaps(), 0.0, []
    for pause in [0.0, *pauses]:
        now += pause
        told += gaps.chunk(now) or []
    told += gaps.end() or []
    assert len(told) == len(pauses)
    assert sum(told) == pytest.approx(now)
