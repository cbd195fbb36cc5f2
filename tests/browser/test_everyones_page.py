"""The page for everyone: following, translators, right to left, print, small windows, names."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest


def state(answer: Any, wanted: str) -> None:
    answer.page.wait_for_function(
        "([e, s]) => e.dataset.state === s", arg=[answer.element_handle(), wanted]
    )


LONG = [f"Paragraph {n} says a little.\n\n" for n in range(120)]


def test_scrolling_up_a_little_ends_following(
    serve: Callable[..., Any], model: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    model.pieces, model.pause = LONG, 0.02
    go = threading.Event()
    model.gate = (60, go)
    page = watched.page()
    page.set_viewport_size({"width": 700, "height": 400})
    page.goto(serve("--model", model.name).url)
    answer = ask(page, "Say much")
    place = ".scroller"
    page.wait_for_function(
        "(s) => { const e = document.querySelector(s); return e.scrollTop > 100 }", arg=place
    )
    page.locator(place).hover()
    page.mouse.wheel(0, -12)
    page.get_by_role("button", name="To the newest").wait_for()
    page.wait_for_timeout(150)  # the wheel may turn on for a moment
    top = page.locator(place).evaluate("(e) => e.scrollTop")
    height = page.locator(place).evaluate("(e) => e.scrollHeight")
    go.set()
    page.wait_for_function(
        "([s, h]) => document.querySelector(s).scrollHeight > h + 60", arg=[place, height]
    )
    assert page.locator(place).evaluate("(e) => e.scrollTop") == top
    page.get_by_role("button", name="To the newest").click()
    state(answer, "complete")
    page.wait_for_function(
        "(s) => { const e = document.querySelector(s);"
        " return e.scrollHeight - e.scrollTop - e.clientHeight <= 2 }",
        arg=place,
    )


TRANSLATE = """() => {
    // As translators do: texts are put into elements of theirs, now and whenever some come.
    const move = (root) => {
        const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        const texts = [];
        while (walk.nextNode()) texts.push(walk.currentNode);
        for (const text of texts) {
            const of = text.parentElement;
            if (!text.data.trim() || !of || of.tagName === 'FONT') continue;
            if (of.closest('[translate=no], textarea, script, style')) continue;
            const font = document.createElement('font');
            text.replaceWith(font);
            font.textContent = text.data.toUpperCase();
        }
    };
    move(document.body);
    const watch = new MutationObserver((list) => list.forEach(({ target }) => {
        move(target.nodeType === 1 ? target : target.parentElement ?? document.body);
    }));
    const all = { childList: true, characterData: true, subtree: true };
    watch.observe(document.body, { ...all, attributes: true });
}"""


def test_a_page_that_is_translated_survives(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    page.goto(server.url)
    state(ask(page, "scenario:text?rate=300"), "complete")
    page.evaluate(TRANSLATE)
    answer = ask(page, "scenario:tool?rate=300")
    assert answer.get_attribute("translate") in ("no", None)
    state(answer, "complete")
    page.get_by_role("button", name="Edit question").last.click()
    page.get_by_label("Edit your question").press("Escape")
    page.get_by_role("button", name="Answer again").last.click()
    page.locator(".versions").wait_for()
    assert page.get_by_label("Your question").is_visible()
    assert page.locator(".answer").count() == 2


def test_what_cannot_be_drawn_is_shown_as_text(
    server: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    page = watched.page()
    # Something that the drawing needs is broken from outside.
    page.add_init_script(
        "Object.defineProperty(String.prototype, 'matchAll', {"
        " value() { throw new Error('broken') } })"
    )
    page.goto(server.url)
    page.get_by_label("Your question").fill("scenario:slow")
    page.keyboard.press("Enter")
    broken = page.locator(".broken")
    broken.wait_for()
    page.wait_for_function("() => document.querySelector('.broken pre').textContent.includes('90')")
    assert broken.get_by_role("button").is_visible()
    assert page.get_by_label("Your question").is_visible()


@pytest.mark.parametrize("size", [(320, 640), (640, 300), (320, 300)])
def test_a_small_window_works(server: Any, watched: Any, size: tuple[int, int]) -> None:
    page = watched.page()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.goto(server.url)
    page.get_by_label("Your question").fill("scenario:text?rate=500")
    page.get_by_role("button", name="Send").click()
    answer = page.locator(".answer")
    state(answer, "complete")
    wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0
    box = page.get_by_role("button", name="Send").bounding_box()
    assert box
    assert box["y"] + box["height"] <= size[1]
    scroller = page.locator(".scroller").bounding_box()
    assert scroller
    assert scroller["height"] > 90


def test_fields_are_large_enough_for_phones(server: Any, chromium: Any) -> None:
    context = chromium.new_context(
        has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800}
    )
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(server.url)
    page.get_by_role("button", name="Conversations").tap()
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('input:not([type=file]), textarea, select')]"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert len(sizes) >= 2
    assert min(sizes) >= 16
    context.close()


def test_print_has_the_whole_conversation_and_nothing_to_press(
    serve: Callable[..., Any], model: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    model.pieces = LONG * 4  # so many that those far away are not in the document
    page = watched.page()
    page.set_viewport_size({"width": 800, "height": 500})
    page.goto(serve("--model", model.name).url)
    state(ask(page, "Say much"), "complete")
    assert page.get_by_text("Paragraph 60 says").count() < 4
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_text("Paragraph 60 says").count() == 4
    page.emulate_media(media="print")
    for gone in (".sidebar", ".foot", ".answer > .facts"):
        assert not page.locator(gone).first.is_visible(), gone
    height = page.evaluate("() => document.documentElement.scrollHeight")
    assert height > 900, "nothing is cut to the window"
    assert len(page.pdf()) > 10_000


@pytest.mark.parametrize("name", ["a", "chat:1.2@me_x-y", "x" * 128])
def test_any_thread_of_the_server_is_in_the_address(server: Any, watched: Any, name: str) -> None:
    page = watched.page()
    page.request.post(
        f"{server.url}/v1/runs", data={"prompt": "scenario:text?rate=2000", "thread": name}
    )
    page.goto(f"{server.url}/#t={name}")
    state(page.locator(".answer"), "complete")
    page.reload()
    state(page.locator(".answer"), "complete")


def test_the_page_is_isolated(server: Any, watched: Any) -> None:
    page = watched.page()
    headers = page.goto(server.url).headers
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "require-trusted-types-for 'script'" in headers["content-security-policy"]
    said = page.evaluate(
        "() => { try { document.createElement('div').innerHTML = '<b>x</b>'; return 'set' }"
        " catch (error) { return error.name } }"
    )
    assert said == "TypeError"


def test_a_long_conversation_is_whole(server: Any, watched: Any) -> None:
    page = watched.page()
    for number in range(130):
        body = {"prompt": f"Question {number}.", "thread": "very-long"}
        page.request.post(f"{server.url}/v1/runs", data=body)
    page.goto(f"{server.url}/#t=very-long")
    page.locator(".question > p", has_text="Question 129.").wait_for()
    assert page.locator(".question").count() == 100
    place = page.locator(".scroller")
    top = place.evaluate("(e) => e.scrollHeight - e.scrollTop - e.clientHeight")
    assert top <= 2, "the newest is shown first"
    place.evaluate("(e) => { e.scrollTop = 0 }")
    page.locator(".question > p", has_text="Question 0.").wait_for(state="attached")
    assert page.locator(".question").count() == 130
    assert page.get_by_role("button", name="Earlier messages").count() == 0
    page.wait_for_timeout(200)
    assert place.evaluate("(e) => e.scrollTop") > 500, "what was shown stays where it was"


def test_blocks_stand_at_the_side_of_their_text(
    serve: Callable[..., Any], model: Any, watched: Any, ask: Callable[..., Any]
) -> None:
    arabic = "مرحبا بالعالم"
    model.pieces = [
        f"{arabic}\n\n- {arabic}\n- English\n\n> {arabic}\n\n",
        f"| {arabic} | b |\n|---|---|\n| 1 | 2 |\n\nEnglish `{arabic}`\n",
    ]
    page = watched.page()
    page.goto(serve("--model", model.name).url)
    state(ask(page, arabic), "complete")
    sides = page.evaluate(
        "() => ['p', 'ul', 'li', 'li:last-child', 'blockquote', '.table', '.group > p:last-child']"
        ".map((s) => getComputedStyle(document.querySelector(`.markdown ${s}`)).direction)"
    )
    assert sides == ["rtl", "rtl", "rtl", "ltr", "rtl", "rtl", "ltr"]
    field = page.get_by_label("Your question")
    field.fill(arabic)
    assert field.evaluate("(e) => getComputedStyle(e).direction") == "rtl"
