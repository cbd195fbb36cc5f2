"""What the dashboards name is what the server measures."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from functools import lru_cache
from pathlib import Path

import pytest
import yaml

from support.server import site
from tokenwire.client import Client
from tokenwire.events.reasons import OUTCOMES
from tokenwire.observe import facts
from tokenwire.observe.prometheus import PrometheusObserver

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "docs" / "grafana" / "alerts.yml"
GRAFANA = ROOT / "docs" / "grafana" / "tokenwire.json"
PAGE = ROOT / "packages" / "page" / "src" / "dash"
NAME = re.compile(r"\btokenwire_[a-z0-9_]+")

ONE_OF_EACH = [
    facts.RunStarted("r", "m"),
    facts.AnswerStarted("r", 1, "m"),
    facts.AnswerEnded("r", "m", "complete", None, 1.0, 3, operation=1),
    facts.FirstToken("r", "p", "m", 0.3),
    facts.ChunksCame("r", "m", (0.01, 0.02)),
    facts.RunEnded("r", "m", "error", "network", 1.5, 7, 10, 20),
    facts.RunBilled("r", "p/m", 1_000, 5, 1, {"input": 3}),
    facts.RunEnded("r", "m", "incomplete", None, 1.5, 7, budget="principal/day"),
    facts.BudgetRefused("principal/day", "tokens"),
    facts.BudgetNear("principal/day", "tokens"),
    facts.RunLeft("r", "fenced", 1),
    facts.Retried("r", "p", "m", "network", 1, 0.5),
    facts.FellBack("r", "p", "m", "network"),
    facts.ToolRan("r", "t", "ok", 0.5),
    facts.FollowerOpened("r", "native", True),
    facts.FollowerGone("r", "native", "end", 7, 1.0),
    facts.StoreAppended(3, 0.001),
    facts.TakenOver("r", 2, "resume"),
    facts.EndDelivered("r", "ok"),
    facts.WebhookSent("r", "run.ended", "ok"),
    facts.RequestDone("GET", "/", 200, 0.1),
]


def measured() -> dict[str, set[str]]:
    """Name -> labels of every series that a server has."""
    observer = PrometheusObserver()
    for fact in ONE_OF_EACH:
        observer(fact)
    found: dict[str, set[str]] = {}
    for line in observer.text().decode().splitlines():
        match = re.match(r"([a-z0-9_]+)(?:\{(.*)\})? ", line)
        if match and not line.startswith("#"):
            labels = set(re.findall(r'(\w+)="', match[2] or ""))
            found.setdefault(match[1], set()).update(labels)
    return found | {name: set() for name in re.findall(r"# TYPE (\w+) gauge", live_metrics())}


@lru_cache
def live_metrics() -> str:
    """``/metrics`` of a server of which one run was read over both transports."""

    async def use(url: str) -> None:
        async with Client(url) as client, Client(url, transport="websocket") as other:
            # Slow enough for several reads, also on a slow machine.
            run = await client.start("scenario:slow?rate=40")
            assert await client.text(run) == await other.text(run)

    with site(metrics=True) as here:
        asyncio.run(use(here.url))
        return here.client.get("/metrics").text


def expressions() -> list[str]:
    board = json.loads(GRAFANA.read_text(encoding="utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def test_every_fact_is_measured():
    pytest.importorskip("prometheus_client")
    assert {type(fact).__name__ for fact in ONE_OF_EACH} == set(facts.__all__) - {"Fact"}
    assert len(measured()) > 30


def test_every_metric_of_the_grafana_board_exists_with_its_labels():
    pytest.importorskip("prometheus_client")
    series = measured()
    named = [name for expression in expressions() for name in NAME.findall(expression)]
    assert len(set(named)) >= 12
    assert [name for name in named if name not in series] == []
    check_labels(expressions(), series)


def check_labels(expressions: list[str], series: dict[str, set[str]]) -> None:
    for expression in expressions:
        labels = {label for name in NAME.findall(expression) for label in series[name]}
        used = set(re.findall(r'(\w+)\s*(?:=~|!=|!~|=)\s*"', expression))
        used |= {
            label.strip()
            for group in re.findall(r"\bby\s*\(([^)]*)\)", expression)
            for label in group.split(",")
        }
        assert used - labels - {"instance", "job"} == set(), expression


def test_every_metric_of_the_alerts_exists_with_its_labels():
    pytest.importorskip("prometheus_client")
    series = measured()
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    assert len(group["rules"]) >= 10
    rules = {rule["alert"]: rule for rule in group["rules"]}
    assert len(rules) == len(group["rules"])
    for name, rule in rules.items():
        named = NAME.findall(rule["expr"])
        assert named
        assert [metric for metric in named if metric not in series] == [], name
        assert rule["expr"].count("(") == rule["expr"].count(")"), name
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, name
        assert set(rule.get("for", "1m")) <= set("0123456789smhd"), name
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"].keys() == {"summary", "description"}, name
        # A summary names only labels that the expression keeps.
        for label in re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]):
            kept = re.findall(r"\bby\s*\(([^)]*)\)", rule["expr"])
            assert label in re.split(r"[,\s]+", " ".join(kept)), name
    check_labels([rule["expr"] for rule in rules.values()], series)


def test_prometheus_takes_the_alerts() -> None:
    """With its own checker, where that is installed (Debian's package ``prometheus``)."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_values_that_alerts_look_for_are_ones_that_are_counted():
    """A label's value that nobody writes would be an alert that never comes."""
    text = ALERTS.read_text(encoding="utf-8")
    values = {
        value
        for group in re.findall(r'(?:how|why|outcome)=~?"([^"]+)"', text)
        for value in group.split("|")
    }
    assert values == {"error", "interrupted", "slow", "failed"}
    assert {"error", "interrupted"} <= set(OUTCOMES)
    assert "``slow``" in str(facts.FollowerGone.__doc__)
    assert "``failed``" in str(facts.WebhookSent.__doc__)
    assert "``failed``" in str(facts.EndDelivered.__doc__)


def test_the_grafana_board_is_one_that_can_be_imported():
    board = json.loads(GRAFANA.read_text(encoding="utf-8"))
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(numbers) == len(set(numbers))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
        assert panel.get("description"), panel["title"]


def test_every_metric_of_our_own_dashboard_exists():
    pytest.importorskip("prometheus_client")
    series = measured()
    for file in PAGE.glob("*.ts*"):
        for name in NAME.findall(file.read_text(encoding="utf-8")):
            assert name in series or f"{name}_bucket" in series, f"{file.name}: {name}"


def test_a_run_fills_what_the_dashboards_draw():
    pytest.importorskip("prometheus_client")
    text = live_metrics()

    def value(series: str) -> float:
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    assert value('tokenwire_chunk_gap_seconds_count{model="demo"}') >= 3
    assert value('tokenwire_first_token_seconds_count{model="demo"}') >= 1
    assert value("tokenwire_store_append_seconds_count") >= 3
    for wire in ("native", "websocket"):
        assert value(f'tokenwire_readers_total{{resumed="false",wire="{wire}"}}') >= 1
        assert value(f'tokenwire_readers_left_total{{why="end",wire="{wire}"}}') >= 1
