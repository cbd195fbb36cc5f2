"""The live dashboard: drawn from the server's metrics, while runs are under way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_the_dashboard_shows_what_the_server_does(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    pytest.importorskip("prometheus_client")
    page = watched.page()
    page.goto(server.url)
    ask(page, "scenario:slow")
    page.locator(".answer .markdown").get_by_text("1 2 3").wait_for()
    dash = watched.page()
    dash.goto(server.url + "/dash")
    dash.locator(".figures > div", has_text="open runs").get_by_text("1", exact=False).wait_for()
    dash.locator("figure", has_text="Open runs").locator("svg").wait_for()
    page.wait_for_selector(".answer[data-state=complete]")
    runs = dash.locator(".figures > div", has_text="open runs").locator("dd")
    dash.wait_for_function("(e) => e.textContent.trim() === '0'", arg=runs.element_handle())
    outcomes = dash.locator("figure", has_text="Runs by outcome")
    outcomes.get_by_text("complete").wait_for()
    bars = dash.locator("figure", has_text="Time to the first visible event")
    assert "half <" in bars.inner_text()
    assert watched.bad == []
    assert watched.foreign(server.url) == []


def test_the_dashboard_says_why_it_cannot_draw(serve: Callable[..., Any], watched: Any) -> None:
    served = serve("--no-metrics")
    dash = watched.page()
    dash.goto(served.url + "/dash")
    dash.get_by_role("alert").get_by_text("metrics are off").wait_for()
    assert watched.bad == []


def test_the_dashboard_asks_for_the_key_that_metrics_need(
    serve: Callable[..., Any], watched: Any, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me:a-key-for-the-dashboard\n", encoding="utf-8")
    keys.chmod(0o600)
    dash = watched.page()
    dash.goto(serve("--api-key-file", str(keys)).url + "/dash")
    dash.get_by_label("This server asks for a key.").fill("a-key-for-the-dashboard")
    dash.keyboard.press("Enter")
    dash.locator("figure", has_text="Open runs").locator("svg").wait_for()
    assert watched.bad == []


def test_the_dashboard_fits_a_phone(server: Any, chromium: Any) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    context.set_default_timeout(60_000)
    dash = context.new_page()
    dash.goto(server.url + "/dash")
    dash.locator("figure", has_text="Gaps between chunks").wait_for()
    assert dash.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()
