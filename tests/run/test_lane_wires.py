"""Readers of any wire that the lane writes to by hand: their bytes are those of the ordinary way,
whoever joins, leaves, resumes or reads slowly, and wherever in the run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from run.test_lane import (
    BEGIN,
    CALL,
    DONE,
    STOP,
    TEXT,
    THOUGHT,
    WIRES,
    WORDS,
    cancel,
    chat,
    lose,
    messages,
    responses,
)
from support.both_ways import END, Body, chunked, same_both_ways
from tokenwire.express import form_of
from tokenwire.providers.anthropic.decoder import DIALECT as ANTHROPIC
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.providers.openai.responses import DIALECT as RESPONSES

PLAIN = [BEGIN, *[chat(content=f"{n} ") for n in range(30)], STOP, DONE]


@pytest.mark.parametrize("wire", WIRES)
def test_each_wire_is_written_to_by_hand(wire):
    found = same_both_ways(CHAT, [*chunked(*PLAIN), END], wires=(wire,))
    assert found.by_hand >= 26
    found = same_both_ways(CHAT, [*chunked(*THOUGHT), END], wires=(wire,))
    assert found.by_hand >= (5 if wire == "token" else 18)  # which has no thoughts


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "token"])
def test_a_reader_that_resumes_is_written_to_by_hand(wire):
    """Whatever it has: all of the run so far is read, and skipped, before it is written to."""
    chunks = chunked(*PLAIN)
    for after in (1, 3, 4, 9, 12):

        async def again(scene, after=after):
            await scene.read(wire, "again", after=after)

        found = same_both_ways(CHAT, [*chunks[:14], again, *chunks[14:], END], wires=())
        assert found.by_hand >= 14, after


def test_an_encoder_hears_of_a_long_text():
    """A word as long as a read may be, and more of them than are kept for an encoder."""
    words = [chat(content=f"{n} " * (1 + n % 7 * 40)) for n in range(120)]
    found = same_both_ways(CHAT, [*chunked(BEGIN, *words, STOP, DONE), END], wires=WIRES)
    assert found.by_hand >= 60 * len(WIRES)


@pytest.mark.parametrize("wire", [wire for wire in WIRES if wire != "native"])
def test_most_texts_go_by_without_the_encoder(wire):
    """A cold encoder costs more than a token, so it does not hear of some hundred of them."""

    def by_hand(count):
        words = [chat(content=f"word{n % 9} ") for n in range(count)]
        return same_both_ways(
            CHAT, [*chunked(BEGIN, *words, STOP, DONE), END], wires=(wire,)
        ).by_hand

    assert by_hand(630) - by_hand(30) == 600


# --- whatever happens, at any token ---------------------------------------------------------------


def joining(wire: str, name: str, back: int | None) -> Any:
    async def join(scene):
        tail = len(scene.store._logs[scene.responses[0].follower.run].records)
        await scene.read(wire, name, after=0 if back is None else max(0, tail - back))

    return join


def leaving(place: int) -> Any:
    async def leave(scene):
        scene.responses[place % len(scene.responses)].follower.close()

    return leave


def filling(place: int, *, for_good: bool) -> Any:
    async def fill(scene):
        bodies = [body for body in scene.bodies.values() if isinstance(body, Body)]
        body = bodies[place % len(bodies)]
        body.is_full = True
        body.is_full = for_good

    return fill


STREAMS: dict[str, tuple[Any, list[bytes]]] = {
    "text": (CHAT, TEXT[:20] + TEXT[-2:]),
    "thought": (CHAT, THOUGHT),
    "call": (CHAT, CALL),
    "messages": (ANTHROPIC, list(messages(WORDS))),
    "responses": (RESPONSES, list(responses(WORDS * 2))),
}


@st.composite
def scenes(draw: Any) -> tuple[Any, list[Any], list[str]]:
    dialect, blocks = STREAMS[draw(st.sampled_from(sorted(STREAMS)))]
    steps: list[Any] = [*chunked(*blocks), END]
    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(["join", "join", "resume", "leave", "full", "stuck", "end"]))
        if kind in ("join", "resume"):
            back = draw(st.integers(0, 12)) if kind == "resume" else None
            wire = draw(st.sampled_from(WIRES))
            if wire == "token" and back is not None:
                wire = "native"
            action = joining(wire, f"{number}", back)
        elif kind == "leave":
            action = leaving(draw(st.integers(0, 9)))
        elif kind == "end":
            action = draw(st.sampled_from([cancel, lose]))
        else:
            action = filling(draw(st.integers(0, 9)), for_good=kind == "stuck")
        steps.insert(draw(st.integers(2, len(steps))), action)
    wires = draw(st.lists(st.sampled_from(WIRES), min_size=1, max_size=4, unique=True))
    return dialect, steps, wires


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenes())
def test_generated_readers_get_the_same(scene):
    dialect, steps, wires = scene
    same_both_ways(dialect, steps, wires=wires)


# --- forms ----------------------------------------------------------------------------------------

BYTES = st.binary(max_size=12)


@given(
    BYTES, BYTES, BYTES, BYTES, BYTES.map(lambda text: text.replace(b"\\", b"")),
    st.booleans(), st.none() | st.integers(0, 1 << 40),
)  # fmt: skip
def test_a_form_is_what_stands_in_it(head, middle, tail, end, text, has_cursor, shift):
    body = b"%b%%b%b%%b%b%%b%b" % tuple(p.replace(b"%", b"%%") for p in (head, middle, tail, end))
    form = form_of(body, head=b"{", has_cursor=has_cursor, shift=shift)
    assert form is form_of(body, head=b"{", has_cursor=has_cursor, shift=shift)
    cursor = b"7-0123" if has_cursor else b""
    number = b"" if shift is None else b"%d" % (7 + shift)
    data = head + cursor + middle + text + tail + number + end
    assert form.fill(7, b"0123", b"{}", text) == b"%x\r\n%b\r\n" % (len(data), data)
    assert form.fill(7, b"0123", b"[]", text) == b""
    assert form_of(body, head=b"{", is_json=False).fill(7, b"0123", b"{}", b"\\n") == b""


@pytest.mark.parametrize("body", [b"id: %b\ndata: %b\n\n%b", b"%%b 5%%d%b|%b|%%%b", b"%b%b%b"])
@pytest.mark.parametrize("offset", [0, 1, 9, 10, 99, 100, 999, 1000, 9999, 10_000, 123_456_789])
def test_a_form_of_whole_records_is_filled_at_once(body, offset):
    form, check, json = form_of(body), b"0123456789abcdef", b'{"a":"50%","b":1}'
    text = body % (b"%d-%b" % (offset, check), json, b"")
    assert form.plain
    assert form.fill(offset, check, json, b"") == b"%x\r\n%b\r\n" % (len(text), text)
