"""Nothing that a person presses is lost: stopping, answering, renaming, keys, pastes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def state(answer: Any, wanted: str) -> None:
    answer.page.wait_for_function(
        "([e, s]) => e.dataset.state === s", arg=[answer.element_handle(), wanted]
    )


def write(page: Any, text: str) -> Any:
    """Sends a question, and waits for nothing of its answer."""
    before = page.locator(".answer").count()
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")
    return page.locator(".answer").nth(before)


def test_stop_works_before_the_run_has_an_id(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    first = ask(page, "scenario:text")
    state(first, "complete")
    held: list[Any] = []
    page.route("**/v1/runs", lambda route: held.append(route))
    second = write(page, "scenario:slow?rate=4")
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopping, as soon as the server can be reached").wait_for()
    held[0].continue_()
    state(second, "cancelled")
    assert first.get_attribute("data-state") == "complete"
    assert len(held) == 1
    assert watched.bad == []


def test_stop_without_a_network_is_sent_when_it_is_back(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:slow?rate=4")
    answer.get_by_text("1 2 3").wait_for()
    page.context.set_offline(True)
    page.get_by_role("button", name="Stop").click()
    note = page.get_by_text("Stopping, as soon as the server can be reached")
    note.wait_for()
    page.wait_for_timeout(1500)
    assert note.is_visible()
    page.context.set_offline(False)
    state(answer, "cancelled")


@pytest.mark.parametrize("how", ["offline", 500, 409])
def test_an_answer_to_an_approval_that_fails_is_said_beside_it(
    server: Any, watched: Any, ask: Callable[..., Any], how: Any
) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:approval")
    state(answer, "waiting")

    def fail(route: Any) -> None:
        if how == "offline":
            route.abort("internetdisconnected")
        else:
            route.fulfill(status=how, json={"error": {"code": "x", "message": "not today"}})

    page.route("**/approvals/*", fail)
    box = answer.get_by_role("group", name="Allow delete_file?")
    box.get_by_role("button", name="Allow").click()
    box.get_by_role("alert").wait_for()
    assert "Not sent" in box.get_by_role("alert").inner_text()
    page.unroute("**/approvals/*")
    box.get_by_role("button", name="Allow").click()
    state(answer, "complete")


@pytest.mark.parametrize("what", ["rename", "delete"])
def test_a_change_of_a_conversation_that_fails_is_said_in_its_row(
    server: Any, watched: Any, ask: Callable[..., Any], what: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    title = f"To {what} in vain"
    state(ask(page, title), "complete")
    fail = {"status": 500, "json": {"error": {"code": "x", "message": "not today"}}}
    method = {"rename": "PUT", "delete": "DELETE"}[what]
    page.route(
        "**/v1/threads/*",
        lambda route: (
            route.fulfill(**fail) if route.request.method == method else route.continue_()
        ),
    )
    row = page.get_by_role("navigation").locator("li", has_text=title)

    def change(to: str) -> None:
        if what == "rename":
            row.locator("button.thread").press("F2")
            page.get_by_label("Title").fill(to)
            page.keyboard.press("Enter")
        else:
            row.locator("button.thread").press("Delete")
            page.get_by_role("dialog").get_by_role("button", name="Delete").click()

    change("Another")
    row.get_by_role("alert").wait_for()
    assert "not today" in row.get_by_role("alert").inner_text()
    page.unroute("**/v1/threads/*")
    change("Another")
    row.wait_for(state="detached")


def compose(page: Any, how: str) -> None:
    """Enter as an input method sends it: while it composes, or as Safari does, just after."""
    page.evaluate(
        """(how) => {
            const event = {
                key: 'Enter', bubbles: true, cancelable: true,
                isComposing: how === 'composing', keyCode: how === 'safari' ? 229 : 13,
            };
            document.activeElement.dispatchEvent(new KeyboardEvent('keydown', event));
        }""",
        how,
    )


@pytest.mark.parametrize("how", ["composing", "safari"])
def test_enter_of_an_input_method_sends_nothing(server: Any, watched: Any, how: str) -> None:
    page = watched.page()
    page.goto(server.url)
    field = page.get_by_label("Your question")
    field.fill("日本")
    compose(page, how)
    page.wait_for_timeout(200)
    assert field.input_value() == "日本"
    assert page.locator(".answer").count() == 0
    page.keyboard.press("Enter")
    state(page.locator(".answer"), "complete")
    page.get_by_role("button", name="Edit question").click()
    page.get_by_label("Edit your question").fill("日本語")
    compose(page, how)
    page.wait_for_timeout(200)
    assert page.get_by_label("Edit your question").input_value() == "日本語"


def test_escape_closes_just_what_it_was_meant_for(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    answer = ask(page, "scenario:slow?rate=4")
    answer.get_by_text("1 2 3").wait_for()
    search = page.get_by_label("Search conversations")
    search.fill("x")
    search.press("Escape")
    assert search.input_value() == ""
    search.press("Escape")
    field = page.get_by_label("Your question")
    field.evaluate(
        """(field) => field.dispatchEvent(new KeyboardEvent('keydown',
            {key: 'Escape', isComposing: true, keyCode: 229, bubbles: true, cancelable: true}))"""
    )
    page.set_viewport_size({"width": 500, "height": 700})
    page.get_by_role("button", name="Conversations").click()
    page.locator(".sidebar.open").wait_for()
    page.keyboard.press("Escape")
    page.locator(".sidebar.open").wait_for(state="detached")
    page.wait_for_timeout(300)
    assert answer.get_attribute("data-state") == "running"
    field.press("Escape")
    state(answer, "cancelled")


def test_enter_of_a_keyboard_on_the_screen_breaks_the_line(server: Any, chromium: Any) -> None:
    context = chromium.new_context(
        has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800}
    )
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(server.url)
    field = page.get_by_label("Your question")
    field.tap()
    page.keyboard.type("one")
    page.keyboard.press("Enter")
    page.keyboard.type("two")
    assert field.input_value() == "one\ntwo"
    assert field.get_attribute("enterkeyhint") == "enter"
    page.get_by_role("button", name="Send").tap()
    state(page.locator(".answer"), "complete")
    context.close()


PASTE = """([field, texts, files]) => {
    const data = new DataTransfer();
    for (const [type, text] of Object.entries(texts)) data.setData(type, text);
    for (const [name, type] of files) data.items.add(new File(['x'], name, { type }));
    const event = { clipboardData: data, bubbles: true, cancelable: true };
    return field.dispatchEvent(new ClipboardEvent('paste', event));
}"""


def test_what_is_pasted_is_text_or_a_file(server: Any, watched: Any) -> None:
    page = watched.page()
    page.goto(server.url)
    field = page.get_by_label("Your question").element_handle()

    def paste(texts: dict[str, str], files: list[tuple[str, str]]) -> bool:
        """Whether it is left to the field."""
        return page.evaluate(PASTE, [field, texts, files])

    cells = {"text/plain": "a\tb\n1\t2", "text/html": "<table></table>"}
    assert paste(cells, [("image.png", "image/png")]), "cells are text, not their picture"
    assert paste({"text/plain": "x" * 32_768}, []), "32 KiB are text"
    assert not paste({"text/plain": "notes.txt"}, [("notes.txt", "text/plain")]), "a file"
    page.get_by_text("notes.txt").wait_for()
    assert not paste({"text/plain": "é" * 20_000}, [])
    page.get_by_text("pasted.txt").wait_for()
    assert page.get_by_label("Your question").input_value() == ""


def test_what_is_pasted_into_a_question_that_is_edited(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    state(ask(page, "scenario:text?rate=900"), "complete")
    page.get_by_role("button", name="Edit question").click()
    field = page.get_by_label("Edit your question")
    for text in ("x" * 40_000, "y" * 40_000):
        data = [field.element_handle(), {"text/plain": text}, []]
        assert not page.evaluate(PASTE, data)
    page.get_by_text("pasted.txt").nth(1).wait_for()
    page.get_by_role("button", name="Remove pasted.txt").first.click()
    assert field.input_value() == "scenario:text?rate=900"
    page.get_by_role("button", name="Ask", exact=True).click()
    page.get_by_text("2 / 2").wait_for()
    assert page.locator(".question").get_by_text("pasted.txt").count() == 1
    page.get_by_role("button", name="Edit question").click()
    page.get_by_role("button", name="Cancel").click()
