"""The chat page inside of an application, under a prefix and behind its login by cookie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.mounted import me, serving, starlette_app, wrapped_app

HOSTS = {"starlette": starlette_app, "wrapped": wrapped_app}


@pytest.fixture(scope="module", params=HOSTS)
def origin(request: pytest.FixtureRequest, _page_is_built: None) -> Iterator[str]:
    with serving(HOSTS[request.param](me)) as url:
        yield url


def sign_in(watched: Any, origin: str) -> None:
    watched.context.add_cookies([{"name": "login", "value": "ann", "url": origin}])


def test_send_reload_in_mid_answer_and_stop(
    origin: str, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    sign_in(watched, origin)
    page = watched.page()
    page.goto(f"{origin}/ai")  # without the slash
    assert page.url == f"{origin}/ai/"
    ask(page, "scenario:slow?rate=40")
    page.locator(".answer .markdown").get_by_text("1 2 3").wait_for()
    page.reload()
    page.locator(".answer .markdown").get_by_text("1 2 3").wait_for()
    page.wait_for_selector(".answer[data-state=complete]")
    assert page.locator(".answer .markdown").last.inner_text().strip() == counted
    answer = ask(page, "scenario:stall")
    answer.get_by_text("I say this much").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".answer[data-state=cancelled]")
    assert watched.bad == []
    own = [f"{origin}/ai/", f"{origin}/ai", "data:", "blob:"]
    assert [r for r in watched.requests if not r.startswith(tuple(own))] == []
    page.get_by_role("link", name="Dashboard").click()
    page.get_by_role("heading", name="tokenwire dashboard").wait_for()
    page.locator(".figures > div", has_text="open runs").wait_for()
    assert page.url == f"{origin}/ai/dash"
    page.get_by_role("link", name="Chat").click()
    page.wait_for_url(f"{origin}/ai/")
    page.locator(".frame").wait_for()


def test_without_the_login_nothing_is_shown(origin: str, watched: Any) -> None:
    page = watched.page()
    page.goto(f"{origin}/ai/")
    told = page.get_by_text("You are not signed in to the application")
    told.wait_for()
    assert page.get_by_label("This server asks for a key.").count() == 0
    page.goto(f"{origin}/ai/dash")
    told.wait_for()
    sign_in(watched, origin)
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("heading", name="tokenwire dashboard").wait_for()
