"""The SSE reader and writer: the standard, bounds, any cut, and the round trip."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import FramingError
from tokenwire.framing.sse import Frame, SSEDecoder, encode_comment, encode_frame

ROOT = Path(__file__).parents[2]
SPEC = ROOT.parent / "shared" / "corpus" / "sse-spec" / "cases.json"
OWN = ROOT / "conformance" / "sse"


def spec_cases() -> list[dict[str, Any]]:
    return json.loads(SPEC.read_text())["cases"] if SPEC.exists() else []


def own_cases() -> list[dict[str, Any]]:
    return [c for f in sorted(OWN.glob("*.json")) for c in json.loads(f.read_text())["cases"]]


def reads_of(case: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(c["b64"]) * c.get("repeat", 1) for c in case["chunks"]]


def run(decoder: SSEDecoder, reads: list[bytes]) -> list[Frame]:
    frames = [f for read in reads for f in decoder.feed(read)]
    # A strict reader drops what the end of the stream cut off.
    return frames + [f for f in decoder.finish() if not f.unterminated]


def same(want: dict[str, Any], key: str, got: str) -> bool:
    if key in want:
        return want[key] == got
    long = want[key + "_utf8"]
    return long["len"] == len(got) and long["sha256"] == hashlib.sha256(got.encode()).hexdigest()


def check(case: dict[str, Any], reads: list[bytes]) -> None:
    decoder = SSEDecoder()
    frames = run(decoder, reads)
    expected = case["expected"]
    events = [e for e in expected["events"] for _ in range(e.get("repeat", 1))]
    assert len(frames) == len(events), case["id"]
    for frame, event in zip(frames, events, strict=True):
        assert same(event, "event", frame.event), case["id"]
        assert same(event, "data", frame.text), case["id"]
        assert same(event, "last_event_id", frame.id), case["id"]
    assert same(expected, "last_event_id", decoder.last_event_id), case["id"]
    assert decoder.retry_ms == expected["retry_ms"], case["id"]


@pytest.mark.skipif(not SPEC.exists(), reason="the shared corpus is not beside the project")
def test_the_standards_cases_pass_as_read_and_byte_by_byte() -> None:
    cases = spec_cases()
    assert len(cases) == 150
    for case in cases:
        reads = reads_of(case)
        check(case, reads)
        whole = b"".join(reads)
        check(case, [whole])
        check(case, [whole[i : i + 1] for i in range(len(whole))])


def test_own_cases_pass_as_read_and_byte_by_byte() -> None:
    cases = own_cases()
    assert len(cases) >= 20
    for case in cases:
        reads = reads_of(case)
        check(case, reads)
        whole = b"".join(reads)
        check(case, [whole[i : i + 1] for i in range(len(whole))])


def test_one_huge_line_in_tiny_pieces_is_read_whole() -> None:
    decoder = SSEDecoder(max_line=16 << 20, max_event=16 << 20)
    decoder.feed(b"data: ")
    piece = b"0123456789abcdef"
    for _ in range((8 << 20) // 16):
        decoder.feed(piece)
    (frame,) = decoder.feed(b"\n\n")
    assert frame.data == piece * ((8 << 20) // 16)


def test_a_line_over_its_bound_is_a_typed_error_after_what_came_before() -> None:
    decoder = SSEDecoder(max_line=100)
    assert [f.data for f in decoder.feed(b"data: a\n\ndata: " + b"x" * 200)] == [b"a"]
    with pytest.raises(FramingError, match="100 bytes"):
        decoder.feed(b"y")
    with pytest.raises(FramingError):
        decoder.finish()
    assert decoder.finish() == []


@pytest.mark.parametrize("size", [99, 100, 101])
@pytest.mark.parametrize("field", [b"data: ", b"data:", b"event: ", b"id: ", b": ", b""])
@pytest.mark.parametrize("step", [1, 1000])
def test_a_lines_value_may_be_just_as_long_as_its_bound(size: int, field: bytes, step: int) -> None:
    whole = b"data: before\n\n" + field + b"x" * size + b"\ndata: after\n\n"
    decoder, frames = SSEDecoder(max_line=100), []
    try:
        for start in range(0, len(whole), step):
            frames += decoder.feed(whole[start : start + step])
        decoder.feed(b": more\n")
    except FramingError as error:
        assert size == 101
        assert error.details == {"limit": "line", "most": 100}
        assert [frame.data for frame in frames] == [b"before"]
    else:
        assert size < 101
        assert len(frames) == 2


@pytest.mark.parametrize("size", [99, 100, 101])
@pytest.mark.parametrize("lines", [1, 2, 5])
@pytest.mark.parametrize("step", [1, 1000])
def test_an_events_data_may_be_just_as_long_as_its_bound(size: int, lines: int, step: int) -> None:
    data = b"\n".join([b"y"] * (lines - 1) + [b"x" * (size - 2 * (lines - 1))])
    assert len(data) == size
    whole = encode_frame(data)
    decoder, frames = SSEDecoder(max_event=100), []
    try:
        for start in range(0, len(whole), step):
            frames += decoder.feed(whole[start : start + step])
        decoder.feed(b": more\n")
    except FramingError as error:
        assert size == 101
        assert error.details == {"limit": "event", "most": 100}
    else:
        assert size < 101
        assert [frame.data for frame in frames] == [data]


def test_an_event_over_its_bound_is_a_typed_error() -> None:
    decoder = SSEDecoder(max_event=50)
    with pytest.raises(FramingError) as caught:
        decoder.feed(b"data: 0123456789\n" * 10)
    assert caught.value.details == {"limit": "event", "most": 50}


def test_a_block_cut_off_by_the_end_is_marked() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b'id: 7\nevent: e\ndata: {"a":1}') == []
    assert decoder.finish() == [Frame(b'{"a":1}', "e", "7", True)]
    assert decoder.last_event_id == ""


def test_comments_and_stray_lines_are_counted() -> None:
    decoder = SSEDecoder()
    decoder.feed(b": one\n\n:two\n<html>\n")
    assert (decoder.comments, decoder.stray) == (2, 1)


def test_line_breaks_in_fields_are_refused() -> None:
    for bad in ("a\nb", "a\rb", "a\0b"):
        for key in ("id", "event"):
            with pytest.raises(ValueError, match=key):
                encode_frame("x", **{key: bad})
        with pytest.raises(ValueError, match="comment"):
            encode_comment(bad)
    with pytest.raises(ValueError, match="retry"):
        encode_frame("x", retry=-1)


def test_a_frame_is_written_with_lf_only() -> None:
    assert encode_frame("a\r\nb\rc\nd", event="e", id="1", retry=5) == (
        b"id: 1\nevent: e\nretry: 5\ndata: a\ndata: b\ndata: c\ndata: d\n\n"
    )
    assert encode_comment("ping") == b": ping\n\n"


TOKENS = b"data|:| |\r|\n|\r\n|id|event|retry|1|\0|\xef\xbb\xbf|\xc3\xa9|\xff|data: x|\n\n"
LINES = st.sampled_from([*TOKENS.split(b"|"), b"data: x\n\n", b"event: e\n"])


@given(st.lists(LINES, max_size=40), st.randoms(use_true_random=False))
def test_any_cut_gives_the_same_frames(tokens: list[bytes], rnd: random.Random) -> None:
    whole = b"".join(tokens)

    def decode(reads: list[bytes]) -> Any:
        decoder = SSEDecoder()
        frames = [f for read in reads for f in decoder.feed(read)] + decoder.finish()
        return frames, decoder.last_event_id, decoder.retry_ms, decoder.comments, decoder.stray

    cuts = sorted(rnd.randrange(len(whole) + 1) for _ in range(rnd.randrange(8)))
    pieces = [whole[a:b] for a, b in itertools.pairwise([0, *cuts, len(whole)])]
    want = decode([whole])
    assert decode(pieces) == want
    assert decode([whole[i : i + 1] for i in range(len(whole))]) == want


FIELD = st.text(st.characters(blacklist_characters="\r\n\0", blacklist_categories=("Cs",)))


@given(st.text(st.characters(blacklist_categories=("Cs",))), FIELD, FIELD, st.integers(0, 10**9))
def test_what_is_written_is_read_back(data: str, event: str, event_id: str, retry: int) -> None:
    decoder = SSEDecoder()
    frames = decoder.feed(
        encode_comment("hello") + encode_frame(data, event=event, id=event_id, retry=retry)
    )
    normal = data.replace("\r\n", "\n").replace("\r", "\n")
    assert frames == [Frame(normal.encode(), event or "message", event_id)]
    assert (decoder.retry_ms, decoder.last_event_id) == (retry, event_id)


@given(st.binary(max_size=300))
def test_any_bytes_give_frames_or_a_framing_error(data: bytes) -> None:
    decoder = SSEDecoder(max_line=20, max_event=30)
    try:
        decoder.feed(data)
        decoder.finish()
    except FramingError:
        # What failed while it was read fails once more at its end, and then it is over.
        with suppress(FramingError):
            decoder.finish()
        assert decoder.finish() == []
