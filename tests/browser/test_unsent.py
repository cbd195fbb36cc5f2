"""What was written and did not reach the server survives a reload, is sent once, and is its
writer's alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: The page's answers at once.
FAST = "?rate=0&ttft=0"
KEYS = {"ann": "the-key-of-ann-in-this-test", "bob": "the-key-of-bob-in-this-test"}
KEPT = "() => Object.keys(sessionStorage).filter((name) => name.startsWith('tokenwire.'))"


def refuse(page: Any) -> None:
    """No question reaches the server; all the rest does."""
    page.route("**/v1/runs", lambda route: route.abort("internetdisconnected"))


def admit(page: Any) -> None:
    page.unroute("**/v1/runs")
    page.evaluate("() => window.dispatchEvent(new Event('online'))")


def stored(page: Any) -> list[str]:
    """What was asked in this conversation, as the server has it."""
    thread = page.url.partition("#t=")[2]
    path = f"/v1/threads/{thread}/turns"
    told = page.evaluate("(path) => fetch(path).then((answer) => answer.json())", path)
    return [turn["messages"][0]["content"] for turn in told.get("turns", [])]


def questions(page: Any) -> list[str]:
    return page.locator(".question > p").all_inner_texts()


def test_questions_survive_reloads_and_are_sent_once(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    page.locator(".welcome").wait_for()
    refuse(page)
    ask(page, "scenario:text" + FAST)
    unsent = page.locator(".turns").get_by_text("Not sent yet")
    unsent.wait_for()
    page.get_by_label("Your question").fill("And then?")
    page.keyboard.press("Enter")
    page.locator(".waiting li", has_text="And then?").wait_for()
    page.get_by_label("Your question").fill("Taken back")
    page.keyboard.press("Enter")
    row = page.locator(".waiting li", has_text="Taken back")
    row.get_by_role("button", name=re.compile("^Withdraw")).click()
    page.get_by_label("Your question").fill("Half a thou")
    for _ in range(2):
        page.reload()
        unsent.wait_for()
        page.locator(".waiting li", has_text="And then?").wait_for()
        assert questions(page) == ["scenario:text" + FAST]
        assert page.locator(".waiting li").count() == 1
        assert page.get_by_label("Your question").input_value() == "Half a thou"
    assert stored(page) == []
    admit(page)
    page.locator(".answer[data-state=complete]").nth(1).wait_for()
    assert stored(page) == ["scenario:text" + FAST, "And then?"]

    # The start reaches the server, and its answer is lost with the page.
    def lose(route: Any) -> None:
        route.fetch()
        route.abort("connectionreset")

    page.route("**/v1/runs", lose)
    page.get_by_label("Your question").fill("Only once")
    with page.expect_event("requestfailed", lambda one: one.url.endswith("/v1/runs")):
        page.keyboard.press("Enter")
    page.reload()
    page.unroute("**/v1/runs")
    page.locator(".answer[data-state=complete]").nth(2).wait_for()
    page.reload()
    page.locator(".answer[data-state=complete]").nth(2).wait_for()
    assert questions(page)[-1] == "Only once"
    assert stored(page) == ["scenario:text" + FAST, "And then?", "Only once"]
    assert page.evaluate(KEPT) == []


def titles(page: Any) -> list[str]:
    """The conversations of whoever is signed in."""
    told = page.evaluate("() => fetch('/v1/threads').then((answer) => answer.json())")
    return [entry["title"] for entry in told["threads"]]


def sign_in(page: Any, name: str) -> None:
    page.get_by_label("This server asks for a key.").fill(KEYS[name])
    page.keyboard.press("Enter")
    page.locator(".composer").wait_for()


def test_they_are_of_one_person_and_go_with_the_session(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name}:{key}\n" for name, key in KEYS.items()), encoding="utf-8")
    keys.chmod(0o600)
    page = watched.page()
    page.goto(serve("--api-key-file", str(keys)).url)
    sign_in(page, "ann")
    refuse(page)
    ask(page, "What only Ann may read")
    page.get_by_text("Not sent yet").wait_for()
    page.get_by_label("Your question").fill("Nor this")
    assert len(page.evaluate(KEPT)) == 2
    # Another person has the browser now, and no page of it was shown in between.
    page.evaluate(
        "(key) => fetch('/v1/session', {method: 'POST', body: JSON.stringify({key}),"
        " headers: {'content-type': 'application/json'}})",
        KEYS["bob"],
    )
    page.evaluate("() => { window.isHers = true; }")
    # The network is back: what she asked goes out with his cookie, and not as his. The page begins
    # anew by itself.
    from playwright.sync_api import Error

    with page.expect_response("**/v1/runs") as sent:
        try:
            admit(page)
        except Error as error:  # a try of the page's own was sooner than the event
            assert "context was destroyed" in error.message
    assert sent.value.status == 412
    page.wait_for_function("() => !window.isHers && document.querySelector('.composer')")
    page.wait_for_function(f"() => ({KEPT})().length === 0")
    assert titles(page) == []
    assert questions(page) == []
    assert page.get_by_label("Your question").input_value() == ""
    # And who signs out leaves nothing behind.
    page.get_by_label("Your question").fill("Of Bob")
    page.wait_for_function(f"() => ({KEPT})().length === 1")
    page.evaluate("() => fetch('/v1/session', {method: 'DELETE'})")
    page.reload()
    page.get_by_label("This server asks for a key.").wait_for()
    assert page.evaluate(KEPT) == []


def test_what_one_person_asked_is_not_sent_as_another(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name}:{key}\n" for name, key in KEYS.items()), encoding="utf-8")
    keys.chmod(0o600)
    page = watched.page()
    page.goto(serve("--api-key-file", str(keys)).url)
    sign_in(page, "ann")
    ask(page, "Of Ann" + FAST)
    page.locator(".answer[data-state=complete]").wait_for()
    refuse(page)
    ask(page, "What only Ann may read")
    page.get_by_text("Not sent yet").wait_for()
    # In another tab she signs out, and another person signs in.
    page.evaluate("() => { window.isHers = true; }")
    other = page.context.new_page()
    other.goto(page.url.partition("#")[0])
    other.locator(".composer").wait_for()
    other.evaluate("() => fetch('/v1/session', {method: 'DELETE'})")
    other.reload()
    sign_in(other, "bob")
    # Her tab, which nobody loaded again, shows nothing of hers to him, and sends nothing.
    page.wait_for_function("() => !window.isHers && document.querySelector('.composer')")
    assert "Ann" not in page.locator("body").inner_text()
    admit(page)
    ask(page, "Of Bob" + FAST)
    page.locator(".answer[data-state=complete]").wait_for()
    assert questions(page) == ["Of Bob" + FAST]
    assert titles(page) == ["Of Bob" + FAST]
