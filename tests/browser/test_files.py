"""Files of a question and of an answer: attached, sent, kept, drawn and saved, and nothing more."""

from __future__ import annotations

import base64
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

COMPLETE = ".answer[data-state=complete]"


def png(width: int, height: int, *, noise: bool = False) -> bytes:
    """A picture; of noise where it must not get small."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    row = bytes(range(256)) * (width * 3 // 256 + 1)
    rows = (os.urandom(width * 3) if noise else row[: width * 3] for _ in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


PICTURE = {"name": "cat.png", "mimeType": "image/png", "buffer": png(60, 40)}
REPORT = {"name": "report.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.4 " * 100}
NOTES = {"name": "notes.py", "mimeType": "", "buffer": b"print('hello')\n"}


def attach(page: Any, *files: dict[str, Any]) -> None:
    page.set_input_files("input[type=file]", list(files))


def attached(page: Any, count: int) -> None:
    page.wait_for_function(
        "(n) => document.querySelectorAll('.composer .attached .file').length === n", arg=count
    )


def drawn(page: Any, selector: str) -> None:
    """Waits until a picture is there and has its pixels."""
    page.wait_for_function(
        "(s) => { const i = document.querySelector(s); return i?.complete && i.naturalWidth > 0; }",
        arg=selector,
    )


def input_of(page: Any, url: str, number: int = 0) -> list[dict[str, Any]]:
    """What the model was asked: of the thread's newest run, or one before it."""
    thread = page.url.partition("#t=")[2]
    runs = httpx.get(f"{url}/v1/threads/{thread}").json()["runs"]
    return httpx.get(f"{url}/v1/runs/{runs[number]['id']}").json()["input"]


def test_files_are_sent_drawn_and_kept(
    server: Any, watched: Any, ask: Callable[..., Any], tmp_path: Path
) -> None:
    page = watched.page()
    page.goto(server.url)
    attach(page, PICTURE, REPORT, NOTES)
    attached(page, 3)
    answer = ask(page, "What is in these?")
    page.wait_for_selector(COMPLETE)
    text = answer.locator(".markdown").inner_text()
    for said in ("these 3 files", "image/png", "report.pdf", "application/pdf", "notes.py"):
        assert said in text
    attached(page, 0)
    parts = input_of(page, server.url)[0]["content"]
    assert [part["type"] for part in parts] == ["file", "file", "file", "text"]
    assert base64.b64decode(parts[0]["data"]) == PICTURE["buffer"]
    assert (parts[2]["media_type"], parts[2]["name"]) == ("text/plain", "notes.py")

    other = watched.page()
    other.goto(page.url)
    page.reload()
    for one in (page, other):
        drawn(one, ".question .thumb img")
        one.locator(".question").get_by_text("report.pdf").wait_for()
    with other.expect_download() as told:
        other.get_by_role("button", name="Save report.pdf").click()
    assert told.value.suggested_filename == "report.pdf"
    assert Path(told.value.path()).read_bytes() == REPORT["buffer"]
    other.get_by_role("button", name="Look at cat.png").click()
    other.get_by_role("dialog", name="cat.png").wait_for()
    drawn(other, ".lightbox img")
    other.keyboard.press("Escape")
    other.get_by_role("dialog", name="cat.png").wait_for(state="detached")

    # The next question brings the files along, also from a page that only showed them.
    ask(other, "scenario:empty")
    other.wait_for_function("() => document.querySelectorAll('.answer').length === 2")
    other.wait_for_function(f"() => document.querySelectorAll('{COMPLETE}').length === 2")
    first, *_, second = input_of(other, server.url)
    assert first["content"] == parts
    assert second["content"] == "scenario:empty"
    assert watched.bad == []
    assert watched.foreign(server.url) == []


def test_a_question_of_files_alone_edited_to_one_of_them(server: Any, watched: Any) -> None:
    page = watched.page()
    page.goto(server.url)
    assert page.get_by_role("button", name="Send").is_disabled()
    attach(page, REPORT, NOTES)
    attached(page, 2)
    page.get_by_role("button", name="Send").click()
    page.wait_for_selector(COMPLETE)
    page.locator("h1", has_text="report.pdf").wait_for()
    page.get_by_role("button", name="Edit question").click()
    page.get_by_role("button", name="Remove report.pdf").click()
    page.get_by_label("Edit your question").fill("scenario:empty")
    page.keyboard.press("Enter")
    page.get_by_text("2 / 2").wait_for()
    page.wait_for_selector(COMPLETE)
    (edited,) = input_of(page, server.url)
    assert [part.get("name", part.get("text")) for part in edited["content"]] == [
        "notes.py",
        "scenario:empty",
    ]
    assert page.locator(".question .file").count() == 1


