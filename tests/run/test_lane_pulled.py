"""Fast streams, whose sockets a tick reads past the event loop: records and readers' bytes are
those of reads by the event loop, whatever comes, and whatever happens between two ticks."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run.test_lane import ACTIONS, BEGIN, BETWEEN, CALL, DONE, ODD, STOP, TEXT, THOUGHT, WIRES, raw
from run.test_lane_several import joined, streams
from support.both_ways import END, Outcome, chunked, run_over, same_both_ways
from support.dialect_streams import STREAMS
from support.held_socket import Ticks, held_socket
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.run.call.pacing import SLOW, Pacer


class Quick(Pacer):
    """A stream counts as fast from its first reads on."""

    def __init__(self) -> None:
        super().__init__()
        self._gap = 0.006


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with patch("tokenwire.run.call.reading.Pacer", Quick):
        yield


def same_pulled(dialect: Any, steps: list[Any], monkeypatch: Any, **options: Any) -> Outcome:
    """The outcome with a socket that ticks read, with the lane, without, and in C; fails where it
    differs from reads by the event loop. ``pauses`` of it: how many reads were those of ticks."""
    options = {"seconds": 0.004, **options}
    by_loop = run_over(dialect, steps, lane=False, **options)
    ticks = Ticks()
    kind: Any = held_socket(ticks)
    with monkeypatch.context() as context:
        context.setattr("tokenwire.run.call.reading.ticks", lambda: ticks)
        found = same_both_ways(dialect, steps, socket=kind, **options)
    assert found.records == by_loop.records
    assert found.readers == by_loop.readers
    assert (found.closed, found.state) == (by_loop.closed, by_loop.state)
    found.pauses = kind.pulls
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("blocks", [TEXT, THOUGHT, CALL], ids=["text", "thought", "call"])
def test_a_fast_stream_is_read_by_ticks_and_stays_on_the_lane(blocks, count, monkeypatch):
    steps = [*chunked(*blocks[:5]), *joined(chunked(*blocks[5:-2] * 4, *blocks[-2:]), 0, count)]
    found = same_pulled(CHAT, [*steps, END], monkeypatch, wires=WIRES)
    assert found.on_lane >= len(steps) // 3
    assert found.pauses >= 2 * len(steps) - 40
    assert found.closed == "complete"


@pytest.mark.parametrize("name", STREAMS)
def test_those_of_every_dialect(name, monkeypatch):
    stream = STREAMS[name]
    steps = chunked(*stream.blocks(list(stream.words) * 4))
    content_type = stream.content_type
    steps = [*joined(steps, 6, 2), END]
    found = same_pulled(stream.dialect, steps, monkeypatch, content_type=content_type)
    assert found.closed == "complete"
    assert found.pauses


@pytest.mark.parametrize("odd", [*ODD, *BETWEEN.values()], ids=repr)
def test_what_does_not_fit_is_read_as_ever(odd, monkeypatch):
    block = raw(odd) if odd in ODD else odd
    first = [BEGIN, *[raw(b"a%d" % n) for n in range(8)]]
    last = [raw(b"c%d" % n) for n in range(5)]
    steps = [*chunked(*first), b"".join(chunked(raw(b"b"), block)), *chunked(*last, STOP, DONE)]
    found = same_pulled(CHAT, [*steps, END], monkeypatch, wires=("native", "ui"))
    assert found.pauses


def test_every_cut_of_reads_and_an_end_in_the_middle_of_one(monkeypatch):
    chunks = [*chunked(BEGIN, *[raw(b"%d\\n" % n) for n in range(12)], STOP, DONE), END]
    first, rest = chunks[:10], b"".join(chunks[10:])
    for place in range(0, len(rest) + 1, 7):
        steps = [step for step in (*first, rest[:place], rest[place:]) if step]
        found = same_pulled(CHAT, steps, monkeypatch)
        assert found.closed == "complete"
        assert found.pauses


def test_more_than_one_read_takes_is_read_on_by_the_event_loop(monkeypatch):
    """No tick waits with it, and its order is that in which it was sent."""
    large = b"".join(chunked(*[raw(b"<%d>" % n * 30) for n in range(200)]))
    text = "".join(f"<{n}>" * 30 for n in range(200))
    for cut in (len(large), 20_000, 16 << 10):
        ticks = Ticks()
        monkeypatch.setattr("tokenwire.run.call.reading.ticks", lambda ticks=ticks: ticks)
        first, last = chunked(*TEXT[:-2]), chunked(*TEXT[2:])
        steps = [*first, *filter(None, (large[:cut], large[cut:])), *last, END]
        found = run_over(CHAT, steps, lane=True, seconds=0.004, socket=held_socket(ticks))
        assert found.closed == "complete"
        assert text in found.state.message.text


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_what_happens_between_two_ticks_is_the_same(action, monkeypatch):
    blocks = [BEGIN, *[raw(b"%d" % n) for n in range(28)], STOP, DONE]
    steps = [*joined(chunked(*blocks), 8, 3), END]
    pauses = 0
    for place in range(6, len(steps)):
        found = same_pulled(
            CHAT,
            [*steps[:place], action, *steps[place:]],
            monkeypatch,
            wires=("native", "ui"),
            ends=action.__name__ != "stop",
        )
        pauses += found.pauses
    assert pauses > 10


def test_a_stream_that_slows_down_is_read_at_once_again(monkeypatch):
    """By its mean gap; a short pause alone changes nothing."""
    seen: list[bool] = []

    async def look(scene):
        seen.append(scene.socket.paused)

    async def pause(scene):
        scene.clock.now += SLOW

    fast = [step for block in TEXT[1:14] for step in (*chunked(block), look)]
    short = [pause, *chunked(TEXT[2]), look]
    slow = [step for block in TEXT[2:8] for step in (pause, pause, *chunked(block), look)]
    steps = [*chunked(BEGIN), *fast, *short, *slow, *fast]
    same_pulled(CHAT, [*steps, *chunked(STOP, DONE), END], monkeypatch)
    ways = [seen[n : n + 33] for n in range(0, len(seen), 33)]
    for way in ways[1:]:  # the first one is that of the event loop
        assert way[12] is way[13] is True
        assert way[17:22] == [False] * 5
        assert way[-1] is True


@settings(max_examples=40, deadline=None)
@given(streams(), st.sampled_from([0.004, 0.002, 0.0]))
def test_generated_streams_are_the_same(generated, seconds):
    stream, steps = generated
    with pytest.MonkeyPatch.context() as context:
        found = same_pulled(
            stream.dialect, steps, context, content_type=stream.content_type, seconds=seconds
        )
    assert found.closed is not None
