"""When a budget begins anew: at midnight of the zone, also where clocks change or differ."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.spine import run_async
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.spending.bill import day_of, zone_of
from tokenwire.relay.spending.budgets import Budget, remaining_of
from tokenwire.relay.spending.ledger import Ledger
from tokenwire.server.spending.budgets import _described

#: Whole and half hours, both halves of the earth, changes at midnight itself, a day of 24.5 hours.
ZONES = (
    "UTC Europe/Berlin America/New_York Australia/Lord_Howe Asia/Kathmandu Pacific/Apia "
    "Africa/Cairo America/Havana America/Santiago Asia/Beirut Pacific/Chatham America/St_Johns"
).split()
BEGIN, END = (datetime(year, 1, 1, tzinfo=UTC).timestamp() for year in (2020, 2037))
DAY = Budget("principal", "day", "tokens", 10)
MONTH = Budget("principal", "month", "tokens", 10)


def resets(budget: Budget, now: float, zone: str, monkeypatch: pytest.MonkeyPatch) -> float:
    async def main() -> float:
        ledger = Ledger(MemoryStore())
        (one,) = await remaining_of(ledger, zone_of(zone), [budget], principal="ann")
        assert one.resets is not None
        return one.resets

    monkeypatch.setattr("tokenwire.relay.spending.budgets.time.time", lambda: now)
    return run_async(main())


def changes(zone: str) -> list[float]:
    """Every moment at which the clocks of a zone change."""
    info, moments, at = ZoneInfo(zone), list[float](), BEGIN
    while at < END:
        first, last = (datetime.fromtimestamp(t, info).utcoffset() for t in (at, at + 86_400))
        if first != last:
            low, high = int(at), int(at + 86_400)
            while high - low > 1:
                middle = (low + high) // 2
                is_later = datetime.fromtimestamp(middle, info).utcoffset() == last
                low, high = (low, middle) if is_later else (middle, high)
            moments.append(float(high))
        at += 86_400
    return moments


def check(now: float, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next day and month begin then, and not a second earlier."""
    info = zone_of(zone)
    for budget, size in ((DAY, 10), (MONTH, 7)):
        then = now + resets(budget, now, zone, monkeypatch)
        assert then > now, (zone, now)
        present = day_of(now, info)[:size]
        assert day_of(then, info)[:size] > present, (zone, now, budget.name)
        assert day_of(then - 1, info)[:size] == present, (zone, now, budget.name)


@pytest.mark.parametrize("zone", ZONES)
def test_a_budget_begins_anew_around_every_change_of_the_clocks(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change in changes(zone)[-12:]:
        for hours in (-30, -24, -2, -1, -0.01, 0, 0.01, 1, 2, 23.9, 30):
            check(change + hours * 3600, zone, monkeypatch)


@settings(max_examples=60, deadline=None)
@given(at=st.integers(int(BEGIN), int(END)), zone=st.sampled_from(ZONES))
@example(at=int(datetime(2028, 2, 29, 23, 59, 59, tzinfo=UTC).timestamp()), zone="UTC")
@example(at=int(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()), zone="UTC")
def test_a_budget_begins_anew_at_the_next_day_and_month(at: int, zone: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        check(float(at), zone, monkeypatch)


def test_a_day_has_as_many_hours_as_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    berlin = ZoneInfo("Europe/Berlin")
    for month, day, hours in ((3, 29, 23), (10, 25, 25), (6, 1, 24)):
        midnight = datetime(2026, month, day, tzinfo=berlin).timestamp()
        assert resets(DAY, midnight, "Europe/Berlin", monkeypatch) == hours * 3600


def test_processes_whose_clocks_differ_agree_but_for_that_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which day a call belongs to is what its log says, whoever settles it; a process whose clock
    is behind by some seconds checks starts of these seconds against the day before."""
    midnight = datetime(2026, 11, 30, tzinfo=UTC).timestamp()
    skew = timedelta(seconds=3).total_seconds()
    behind = resets(DAY, midnight + 1 - skew, "UTC", monkeypatch)
    ahead = resets(DAY, midnight + 1, "UTC", monkeypatch)
    assert (behind, ahead) == (2, 86_399)
    assert day_of(midnight + 1 - skew, UTC) == "2026-11-29"


def test_the_header_says_whole_seconds_never_too_few() -> None:
    from tokenwire.relay.spending.budgets import Remaining

    text: Any = _described(Remaining(DAY, 3, 12.2))
    assert text == "principal/day; unit=tokens; left=3; most=10; resets=13"
