"""The list of conversations: found, renamed and erased, by mouse and by keyboard, in every tab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

CURSORS, LISBON = "How do cursors work?", "Plan a weekend in Lisbon"


@pytest.fixture
def here(serve: Callable[..., Any], watched: Any) -> Iterator[Any]:
    """A page with two conversations, the second of them shown."""
    url = serve().url
    for thread, question in (("cursors1", CURSORS), ("lisbon12", LISBON)):
        body = {"prompt": question, "thread": thread, "metadata": {"prompt": question}}
        httpx.post(f"{url}/v1/runs", json=body).raise_for_status()
    page = watched.page()
    page.goto(f"{url}/#t=lisbon12")
    titles(page, [LISBON, CURSORS])
    yield page
    assert watched.bad == []


def titles(page: Any, wanted: list[str]) -> None:
    """Waits until the list shows these titles."""
    page.wait_for_function(
        """(wanted) => JSON.stringify([...document.querySelectorAll('.thread > span')]
            .map((title) => title.textContent)) === JSON.stringify(wanted)""",
        arg=wanted,
    )


def test_conversations_are_found_by_their_titles(here: Any) -> None:
    titles(here, [LISBON, CURSORS])
    here.keyboard.press("Control+k")
    here.wait_for_selector("input[type=search]:focus")
    here.keyboard.type("CURSOR")
    titles(here, [CURSORS])
    here.keyboard.type(" zzz")
    titles(here, [])
    here.get_by_role("navigation").get_by_text("Nothing is called").wait_for()
    here.keyboard.press("Escape")
    titles(here, [LISBON, CURSORS])


def test_a_conversation_is_renamed_by_keyboard_and_in_every_tab(here: Any, watched: Any) -> None:
    other = watched.page()
    other.goto(here.url)
    titles(other, [LISBON, CURSORS])
    here.locator(".thread", has_text=LISBON).focus()
    here.keyboard.press("F2")
    here.keyboard.type("Lisbon in May")
    here.keyboard.press("Enter")
    for page in (here, other):
        titles(page, ["Lisbon in May", CURSORS])
        page.locator("h1", has_text="Lisbon in May").wait_for()
    here.wait_for_selector(".thread:focus")  # the focus comes back to the row
    here.keyboard.press("F2")
    here.keyboard.type("Never mind")
    here.keyboard.press("Escape")
    titles(here, ["Lisbon in May", CURSORS])
    other.reload()  # the server has it
    titles(other, ["Lisbon in May", CURSORS])
    # Without a name it has its own again.
    other.get_by_role("button", name="Rename Lisbon in May").click()
    other.get_by_role("textbox", name="Title").fill("")
    other.keyboard.press("Enter")
    titles(other, [LISBON, CURSORS])
    titles(here, [LISBON, CURSORS])


def test_a_conversation_is_erased_after_a_question(here: Any, watched: Any) -> None:
    other = watched.page()
    other.goto(here.url)
    other.locator(".question > p", has_text=LISBON).wait_for()
    here.locator(".thread", has_text=LISBON).focus()
    here.keyboard.press("Delete")
    dialog = here.get_by_role("dialog", name="Delete this conversation?")
    dialog.get_by_text(LISBON).wait_for()
    here.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    titles(here, [LISBON, CURSORS])
    here.get_by_role("button", name=f"Delete {LISBON}").click()
    with here.expect_response(lambda answer: answer.request.method == "DELETE") as told:
        dialog.get_by_role("button", name="Delete").click()
    assert told.value.status == 204
    for page in (here, other):  # both leave what is no longer there
        titles(page, [CURSORS])
        page.locator(".welcome").wait_for()
        assert "#t=" not in page.url
    here.reload()
    titles(here, [CURSORS])


def test_a_new_conversation_is_in_the_other_tabs_list(
    here: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    other = watched.page()
    other.goto(here.url.partition("#")[0])
    titles(other, [LISBON, CURSORS])
    here.keyboard.press("Control+Shift+O")
    here.locator(".welcome").wait_for()
    ask(here, "What is new?")
    titles(other, ["What is new?", LISBON, CURSORS])


def test_what_the_server_refuses_is_said_and_taken_back(here: Any) -> None:
    here.route("**/v1/threads/*", lambda route: route.fulfill(status=503, body="{}"))
    here.get_by_role("button", name=f"Delete {CURSORS}").click()
    here.get_by_role("dialog").get_by_role("button", name="Delete").click()
    here.get_by_role("alert").get_by_text(
        "The list of conversations: the server answered 503"
    ).wait_for()
    titles(here, [LISBON, CURSORS])


def test_news_of_other_tabs_do_not_take_the_focus_from_a_title(here: Any, watched: Any) -> None:
    here.set_viewport_size({"width": 390, "height": 844})
    here.get_by_role("button", name="Conversations", exact=True).click()
    here.get_by_role("button", name=f"Rename {LISBON}").click()
    here.keyboard.type("Lis")
    other = watched.page()
    other.goto(here.url)
    other.get_by_role("button", name=f"Rename {CURSORS}").click()
    other.keyboard.type("Cursors")
    other.keyboard.press("Enter")
    titles(here, ["Cursors"])  # the other one is being written
    here.keyboard.type("bon")
    here.keyboard.press("Escape")  # ends the writing, not the list
    titles(here, [LISBON, "Cursors"])
    here.wait_for_selector(".sidebar.open")
    here.keyboard.press("Escape")
    here.wait_for_selector(".sidebar.open", state="detached")


def test_the_list_says_how_long_conversations_are_kept(
    serve: Callable[..., Any], watched: Any
) -> None:
    page = watched.page()
    page.goto(serve("--retention", "172800").url)
    kept = "Conversations are kept for 2 days after their last use, at most until the server stops."
    page.get_by_role("navigation").get_by_text(kept).wait_for()
