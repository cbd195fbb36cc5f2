"""`useChat` of the AI SDK in a page of its own, from another origin: words arrive, a reload and a
killed server leave the answer whole."""

from __future__ import annotations

import functools
import signal
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.node import need_client

ROOT = Path(__file__).parents[2]
BUILD = Path(__file__).parent / "use_chat" / "build.mjs"
NUMBERS = "".join(f"{number} " for number in range(1, 91))
#: All that `scenario:stall` says.
STALLED = "I say this much, and then nothing more"
VERSIONS = ["5", "6", "7"]


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin that the pages come from; ``/vN.html`` has version N."""
    need_client()
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run(["node", str(BUILD), str(folder), *VERSIONS], cwd=ROOT, check=True)
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def opened(watched: Any, pages: str, served: Any, version: str, **more: str) -> Any:
    page = watched.page()
    query = "&".join(f"{k}={v}" for k, v in {"server": served.url, "chat": "c1", **more}.items())
    page.goto(f"{pages}/v{version}.html?{query}")
    return page


def ask(page: Any, question: str) -> None:
    page.get_by_label("Question").fill(question)
    page.keyboard.press("Enter")


def until(page: Any, what: str) -> None:
    """Wait until a JavaScript expression over ``shown`` (the answer's text) holds."""
    page.wait_for_function(
        "() => { const shown = document.querySelector('output').textContent; return " + what + " }"
    )


def seen(page: Any, whole: str = NUMBERS) -> list[str]:
    """Every text of the answer that was drawn; each must be a beginning of the whole."""
    texts = page.evaluate("seen")
    assert all(whole.startswith(text) for text in texts), texts[-1]
    assert page.query_selector("[role=alert]") is None
    return texts


@pytest.mark.parametrize("version", VERSIONS)
def test_words_arrive_and_a_reload_reads_the_answer_whole(
    serve: Any, watched: Any, pages: str, version: str
) -> None:
    served = serve("--cors-origin", pages)
    page = opened(watched, pages, served, version)
    ask(page, "scenario:slow")
    until(page, "seen.length > 3")
    seen(page)
    page = opened(watched, pages, served, version, chat="c2")
    # It does not end before somebody stops it, however slowly a page is loaded.
    ask(page, "scenario:stall")
    until(page, f"shown === '{STALLED}'")
    page = opened(watched, pages, served, version, chat="c2", resume="1")
    until(page, f"shown === '{STALLED}'")
    seen(page, STALLED)
    assert page.request.post(f"{served.url}/api/chat/c2/stop").status == 202
    page.wait_for_selector("output[data-status=ready]")
    assert seen(page, STALLED)[-1] == STALLED
    assert watched.bad == []


@pytest.mark.parametrize("version", VERSIONS)
def test_the_server_is_killed_and_with_our_fetch_the_sentence_goes_on(
    serve: Any, watched: Any, pages: str, version: str, tmp_path: Path
) -> None:
    served = serve("--cors-origin", pages, "--store", f"sqlite:{tmp_path}/runs.db")
    page = opened(watched, pages, served, version, ours="1")
    ask(page, "scenario:slow")
    until(page, "shown.length > 20")
    served.stop(signal.SIGKILL)
    served.start()
    page.wait_for_selector("output[data-status=ready]")
    assert seen(page)[-1] == NUMBERS
    assert watched.bad == []
