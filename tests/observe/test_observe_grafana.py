"""The Grafana dashboard asks only for metrics that there are, by labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

DASHBOARD = Path(__file__).parents[2] / "docs/guide/grafana.json"
#: Told by the server itself beside the facts.
GAUGES = {"tokenwire_connections_open", "tokenwire_runs_running", "tokenwire_loop_lag_seconds"}


def test_every_metric_of_the_dashboard_exists() -> None:
    pytest.importorskip("prometheus_client")
    from tokenwire.observe.prometheus import PrometheusObserver

    known: dict[str, set[str]] = {name: set() for name in GAUGES}
    for metric in PrometheusObserver().registry._collector_to_names:  # type: ignore[attr-defined]
        labels = set(getattr(metric, "_labelnames", ()) or getattr(metric, "_labels", ()))
        for name in ("_total", "_bucket", "_count", "_sum"):
            known[metric._name + name] = labels | {"le"}  # type: ignore[attr-defined]
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    assert len(panels) >= 12
    for panel in panels:
        for target in panel["targets"]:
            names = re.findall(r"tokenwire_\w+", target["expr"])
            assert names, panel["title"]
            for name in names:
                assert name in known, f"{panel['title']}: {name}"
            by = re.findall(r"by \(([^)]*)\)", target["expr"])
            for label in re.findall(r"\w+", " ".join(by)):
                assert any(label in known[name] for name in names), f"{panel['title']}: {label}"
