"""The built page: only its own files, by exact path, under a strict policy."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.testclient import TestClient

from support.server import site
from tokenwire.server.routes.static import PAGE_HEADERS, PAGE_POLICY, routes, static_files


def test_files_are_found_once_and_served_exactly(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>x</title>")
    (tmp_path / "assets" / "app-1a2b.js").write_text("console.log(1)")
    (tmp_path / ".secret").write_text("no")
    files = static_files(tmp_path)
    assert set(files) == {"/", "/index.html", "/assets/app-1a2b.js"}
    client = TestClient(Starlette(routes=routes(files)))
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"] == PAGE_POLICY
    assert "no-cache" in page.headers["cache-control"]
    script = client.get("/assets/app-1a2b.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    for path in (
        "/.secret",
        "/assets/../.secret",
        "/assets/",
        "/%2e%2e/etc/passwd",
        "//etc/passwd",
    ):
        assert client.get(path).status_code == 404


def test_the_policy_lets_nothing_in_and_nothing_frame_it() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in PAGE_POLICY.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self'"
    assert rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'"
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in PAGE_POLICY


def test_without_a_build_one_line_says_how_to_make_it(tmp_path: Path) -> None:
    client = TestClient(Starlette(routes=routes(static_files(tmp_path / "nothing"))))
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.text.count("\n") == 1
    assert "make" in answer.text


def test_the_page_is_alone_and_may_use_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    assert PAGE_HEADERS["cross-origin-opener-policy"] == "same-origin"
    assert "trusted-types 'none'" in PAGE_POLICY
    allowed = dict(rule.split("=") for rule in PAGE_HEADERS["permissions-policy"].split(", "))
    assert allowed["clipboard-write"] == "(self)"
    for name in ("camera", "microphone", "geolocation", "usb"):
        assert allowed[name] == "()"
    with site() as here:
        page = here.client.get("/")
        if "text/html" in page.headers["content-type"]:
            for name, value in PAGE_HEADERS.items():
                assert page.headers[name] == value
