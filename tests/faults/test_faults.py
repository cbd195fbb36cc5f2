"""The fault harness, short: seeded kills and stops of workers under load; every invariant holds."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from faults.budgets import BudgetHarness
from faults.harness import Harness, Report
from faults.members import MembersHarness
from faults.threads import ThreadHarness, ThreadReport
from support.redis import redis_server


def check(report: Report, kills: int) -> None:
    assert report.broken == [], f"seed {report.seed}: {report.broken}"
    assert report.kills == kills
    assert report.outcomes["complete"] > 0
    assert report.takeovers > 0


@pytest.mark.slow
def test_workers_on_one_sqlite_file_are_killed(tmp_path: Path) -> None:
    harness = Harness(f"sqlite://{tmp_path}/log.db", tmp_path, seed=5, kills=15, workers=3)
    check(asyncio.run(harness.run()), 15)


@pytest.mark.slow
@pytest.mark.redis
def test_workers_on_one_redis_are_killed(tmp_path: Path) -> None:
    # With `everysec` and a slow disk Redis holds writes back for up to two seconds, so that its own
    # kill takes an accepted claim and lifts the fence; what is tested here is that the fence holds.
    with redis_server("--appendfsync", "always") as server:
        restart = server.restart
        harness = Harness(server.url, tmp_path, seed=6, kills=10, workers=3, restart_store=restart)
        check(asyncio.run(harness.run()), 10)


def check_threads(report: ThreadReport, kills: int) -> None:
    assert report.broken == [], f"seed {report.seed}: {report.broken}"
    assert report.kills == kills
    assert report.turns["runs"] > 0


@pytest.mark.slow
def test_conversations_on_sqlite_lose_and_double_no_turn(tmp_path: Path) -> None:
    harness = ThreadHarness(
        f"sqlite://{tmp_path}/log.db", tmp_path, seed=3, kills=4, threads=2, acts=4
    )
    check_threads(asyncio.run(harness.run()), 4)


@pytest.mark.slow
@pytest.mark.redis
def test_conversations_on_redis_lose_and_double_no_turn(tmp_path: Path) -> None:
    with redis_server("--appendfsync", "always") as server:
        harness = ThreadHarness(
            server.url, tmp_path, seed=4, kills=3, threads=2, acts=4, feeds=False
        )
        check_threads(asyncio.run(harness.run()), 3)


@pytest.mark.slow
def test_members_who_come_and_go_get_what_is_theirs(tmp_path: Path) -> None:
    harness = MembersHarness(
        f"sqlite://{tmp_path}/log.db", tmp_path, seed=8, kills=3, threads=2, rounds=1
    )
    report = asyncio.run(harness.run())
    assert report.broken == [], f"seed {report.seed}: {report.broken}"
    assert report.kills == 3
    assert report.removals > 0


@pytest.mark.slow
def test_sums_of_budgets_are_those_of_the_logs(tmp_path: Path) -> None:
    store = f"sqlite://{tmp_path}/log.db"
    harness = BudgetHarness(store, tmp_path, seed=9, kills=3, workers=2, tenants=1)
    report = asyncio.run(harness.run())
    assert report.broken == [], f"seed {report.seed}: {report.broken}"
    assert report.kills == 3
    assert report.used_up > 0
    assert report.ends["budget"] > 0


@pytest.mark.slow
def test_clocks_that_are_an_hour_wrong_cost_takeovers_and_nothing_else(tmp_path: Path) -> None:
    """A worker whose clock is ahead takes runs that are not lost; the fence holds all the same."""
    skews = (0.0, 3600.0, -3600.0)
    store = f"sqlite://{tmp_path}/log.db"
    harness = Harness(store, tmp_path, seed=7, kills=6, workers=3, skews=skews)
    report = asyncio.run(harness.run())
    assert report.broken == []
    assert report.takeovers > 0
