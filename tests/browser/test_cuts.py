"""Reload, second tab, no network, a killed server, seven tabs: not a word lost or repeated."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

COMPLETE = ".answer[data-state=complete] .markdown"


def words(page: Any) -> str:
    page.wait_for_selector(COMPLETE)
    return page.locator(COMPLETE).last.inner_text().strip()


def begun(page: Any) -> None:
    page.locator(".answer .markdown").get_by_text("1 2 3").wait_for()


def test_a_reload_in_mid_answer_goes_on(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    ask(page, "scenario:slow")
    begun(page)
    page.reload()
    begun(page)
    page.reload()
    assert words(page) == counted
    assert page.locator(".question > p").inner_text() == "scenario:slow"


def test_a_second_tab_shows_the_same_live(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    first = watched.page()
    first.goto(server.url)
    ask(first, "scenario:slow")
    begun(first)
    second = watched.page()
    second.goto(first.url)
    begun(second)
    first.close()  # the tab that reads for both goes; the other reads on
    assert words(second) == counted
    third = watched.page()
    third.goto(second.url)
    assert words(third) == counted
    ask(second, "A question in one tab")
    third.locator(".question > p", has_text="A question in one tab").wait_for()


def test_no_network_for_a_while(
    line: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(line.url)
    ask(page, "scenario:slow?rate=12")
    begun(page)
    watched.context.set_offline(True)  # the browser says so, but keeps what is open
    line.cut()
    page.get_by_text("Reconnecting").wait_for()
    before = page.locator(".answer .markdown").inner_text().strip()
    assert counted.startswith(before)
    assert before != counted
    line.mend()
    # The browser tells that it is online; the page does not wait for its next turn.
    watched.context.set_offline(False)
    assert words(page) == counted


def test_a_line_that_breaks_again_and_again(
    line: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(line.url)
    ask(page, "scenario:slow?rate=12")
    begun(page)
    for number in (10, 25, 40, 55, 70):
        page.wait_for_function(
            "(n) => document.querySelector('.answer .markdown').textContent.includes(` ${n} `)",
            arg=number,
        )
        line.drop()
    assert words(page) == counted
    page.get_by_role("button", name="Stream inspector", exact=True).click()
    figure = page.locator(".figures > div", has_text="reconnects").locator("dd").inner_text()
    assert int(figure.split()[0]) >= 3


def test_a_question_asked_without_network_is_sent_later_and_once(
    line: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(line.url)
    page.locator(".welcome").wait_for()
    line.cut()
    ask(page, "scenario:slow")
    page.locator(".question > p", has_text="scenario:slow").wait_for()
    line.mend()
    page.evaluate("() => window.dispatchEvent(new Event('online'))")
    assert words(page) == counted
    thread = page.url.partition("#t=")[2]
    told = page.evaluate("(t) => fetch(`/v1/threads/${t}`).then((a) => a.json())", thread)
    assert len(told["runs"]) == 1


def test_the_server_is_killed_and_comes_back(
    serve: Callable[..., Any],
    watched: Any,
    ask: Callable[..., Any],
    counted: str,
    tmp_path: Path,
) -> None:
    served = serve("--store", f"sqlite:{tmp_path / 'runs.db'}")
    page = watched.page()
    page.goto(served.url)
    ask(page, "scenario:slow?rate=400")
    page.wait_for_selector(COMPLETE)
    ask(page, "scenario:slow?rate=12")
    page.locator(".answer .markdown").nth(1).get_by_text("1 2 3").wait_for()
    served.stop(signal.SIGKILL)
    page.get_by_text("Reconnecting").wait_for()
    served.start()
    # The run is taken over: restarted as one answer, or ended honestly; never half and half.
    page.wait_for_function(
        "() => ['complete', 'interrupted'].includes("
        "document.querySelectorAll('.answer')[1].dataset.state)",
        timeout=60000,
    )
    second = page.locator(".answer").nth(1)
    text = second.locator(".markdown").inner_text().strip()
    if second.get_attribute("data-state") == "complete":
        assert text == counted
    else:
        assert counted.startswith(text)
    assert page.locator(".answer .markdown").first.inner_text().strip() == counted
    # What could not be read meanwhile is read again, without being asked to.
    page.locator(".notice").wait_for(state="hidden")


def test_seven_tabs_of_one_conversation_then_several_runs(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    pages = [watched.page() for _ in range(7)]
    for page in pages:
        page.goto(server.url)
        page.locator(".welcome").wait_for()
    first, *rest = pages
    ask(first, "scenario:slow")
    begun(first)
    for page in rest:
        page.evaluate("(hash) => { location.hash = hash; }", first.url.partition("#")[2])
    assert [words(page) for page in pages] == [counted] * 7
    streams = [url for url in watched.requests if url.endswith("/events")]
    # One tab reads for all; on a slow machine a tab may come when that one has just finished.
    assert len(streams) <= 3, streams
    # And each of several tabs reads an answer of its own.
    others = [watched.page() for _ in range(4)]
    for page in others:
        page.goto(server.url)
        ask(page, "scenario:slow")
    assert [words(page) for page in others] == [counted] * 4


def test_eight_runs_at_once_in_one_browser(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    served = serve("--limit", "runs_per_principal=20", "--limit", "starts_per_minute=100")
    pages = [watched.page() for _ in range(8)]
    for page in pages:
        page.goto(served.url)
    for page in pages:
        ask(page, "scenario:slow")
    for page in pages:
        begun(page)
    # A browser opens six connections to one host: the page leaves two of them free.
    first = pages[0].evaluate("() => fetch('/healthz').then((answer) => answer.status)")
    assert first == 200
    assert [words(page) for page in pages] == [counted] * 8


def test_a_frozen_tab_catches_up(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    ask(page, "scenario:slow")
    begun(page)
    thread = page.url.partition("#t=")[2]
    tools = watched.context.new_cdp_session(page)
    tools.send("Page.setWebLifecycleState", {"state": "frozen"})
    # The answer goes on without this tab, to its end.
    end = time.monotonic() + 60
    while httpx.get(f"{server.url}/v1/threads/{thread}").json()["active"]:
        assert time.monotonic() < end, "the run did not end"
        time.sleep(0.1)
    tools.send("Page.setWebLifecycleState", {"state": "active"})
    assert words(page) == counted


def test_a_slow_machine_loses_nothing(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    tools = watched.context.new_cdp_session(page)
    tools.send("Emulation.setCPUThrottlingRate", {"rate": 8})
    ask(page, "scenario:slow")
    assert words(page) == counted


def test_a_browser_without_room_for_storage_shows_the_answer(
    server: Any, watched: Any, ask: Callable[..., Any], counted: str
) -> None:
    page = watched.page()
    page.goto(server.url)
    full = page.evaluate(
        """() => {
          for (let size = 1 << 20; ; size /= 2) {
            try {
              for (let n = 0; n < 64; n++) localStorage.setItem(`${size} ${n}`, "x".repeat(size));
            } catch (error) {
              if (size === 1) return error.name;
            }
          }
        }"""
    )
    assert full == "QuotaExceededError"
    ask(page, "scenario:slow")
    begun(page)
    page.reload()
    assert words(page) == counted
