"""The documentation site: what the generator reads and makes, and what a browser gets of it."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "scripts" / "docs"
PYTHON = ROOT / ".venv-docs" / "bin" / "python"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

sys.path.insert(0, str(FOLDER))
import site_check  # noqa: E402
import site_pages  # noqa: E402
import site_twins  # noqa: E402
import typescript_reference  # noqa: E402

NAV: list[Any] = tomllib.loads((FOLDER / "zensical.toml").read_text())["project"]["nav"]


def test_every_page_of_docs_is_on_the_site_once(tmp_path: Path) -> None:
    staged = site_pages.Stage(ROOT, tmp_path)
    pages = staged.pages()
    assert len(pages) > 40
    assert sorted(pages) == sorted(
        page for _, page in site_twins.leaves(site_twins.with_all(NAV, pages))
    )
    (*_, last) = site_twins.with_all(NAV, [*pages, "guide/a-new.md"])
    assert "guide/a-new.md" in [page for _, page in site_twins.leaves([last])]
    staged.write()
    assert not [page for page in pages if not (tmp_path / page).is_file()]
    assert "needs:" not in "".join(
        re.findall(r"^```.*$", (tmp_path / "guide/embed.md").read_text(), re.MULTILINE)
    )


def test_links_of_a_staged_page_fit_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "docs/guide").mkdir(parents=True)
    (tmp_path / "tools").mkdir()
    for name in ("README.md", "docs/why.md", "docs/guide/a.md", "SECURITY.md", "tools/x.py"):
        (tmp_path / name).write_text("# x\n")
    staged = site_pages.Stage(tmp_path, tmp_path / "out")
    text = staged.page(
        "docs/guide/a.md",
        "[a](../why.md#x) [b](../../README.md) [c](../../SECURITY.md) [d](../../tools/x.py) "
        "[e](../../tools) [f](https://host.example/x.md) [g](#here) `[h](nowhere.md)`\n"
        "```sh needs: a clone\n[i](nowhere.md)\n```\n",
    )
    assert "[a](../why.md#x) [b](../index.md) [c](../project/SECURITY.md)" in text
    assert "[d](../files/tools/x.py) e [f](https://host.example/x.md) [g](#here)" in text
    assert "`[h](nowhere.md)`\n```sh\n[i](nowhere.md)\n```" in text
    with pytest.raises(site_pages.LinkError, match=r"nowhere\.md"):
        staged.page("docs/guide/a.md", "[x](nowhere.md)")


def test_the_diagrams_are_what_their_scenes_draw() -> None:
    command = [sys.executable, FOLDER / "diagrams.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_twins_link_to_twins() -> None:
    text = site_twins.twin_text("guide/a.md", "# A { #a }\n[b](b.md#x) [c](../d.json) `[e](f.md)`")
    assert text == "# A\n[b](../b/index.md#x) [c](../../d.json) `[e](f.md)`"
    assert site_twins.twin_of("index.md") == "index.md"
    assert site_twins.twin_of("protocol/README.md") == "protocol/index.md"


def test_links_of_the_typescript_reference_lead_to_headings_that_are_there() -> None:
    text = typescript_reference.with_anchors("## A\n## a()\n## B\n[x](#a-1) [y](#b-1) [z](c.md#d)")
    assert text.splitlines()[:3] == ["## A", "## a() { #a-1 }", "## B"]
    anchors = {"p.md": typescript_reference.anchors_of(text), "c.md": {"d"}}
    real = typescript_reference.with_real_links(text, "p.md", anchors)
    assert real.splitlines()[3] == "[x](#a-1) [y](#b) [z](c.md#d)"


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ('<script src="https://cdn.example/a.js"></script>', "fetches https://cdn.example/a.js"),
        ('<script src="//cdn.example/a.js"></script>', "fetches //cdn.example/a.js"),
        ('<link rel="stylesheet" href="https://f.example/x.css">', "fetches https://f.example"),
        ('<link rel="preconnect" href="https://f.example">', "fetches https://f.example"),
        ("<style>@import 'https://f.example/x.css';</style>", "fetches https://f.example"),
        ('<p style="background:url(https://f.example/x.png)">', "fetches https://f.example"),
        ('<img srcset="https://f.example/x.png 2x">', "fetches https://f.example/x.png"),
        ('<img src="missing.png">', "fetches missing.png, which does not exist"),
        ('<a href="missing/">x</a>', "links to missing/, which does not exist"),
        ('<a href="page/#nowhere">x</a>', "links to page/#nowhere, which has no such anchor"),
        ('<a href="#nowhere">x</a>', "links to #nowhere, which has no such anchor"),
    ],
)
def test_what_is_wrong_with_a_site_is_found(tmp_path: Path, html: str, problem: str) -> None:
    (tmp_path / "page").mkdir()
    good = '<a href="page/#part">x</a><a href="https://host.example/">y</a>'
    (tmp_path / "index.html").write_text(good)
    (tmp_path / "page/index.html").write_text('<h2 id="part">x</h2>')
    for name in ("index.md", "page/index.md", "llms.txt"):
        (tmp_path / name).write_text("# x\n")
    assert site_check.problems(tmp_path) == []
    (tmp_path / "index.html").write_text(good + html)
    (found,) = site_check.problems(tmp_path)
    assert problem in found


def test_a_style_and_a_twin_are_checked_as_well(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>x</p>")
    (tmp_path / "x.css").write_text("a{background:url('https://f.example/x.png')}")
    (tmp_path / "llms.txt").write_text("[a](nowhere/index.md)")
    assert [found.partition(":")[0] for found in site_check.problems(tmp_path)] == [
        "x.css",
        "llms.txt",
        "index.html",
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` makes it, without the TypeScript reference, which takes longest."""
    if not PYTHON.exists():
        pytest.skip("the site's generator is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [PYTHON, FOLDER / "make_site.py", "--no-typescript"]
    done = subprocess.run(
        [*command, "--out", folder / "out", "--work", folder / "work"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "out"


def test_the_site_has_folders_of_versions_and_everything_as_markdown(site: Path) -> None:
    assert f'url={VERSION}/"' in (site / "index.html").read_text()
    assert f'"version": "{VERSION}"' in (site / "versions.json").read_text()
    index = (site / VERSION / "llms.txt").read_text()
    assert index.startswith("# tokenwire\n\n> ")
    pages = re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", index, re.MULTILINE)
    twins = {str(path.relative_to(site / VERSION)) for path in (site / VERSION).rglob("*.md")}
    assert len(pages) > 45
    assert sorted(pages) == sorted(twins)


def test_the_python_reference_has_every_public_name(site: Path) -> None:
    import tokenwire
    from tokenwire import client, server

    for module in (tokenwire, server, client):
        name = module.__name__.replace(".", "-")
        page = site / VERSION / "reference" / "python" / name / "index.html"
        reader = site_check.read(page)
        text = page.with_name("index.md").read_text()
        for public in set(module.__all__) - {"__version__"}:
            assert f"`{public}`" in text, public
        assert len(reader.anchors & {public.lower() for public in module.__all__}) >= 9
    text = (site / VERSION / "reference/python/tokenwire/index.md").read_text()
    assert "```python\nasync with tokenwire.stream" in text


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_a_browser_fetches_nothing_from_elsewhere_and_can_search(address: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            for scheme, width in (("light", 1280), ("dark", 390)):
                page = browser.new_page(
                    viewport={"width": width, "height": 800}, color_scheme=scheme
                )
                asked: list[str] = []
                page.on("request", lambda request, asked=asked: asked.append(request.url))
                page.goto(f"{address}/{VERSION}/guide/tools/")
                grounds = "getComputedStyle(document.body).backgroundColor"
                light = sum(map(int, re.findall(r"\d+", page.evaluate(grounds))[:3])) > 384
                assert light == (scheme == "light")
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                if width > 1000:
                    page.get_by_role("button", name="Search").first.click()
                    page.keyboard.type("approval")
                    words = re.compile("approv", re.IGNORECASE)
                    page.get_by_role("link", name=words).first.wait_for()
                assert asked
                assert [url for url in asked if not url.startswith(f"{address}/{VERSION}/")] in (
                    [],
                    [f"{address}/versions.json"],
                )
                page.close()
        finally:
            browser.close()
