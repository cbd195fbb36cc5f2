"""Two devices of one person: each shows what the other one does, without looking by a clock."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

COMPLETE = ".answer[data-state=complete] .markdown"
LIVE, NOT_LIVE = "main[data-live=true]", "main[data-live=false]"
#: The machine may be slow; nothing here is about time.
PATIENCE = 60_000
#: The page's own clocks stand still: what it shows it was told of.
WITHOUT_CLOCKS = """
  const set = window.setInterval.bind(window);
  const slow = (ms) => ([5000, 15000].includes(ms) ? 2 ** 30 : ms);
  window.setInterval = (work, ms, ...more) => set(work, slow(ms), ...more);
"""


@pytest.fixture
def devices(chromium: Any) -> Iterator[tuple[Any, Any]]:
    """A page of each, in browsers that know nothing of each other."""
    contexts = [chromium.new_context(viewport={"width": 1000, "height": 800}) for _ in range(2)]
    faults: list[str] = []
    pages = []
    for context in contexts:
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WITHOUT_CLOCKS)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        pages.append(page)
    yield pages[0], pages[1]
    for context in contexts:
        context.close()
    assert faults == []


def asked(page: Any, question: str) -> Any:
    text = re.compile(f"^{re.escape(question)}$")
    question_of = page.locator(".question > p", has_text=text)
    question_of.wait_for()
    assert question_of.count() == 1
    return question_of


def open_on_both(near: Any, far: Any, url: str, ask: Callable[..., Any]) -> None:
    """Both show a conversation with an answer, and hear of what happens in it."""
    near.goto(url)
    ask(near, "scenario:text?rate=0&ttft=0")
    near.wait_for_selector(COMPLETE)
    far.goto(near.url)
    far.wait_for_selector(COMPLETE)
    for page in (near, far):
        page.wait_for_selector(LIVE)


def answers(page: Any, count: int) -> list[str]:
    page.locator(COMPLETE).nth(count - 1).wait_for()
    return [text.strip() for text in page.locator(COMPLETE).all_inner_texts()]


def test_each_shows_what_the_other_one_does(
    server: Any, devices: tuple[Any, Any], ask: Callable[..., Any], counted: str
) -> None:
    near, far = devices
    open_on_both(near, far, server.url, ask)
    ask(near, "scenario:slow")
    asked(far, "scenario:slow")
    far.locator(".answer .markdown").get_by_text("1 2 3").wait_for()
    ask(far, "What waits?")
    near.locator(".waiting li", has_text="What waits?").wait_for()
    asked(near, "What waits?")
    assert answers(near, 3)[1] == counted
    assert answers(near, 3) == answers(far, 3)
    near.locator(".waiting li").wait_for(state="detached")
    # The list too: a conversation that is new, its state and its title.
    far.get_by_role("button", name="New conversation").click()
    far.locator(".welcome").wait_for()
    ask(far, "scenario:stall")
    row = near.locator(".threads li", has_text="scenario:stall")
    row.get_by_text("answering").wait_for()
    far.get_by_role("button", name="Stop").click()
    row.locator("time").wait_for(state="attached")
    mine = far.locator(".threads li.current")
    mine.locator("button.thread").press("F2")
    far.get_by_label("Title").fill("A quiet one")
    far.keyboard.press("Enter")
    near.locator(".threads li", has_text="A quiet one").wait_for()
    near.locator(".threads li", has_text="A quiet one").locator("button.thread").press("Delete")
    near.get_by_role("dialog").get_by_role("button", name="Delete").click()
    far.locator(".welcome").wait_for()
    far.goto(near.url)
    # A branch that one chooses is shown by the other.
    near.get_by_role("button", name="Edit question").last.click()
    near.get_by_label("Edit your question").fill("And what now?")
    near.keyboard.press("Enter")
    asked(far, "And what now?")
    far.get_by_role("button", name="Older version").click()
    asked(near, "What waits?")


def test_a_killed_server_comes_back_to_both(
    serve: Callable[..., Any],
    devices: tuple[Any, Any],
    ask: Callable[..., Any],
    counted: str,
    tmp_path: Path,
) -> None:
    served = serve("--store", f"sqlite:{tmp_path / 'runs.db'}")
    near, far = devices
    open_on_both(near, far, served.url, ask)
    ask(near, "scenario:slow?rate=24")
    for page in devices:
        page.locator(".answer .markdown").nth(1).get_by_text("1 2 3").wait_for()
    served.stop(signal.SIGKILL)
    for page in devices:
        page.get_by_text("Reconnecting").wait_for()
    served.start()
    texts = []
    for page in devices:
        page.wait_for_function(
            "() => ['complete', 'interrupted'].includes("
            "document.querySelectorAll('.answer')[1].dataset.state)"
        )
        texts.append(page.locator(".answer .markdown").nth(1).inner_text().strip())
    state = near.locator(".answer").nth(1).get_attribute("data-state")
    assert texts[0] == texts[1]
    assert texts[0] == counted if state == "complete" else counted.startswith(texts[0])
    for page in devices:
        page.wait_for_selector(LIVE)
    ask(far, "Are you back?")
    asked(near, "Are you back?")
    near.locator(".answer[data-state=complete]").last.wait_for()


def test_a_device_without_network_catches_up(
    line: Any, server: Any, devices: tuple[Any, Any], ask: Callable[..., Any], counted: str
) -> None:
    near, far = devices
    open_on_both(near, far, server.url, ask)
    thread = near.url.partition("#")[2]
    far.goto(f"{line.url}/#{thread}")
    far.wait_for_selector(LIVE)
    far.context.set_offline(True)
    line.cut()
    far.wait_for_selector(NOT_LIVE)
    ask(near, "scenario:slow")
    assert answers(near, 2)[1] == counted
    assert far.locator(".question").count() == 1
    line.mend()
    far.context.set_offline(False)
    asked(far, "scenario:slow")
    assert answers(far, 2) == answers(near, 2)
