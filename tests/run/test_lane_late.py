"""Reads that wait for their turn of the event loop: records, readers' bytes and state are those of
reads that are handled at once, whatever comes while they wait."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run.test_lane import ACTIONS, BEGIN, DONE, STOP, WIRES, raw
from support.both_ways import END, RUN, Outcome, Scene, chunked, run_over, same_both_ways
from support.dialect_streams import STREAMS
from support.held_socket import Ticks, held_socket
from tokenwire.providers.http.late import Late
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.turns import Turns


@contextlib.contextmanager
def late() -> Iterator[None]:
    """Each read that is not the lane's waits; fails where there was none."""
    count, take = 0, Late.take

    def counted(self: Late) -> bytes:
        nonlocal count
        count += 1
        return take(self)

    with patch.object(Turns, "admit", lambda self: False), patch.object(Late, "take", counted):
        yield
    assert count, "nothing waited"


def same_late(dialect: Any, steps: list[Any], **options: Any) -> Outcome:
    """The outcome where reads wait, with the lane and without; fails where it differs from reads at
    once."""
    at_once = run_over(dialect, steps, lane=False, **options)
    with late():
        found = same_both_ways(dialect, steps, **options)
    assert found.records == at_once.records
    assert found.readers == at_once.readers
    assert (found.closed, found.state) == (at_once.closed, at_once.state)
    return found


def both_late(steps: list[Any], **options: Any) -> list[tuple[str | None, str]]:
    """How a run ends and what it says, with the lane and without, where reads wait. (How many
    deltas bytes make that came together depends on the way.)"""
    with late():
        found = [run_over(CHAT, steps, lane=lane, **options) for lane in (True, False)]
    return [(each.closed, each.state.message.text) for each in found]


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_every_dialect(name):
    stream = STREAMS[name]
    steps = [*chunked(*stream.blocks(list(stream.words))), END]
    found = same_late(stream.dialect, steps, content_type=stream.content_type, wires=WIRES)
    assert found.closed == "complete"
    assert found.on_lane


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_what_happens_at_any_token(action):
    blocks = [BEGIN, *[raw(b"%d" % n) for n in range(8)], STOP, DONE]
    chunks = [*chunked(*blocks), END]
    for place in range(1, len(chunks)):
        steps = [*chunks[:place], action, *chunks[place:]]
        same_late(CHAT, steps, wires=("native", "ui"), ends=action.__name__ != "stop")


async def lose(scene: Scene) -> None:
    """The connection ends while bytes of it wait."""
    if not scene.socket.closed:
        scene.socket.abort()


class Burst:
    """Reads in one turn of the event loop, and the end of the connection directly after them."""

    def __init__(self, reads: list[bytes], *, ends: bool) -> None:
        self.reads, self.ends = reads, ends

    async def __call__(self, scene: Scene) -> None:
        for data in self.reads:
            if not scene.socket.closed:
                scene.socket.bring(data)
        if self.ends:
            await lose(scene)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), max_size=8), st.integers(1, 90), st.booleans(), st.booleans())
def test_reads_behind_one_that_waits_and_the_end_behind_them(sizes, size, is_cut, ends):
    chunks = [*chunked(BEGIN, *[raw(b"<%d>" % n) for n in range(14)], STOP, DONE), END]
    if is_cut:  # a read ends anywhere, also within a chunk
        data = b"".join(chunks)
        chunks = [data[at : at + size] for at in range(0, len(data), size)]
    steps: list[Any] = []
    for count in sizes:
        steps.append(Burst(chunks[:count], ends=False))
        chunks = chunks[count:]
    steps.append(Burst(chunks, ends=ends))
    text = "".join(f"<{n}>" for n in range(14))
    assert both_late(steps, wires=("native", "openai-chat")) == [("complete", text)] * 2


@pytest.mark.parametrize("place", range(2, 12))
def test_a_cut_behind_reads_that_wait_is_no_end(place):
    chunks = chunked(BEGIN, *[raw(b"<%d>" % n) for n in range(14)])[:place]
    text = "".join(f"<{n}>" for n in range(place - 1))
    assert both_late([Burst(chunks, ends=True)]) == [("error", text)] * 2


@pytest.mark.parametrize("ends", [False, True])
def test_a_cancel_before_its_turn(ends):
    chunks = chunked(BEGIN, *[raw(b"<%d>" % n) for n in range(6)])

    async def cancel(scene: Scene) -> None:
        await Burst(chunks[4:], ends=ends)(scene)
        await scene.runs.cancel(RUN)

    for closed, text in both_late([*chunks[:4], cancel]):
        assert closed == "cancelled"
        assert "<0><1><2><3><4><5>".startswith(text)


def test_a_fast_stream_that_ticks_read(monkeypatch):
    chunks = [*chunked(BEGIN, *[raw(b"<%d>" % n) for n in range(60)], STOP, DONE), END]
    ticks = Ticks()
    monkeypatch.setattr("tokenwire.run.call.reading.ticks", lambda: ticks)
    found = same_late(CHAT, chunks, seconds=0.004, socket=held_socket(ticks))
    assert found.closed == "complete"
    assert found.on_lane
