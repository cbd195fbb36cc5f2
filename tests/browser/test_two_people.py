"""Two people in one conversation, side by side: each sees at once what the other one does, and may
do what the owner says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

KEYS = {"ann": "the-key-of-ann-in-this-test", "bob": "the-key-of-bob-in-this-test"}
COMPLETE = ".answer[data-state=complete]"
#: The machine may be slow; nothing here is about time.
PATIENCE = 60_000


@pytest.fixture
def url(serve: Any, tmp_path: Path) -> str:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name}:{key}\n" for name, key in KEYS.items()), encoding="utf-8")
    keys.chmod(0o600)
    return serve("--api-key-file", str(keys)).url


@pytest.fixture
def people(chromium: Any) -> Iterator[dict[str, Any]]:
    """A window of each, with errors of their pages."""
    contexts = {
        name: chromium.new_context(viewport={"width": 1000, "height": 800}) for name in KEYS
    }
    pages = {}
    faults: list[str] = []
    for name, context in contexts.items():
        context.set_default_timeout(PATIENCE)
        pages[name] = context.new_page()
        pages[name].on("pageerror", lambda error: faults.append(str(error)))
    yield pages
    for context in contexts.values():
        context.close()
    assert faults == []


def sign_in(page: Any, name: str, address: str) -> None:
    page.goto(address)
    page.get_by_label("This server asks for a key.").fill(KEYS[name])
    page.keyboard.press("Enter")
    page.locator(".composer").wait_for()


def write(page: Any, text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def asked(page: Any, name: str, text: str) -> None:
    """Waits until this question of this person stands in the conversation."""
    question = page.locator(".question", has=page.locator(".by", has_text=re.compile(f"^{name}$")))
    question.locator("p", has_text=re.compile(f"^{re.escape(text)}$")).first.wait_for()


def joined(ann: Any, bob: Any, url: str) -> str:
    """Ann's conversation has an answer, and Bob belongs to it by this link."""
    sign_in(ann, "ann", url)
    write(ann, "scenario:text?rate=900")
    ann.wait_for_selector(COMPLETE)
    ann.get_by_role("button", name="People", exact=True).click()
    dialog = ann.get_by_role("dialog", name="People in this conversation")
    dialog.get_by_text("ann (you)").wait_for()
    dialog.get_by_role("button", name="Create a link").click()
    link = dialog.get_by_label("The invitation's link").input_value()
    assert link.startswith(f"{url}/#join=")
    sign_in(bob, "bob", link)
    asked(bob, "ann", "scenario:text?rate=900")
    assert "join" not in bob.url
    dialog.get_by_label("What bob may do").wait_for()
    dialog.get_by_role("button", name="Close").click()
    asked(ann, "You", "scenario:text?rate=900")
    return link


def test_each_sees_what_the_other_does(url: str, people: dict[str, Any]) -> None:
    ann, bob = people["ann"], people["bob"]
    joined(ann, bob, url)
    ann.get_by_text("bob is here").wait_for()
    bob.get_by_text("ann is here").wait_for()

    write(ann, "scenario:stall")
    asked(bob, "ann", "scenario:stall")
    bob.locator(".answer").nth(1).get_by_text("I say this much").wait_for()

    # It is shown for some seconds: who looks late has seen it too.
    ann.evaluate(
        """() => new MutationObserver(() => {
            window.seen ||= document.querySelector('.types')?.textContent;
        }).observe(document.body, { childList: true, subtree: true })"""
    )
    bob.get_by_label("Your question").press_sequentially("Then")
    ann.wait_for_function("() => window.seen === 'bob writes…'", timeout=PATIENCE)
    write(bob, "Then what?")
    for page, name in ((bob, "You"), (ann, "bob")):
        row = page.locator(".waiting li", has_text="Then what?")
        row.get_by_text(name, exact=True).wait_for()
    ann.get_by_role("button", name="Edit “Then what?”").click()
    ann.get_by_label("Edit the waiting question").fill("And then?")
    ann.keyboard.press("Enter")
    bob.get_by_role("button", name="Stop the answer and send “And then?” now").click()
    asked(ann, "bob", "And then?")
    asked(bob, "You", "And then?")
    for page in (ann, bob):
        page.locator(COMPLETE).nth(1).wait_for()

    write(ann, "scenario:approval")
    bob.get_by_text("It waits for somebody who may allow it").wait_for()
    assert bob.get_by_role("button", name="Allow", exact=True).count() == 0
    ann.get_by_role("button", name="People: 2").click()
    dialog = ann.get_by_role("dialog", name="People in this conversation")
    dialog.get_by_label("What bob may do").select_option("approve")
    bob.get_by_role("button", name="Allow", exact=True).click()
    for page in (ann, bob):
        page.locator(COMPLETE).nth(2).wait_for()

    dialog.get_by_text("here now").wait_for()
    dialog.get_by_role("button", name="Remove bob").click()
    ann.get_by_text("bob is here").wait_for(state="detached")
    bob.get_by_role("alert").get_by_text("you no longer belong to it").wait_for()
    assert bob.get_by_label("Your question").count() == 0
    dialog.get_by_label("What bob may do").wait_for(state="detached")


def test_who_may_only_read_cannot_write_and_may_leave(url: str, people: dict[str, Any]) -> None:
    ann, bob = people["ann"], people["bob"]
    link = joined(ann, bob, url)
    ann.get_by_role("button", name="People: 2").click()
    dialog = ann.get_by_role("dialog", name="People in this conversation")
    dialog.get_by_label("What bob may do").select_option("read")
    bob.get_by_text("You may read this conversation, but not write in it.").wait_for()
    for gone in ("Edit question", "Answer again", "Send"):
        assert bob.get_by_role("button", name=gone).count() == 0
    bob.get_by_role("button", name="People: 2").click()
    bob.get_by_role("button", name="Leave this conversation").click()
    bob.locator(".welcome").wait_for()
    dialog.get_by_label("What bob may do").wait_for(state="detached")
    bob.goto(link)
    bob.get_by_role("alert").get_by_text("You could not join").wait_for()
    assert "join" not in bob.url
