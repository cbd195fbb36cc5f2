"""Reads of several payloads on the express lane: as without it, whatever comes together, and when.

On the ordinary way they are decoded one by one and merged (`tests/run/test_coalesce.py`); fast
streams are read on a tick on both ways.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run.test_lane import (
    ACTIONS,
    BEGIN,
    BETWEEN,
    CALL,
    DONE,
    FRAMINGS,
    ODD,
    STOP,
    TEXT,
    THOUGHT,
    WIRES,
    WORDS,
    chat,
    raw,
)
from support.both_ways import END, chunked, same_both_ways
from support.dialect_streams import STREAMS
from tokenwire.events.model import TextDelta, Usage
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.run.call.several import last_of, payloads_in
from tokenwire.run.call.template import _NUMBER, _TEXT, Template


def joined(steps: list[bytes], first: int, count: int) -> list[bytes]:
    """``steps`` from number ``first`` on in reads of ``count``."""
    rest = steps[first:]
    return steps[:first] + [b"".join(rest[n : n + count]) for n in range(0, len(rest), count)]


@pytest.mark.parametrize("count", [2, 3, 7])
@pytest.mark.parametrize("way", ["chunks", "events"])
@pytest.mark.parametrize("blocks", [TEXT, THOUGHT, CALL], ids=["text", "thought", "call"])
def test_reads_of_several_payloads_take_the_lane(blocks, way, count):
    """``chunks``: several in a read; ``events``: several in a chunk."""
    if way == "chunks":
        steps = joined(chunked(*blocks), 5, count)
    else:
        steps = chunked(*joined(blocks, 5, count))
    found = same_both_ways(CHAT, [*steps, END], wires=WIRES)
    assert found.on_lane >= (len(blocks) - 10) // count - 2
    assert len(found.records) < len(blocks) + 8


@pytest.mark.parametrize("seconds", [0.02, 0.003])
@pytest.mark.parametrize("name", STREAMS)
def test_those_of_every_dialect(name, seconds):
    stream = STREAMS[name]
    steps = chunked(*stream.blocks(list(stream.words) * 4))
    on_lane = 0
    for first, count in ((6, 2), (7, 3), (8, 5)):
        found = same_both_ways(
            stream.dialect,
            [*joined(steps, first, count), END],
            content_type=stream.content_type,
            seconds=seconds,
        )
        assert found.closed == "complete"
        on_lane += found.on_lane
    assert on_lane >= stream.least


def test_a_new_part_is_learned_from_reads_of_several():
    """A fast stream has no others by then."""
    steps = [*chunked(BEGIN, *[chat(reasoning_content=f"{n}") for n in range(8)])]
    steps += joined(chunked(*[chat(content=f"{n}") for n in range(40)]), 0, 4)
    found = same_both_ways(CHAT, [*steps, *chunked(STOP, DONE), END])
    assert found.on_lane >= 13


@pytest.mark.parametrize("odd", [*ODD, *BETWEEN.values()], ids=repr)
@pytest.mark.parametrize("way", ["chunks", "events"])
def test_what_does_not_fit_is_read_as_ever_at_any_place(odd, way):
    block = raw(odd) if odd in ODD else odd
    first = [BEGIN, *[raw(b"a%d" % n) for n in range(5)]]
    for place in range(3):
        three = [raw(b"b%d" % n) for n in range(3)]
        three[place] = block
        last = [raw(b"c%d" % n) for n in range(5)]
        if way == "chunks":
            reads = [*chunked(*first), b"".join(chunked(*three)), *chunked(*last, STOP, DONE)]
        else:
            reads = chunked(*first, b"".join(three), *last, STOP, DONE)
        found = same_both_ways(CHAT, [*reads, END], wires=("native", "ui"))
        assert found.on_lane >= 2


@pytest.mark.parametrize("framing", FRAMINGS, ids=str)
def test_a_chunk_of_another_form_is_parsed_at_any_place(framing):
    chunks = chunked(BEGIN, *[raw(b"%d" % n * 12) for n in range(12)], STOP, DONE)
    for place in range(6, 9):
        steps = list(chunks)
        steps[place] = FRAMINGS[framing](steps[place])
        steps[6:9] = [b"".join(steps[6:9])]
        found = same_both_ways(CHAT, [*steps, END])
        assert found.on_lane >= 2


def test_every_cut_of_reads_of_several():
    """Also within the head of a chunk: what is left of it begins the next read."""
    chunks = chunked(BEGIN, *[raw(b"%d\\n" % n) for n in range(10)], STOP, DONE)
    first, middle, last = chunks[:5], b"".join(chunks[5:8]), b"".join(chunks[8:11])
    for place in range(0, len(middle) + 1, 5):
        steps = [*first, middle[:place], middle[place:] + last, *chunks[11:], END]
        assert same_both_ways(CHAT, [step for step in steps if step]).on_lane >= 1


@pytest.mark.parametrize("seconds", [0.02, 0.003, 0.0])
def test_characters_that_are_cut_between_payloads(seconds):
    """Each text must be one by itself."""
    snow = "❄".encode()
    odd = [raw(b"a"), raw(snow[:1]), raw(snow[1:]), raw(snow + snow[:2]), raw(snow)]
    steps = [*chunked(*TEXT[:6]), *(b"".join(chunked(*odd[n:])) for n in range(5))]
    same_both_ways(CHAT, [*steps, *chunked(STOP, DONE), END], wires=("native", "ui"))


# --- fast streams ---------------------------------------------------------------------------------


def test_a_fast_stream_stays_on_the_lane():
    steps = [*chunked(*TEXT[:4]), *joined(chunked(*TEXT[4:-2] * 3), 0, 3)]
    found = same_both_ways(CHAT, [*steps, *chunked(STOP, DONE), END], wires=WIRES, seconds=0.015)
    assert found.on_lane >= len(steps) - 5


@pytest.mark.parametrize("seconds", [0.002, 0.006])
def test_it_does_so_with_one_payload_a_read(seconds):
    blocks = [BEGIN, *[raw(b"%d" % n) for n in range(60)]]
    steps = [*chunked(*blocks, STOP, DONE), END]
    found = same_both_ways(CHAT, steps, wires=("native", "ui"), seconds=seconds)
    assert found.on_lane >= 57


def test_a_stream_whose_speed_changes_waits_for_ticks_only_while_it_is_fast():
    """How often it does is the same on both ways."""
    pauses: list[int] = []

    async def look(scene):
        pauses.append(scene.socket.pauses)

    async def pause(scene):
        scene.clock.now += 0.2

    steps: list = [*chunked(BEGIN)]
    for number, block in enumerate(TEXT[1:-2] * 3):
        steps += [*chunked(block), look]
        if number % 40 > 30:
            steps.append(pause)
    found = same_both_ways(CHAT, [*steps, *chunked(STOP, DONE), END], seconds=0.004)
    assert found.on_lane >= 90
    runs = [pauses[n : n + 108] for n in range(0, len(pauses), 108)]
    assert all(run == runs[0] for run in runs)
    assert found.pauses > 10
    slow = [b - a for n, (a, b) in enumerate(pairwise(runs[0]), 1) if n % 40 > 32]
    assert not any(slow)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
@pytest.mark.parametrize("seconds", [0.02, 0.002])
def test_what_happens_at_any_read_is_the_same(action, seconds):
    blocks = [BEGIN, *[raw(b"%d" % n) for n in range(28)], STOP, DONE]
    steps = [*joined(chunked(*blocks), 5, 3), END]
    on_lane = 0
    for place in range(4, len(steps)):
        found = same_both_ways(
            CHAT,
            [*steps[:place], action, *steps[place:]],
            wires=("native", "ui"),
            seconds=seconds,
            ends=action.__name__ != "stop",
        )
        on_lane += found.on_lane
    assert on_lane > 10


def test_the_largest_answer_ends_at_the_same_read(monkeypatch):
    for most in range(2000, 3000, 90):
        monkeypatch.setattr("tokenwire.run.call.reading.MOST_RESPONSE_BYTES", most)
        found = same_both_ways(CHAT, [*joined(chunked(*TEXT), 5, 3), END])
        assert found.closed == "error"


def test_reads_as_large_as_they_may_be_and_larger():
    """A fast read has an end, and a record has one."""
    for size in (100, 1000, 4000, 5000):
        for count in (2, 3, 4, 5, 17):
            blocks = [raw(b"%d" % n * 30 + b"x" * size) for n in range(count)]
            steps = [*chunked(*TEXT[:6]), b"".join(chunked(*blocks)), b"".join(chunked(*blocks))]
            same_both_ways(CHAT, [*steps, *chunked(*TEXT[6:]), END])


# --- generated ------------------------------------------------------------------------------------


@st.composite
def streams(draw):
    """A stream of any dialect, mostly as it should be; its blocks come in chunks of one or more,
    and its chunks in reads of one or more, some of them cut."""
    stream = STREAMS[draw(st.sampled_from(list(STREAMS)))]
    texts = st.one_of(
        st.sampled_from([*stream.words, *WORDS]), st.text(max_size=6), st.sampled_from(["", "{"])
    )
    blocks = stream.blocks(draw(st.lists(texts, min_size=8, max_size=40)))
    for place in draw(st.lists(st.integers(1, len(blocks) - 2), max_size=2, unique=True)):
        blocks[place] = draw(st.sampled_from([b"", b": x\n\n", blocks[place] * 2]))
    together, pending = [], b""
    for block in blocks:
        pending += block
        if draw(st.integers(0, 4)):
            together.append(pending)
            pending = b""
    steps, rest = [], b""
    for chunk in [*chunked(*together, pending), END]:
        rest += chunk
        how = draw(st.integers(0, 9))
        if how > 3:
            cut = draw(st.integers(1, len(rest))) if how == 4 else len(rest)
            steps += [piece for piece in (rest[:cut], rest[cut:]) if piece]
            rest = b""
    return stream, [*steps, *([rest] if rest else [])]


@settings(max_examples=60, deadline=None)
@given(streams(), st.sampled_from([0.02, 0.02, 0.004, 0.0]))
def test_generated_streams_are_the_same(generated, seconds):
    stream, steps = generated
    same_both_ways(stream.dialect, steps, content_type=stream.content_type, seconds=seconds)


# --- the parts ------------------------------------------------------------------------------------

LINES = [b"\0" * 999] * 5


def template(*, varies=False, end=b"\n\n") -> Template:
    found = Template.__new__(Template)
    found.head, found.tail, found.bar, found.steps = b'{"t":"', b'"}' + end, b"{", []
    if varies:
        found.steps = [(b'{"t":"', _TEXT), (b'","n":', _NUMBER)]
        found.tail = b"}" + end
    return found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("ab{é\\", max_size=3), min_size=1, max_size=5), st.booleans(), st.data())
def test_payloads_are_found_as_they_were_put(words, varies, data):
    """However they are divided among chunks; a read that is cut holds none."""
    texts = [word.replace("\\", "\\\\").encode() for word in words]
    more = b'","n":5}\n\n' if varies else b'"}\n\n'
    payloads = [b'{"t":"' + text + more for text in texts]
    ends = data.draw(st.lists(st.integers(1, len(payloads)), unique=True).map(sorted))
    parts = zip([0, *ends], [*ends, len(payloads)], strict=True)
    read = b"".join(chunked(*(b"".join(payloads[a:b]) for a, b in parts)))
    found = payloads_in(read, template(varies=varies), LINES)
    if any(not text or text.startswith(b"{") for text in texts):
        assert found is None
        return
    assert found is not None
    assert found[:2] == (texts, sum(map(len, payloads)))
    if varies:
        begin, first, last, end = found[2]
        assert read[begin:end] == payloads[-1]
        assert read[first:last] == texts[-1]
    cut = data.draw(st.integers(0, len(read) - 1))
    for part in (read[:cut], read[len(read) - cut :]):
        half = payloads_in(part, template(varies=varies), LINES)
        assert half is None or len(half[0]) < len(texts)


def test_what_a_lane_learns_from_a_read():
    def deltas(*texts, part=1):
        return [TextDelta(part=part, text=text, seq=9, t=5) for text in texts]

    three = deltas("abc", "b", "c")  # the first has the text of all since they were merged
    body = b'{"t":"a"}\n\n{"t":"b"}\n\n{"t":"c"}\n\n'
    found = last_of(body, three)
    assert found == (b'{"t":"b"}\n\n', b'{"t":"c"}\n\n', deltas("c")[0], "b")
    two = last_of(body[11:], deltas("bc", "c"))
    assert two == (b'{"t":"b"}\n\n', b'{"t":"c"}\n\n', deltas("c")[0], "b")
    one = deltas("x")
    assert last_of(b"any", one) == (None, b"any", one[0], "")
    for events in (deltas("ab", "b"), [*deltas("a"), *deltas("b", part=2)], [Usage()]):
        assert last_of(body, events) is None
    assert last_of(b"x" * 16384, deltas("ab", "b")) is None
    assert last_of(body[:-1], three) is None
