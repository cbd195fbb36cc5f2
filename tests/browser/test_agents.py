"""What an agent tells beside its words, as the page draws it: served by `serve --agent`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

AGENTS = "tests/browser/agents/showing.py"


@pytest.fixture
def agents(serve: Callable[..., Any]) -> Any:
    return serve("--agent", f"{AGENTS}:telling", "--agent", f"{AGENTS}:napping")


def state(answer: Any, wanted: str) -> None:
    answer.page.wait_for_function(
        "([e, s]) => e.dataset.state === s", arg=[answer.element_handle(), wanted]
    )


def test_tasks_progress_speakers_sources_and_state_are_drawn(
    agents: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(agents.url)
    answer = ask(page, "Do cats purr?")
    state(answer, "waiting")
    tasks = answer.get_by_role("list", name="Steps of the agent").first.get_by_role("listitem")
    assert [one.inner_text().split("\n") for one in tasks.all()] == [
        ["search", "done"],
        ["look at the index", "failed"],
    ]
    bar = answer.get_by_role("progressbar", name="reading 2 documents")
    assert bar.get_attribute("value") == "0.3"
    assert (
        answer.locator(".progress.of-run").inner_text().split()
        == "reading 2 documents 30 %".split()
    )
    helper = answer.get_by_role("group", name="Researcher")
    assert "The helper found two documents." in helper.inner_text()
    assert "The answer begins." not in helper.inner_text()
    sources = answer.get_by_role("group", name="Sources")
    assert sources.get_by_role("listitem").all_inner_texts() == [
        "A page (example.com)",
        "docs/guide: Agents",
        "No link (javascript:alert(1))",
    ]
    links = sources.get_by_role("link")
    assert [one.get_attribute("href") for one in links.all()] == ["http://example.com/page"]
    for name, words in (("State", ["drafting", "the index is away", "write"]), ("weather", ["13"])):
        fact = answer.locator("details.fact").filter(has=page.get_by_text(name, exact=True))
        assert fact.get_attribute("open") is None
        fact.locator("summary").click()
        for word in words:
            fact.get_by_text(word).wait_for()
    answer.get_by_role("group", name="Allow publish?").get_by_role("button", name="Allow").click()
    state(answer, "complete")
    assert "The answer ends." in answer.inner_text()
    assert answer.get_by_role("progressbar").count() == 0
    assert watched.bad == []
    page.reload()
    answer = page.locator(".answer").first
    state(answer, "complete")
    assert (
        "The helper found two documents."
        in answer.get_by_role("group", name="Researcher").inner_text()
    )
    assert answer.get_by_role("group", name="Sources").get_by_role("listitem").count() == 3


def test_a_task_that_a_stop_left_open_does_not_run_for_ever(
    agents: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(agents.url)
    page.get_by_label("Model").select_option("napping")
    answer = ask(page, "Sleep")
    task = answer.get_by_role("list", name="Steps of the agent").get_by_role("listitem")
    task.get_by_text("running").wait_for()
    bar = answer.get_by_role("progressbar", name="waiting for the index")
    assert bar.get_attribute("value") is None
    page.get_by_role("button", name="Stop").click()
    state(answer, "cancelled")
    assert task.inner_text().split("\n") == ["a long look", "stopped"]
    assert answer.get_by_role("progressbar").count() == 0
    assert watched.bad == []


def test_a_task_in_doubt_says_why_the_answer_ended(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], tmp_path: Any
) -> None:
    served = serve("--store", f"sqlite:{tmp_path}/runs.db", "--agent", f"{AGENTS}:napping")
    page = watched.page()
    page.goto(served.url)
    answer = ask(page, "Sleep")
    answer.get_by_text("running").wait_for()
    served.stop(signal.SIGKILL)
    served.start()
    page.wait_for_function("() => document.querySelector('.answer[data-state=interrupted]')")
    alert = answer.get_by_role("alert")
    assert "whether it took effect is unknown" in alert.inner_text()
    assert "step_in_doubt" in alert.inner_text()
    assert answer.get_by_role("list", name="Steps of the agent").get_by_text("running").count() == 0
