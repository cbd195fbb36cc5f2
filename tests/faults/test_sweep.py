"""A worker is hit after every record of a run; short here, all of it in ``make faults``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from faults.sweep import AGENT, OTHER_ENDS, Sweep, SweepReport
from support.redis import redis_server

#: Where a hit leaves open whether a tool took effect that may not run again.
DOUBTS = {("tool-start", 2), ("tool-start", 3)}


def swept(store: str, folder: Path, **options: object) -> SweepReport:
    report = asyncio.run(Sweep(store, folder, **options).run())  # type: ignore[arg-type]
    assert report.broken == []
    return report


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["kill", "stop"])
def test_a_worker_is_hit_after_every_record(tmp_path: Path, mode: str) -> None:
    report = swept(f"sqlite:{tmp_path}/log.db", tmp_path, modes=[mode])
    assert report.outcome == "complete"
    assert len(report.kinds) > 45
    # Pieces of text may come joined in a run, so that it has fewer deltas.
    missed = {hit.point.kind for hit in report.hits if not hit.sprung}
    assert missed <= {"text-delta", "tool-call-delta"}
    doubts = [hit.point for hit in report.hits if hit.verdict.reason == "tool_in_doubt"]
    assert {(p.kind, p.nth) for p in doubts if p.kind} == DOUBTS
    assert {p.tool for p in doubts if p.tool} == {"send_order", "delete_file"}


@pytest.mark.slow
def test_a_worker_of_an_agent_is_killed_after_every_record(tmp_path: Path) -> None:
    report = swept(f"sqlite:{tmp_path}/log.db", tmp_path, modes=["kill"], prompt=AGENT)
    assert report.outcome == "complete"
    assert len(report.kinds) > 45
    missed = {hit.point.kind for hit in report.hits if not hit.sprung}
    assert missed <= {"text-delta", "tool-call-delta"}
    doubts = [hit.point for hit in report.hits if hit.verdict.reason == "step_in_doubt"]
    inside = {point.tool for point in doubts if point.tool}
    assert inside >= {"send_order", "delete_file"}
    assert "read_stock" not in inside
    # Right after the record that says that such a step begins, nobody knows whether it began.
    assert {(point.kind, point.nth) for point in doubts} >= {("step-start", 3), ("step-start", 9)}
    whole = {hit.point.tool for hit in report.hits if hit.verdict.outcome == "complete"}
    assert "read_stock" in whole


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["stop", "cancel", "drain", "twice"])
def test_a_worker_of_an_agent_is_hit_in_other_ways(tmp_path: Path, mode: str) -> None:
    every = 18 if mode == "twice" else 6
    store = f"sqlite:{tmp_path}/log.db"
    report = swept(store, tmp_path, modes=[mode], every=every, prompt=AGENT)
    assert any(hit.sprung for hit in report.hits)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["cancel", "drain", "twice"])
def test_a_worker_is_hit_in_other_ways(tmp_path: Path, mode: str) -> None:
    every = 18 if mode == "twice" else 4
    report = swept(f"sqlite:{tmp_path}/log.db", tmp_path, modes=[mode], every=every)
    assert any(hit.sprung for hit in report.hits)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", OTHER_ENDS)
def test_runs_with_other_ends(tmp_path: Path, prompt: str) -> None:
    report = swept(f"sqlite:{tmp_path}/log.db", tmp_path, modes=["kill"], prompt=prompt)
    assert report.outcome in ("incomplete", "error", "complete")


@pytest.mark.slow
@pytest.mark.redis
def test_a_worker_is_hit_on_redis(tmp_path: Path) -> None:
    with redis_server() as server:
        report = swept(server.url, tmp_path, modes=["kill", "stop"], every=5)
    assert {hit.verdict.outcome for hit in report.hits} >= {"complete"}
