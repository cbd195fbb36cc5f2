"""Questions that wait for their turn: written while it answers, changed, taken back, sent at once;
the same on every device, also without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

COMPLETE = ".answer[data-state=complete]"


@pytest.fixture
def other(chromium: Any) -> Iterator[Any]:
    """A page of another device."""
    context = chromium.new_context(viewport={"width": 420, "height": 800})
    context.set_default_timeout(30000)
    yield context.new_page()
    context.close()


def queue(page: Any, expected: list[str]) -> None:
    """Waits until these questions wait, in this order."""
    page.wait_for_function(
        """(expected) => JSON.stringify([...document.querySelectorAll(
            '.waiting li:not(:has(form)) .waiting-text > p:first-child')]
            .map((p) => p.textContent)) === JSON.stringify(expected)""",
        arg=expected,
        timeout=30000,
    )


def questions(page: Any, expected: list[str]) -> None:
    """Waits until these questions stand in the conversation, in this order."""
    page.wait_for_function(
        """(expected) => JSON.stringify([...document.querySelectorAll('.question > p')]
            .map((p) => p.textContent)) === JSON.stringify(expected)""",
        arg=expected,
        timeout=30000,
    )


def write(page: Any, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def begun(page: Any) -> None:
    page.locator(".answer .markdown").last.wait_for()


def busy(page: Any, url: str) -> None:
    """A conversation whose answer goes on until it is stopped."""
    page.goto(url)
    write(page, "scenario:stall")
    begun(page)


def stored(page: Any, url: str) -> list[str]:
    thread = page.url.partition("#t=")[2]
    turns = httpx.get(f"{url}/v1/threads/{thread}/turns").json()["turns"]
    return [turn["messages"][0]["content"] for turn in turns]


def test_what_is_written_meanwhile_waits_and_is_changed_on_every_device(
    server: Any, watched: Any, other: Any
) -> None:
    page = watched.page()
    busy(page, server.url)
    for text in ("One", "Two", "Three"):
        write(page, text)
    queue(page, ["One", "Two", "Three"])
    questions(page, ["scenario:stall"])
    assert page.get_by_label("Your question").input_value() == ""
    other.goto(page.url)
    queue(other, ["One", "Two", "Three"])
    other.get_by_role("button", name="Edit “Two”").click()
    field = other.get_by_label("Edit the waiting question")
    field.wait_for()
    assert field.input_value() == "Two"
    field.fill("Second")
    other.keyboard.press("Enter")
    queue(other, ["One", "Second", "Three"])
    queue(page, ["One", "Second", "Three"])
    # By keyboard alone.
    page.get_by_role("button", name="Withdraw “One”").press("Enter")
    queue(page, ["Second", "Three"])
    page.wait_for_selector(".composer textarea:focus")
    page.get_by_role("button", name="Stop the answer and send “Three” now").press("Enter")
    for one in (page, other):
        questions(one, ["scenario:stall", "Three", "Second"])
        queue(one, [])
        one.locator(COMPLETE).nth(1).wait_for()
    assert page.locator(".answer").first.get_attribute("data-state") == "cancelled"
    assert stored(page, server.url) == ["scenario:stall", "Three", "Second"]
    assert watched.bad == []


def test_stopping_the_answer_begins_the_next_one(server: Any, watched: Any) -> None:
    page = watched.page()
    busy(page, server.url)
    write(page, "scenario:text?rate=900")
    queue(page, ["scenario:text?rate=900"])
    page.get_by_role("button", name="Stop", exact=True).click()
    questions(page, ["scenario:stall", "scenario:text?rate=900"])
    page.locator(COMPLETE).wait_for()


def test_a_question_that_begins_while_it_is_edited_keeps_what_was_written(
    server: Any, watched: Any
) -> None:
    page = watched.page()
    busy(page, server.url)
    write(page, "Early")
    queue(page, ["Early"])
    page.get_by_role("button", name="Edit “Early”").click()
    page.get_by_label("Edit the waiting question").fill("Late")
    page.get_by_role("button", name="Stop", exact=True).click()
    questions(page, ["scenario:stall", "Early"])
    page.get_by_text("This question is no longer waiting").wait_for()
    field = page.get_by_label("Edit the waiting question")
    assert field.input_value() == "Late"
    field.press("Enter")
    questions(page, ["scenario:stall", "Early", "Late"])
    page.locator(COMPLETE).nth(1).wait_for()


def test_what_is_sent_without_a_network_goes_out_in_order_and_once(
    server: Any, line: Any, watched: Any
) -> None:
    page = watched.page()
    page.goto(line.url)
    page.locator(".welcome").wait_for()
    line.cut()
    watched.context.set_offline(True)
    page.get_by_text("You are offline").wait_for()
    write(page, "First")
    write(page, "Second")
    page.get_by_text("Not sent yet").first.wait_for()
    questions(page, ["First"])
    queue(page, ["Second"])
    line.mend()
    watched.context.set_offline(False)
    questions(page, ["First", "Second"])
    page.locator(COMPLETE).nth(1).wait_for()
    assert stored(page, server.url) == ["First", "Second"]
    page.reload()
    questions(page, ["First", "Second"])


def test_a_question_that_was_not_sent_is_withdrawn(server: Any, line: Any, watched: Any) -> None:
    page = watched.page()
    busy(page, line.url)
    line.cut()
    write(page, "Never")
    queue(page, ["Never"])
    page.get_by_role("button", name="Withdraw “Never”").click()
    line.mend()
    page.evaluate("() => window.dispatchEvent(new Event('online'))")
    queue(page, [])
    page.get_by_role("button", name="Stop", exact=True).click()
    page.wait_for_selector(".answer[data-state=cancelled]")
    assert stored(page, server.url) == ["scenario:stall"]


def test_a_branch_that_is_chosen_is_shown_on_every_device(
    server: Any, watched: Any, other: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    ask(page, "scenario:text?rate=900")
    page.wait_for_selector(COMPLETE)
    page.get_by_role("button", name="Answer again").click()
    page.get_by_text("2 / 2").wait_for()
    page.wait_for_selector(COMPLETE)
    ask(page, "After the second")
    page.locator(COMPLETE).nth(1).wait_for()
    other.goto(page.url)
    questions(other, ["scenario:text?rate=900", "After the second"])
    other.get_by_role("button", name="Older version").click()
    questions(other, ["scenario:text?rate=900"])
    questions(page, ["scenario:text?rate=900"])
    page.get_by_text("1 / 2").wait_for()
    ask(page, "After the first")
    questions(other, ["scenario:text?rate=900", "After the first"])
    page.reload()
    questions(page, ["scenario:text?rate=900", "After the first"])


def test_a_refused_change_is_said_in_plain_words(server: Any, watched: Any) -> None:
    page = watched.page()
    busy(page, server.url)
    write(page, "Kept")
    queue(page, ["Kept"])
    body = {"error": {"code": "conflict", "message": "this turn has begun; it waits no more"}}
    page.route("**/queue/*", lambda route: route.fulfill(status=409, json=body))
    page.get_by_role("button", name="Withdraw “Kept”").click()
    alert = page.get_by_role("region", name="Questions that wait").get_by_role("alert")
    alert.get_by_text("It is being answered already").wait_for()
    page.unroute("**/queue/*")
    page.get_by_role("button", name="Withdraw “Kept”").click()
    queue(page, [])
    page.keyboard.press("Escape")
    page.wait_for_selector(".answer[data-state=cancelled]")


def test_what_waits_for_a_decision_is_decided_from_anywhere(server: Any, watched: Any) -> None:
    page = watched.page()
    page.goto(server.url)
    write(page, "scenario:approval")
    page.get_by_role("group", name="Allow delete_file?").wait_for()
    inbox = page.get_by_role("region", name="Waits for you")
    assert inbox.count() == 0, "what is shown has its own buttons"
    page.get_by_role("button", name="New conversation").click()
    page.locator(".welcome").wait_for()
    inbox.get_by_text("report.txt").wait_for()
    inbox.get_by_role("button", name="Allow delete_file").click()
    inbox.wait_for(state="detached")
    page.go_back()
    page.wait_for_selector(COMPLETE)
    assert watched.bad == []
