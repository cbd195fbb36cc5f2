"""Every view, light and dark, wide and narrow: axe has no complaint, and nothing sticks out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
#: The page's answers at once: what is looked at here is how they look.
FAST = "?rate=0&ttft=0"
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])

pytestmark = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (npm ci)")


class Looked:
    """A page that is looked at view by view."""

    def __init__(self, page: Any, scheme: str, width: int) -> None:
        self.page = page
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 800})

    def at(self, view: str) -> None:
        """Nothing to complain of in what is shown now."""
        self.page.evaluate(AXE.read_text("utf-8"))
        found = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        told = [
            f"{v['id']}: {v['help']}: {v['nodes'][0]['html'][:300]} "
            f"{v['nodes'][0]['failureSummary']}"
            for v in found["violations"]
        ]
        assert told == [], view
        wide = self.page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide == 0, view

    def ask(self, question: str, state: str, ask: Callable[..., Any]) -> None:
        """Asks and waits for the answer's state."""
        answer = ask(self.page, question)
        self.page.wait_for_function(
            "([e, s]) => e.dataset.state === s", arg=[answer.element_handle(), state]
        )


@SCHEMES
@pytest.mark.parametrize("width", [1280, 390])
def test_the_chat(
    server: Any, watched: Any, ask: Callable[..., Any], scheme: str, width: int
) -> None:
    page = watched.page()
    look = Looked(page, scheme, width)
    page.goto(server.url)
    page.locator(".welcome").wait_for()
    look.at("empty")
    look.ask("scenario:text" + FAST, "complete", ask)
    look.ask("scenario:reasoning" + FAST, "complete", ask)
    page.locator(".reasoning summary").click()
    look.ask("scenario:error" + FAST, "error", ask)
    look.at("answers and an error")
    look.ask("scenario:approval" + FAST, "waiting", ask)
    look.at("approval open")
    page.get_by_role("button", name="Deny").click()
    page.wait_for_function("() => !document.querySelector('.answer[data-state=waiting]')")
    page.set_input_files(
        "input[type=file]",
        [
            {"name": "a.txt", "mimeType": "text/plain", "buffer": b"hello"},
            {"name": "b.exe", "mimeType": "application/x-msdownload", "buffer": b"\0\xff"},
        ],
    )
    page.locator(".problems").wait_for()
    look.at("files attached and refused")
    look.ask("scenario:empty", "complete", ask)
    page.get_by_role("button", name="Edit question").last.click()
    look.at("a question being edited")
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Stream inspector", exact=True).click()
    page.locator(".inspector figure").first.wait_for()
    look.at("inspector open")
    page.get_by_role("button", name="Close the inspector").click()
    if width < 760:
        page.get_by_role("button", name="Conversations", exact=True).click()
    row = page.locator(".threads li.current")
    row.get_by_role("button", name="Rename").click()
    look.at("a conversation being renamed")
    page.keyboard.press("Escape")
    row.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").wait_for()
    look.at("asked before deleting")


@SCHEMES
@pytest.mark.parametrize("width", [1280, 390])
def test_the_dashboard(
    server: Any, watched: Any, ask: Callable[..., Any], scheme: str, width: int
) -> None:
    pytest.importorskip("prometheus_client")
    page = watched.page()
    look = Looked(page, scheme, width)
    page.goto(server.url)
    look.ask("scenario:text" + FAST, "complete", ask)
    page.goto(server.url + "/dash")
    page.locator("figure", has_text="Runs by outcome").get_by_text("complete").wait_for()
    look.at("dashboard")


@SCHEMES
def test_the_sign_in(serve: Callable[..., Any], watched: Any, scheme: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me:a-key-for-looking-only\n", encoding="utf-8")
    keys.chmod(0o600)
    page = watched.page()
    look = Looked(page, scheme, 390)
    page.goto(serve("--api-key-file", str(keys)).url)
    page.get_by_label("This server asks for a key.").fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_role("alert").wait_for()
    look.at("sign-in refused")


@SCHEMES
@pytest.mark.parametrize("width", [1280, 320])
def test_an_agent(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], scheme: str, width: int
) -> None:
    served = serve("--agent", "tests/browser/agents/showing.py:telling")
    page = watched.page()
    look = Looked(page, scheme, width)
    page.goto(served.url)
    look.ask("Do cats purr?", "waiting", ask)
    for summary in page.locator("details.fact summary").all():
        summary.click()
    look.at("tasks, progress, a helper, sources and state")
    page.get_by_role("button", name="Allow").click()
    page.wait_for_function("() => document.querySelector('.answer[data-state=complete]')")
    look.at("the whole answer")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_people_the_queue_and_the_inbox(
    serve: Callable[..., Any],
    watched: Any,
    ask: Callable[..., Any],
    scheme: str,
    width: int,
    tmp_path: Path,
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ann:the-key-of-ann-here\nbob:the-key-of-bob-here\n", encoding="utf-8")
    keys.chmod(0o600)
    url = serve("--api-key-file", str(keys)).url
    page = watched.page()
    look = Looked(page, scheme, width)
    page.goto(url)
    page.get_by_label("This server asks for a key.").fill("the-key-of-ann-here")
    page.keyboard.press("Enter")
    look.ask("scenario:approval" + FAST, "waiting", ask)
    page.keyboard.press("Control+Shift+O")
    page.locator(".welcome").wait_for()
    ask(page, "scenario:stall")
    page.get_by_text("I say this much").wait_for()
    for question in ("Then what?", "And after that?"):
        page.get_by_label("Your question").fill(question)
        page.keyboard.press("Enter")
        page.locator(".waiting li", has_text=question).wait_for()
    look.at("questions that wait")
    page.get_by_role("button", name="Edit “Then what?”").click()
    page.get_by_label("Edit the waiting question").wait_for()
    look.at("a waiting question being edited")
    page.keyboard.press("Escape")
    if width < 760:
        page.get_by_role("button", name="Conversations", exact=True).click()
    page.get_by_role("button", name="Allow delete_file").wait_for()
    look.at("what waits for a decision elsewhere")
    if width < 760:
        page.keyboard.press("Escape")
    thread = page.url.partition("#t=")[2]
    other = watched.context.browser.new_context()
    try:
        bob = {"authorization": "Bearer the-key-of-bob-here"}
        page.get_by_role("button", name="People", exact=True).click()
        dialog = page.get_by_role("dialog", name="People in this conversation")
        dialog.get_by_role("button", name="Create a link").click()
        link = dialog.get_by_label("The invitation's link").input_value()
        look.at("people, with a link")
        token = link.partition("#join=")[2]
        joined = other.request.post(
            f"{url}/v1/invites/accept", data={"token": token}, headers=bob
        ).json()
        assert joined["thread"] != thread
        dialog.get_by_label("What bob may do").wait_for()
        visitor = other.new_page()
        visitor.goto(url)
        visitor.get_by_label("This server asks for a key.").fill("the-key-of-bob-here")
        visitor.keyboard.press("Enter")
        visitor.locator(".composer").wait_for()
        visitor.goto(f"{url}/#t={joined['thread']}")
        dialog.get_by_text("here now").wait_for()
        look.at("people, one of whom is here")
        dialog.get_by_role("button", name="Close").click()
        page.get_by_text("bob is here").wait_for()
        look.at("a shared conversation with somebody in it")
    finally:
        other.close()
