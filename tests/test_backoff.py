"""Pauses between attempts: they double, stay under their cap, and are spread as asked."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.backoff import FULL_JITTER, backoff


def test_it_doubles_up_to_the_cap() -> None:
    pauses = [backoff(n, first=0.5, longest=8.0) for n in range(1, 8)]
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("spread", "chance", "pause"),
    [
        ((0.75, 1.0), 0.0, 3.0),
        ((0.75, 1.0), 1.0, 4.0),
        (FULL_JITTER, 0.0, 0.0),
        (FULL_JITTER, 0.5, 2.0),
        ((0.8, 1.2), 0.5, 4.0),
    ],
)
def test_it_is_spread(spread: tuple[float, float], chance: float, pause: float) -> None:
    found = backoff(3, first=1.0, longest=60.0, spread=spread, chance=chance)
    assert found == pytest.approx(pause)


@given(st.integers(-5, 10**9), st.floats(0, 1))
def test_any_number_of_failures_gives_a_pause_under_the_cap(failures: int, chance: float) -> None:
    pause = backoff(failures, first=0.1, longest=15.0, spread=FULL_JITTER, chance=chance)
    assert math.isfinite(pause)
    assert 0.0 <= pause <= 15.0
