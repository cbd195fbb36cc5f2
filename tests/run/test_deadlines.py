"""The clocks, without waiting."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import InputError
from tokenwire.providers.clocks import CLOCKS
from tokenwire.run.call import sweep
from tokenwire.run.call.deadlines import Deadlines, Watch
from tokenwire.run.call.sweep import Sweeper
from tokenwire.turns import MOST

LIMITS = Deadlines(connect=5, first_event=60, idle=30, keep_alive=200, total=600)


@pytest.mark.parametrize(
    ("last_event", "now", "which"),
    [
        ([], 59.9, None),
        ([], 60, "first_event"),
        ([10], 39.9, None),
        ([10], 40, "idle"),
        ([10, 35], 64.9, None),
        ([float(n) for n in range(10, 600, 20)], 600, "total"),
        ([1.0], 1000, "total"),
    ],
)
def test_which_clock_runs_out(last_event, now, which):
    watch = Watch(LIMITS, 0.0)
    for moment in last_event:
        watch.last_event = moment
    error = watch.overdue(now)
    assert (error.which if error else None) == which
    if error:
        assert error.seconds == getattr(LIMITS, which)


@pytest.mark.parametrize(
    ("moves", "now", "which"),
    [
        # An accepted request may be silent for as long as the keep-alive clock.
        ([("accept", 50)], 249.9, None),
        ([("accept", 50)], 250, "keep_alive"),
        # Keep-alives change nothing of that before the answer begins.
        ([("accept", 0), ("life", 100), ("life", 199)], 200, "keep_alive"),
        # Later they stop the idle clock, and not the longer one.
        ([("accept", 0), ("event", 10), ("life", 35)], 64.9, None),
        ([("accept", 0), ("event", 10), ("life", 35)], 65, "idle"),
        ([("event", 10), *[("life", n) for n in range(20, 300, 20)]], 209.9, None),
        ([("event", 10), *[("life", n) for n in range(20, 300, 20)]], 210, "keep_alive"),
        ([("event", 10), ("life", 35), ("event", 40)], 69.9, None),
        ([("event", 10), ("end", 12)], 12, "end"),
        ([("event", 10), ("end", 12), ("end", float("inf"))], 39, None),
    ],
)
def test_keep_alives_have_a_clock_of_their_own(moves, now, which):
    watch = Watch(LIMITS, 0.0)
    for move, moment in moves:
        if move == "accept":
            watch.accept(moment)
        elif move == "event":
            watch.last_event = moment
        elif move == "life":
            watch.last_life = moment
        else:
            watch.end_by(moment)
    error = watch.overdue(now)
    assert (error.which if error else None) == which


def test_a_timeout_of_an_accepted_request_rules_a_retry_out():
    watch = Watch(LIMITS, 0.0)
    assert watch.overdue(60).should_retry is None
    watch.accept(50.0)
    assert watch.overdue(250).should_retry is False
    assert watch.overdue(600).should_retry is False


def test_a_models_own_clocks_stand_in_place_of_the_runs():
    assert LIMITS.over({}) is LIMITS
    own = LIMITS.over({"idle": 5.0, "total": 900.0})
    assert (own.idle, own.total, own.keep_alive) == (5.0, 900.0, 200)


@given(st.lists(st.floats(0.1, 29), max_size=30), st.floats(0, 1000))
def test_overdue_exactly_when_due(gaps, start):
    watch, now = Watch(LIMITS, start), start
    for gap in gaps:
        now += gap
        if watch.overdue(now):
            assert now >= watch.due()
            return
        watch.last_event = now
    assert watch.overdue(watch.due() - 0.001) is None
    assert watch.overdue(watch.due()) is not None


MOVES = st.tuples(st.sampled_from(["accept", "event", "life", "progress"]), st.floats(0, 250))


class Bytes:
    """Who takes what arrives past the reader."""

    last_event = 0.0


@given(
    st.lists(MOVES, max_size=20),
    st.builds(
        lambda clocks: Deadlines(**dict(zip(CLOCKS, clocks, strict=True))),
        st.tuples(*[st.floats(1, 300)] * len(CLOCKS)),
    ),
)
def test_no_clock_expires_before_the_earliest_time(moves, limits):
    watch, now, progress, looks = Watch(limits, 0.0), 0.0, Bytes(), []
    for kind, gap in moves:
        now += gap
        if watch.overdue(now):
            assert all(look <= now for look in looks)
            return
        looks.append(watch.earliest(now))
        if kind == "accept":
            watch.accept(now)
        elif kind == "life":
            watch.last_life = now
        elif kind == "event":
            watch.last_event, watch.progress = now, None
        else:
            progress.last_event, watch.progress = now, progress
        assert watch.due() >= max(looks)


def test_progress_is_what_counts_while_there_is_some():
    watch = Watch(LIMITS, 0.0)
    watch.last_event, watch.progress = 10.0, Bytes()
    watch.progress.last_event = 35.0
    assert watch.overdue(64.9) is None
    assert watch.overdue(65.0).which == "idle"
    watch.progress = None
    assert watch.overdue(40.0).which == "idle"


class Stream:
    def __init__(self) -> None:
        self.errors = []

    def abort(self, error):
        self.errors.append(error.which)


def test_the_sweeper_looks_when_a_clock_may_expire(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(sweep, "time", SimpleNamespace(monotonic=lambda: clock.now))

    async def main() -> None:
        sweeper, streams = Sweeper(1e9), [Stream(), Stream(), Stream(), Stream()]
        watches = [Watch(LIMITS, 0.0) for _ in streams]
        for stream, watch in zip(streams, watches, strict=True):
            watch.accept(0.0)
            sweeper.add(stream, watch)
        for tick in range(1, 1000):
            clock.now = tick / 2
            watches[0].last_event = min(100.0, clock.now)
            if clock.now == 20.0:
                watches[1].end_by(22.0)
                sweeper.add(streams[1], watches[1])
                sweeper.discard(streams[2])
            sweeper._sweep()
            found = [stream.errors for stream in streams]
            assert found[0] == (["idle"] if clock.now >= 130 else [])
            assert found[1] == (["end"] if clock.now >= 22 else [])
            assert found[2] == []
            assert found[3] == (["keep_alive"] if clock.now >= 200 else [])
        assert not sweeper._watched
        assert not sweeper._looks

    asyncio.run(main())


def test_a_loop_that_stood_still_reads_before_it_ends_anything(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(sweep, "time", SimpleNamespace(monotonic=lambda: clock.now))

    async def main() -> None:
        sweeper, read, silent = Sweeper(1e3), Stream(), Stream()
        watches = {stream: Watch(LIMITS, 0.0) for stream in (read, silent)}
        for stream, watch in watches.items():
            watch.accept(0.0)
            sweeper.add(stream, watch)

        def stand_still() -> None:
            """For some minutes."""
            clock.now += 250.0
            assert sweeper._timer is not None
            sweeper._timer.cancel()
            sweeper._due -= 3e3
            sweeper._sweep()

        stand_still()
        assert (read.errors, silent.errors) == ([], [])
        watches[read].last_event = watches[read].last_life = clock.now
        sweeper._sweep()
        assert (read.errors, silent.errors) == ([], ["keep_alive"])
        # Whoever stands still all the time ends nobody too early, and everybody some day.
        watches[read] = Watch(LIMITS, clock.now)
        watches[read].accept(clock.now)
        sweeper.add(read, watches[read])
        stand_still()
        assert not read.errors
        stand_still()
        assert read.errors == ["keep_alive"]

    asyncio.run(main())


@pytest.mark.parametrize("name", ["connect", "first_event", "idle", "keep_alive", "total"])
def test_a_deadline_of_nothing_is_refused_by_name(name):
    with pytest.raises(InputError, match=name):
        Deadlines(**{name: 0})


def test_calls_that_are_overdue_together_end_in_turns(monkeypatch):
    """600 of a provider that stands still took 20 ms of one turn."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(sweep, "time", SimpleNamespace(monotonic=lambda: clock.now))

    async def main() -> None:
        sweeper, streams = Sweeper(1e9), [Stream() for _ in range(10 * MOST)]
        watches = [Watch(LIMITS, 0.0) for _ in streams]
        for stream, watch in zip(streams, watches, strict=True):
            watch.accept(0.0)
            sweeper.add(stream, watch)
        clock.now = 250.0
        sweeper._sweep()
        ended = sum(bool(stream.errors) for stream in streams)
        assert 0 < ended <= MOST
        # Meanwhile one speaks again, one is over, and one begins anew.
        watches[-1].last_event = watches[-1].last_life = clock.now
        sweeper.discard(streams[-2])
        watches[-3] = Watch(LIMITS, clock.now)
        watches[-3].accept(clock.now)
        sweeper.add(streams[-3], watches[-3])
        for _ in range(20 * MOST):
            await asyncio.sleep(0)
        assert [len(stream.errors) for stream in streams[:-3]] == [1] * (len(streams) - 3)
        assert [stream.errors for stream in streams[-3:-1]] == [[], []]
        assert not streams[-1].errors
        assert set(sweeper._watched) == set(sweeper._looks) == {streams[-3], streams[-1]}

    asyncio.run(main())
