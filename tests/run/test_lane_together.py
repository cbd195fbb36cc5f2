"""Streams whose sockets are read when the store next takes records: records and readers' bytes are
those of reads by the event loop, and whoever reads a socket, it is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run.test_lane import ACTIONS, BEGIN, CALL, DONE, ODD, STOP, TEXT, THOUGHT, WIRES, raw
from run.test_lane_several import joined, streams
from support.both_ways import END, Outcome, chunked, run_over, same_both_ways
from support.dialect_streams import STREAMS
from support.held_socket import Ticks, held_socket
from tokenwire.express import Tape
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.run.call.pacing import SLOW


class Intake(Ticks):
    """The intake of a store, and the ticks of fast streams, which a test calls for."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[int, tuple[Callable[[], bool], Callable[[], None]]] = {}
        self.pulls = 0

    def join(self, *arguments: Any) -> None:
        if len(arguments) == 1:
            super().join(*arguments)
            return
        fd, pull, end = arguments
        assert fd not in self.entries
        self.entries[fd] = pull, end

    def leave(self, fd: int, pull: Callable[[], bool]) -> None:
        assert self.entries.pop(fd)[0] == pull

    def fire(self) -> None:
        for fd, entry in list(self.entries.items()):
            self.pulls += 1
            if not entry[0]() and self.entries.get(fd) is entry:
                del self.entries[fd]
                entry[1]()
        super().fire()


def same_together(dialect: Any, steps: list[Any], **options: Any) -> Outcome:
    """The outcome with sockets that are read together, with the lane, without, and in C; fails
    where it differs from reads by the event loop. ``pauses`` of it: how many reads were those of
    the store."""
    by_loop = run_over(dialect, steps, lane=False, **options)
    intake = Intake()

    class Socket(held_socket(intake)):  # type: ignore[misc]
        #: They are of the lane alone here.
        pauses = property(lambda self: 0, lambda self, count: None)

    Socket.__name__ = "TCPTransport"
    with pytest.MonkeyPatch.context() as context:
        context.setattr("tokenwire.run.call.reading.ticks", lambda: intake)
        context.setattr(Tape, "intake", property(lambda tape: intake))
        found = same_both_ways(dialect, steps, socket=Socket, **options)
    assert found.records == by_loop.records
    assert found.readers == by_loop.readers
    assert (found.closed, found.state) == (by_loop.closed, by_loop.state)
    assert not intake.entries, "a reading that has ended is still there"
    found.pauses = intake.pulls
    return found


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("blocks", [TEXT, THOUGHT, CALL], ids=["text", "thought", "call"])
def test_a_stream_on_the_lane_is_read_by_the_store(blocks, count):
    steps = [*chunked(*blocks[:5]), *joined(chunked(*blocks[5:-2] * 4, *blocks[-2:]), 0, count)]
    found = same_together(CHAT, [*steps, END], wires=WIRES)
    assert found.on_lane >= len(steps) // 3
    assert found.pauses >= len(steps) - 12
    assert found.closed == "complete"


@pytest.mark.parametrize("name", STREAMS)
def test_those_of_every_dialect(name):
    stream = STREAMS[name]
    steps = chunked(*stream.blocks(list(stream.words) * 4))
    found = same_together(stream.dialect, [*steps, END], content_type=stream.content_type)
    assert found.closed == "complete"
    assert found.pauses


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_what_does_not_fit_goes_the_ordinary_way(odd):
    first = [BEGIN, *[raw(b"a%d" % n) for n in range(8)]]
    last = [raw(b"c%d" % n) for n in range(5)]
    steps = [*chunked(*first), b"".join(chunked(raw(b"b"), raw(odd))), *chunked(*last, STOP, DONE)]
    assert same_together(CHAT, [*steps, END], wires=("native", "ui")).pauses


def test_every_cut_of_reads_and_an_end_in_the_middle_of_one():
    chunks = [*chunked(BEGIN, *[raw(b"%d\\n" % n) for n in range(12)], STOP, DONE), END]
    first, rest = chunks[:10], b"".join(chunks[10:])
    for place in range(0, len(rest) + 1, 7):
        steps = [step for step in (*first, rest[:place], rest[place:]) if step]
        found = same_together(CHAT, steps)
        assert found.closed == "complete"
        assert found.pauses


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__)
def test_what_happens_between_two_reads_is_the_same(action):
    blocks = [BEGIN, *[raw(b"%d" % n) for n in range(14)], STOP, DONE]
    steps = [*chunked(*blocks), END]
    pauses = 0
    for place in range(4, len(steps)):
        found = same_together(
            CHAT,
            [*steps[:place], action, *steps[place:]],
            wires=("native", "ui"),
            ends=action.__name__ != "stop",
        )
        pauses += found.pauses
    assert pauses > 10


def test_a_fast_stream_is_the_ticks_until_it_is_slow():
    """While it is fast, a read for each group of the store is more than a read for each tick."""
    seen: list[str] = []
    intake = Intake()

    async def look(scene):
        seen.append("store" if intake.entries else "ticks" if intake.waiting else "loop")

    async def pause(scene):
        scene.clock.now += 2 * SLOW

    slow = [step for block in TEXT[1:9] for step in (pause, *chunked(block), look)]
    fast = [step for block in TEXT[1:9] * 4 for step in (*chunked(block), look)]
    steps = [*chunked(BEGIN), *slow, *fast, *slow, *chunked(STOP, DONE), END]
    with pytest.MonkeyPatch.context() as context:
        context.setattr("tokenwire.run.call.reading.ticks", lambda: intake)
        context.setattr(Tape, "intake", property(lambda tape: intake))
        kind: Any = held_socket(intake)
        found = run_over(CHAT, steps, lane=True, seconds=0.004, socket=kind)
    assert found.closed == "complete"
    assert seen[7] == "store"
    assert seen[39] == "ticks"
    assert seen[-1] == "store"


@settings(max_examples=40, deadline=None)
@given(streams(), st.sampled_from([0.02, 0.004]))
def test_generated_streams_are_the_same(generated, seconds):
    stream, steps = generated
    found = same_together(stream.dialect, steps, content_type=stream.content_type, seconds=seconds)
    assert found.closed is not None
