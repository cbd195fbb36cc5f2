"""When new runs are refused: after patience, without flapping, and nothing but they."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.server.process.overload import LONGEST, PATIENCE, WARY, Overload

MOST = 0.25
#: Seconds from one note to the next, and how late the server is then.
NOTES = st.lists(
    st.tuples(st.floats(0.01, 0.4), st.sampled_from([0.0, 0.1, 0.125, 0.2, 0.25, 0.26, 0.5, 60.0])),
    max_size=80,
)


@given(NOTES)
def test_refusals_come_after_patience_and_end_when_the_server_has_caught_up(
    notes: list[tuple[float, float]],
) -> None:
    one, now = Overload(MOST), 100.0
    late_since, refused_until, was_on = math.inf, -math.inf, False
    for step, late in notes:
        now += step
        if late > MOST:
            late_since = min(late_since, now)
        elif late <= MOST / 2:
            late_since = math.inf
        is_on = one.note(late, now)
        assert is_on == one.is_on
        if late <= MOST / 2:
            assert not is_on
        elif late <= MOST:
            assert is_on == was_on, "between the two limits nothing changes"
        elif now - late_since >= PATIENCE:
            assert is_on
        if is_on and not was_on:
            assert late > MOST
            assert now - late_since >= PATIENCE or now < refused_until + WARY
        if is_on:
            refused_until = now
        was_on = is_on


def test_a_hiccup_refuses_nobody() -> None:
    one = Overload(MOST)
    for late, now in ((0.0, 1.0), (5.0, 2.0), (0.1, 2.1), (5.0, 2.9), (0.1, 3.0), (0.3, 3.1)):
        assert not one.note(late, now)


def test_who_was_late_has_no_patience_for_a_while() -> None:
    one = Overload(MOST)
    one.note(1.0, 10.0)
    assert one.note(1.0, 10.0 + PATIENCE)
    assert not one.note(0.0, 12.0)
    assert one.note(1.0, 12.1), "at once"
    assert not one.note(0.0, 13.0)
    assert not one.note(1.0, 12.2 + WARY)
    assert one.note(1.0, 12.2 + WARY + PATIENCE)


def test_who_would_wait_for_too_long_is_refused_at_once_until_few_wait() -> None:
    one, most = Overload(MOST), LONGEST * MOST
    assert not one.note(0.0, 1.0, most)
    assert one.note(0.0, 1.1, most + 0.01)
    assert one.note(0.0, 1.2, most / 2)
    assert not one.note(0.0, 1.3, MOST / 2)


def test_no_limit_refuses_nobody() -> None:
    one = Overload(0.0)
    assert not any(one.note(1e9, float(now), 1e9) for now in range(100))


def test_the_error_says_what_and_what_to_do() -> None:
    one = Overload(MOST)
    waits = set()
    for _ in range(200):
        error = one.error(1.5)
        waits.add(error.details["retry_after"])
        assert (error.http_status, error.code, error.details["limit"]) == (503, "busy", "max_lag")
        assert error.message == (
            "the server is overloaded: it is 1.50 s late, and starts no more runs above 0.25 s "
            f"(max_lag); try again in {error.details['retry_after']} s"
        )
    assert len(waits) > 1, "who was refused together comes back together"
