"""The express lane of each dialect: the same records and bytes as without it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.both_ways import END, RUN, chunked, same_both_ways
from support.corpus import NAMED
from support.dialect_streams import STREAMS, Stream
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import FAMILIES, Registry

ROOT = Path(__file__).parents[2]
NATIVE = json.loads((ROOT / "conformance" / "providers" / "native.json").read_text())["cases"]
CASES = [case for case in NATIVE if case["family"] != "converse"]
WIRES = ("native", "ui", "openai-responses", "anthropic")


def same(stream: Stream, blocks: list[bytes], **options):
    steps = [*chunked(*blocks), END]
    return same_both_ways(stream.dialect, steps, content_type=stream.content_type, **options)


#: One stream of each decoder, and of each way in which a block can vary.
SOME = (
    "messages-arguments", "messages-blanks", "responses-arguments", "responses-summary",
    "gemini-text", "interactions-text", "cohere-text", "ollama-chat", "chat-usage", "completions",
)  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_plain_stream_takes_the_lane(name):
    stream = STREAMS[name]
    found = same(stream, stream.blocks(stream.words), wires=WIRES)
    assert found.on_lane >= stream.least
    assert found.closed == "complete"


# --- what is a little different in the middle of a stream -----------------------------------------

JSON = re.compile(rb"(?P<head>data: |\A)(?P<json>\{.*\})(?P<end>\s*)\Z", re.DOTALL)


def changed(block: bytes, change) -> bytes:
    """A block whose JSON is another."""
    match = JSON.search(block)
    assert match is not None
    value = change(json.loads(match["json"]))
    if not isinstance(value, bytes):
        # Halves of a pair stay what they are, as in `blocks`: a provider may send them.
        value = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return block[: match.start("json")] + value + match["end"]


def deep(value, change):
    """Each object of a value changed, from the inside."""
    if isinstance(value, dict):
        return change({key: deep(inner, change) for key, inner in value.items()})
    return [deep(inner, change) for inner in value] if isinstance(value, list) else value


def renumbered(number):
    """Each index and count of a value another."""

    def change(fields):
        return {k: number if type(v) is int else v for k, v in fields.items()}

    return lambda value: deep(value, change)


#: How a block in the middle of a stream differs from its neighbours.
CHANGES = {
    "again": lambda block: block,
    "twice": lambda block: block + block,
    "none": lambda block: b"",
    "other order": lambda b: changed(b, lambda v: deep(v, lambda d: dict(reversed(d.items())))),
    "more at the end": lambda b: changed(b, lambda v: {**v, "more": "x"}),
    "more inside": lambda b: changed(b, lambda v: deep(v, lambda d: {**d, "more": "x"})),
    "an error beside": lambda b: changed(b, lambda v: {**v, "error": {"message": "gone"}}),
    "a second choice": lambda b: changed(
        b, lambda v: {k: x * 2 if isinstance(x, list) else x for k, x in v.items()}
    ),
    "number 0": lambda b: changed(b, renumbered(0)),
    "number 1": lambda b: changed(b, renumbered(1)),
    "negative": lambda b: changed(b, renumbered(-1)),
    "huge": lambda b: changed(b, renumbered(10**20)),
    "duplicate keys": lambda b: changed(
        b, lambda v: json.dumps(v).encode()[:-1] + b"," + json.dumps(v).encode()[1:]
    ),
    "no JSON": lambda b: changed(b, lambda v: b"{oh"),
    "line end": lambda b: b.replace(b"\r", b"") if b"\r" in b else b.replace(b"\n", b"\r\n"),
    "two lines": lambda b: changed(b, lambda v: json.dumps(v, indent=1).encode()),
    "a comment": lambda b: b": x\n\n" + b,
    "blanks": lambda b: b.replace(b"}\n", b"   }\n"),
    "ping": lambda b: b'event: ping\ndata: {"type":"ping"}\n\n',
}


@pytest.mark.parametrize("name", SOME)
def test_a_block_that_differs_is_read_as_ever(name):
    stream = STREAMS[name]
    blocks = stream.blocks(stream.words)
    middle = len(blocks) // 2 + 1
    for what, change in CHANGES.items():
        odd = change(blocks[middle])
        found = same(stream, [*blocks[:middle], odd, *blocks[middle:]])
        assert found.on_lane >= 1, what


ODD = [
    '"', "\\", "\\u0041", "%", "%d%b%s", "\ud83d", "\ude00", "\x00", "\x7f", "\u2028", "{",
    '{"a":1}', "}", "<think>", "data: x\n\n", "null", "", "a" * 5000, '","text":"b',
]  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_a_hostile_text_is_read_as_ever(name):
    stream = STREAMS[name]
    found = same(stream, stream.blocks([w for odd in ODD for w in ("a", "b", odd, "c", odd)]))
    assert found.on_lane >= 10


#: Escapes as servers write them that do not write JSON as we do.
SPELLINGS = [
    b"\\u0061",
    b"\\/",
    b"\\ud83d\\ude00",
    b"\\ud83d",
    b"\\u000a",
    b"\xff",
    b"\xc3",
    b"\\x",
]


@pytest.mark.parametrize("name", STREAMS)
def test_an_escape_of_another_form_is_read_as_ever(name):
    stream = STREAMS[name]
    words = [w for number in range(len(SPELLINGS)) for w in ("a", "b", f"@{number}@", "c")]
    blocks = stream.blocks(words)
    for number, spelling in enumerate(SPELLINGS):
        blocks = [block.replace(b"@%d@" % number, spelling) for block in blocks]
    assert same(stream, blocks).on_lane >= 4


# --- what happens at every token ------------------------------------------------------------------


async def cancel(scene):
    await scene.runs.cancel(RUN)


async def lose(scene):
    scene.socket.abort()


async def look(scene):
    state = repr(await scene.runs.snapshot(RUN)).encode()
    scene.bodies.setdefault("snapshot", type(scene.bodies["native"])()).data += state


@pytest.mark.parametrize("action", [cancel, lose, look], ids=lambda a: a.__name__)
@pytest.mark.parametrize("name", SOME)
def test_what_happens_at_any_token_is_the_same(action, name):
    stream = STREAMS[name]
    chunks = [*chunked(*stream.blocks(["a", "b", "c", "d", "e"])), END]
    on_lane = 0
    for place in range(2, len(chunks) - 1):
        steps = [*chunks[:place], action, *chunks[place:]]
        on_lane += same_both_ways(stream.dialect, steps, content_type=stream.content_type).on_lane
    assert on_lane >= 3


# --- generated streams, and recordings ------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_generated_streams_are_the_same(data):
    stream = STREAMS[data.draw(st.sampled_from(list(STREAMS)))]
    texts = st.one_of(st.sampled_from([*stream.words, *ODD]), st.text(max_size=8))
    blocks = stream.blocks(data.draw(st.lists(texts, min_size=6, max_size=24)))
    changes = st.sampled_from([*CHANGES.values()])
    places = st.lists(st.integers(1, len(blocks) - 2), max_size=3, unique=True)
    for place in data.draw(places):
        blocks[place] = data.draw(changes)(blocks[place]) if JSON.search(blocks[place]) else b""
    steps, rest = [], b""
    for chunk in [*chunked(*blocks), END]:
        rest += chunk
        how = data.draw(st.integers(0, 11))
        if how:
            cut = data.draw(st.integers(1, len(rest))) if how == 1 else len(rest)
            steps += [piece for piece in (rest[:cut], rest[cut:]) if piece]
            rest = b""
    same_both_ways(
        stream.dialect, [*steps, *([rest] if rest else [])], content_type=stream.content_type
    )


def wire_of(case) -> bytes:
    """The bytes of a case; `tests/support/corpus.py` has the names of its events."""
    if "raw" in case:
        return case["raw"].encode("utf-8", "surrogatepass")
    name = NAMED.get(case["family"])
    payloads = [json.dumps(payload).encode() for payload in case["payloads"]]
    if case["family"].startswith("ollama"):
        return b"".join(payload + b"\n" for payload in payloads)
    events = [payload.get(name) if name else None for payload in case["payloads"]]
    pairs = zip(payloads, events, strict=True)
    return b"".join(encode_frame(payload, event=event) for payload, event in pairs)


@pytest.mark.parametrize("case", CASES[::5], ids=lambda case: case["id"])
def test_recordings_are_the_same(case):
    """Each in reads of one block, and of nearly one. (The whole is run with `CASES`.)"""
    dialect = Registry().dialect(FAMILIES[case["family"]])
    is_lines = case["family"].startswith("ollama")
    end = rb"(?<=\n)" if is_lines else rb"(?<=\n\n)|(?<=\r\n\r\n)"
    blocks = [block for block in re.split(end, wire_of(case)) if block]
    content_type = "application/x-ndjson" if is_lines else "text/event-stream"
    chunks = [*chunked(*blocks), END]
    same_both_ways(dialect, chunks, content_type=content_type)
    whole = b"".join(chunks)
    cut = [whole[n : n + 61] for n in range(0, len(whole), 61)]
    same_both_ways(dialect, cut, content_type=content_type)
