"""The clocks, without waiting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import InputError
from tokenwire.run.call.deadlines import Deadlines, Watch

LIMITS = Deadlines(connect=5, first_event=60, idle=30, total=600)


@pytest.mark.parametrize(
    ("last_event", "now", "which"),
    [
        ([], 59.9, None),
        ([], 60, "first_event"),
        ([10], 39.9, None),
        ([10], 40, "idle"),
        ([10, 35], 64.9, None),
        ([float(n) for n in range(10, 600, 20)], 600, "total"),
        ([1.0], 1000, "total"),
    ],
)
def test_which_clock_runs_out(last_event, now, which):
    watch = Watch(LIMITS, 0.0)
    for moment in last_event:
        watch.last_event = moment
    error = watch.overdue(now)
    assert (error.which if error else None) == which
    if error:
        assert error.seconds == getattr(LIMITS, which)


@given(st.lists(st.floats(0.1, 29), max_size=30), st.floats(0, 1000))
def test_overdue_exactly_when_due(gaps, start):
    watch, now = Watch(LIMITS, start), start
    for gap in gaps:
        now += gap
        if watch.overdue(now):
            assert now >= watch.due()
            return
        watch.last_event = now
    assert watch.overdue(watch.due() - 0.001) is None
    assert watch.overdue(watch.due()) is not None


@pytest.mark.parametrize("name", ["connect", "first_event", "idle", "total"])
def test_a_deadline_of_nothing_is_refused_by_name(name):
    with pytest.raises(InputError, match=name):
        Deadlines(**{name: 0})
