"""A server with keys: the page asks once, and a cookie that scripts cannot read does the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY = "a-key-for-this-test-only"


def test_sign_in(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], counted: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"me:{KEY}\n", encoding="utf-8")
    keys.chmod(0o600)
    served = serve("--api-key-file", str(keys))
    page = watched.page()
    page.goto(served.url)
    field = page.get_by_label("This server asks for a key.")
    field.fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    field.fill(KEY)
    page.keyboard.press("Enter")
    page.locator(".welcome").wait_for()
    ask(page, "scenario:slow")
    page.locator(".answer .markdown").get_by_text("1 2 3").wait_for()
    page.reload()
    page.wait_for_selector(".answer[data-state=complete]")
    assert page.locator(".answer .markdown").inner_text().strip() == counted
    seen = page.evaluate("() => document.cookie + JSON.stringify({...localStorage})")
    assert KEY not in seen
    assert "session" not in page.evaluate("() => document.cookie")
    assert watched.bad == []
