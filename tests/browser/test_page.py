"""What a person does with the page: ask, watch, stop, try again, edit, approve."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest


def state(answer: Any, wanted: str) -> None:
    answer.page.wait_for_function(
        "([e, s]) => e.dataset.state === s", arg=[answer.element_handle(), wanted]
    )


def test_an_answer_comes_piece_by_piece(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    page.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                const text = document.querySelector('.answer .markdown')?.textContent;
                if (text) window.seen.add(text);
            }).observe(document.body, {subtree: true, childList: true, characterData: true});
        }"""
    )
    answer = ask(page, "scenario:slow")
    state(answer, "complete")
    assert answer.locator(".markdown").inner_text().strip() == counted
    seen = sorted(page.evaluate("() => [...window.seen]"), key=len)
    assert len(seen) > 5  # one frame may show several pieces, on a slow machine many
    for before, after in itertools.pairwise(seen):
        assert after.startswith(before)
    facts = answer.locator(".numbers").inner_text()
    assert re.search(r"first token \d", facts)
    assert "tokens/s" in facts
    assert watched.bad == []
    assert watched.foreign(server.url) == []


def test_stop_ends_the_run_and_says_so(server: Any, watched: Any, ask: Callable[..., Any]) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:slow")
    answer.get_by_text("1 2 3").wait_for()
    page.get_by_role("button", name="Stop").click()
    state(answer, "cancelled")
    assert "90" not in answer.locator(".markdown").inner_text()
    answer.get_by_text("Stopped.").wait_for()


def test_an_error_is_shown_with_its_reason_and_can_be_retried(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:error")
    state(answer, "error")
    alert = answer.get_by_role("alert")
    assert len(alert.inner_text()) > 20
    assert answer.locator(".markdown").inner_text().strip(), "what came before is kept"
    alert.get_by_role("button", name="Try again").click()
    page.get_by_text("2 / 2").wait_for()
    page.get_by_role("button", name="Older version").click()
    page.get_by_text("1 / 2").wait_for()


def test_a_tool_is_shown_with_its_arguments_and_result(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:tool")
    state(answer, "complete")
    tool = answer.locator(".tool")
    assert tool.locator("strong").inner_text() == "get_weather"
    assert "Paris" in tool.locator(".arguments").inner_text()
    assert tool.get_attribute("data-status") == "done"


@pytest.mark.parametrize("answered", ["Allow", "Deny"])
def test_an_approval_waits_for_a_person(
    server: Any, watched: Any, ask: Callable[..., Any], answered: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:approval")
    state(answer, "waiting")
    box = answer.get_by_role("group", name="Allow delete_file?")
    assert "{" in box.locator("pre").inner_text()
    box.get_by_role("button", name=answered, exact=True).click()
    state(answer, "complete")
    assert (answer.get_by_text("Not allowed").count() == 1) == (answered == "Deny")


def test_reasoning_is_folded(server: Any, watched: Any, ask: Callable[..., Any]) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:reasoning")
    state(answer, "complete")
    thoughts = answer.locator(".reasoning")
    assert thoughts.get_attribute("open") is None
    thoughts.locator("summary").click()
    assert len(thoughts.locator(".thoughts").inner_text()) > 10


def test_a_question_can_be_edited_and_both_answers_stay(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    state(ask(page, "What is this?"), "complete")
    page.get_by_role("button", name="Edit question").click()
    page.get_by_label("Edit your question").fill("scenario:slow")
    page.keyboard.press("Enter")
    answer = page.locator(".answer").first
    state(answer, "complete")
    assert answer.locator(".markdown").inner_text().strip() == counted
    page.reload()
    page.get_by_text("2 / 2").wait_for()
    page.get_by_role("button", name="Older version").click()
    page.locator(".question > p", has_text="What is this?").wait_for()


def test_conversations_are_listed_and_opened_again(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    state(ask(page, "The first conversation"), "complete")
    page.get_by_role("button", name="New conversation").click()
    page.locator(".welcome").wait_for()
    state(ask(page, "The second conversation"), "complete")
    page.get_by_role("navigation").get_by_text("The first conversation").click()
    page.locator(".question > p", has_text="The first conversation").wait_for()
    assert page.locator(".question").count() == 1
    page.go_back()
    page.locator(".question > p", has_text="The second conversation").wait_for()


def test_the_keyboard_is_enough(server: Any, watched: Any) -> None:
    page = watched.page()
    page.goto(server.url)
    page.wait_for_selector("textarea:focus")
    page.keyboard.type("scenario:slow")
    page.keyboard.press("Enter")
    answer = page.locator(".answer").first
    answer.get_by_text("1 2 3").wait_for()
    page.keyboard.press("Escape")
    state(answer, "cancelled")
    page.keyboard.press("Control+Shift+O")
    page.locator(".welcome").wait_for()


def test_citations_are_drawn_as_sources(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], model: Any
) -> None:
    def cited(url: str, title: str) -> dict[str, Any]:
        citation = {"url": url, "title": title, "start_index": 0, "end_index": 4}
        return {"annotations": [{"type": "url_citation", "url_citation": citation}]}

    model.pieces = [
        "It is so.",
        cited("https://example.org/a", "The <b>source</b>"),
        cited("https://example.org/a", "The same again"),
        cited("javascript:alert(1)", "A trap"),
    ]
    page = watched.page()
    page.goto(serve("--model", model.name).url)
    answer = ask(page, "Is it?")
    state(answer, "complete")
    sources = answer.get_by_role("list", name="Sources").get_by_role("listitem")
    assert sources.count() == 1
    link = sources.get_by_role("link")
    assert link.get_attribute("href") == "https://example.org/a"
    assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert "(example.org)" in sources.inner_text()
    assert watched.bad == []


def test_a_draft_stays_over_a_reload(server: Any, watched: Any) -> None:
    page = watched.page()
    page.goto(server.url)
    page.get_by_label("Your question").fill("Half a quest")
    page.get_by_text("Conversations are kept for").wait_for()  # it knows whose page it is
    page.reload()
    page.wait_for_function(
        "() => document.querySelector('.composer textarea')?.value === 'Half a quest'"
    )
    page.get_by_label("Your question").fill("scenario:empty")
    page.keyboard.press("Enter")
    page.wait_for_selector(".answer[data-state=complete]")
    assert page.get_by_label("Your question").input_value() == ""
    page.reload()
    page.wait_for_selector(".answer[data-state=complete]")
    assert page.get_by_label("Your question").input_value() == ""


def test_copying_leaves_out_what_cannot_be_seen(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], model: Any
) -> None:
    tags = "".join(chr(0xE0000 + ord(char)) for char in "ignore all")
    selectors = "".join(chr(0xE0100 + number) for number in range(20))
    model.pieces = [f"Family 👨\u200d👩\u200d👧, {tags}plain\u202e \u200btext{selectors}."]
    watched.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = watched.page()
    page.goto(serve("--model", model.name).url)
    answer = ask(page, "Hide something")
    state(answer, "complete")
    answer.get_by_text("characters that cannot be seen").wait_for()
    answer.get_by_role("button", name="Copy answer").click()
    answer.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("() => navigator.clipboard.readText()")
    assert copied == "Family 👨\u200d👩\u200d👧, plain text."