def test_what_cannot_be_attached_is_said(server: Any, watched: Any) -> None:
    page = watched.page()
    page.goto(server.url)
    problems = page.locator(".problems")
    attach(
        page,
        {"name": "prog.exe", "mimeType": "application/x-msdownload", "buffer": b"MZ\0\xff" * 9},
        {"name": "empty.txt", "mimeType": "text/plain", "buffer": b""},
        {"name": "large.pdf", "mimeType": "application/pdf", "buffer": b"x" * (4 << 20) + b"x"},
        {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"},
        {"name": "film.mp4", "mimeType": "video/mp4", "buffer": b"x"},
    )
    problems.get_by_text("“film.mp4” cannot be attached").wait_for()
    for said in (
        "“prog.exe” cannot be attached: only pictures",
        "“empty.txt” cannot be attached: it is empty",
        "“large.pdf” cannot be attached: it has 4 MiB, more than 4 MiB",
        "“no.png” cannot be attached: this browser cannot read the picture",
    ):
        problems.get_by_text(said).wait_for()
    attached(page, 0)
    attach(page, *({**NOTES, "name": f"{n}.txt"} for n in range(9)))
    problems.get_by_text("at most 8 files").wait_for()
    attached(page, 8)
    page.get_by_role("button", name="Remove 3.txt").click()
    attached(page, 7)
    assert problems.count() == 0


def test_a_large_picture_is_made_smaller(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    photo = {"name": "photo.png", "mimeType": "image/png", "buffer": png(2600, 400, noise=True)}
    assert len(photo["buffer"]) > 2 << 20
    attach(page, photo)
    attached(page, 1)
    ask(page, "scenario:empty")
    page.wait_for_selector(COMPLETE)
    part = input_of(page, server.url)[0]["content"][0]
    assert (part["media_type"], part["name"]) == ("image/jpeg", "photo.jpg")
    assert len(base64.b64decode(part["data"])) <= 1 << 20
    drawn(page, ".question .thumb img")
    width = page.evaluate("() => document.querySelector('.question .thumb img').naturalWidth")
    assert width <= 2048


@pytest.mark.parametrize("how", ["paste", "drop"])
def test_files_are_pasted_and_dropped(server: Any, watched: Any, how: str) -> None:
    page = watched.page()
    page.goto(server.url)
    page.locator(".welcome").wait_for()
    page.evaluate(
        """(how) => {
            const data = new DataTransfer();
            data.items.add(new File(['hello'], 'a\\u202etxt.exe.txt', {type: 'text/plain'}));
            const area = document.querySelector('.composer textarea');
            const more = {bubbles: true, cancelable: true};
            if (how === 'paste') {
                area.dispatchEvent(new ClipboardEvent('paste', {...more, clipboardData: data}));
                return;
            }
            for (const type of ['dragenter', 'dragover', 'drop']) {
                area.dispatchEvent(new DragEvent(type, {...more, dataTransfer: data}));
            }
        }""",
        how,
    )
    attached(page, 1)
    # A name cannot turn itself around.
    assert page.locator(".file-name > span").inner_text() == "atxt.exe.txt"
    assert page.locator(".drop").count() == 0


def data_url(kind: str, data: bytes) -> dict[str, Any]:
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    return {"images": [{"type": "image_url", "image_url": {"url": url}}]}


def test_files_that_a_model_makes_are_shown_and_saved_safely(
    serve: Callable[..., Any], watched: Any, ask: Callable[..., Any], model: Any
) -> None:
    script = b"<script>alert(document.domain)</script>"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    link = {"images": [{"type": "image_url", "image_url": {"url": "https://evil.test/a.png"}}]}
    trap = {"images": [{"type": "image_url", "image_url": {"url": "javascript:alert(1)"}}]}
    model.pieces = [
        "Here they are.",
        data_url("image/png", PICTURE["buffer"]),
        data_url("image/svg+xml", svg),
        data_url("text/html", script),
        link,
        trap,
    ]
    served = serve("--model", model.name)
    page = watched.page()
    page.goto(served.url)
    answer = ask(page, "Draw")
    page.wait_for_selector(COMPLETE)
    drawn(page, ".picture-part img")
    # Neither the script nor the drawing that may hold one is drawn.
    assert answer.locator("img").count() == 1
    assert answer.locator(".file").count() == 4
    remote = answer.locator("a")
    assert remote.count() == 1
    assert remote.get_attribute("rel") == "noopener noreferrer nofollow"
    answer.get_by_text("(evil.test)").wait_for()
    with page.expect_download() as told:
        answer.get_by_role("button", name="Save image.html").click()
    assert Path(told.value.path()).read_bytes() == script
    page.reload()
    drawn(page, ".picture-part img")
    assert watched.bad == []
    assert watched.foreign(served.url) == []
