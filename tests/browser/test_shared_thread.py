"""A conversation followed in seven tabs: one connection, whoever goes, and nothing twice."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
BUILD = Path(__file__).parent / "shared_thread" / "build.mjs"
LONGEST = 45.0


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin that the tabs come from."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run(["node", str(BUILD), str(folder)], cwd=ROOT, check=True)
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def opened(watched: Any, pages: str, served: Any, **more: str) -> Any:
    page = watched.page()
    query = "&".join(f"{name}={value}" for name, value in {"server": served.url, **more}.items())
    page.goto(f"{pages}/thread.html?{query}")
    page.wait_for_function("() => kept.length > 0 || state.error")
    return page


def streams(served: Any, **headers: str) -> int:
    """How many connections the server has open, streams and sockets."""
    text = httpx.get(f"{served.url}/metrics", headers=headers).text
    line = next(one for one in text.splitlines() if one.startswith("tokenwire_connections_open "))
    return int(float(line.split()[1]))


def until(what: Callable[[], bool], why: str) -> None:
    end = time.monotonic() + LONGEST
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.05)


def ask(served: Any, prompt: str) -> str:
    body = {"thread": "shared", "prompt": prompt}
    return str(httpx.post(f"{served.url}/v1/runs", json=body).raise_for_status().json()["id"])


def whole(tabs: list[Any], runs: int) -> None:
    """Every tab has each event of each run once and in order, and each start and end once."""
    for tab in tabs:
        tab.wait_for_function(f"() => state.ended === {runs}", timeout=LONGEST * 1000)
    told = [tab.evaluate("() => [runs, kept, state.error]") for tab in tabs]
    for events, kept, error in told:
        assert error is None
        assert len(events) == runs
        for cursors in events.values():
            assert cursors == list(range(1, len(cursors) + 1))
        assert len(set(kept)) == len(kept), kept
    assert all(events == told[0][0] for events, _, _ in told)


def test_seven_tabs_one_connection_and_the_one_that_reads_goes(
    serve: Any, watched: Any, pages: str
) -> None:
    served = serve("--cors-origin", pages)
    tabs = [opened(watched, pages, served) for _ in range(7)]
    until(lambda: streams(served) == 1, "seven tabs have more than one connection")
    ask(served, "scenario:slow")
    for tab in tabs:
        tab.wait_for_function("() => Object.values(runs).some((events) => events.length > 10)")
    assert streams(served) == 1
    # The first one came first, and reads; one tab closes, the next one crashes.
    tabs.pop(0).close()
    for tab in tabs:
        tab.wait_for_function("() => Object.values(runs).some((events) => events.length > 30)")
    victim, crashed = tabs.pop(0), list[Any]()
    victim.on("crash", lambda page: crashed.append(page))
    with contextlib.suppress(Exception):  # Playwright hears of a page that is gone
        victim.goto("chrome://crash")
    whole(tabs, 1)
    assert crashed
    until(lambda: streams(served) == 1, "five tabs have more than one connection")
    ask(served, "scenario:slow")
    late = opened(watched, pages, served)
    whole(tabs, 2)
    late.wait_for_function("() => state.ended > 0")
    until(lambda: streams(served) == 1, "six tabs have more than one connection")
    assert watched.bad == []


def test_a_frozen_tab_that_reads_hands_over_and_catches_up(
    serve: Any, watched: Any, pages: str
) -> None:
    served = serve("--cors-origin", pages, "--heartbeat", "1")
    tabs = [opened(watched, pages, served, watchdog="4000") for _ in range(3)]
    until(lambda: streams(served) == 1, "three tabs have more than one connection")
    tools = watched.context.new_cdp_session(tabs[0])
    tools.send("Page.setWebLifecycleState", {"state": "frozen"})
    ask(served, "scenario:slow")
    whole(tabs[1:], 1)  # only another connection can have brought it
    tools.send("Page.setWebLifecycleState", {"state": "active"})
    whole(tabs, 1)
    ask(served, "scenario:slow")
    whole(tabs, 2)
    until(lambda: streams(served) == 1, "three tabs have more than one connection")
    assert watched.bad == []


def test_without_channels_each_tab_has_a_connection_and_principals_are_apart(
    serve: Any, watched: Any, pages: str
) -> None:
    env = {"TOKENWIRE_API_KEYS": "ann:the-long-key-of-ann,bob:the-long-key-of-bob"}
    served = serve("--cors-origin", pages, env=env)
    ann = {"authorization": "Bearer the-long-key-of-ann"}
    tabs = [opened(watched, pages, served, key="the-long-key-of-ann") for _ in range(2)]
    other = opened(watched, pages, served, key="the-long-key-of-bob")
    until(lambda: streams(served, **ann) == 2, "two principals have not two connections")
    alone = [opened(watched, pages, served, key="the-long-key-of-ann", **{"no-channels": "1"})]
    until(lambda: streams(served, **ann) == 3, "a tab without channels has none of its own")
    body = {"thread": "shared", "prompt": "one"}
    httpx.post(f"{served.url}/v1/runs", json=body, headers=ann).raise_for_status()
    whole([*tabs, *alone], 1)
    assert other.evaluate("() => [state.ended, kept.length]") == [0, 1]
    # A key that does not count is an error, and no silence.
    wrong = opened(watched, pages, served, key="the-long-key-of-nobody")
    wrong.wait_for_function("() => state.error === 'not_authenticated'")
    assert watched.bad == []
