"""The arithmetic of coming back: no clock, no network."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.client.reconnect import Patience, Reconnect, retry_after

PLAIN = Patience(give_up=None)


def test_the_wait_doubles_up_to_the_cap():
    link = Reconnect(PLAIN, 0.0)
    waits = [link.cut(float(n), 1.0) for n in range(8)]
    assert waits == [0.5, 1, 2, 4, 8, 15, 15, 15]


def test_full_jitter_covers_the_whole_range():
    assert Reconnect(PLAIN, 0.0).cut(0.0, 0.0) == 0.0
    assert Reconnect(PLAIN, 0.0).cut(0.0, 0.5) == 0.25


def test_only_a_healthy_connection_makes_it_short_again():
    link = Reconnect(PLAIN, 0.0)
    for _ in range(4):
        link.cut(0.0, 1.0)
    link.opened(100.0)
    assert link.cut(104.9, 1.0) == 8
    link.opened(200.0)
    assert link.cut(205.0, 1.0) == 0.5


def test_a_try_that_never_opened_is_not_healthy_however_long_it_took():
    link = Reconnect(PLAIN, 0.0)
    link.opened(0.0)
    assert link.cut(10.0, 1.0) == 0.5
    assert link.cut(100.0, 1.0) == 1.0


def test_the_server_is_not_asked_before_the_time_that_it_named():
    link = Reconnect(PLAIN, 0.0)
    assert link.cut(0.0, 0.0, wait=7) == 7
    assert link.cut(0.0, 1.0, wait=7) == 8
    assert link.cut(0.0, 0.0, wait=-3) == 0


def test_a_farewell_spreads_the_readers_over_its_time():
    link = Reconnect(PLAIN, 0.0)
    link.opened(0.0)
    assert link.cut(60.0, 0.25, within=4.0) == 1.0
    # Told again and again without a healthy connection between: that is a failure like others.
    link.opened(61.0)
    assert link.cut(61.1, 1.0, within=0.001) == 1.0


def test_patience_is_counted_from_the_last_word():
    link = Reconnect(Patience(give_up=10.0, base=1.0, cap=1.0), 0.0)
    link.opened(0.0)
    link.heard(5.0)
    assert link.cut(14.0, 1.0) == 1.0
    assert link.cut(14.5, 1.0) is None
    assert Reconnect(Patience(give_up=10.0), 0.0).cut(0.0, 0.0, wait=11) is None


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e4),
            st.floats(0, 1),
            st.booleans(),
            st.none() | st.floats(-10, 1e9),
            st.none() | st.floats(-10, 1e9),
        ),
        max_size=60,
    )
)
def test_any_history_waits_within_bounds(history):
    link, now = Reconnect(PLAIN, 0.0), 0.0
    for lasts, chance, opens, told, wait in history:
        if opens:
            link.opened(now)
        now += lasts
        pause = link.cut(now, chance, within=told, wait=wait)
        assert pause is not None
        assert min(max(wait or 0.0, 0.0), 3600.0) <= pause <= 3600.0 + PLAIN.cap


def test_very_many_cuts_cost_nothing():
    link = Reconnect(PLAIN, 0.0)
    for _ in range(5000):
        assert link.cut(0.0, 1.0) <= 15


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 01 Jan 1970 00:01:30 GMT", 30.0),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value, seconds):
    assert retry_after(value, 60.0) == seconds
