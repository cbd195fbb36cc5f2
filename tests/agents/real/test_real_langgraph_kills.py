"""Workers with a graph of LangGraph are killed with kill -9, the next one as well; short here, at
every record in ``make faults``."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

pytest.importorskip("langgraph.checkpoint.sqlite")

from faults import graph
from faults.sweep import GRAPH, Sweep, SweepReport


def swept(folder: Path, mode: str, every: int) -> SweepReport:
    store = f"sqlite:{folder}/log.db"
    report = asyncio.run(Sweep(store, folder, modes=[mode], every=every, prompt=GRAPH).run())
    assert report.broken == []
    assert (report.outcome, report.text) == ("complete", graph.EXPECTED)
    return report


def test_a_worker_is_killed(tmp_path: Path) -> None:
    report = swept(tmp_path, "kill", 8)
    assert {hit.point.tool for hit in report.hits if hit.sprung} >= set(graph.EFFECTS)
    # Whatever was under way, the graph goes on; a node with an answer may be in doubt.
    ends = {hit.verdict.outcome for hit in report.hits if hit.point.tool not in ("ask", "end")}
    assert ends == {"complete"}


def test_the_next_worker_is_killed_as_well(tmp_path: Path) -> None:
    report = swept(tmp_path, "twice", 27)
    assert {hit.sprung for hit in report.hits} >= {2}
    assert any(hit.verdict.claims == 2 for hit in report.hits)
