"""Model output that tries to get out of the page: no foreign request, no dialog, at no prefix; and
answers that are too long for a page drawn as a whole."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def hostile() -> str:
    """The list that the packages' tests use too."""
    source = (ROOT / "packages/page/test/markdown/hostile.ts").read_text("utf-8")
    body = source[source.index("[\n") : source.index("].join")]
    pieces = [line.strip().rstrip(",") for line in body.splitlines()[1:] if line.strip()]
    plain = [p for p in pieces if p.startswith('"') and p.endswith('"') and ".repeat" not in p]
    return "\n\n".join(
        re.sub(r'\\(["\\])|\\n|\\t', lambda m: m.group(1) or "\n", p[1:-1]) for p in plain
    )


def test_hostile_markdown_reaches_nothing_at_any_prefix(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], model: Any
) -> None:
    text = hostile()
    assert "<script>alert(1)</script>" in text
    assert len(text) > 1500
    model.pieces, model.pause = list(text), 0.002
    served = serve("--model", model.name)
    page = watched.page()
    page.goto(served.url)
    answer = ask(page, "Try it")
    page.wait_for_selector(".answer[data-state=complete]", timeout=60000)
    page.reload()
    page.wait_for_selector(".answer[data-state=complete]")
    assert watched.foreign(served.url) == []
    assert watched.bad == []
    for link in answer.locator("a").all():
        assert re.match(r"https?://", link.get_attribute("href"))
        assert link.get_attribute("rel") == "noopener noreferrer nofollow"
    assert answer.locator("script, iframe, object, style, form, base, meta, link").count() == 0


def test_every_prefix_of_hostile_markdown_is_drawn_without_a_request(
    watched: Any, tmp_path: Path
) -> None:
    """The renderer alone, without the policy that the server puts around it."""
    if not (ROOT / "node_modules/vite").exists() or not (npx := shutil.which("npx")):
        pytest.skip("the packages' tools are not installed (npm ci)")
    config = "packages/page/test/markdown/prefixes.config.ts"
    build = [npx, "vite", "build", "--config", config, "--outDir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    here = "http://prefixes.test"

    def answer(route: Any) -> None:
        path = route.request.url.removeprefix(here).lstrip("/")
        file = tmp_path / path
        if not route.request.url.startswith(here):
            route.abort()  # remembered as a foreign request all the same
        elif not path:
            html = "<!doctype html><script type=module src=/prefixes.js></script>"
            route.fulfill(body=html, content_type="text/html")
        elif file.is_file():
            route.fulfill(path=file, content_type="text/javascript")
        else:
            route.fulfill(status=404)

    watched.context.route("**/*", answer)
    page = watched.page()
    page.goto(here)
    page.wait_for_function("() => window.drawAll")
    assert page.evaluate("() => window.drawAll()") > 3500
    assert watched.bad == []
    assert watched.foreign(here) == []
    # Nothing of it asked for a file that is not the page's either.
    own = [request for request in watched.requests if request.startswith(here)]
    assert all(re.fullmatch(rf"{here}/(|favicon\.ico|.*\.js)", request) for request in own), own


def test_ten_megabytes_do_not_freeze_the_page(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], model: Any
) -> None:
    paragraph = "".join(f"Sentence {n} has **bold** words and `code`. " for n in range(20)) + "\n\n"
    count = 10_000_000 // len(paragraph)
    model.pieces = [f"Number {n}. " + paragraph for n in range(count)]
    served = serve("--model", model.name)
    page = watched.page()
    page.goto(served.url)
    page.evaluate(
        """() => {
            window.longest = 0;
            new PerformanceObserver((list) => {
                for (const task of list.getEntries()) {
                    window.longest = Math.max(window.longest, task.duration);
                }
            }).observe({type: 'longtask'});
        }"""
    )
    ask(page, "Write a lot")
    page.wait_for_selector(".answer[data-state=complete]", timeout=120000)
    page.get_by_text(f"Number {count - 1}.").wait_for()
    # The page answers while it reads, and keeps in the document only what is near the window.
    assert page.evaluate("() => document.querySelectorAll('*').length") < 20000
    page.get_by_label("Your question").fill("still alive")
    assert page.get_by_label("Your question").input_value() == "still alive"
    print("longest task", page.evaluate("() => window.longest"), "ms")
    page.reload()
    page.get_by_text(f"Number {count - 1}.").wait_for(timeout=60000)
    assert page.evaluate("() => document.querySelectorAll('*').length") < 20000
