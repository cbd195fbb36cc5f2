"""Both pages of examples/app in a browser: sign up, ask, reload, a killed server, stop, approve."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.app_example import APP, ROOT, AppServer
from support.node import need_client

pytestmark = pytest.mark.timeout(300)
pytest.importorskip("argon2", reason="'argon2-cffi' is not installed")
NUMBERS = "".join(f"{n} " for n in range(1, 91)).strip()
PAGES = {"hooks": "/", "ai-sdk": "/ai-sdk.html"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    need_client()
    pages = tmp_path_factory.mktemp("pages")
    build = ["npx", "vite", "build", str(APP / "web"), "--logLevel", "error", "--outDir", pages]
    subprocess.run(build, cwd=ROOT, check=True, timeout=100)
    started = AppServer(tmp_path_factory.mktemp("data"), APP_PAGES=str(pages)).start()
    yield started
    started.kill()


def ask(page: Any, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def shown(page: Any, what: str) -> None:
    """Wait until a JavaScript expression over ``text`` (the newest answer's) holds."""
    page.wait_for_function(
        "() => { const all = document.querySelectorAll('article .text');"
        f"const text = all.length ? all[all.length - 1].textContent : ''; return {what} }}"
    )


def ready(page: Any) -> None:
    page.wait_for_function("() => !document.querySelector('[aria-label=Question]').disabled")


@pytest.mark.parametrize("kind", PAGES)
def test_a_person_signs_up_asks_and_decides(server: AppServer, watched: Any, kind: str) -> None:
    page = watched.page()
    page.goto(server.url + PAGES[kind])
    page.get_by_label("Name").fill(kind)
    page.get_by_label("Password").fill("of this test")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text("wrong name or password").wait_for()
    page.get_by_role("button", name="Sign up").click()

    ask(page, "How long does a cat sleep?")
    page.get_by_text("From cats.md").wait_for()
    ready(page)

    ask(page, "scenario:slow?rate=60")
    shown(page, "text.startsWith('1 2 3 4')")
    page.reload()
    shown(page, "text.startsWith('1 2 3 4 5 6')")
    if kind == "hooks":
        server.kill()
        server.start()
    shown(page, f"text.trim() === '{NUMBERS}'")
    ready(page)
    assert page.get_by_role("alert").count() == 0

    ask(page, "scenario:stall")
    page.get_by_text("and then nothing more").wait_for()
    page.get_by_role("button", name="Stop").click()
    ready(page)

    ask(page, "delete report.txt")
    decision = page.get_by_role("group").get_by_text("report.txt")
    decision.wait_for()
    if kind == "ai-sdk":
        server.kill()
        server.start()
        page.reload()
        decision.wait_for()
    page.get_by_role("button", name="Allow").click()
    page.get_by_text("report.txt is deleted").first.wait_for()
    ready(page)
    files = page.evaluate("() => fetch('/files').then((response) => response.json())")
    assert files == ["cats.md", "holidays.md"]

    page.get_by_role("button", name="New conversation").click()
    page.locator("article").first.wait_for(state="detached")
    page.get_by_role("navigation").get_by_role("button", name="How long does a cat").click()
    page.locator("article").get_by_text("report.txt is deleted").first.wait_for()
    page.locator("article").get_by_text("1 2 3 4 5 6").wait_for()
    page.get_by_role("button", name=f"Sign out {kind}").click()
    page.get_by_label("Password").wait_for()
    assert watched.bad == []
