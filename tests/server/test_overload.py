"""When new runs are refused: after patience, without flapping, never within a burst, and nothing
but they."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.spine import run_async
from tokenwire.server.process.overload import LONGEST, PATIENCE, SHRINKS, WARY, Overload
from tokenwire.turns import REQUEST, Turns

MOST = 0.25
#: Seconds from one note to the next, and how late the server is then.
NOTES = st.lists(
    st.tuples(st.floats(0.01, 0.4), st.sampled_from([0.0, 0.1, 0.125, 0.2, 0.25, 0.26, 0.5, 60.0])),
    max_size=80,
)


@given(NOTES)
def test_refusals_come_after_patience_and_end_when_the_server_has_caught_up(
    notes: list[tuple[float, float]],
) -> None:
    one, now = Overload(MOST), 100.0
    late_since, refused_until, was_on = math.inf, -math.inf, False
    for step, late in notes:
        now += step
        if late > MOST:
            late_since = min(late_since, now)
        elif late <= MOST / 2:
            late_since = math.inf
        is_on = one.note(late, now)
        assert is_on == one.is_on
        if late <= MOST / 2:
            assert not is_on
        elif late <= MOST:
            assert is_on == was_on, "between the two limits nothing changes"
        elif now - late_since >= PATIENCE:
            assert is_on
        if is_on and not was_on:
            assert late > MOST
            assert now - late_since >= PATIENCE or now < refused_until + WARY
        if is_on:
            refused_until = now
        was_on = is_on


def test_a_hiccup_refuses_nobody() -> None:
    one = Overload(MOST)
    for late, now in ((0.0, 1.0), (5.0, 2.0), (0.1, 2.1), (5.0, 2.9), (0.1, 3.0), (0.3, 3.1)):
        assert not one.note(late, now)


def test_who_was_late_has_no_patience_for_a_while() -> None:
    one = Overload(MOST)
    one.note(1.0, 10.0)
    assert one.note(1.0, 10.0 + PATIENCE)
    assert not one.note(0.0, 12.0)
    assert one.note(1.0, 12.1), "at once"
    assert not one.note(0.0, 13.0)
    assert not one.note(1.0, 12.2 + WARY)
    assert one.note(1.0, 12.2 + WARY + PATIENCE)


def test_who_would_wait_for_too_long_is_refused_at_once_and_nobody_before_them() -> None:
    one, most = Overload(MOST), LONGEST * MOST
    assert not one.note(0.0, 1.0, most)
    assert one.note(0.0, 1.1, most + 0.01)
    assert not one.note(0.0, 1.2, most), "whose place is before that"
    assert not one.note(MOST + 0.1, 1.3, most), "a line that was full for a moment"


def test_a_line_that_becomes_shorter_refuses_nobody_and_one_that_does_not_does() -> None:
    one, line, now = Overload(MOST), 1000, 5.0
    one.note(1.0, now, 1.0, line)
    while line > 10:
        line, now = int(line * (1 - SHRINKS)) - 1, now + PATIENCE
        assert not one.note(1.0, now, 1.0, line)
    assert one.note(1.0, now + PATIENCE, 1.0, line)


def test_no_limit_refuses_nobody() -> None:
    one = Overload(0.0)
    assert not any(one.note(1e9, float(now), 1e9) for now in range(100))


def test_the_error_says_what_and_what_to_do() -> None:
    one = Overload(MOST)
    waits = set()
    for _ in range(200):
        error = one.error(1.5)
        waits.add(error.details["retry_after"])
        assert (error.http_status, error.code, error.details["limit"]) == (503, "busy", "max_lag")
        assert error.message == (
            "the server is overloaded: it is 1.50 s late, and starts no more runs above 0.25 s "
            f"(max_lag); try again in {error.details['retry_after']} s"
        )
    assert len(waits) > 1, "who was refused together comes back together"


# --- a server with a clock of its own -------------------------------------------------------------

#: Seconds of starts that the server takes on, however they come.
BURST = LONGEST * MOST


class Machine:
    """Real turns and real admission, where a start takes ``cost`` seconds and nothing else takes
    any, but for ``stalls``: at what time the whole server stands still, and for how long."""

    def __init__(self, cost: float, stalls: dict[float, float] | None = None) -> None:
        self.cost, self.now = cost, 0.0
        self.turns = Turns(clock=lambda: self.now, cpu=lambda: self.now)
        self.overload = Overload(MOST)
        #: When each start began; how long it had waited; when others were refused.
        self.started: list[float] = []
        self.waits: list[float] = []
        self.refused: list[float] = []
        self._stalls = sorted((stalls or {}).items())
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self) -> bool:
        late, wait = self.turns.lateness(), self.turns.wait_for_start()
        return self.overload.note(late, self.now, wait, self.turns.line())

    async def serve(self, arrivals: Iterator[float], end: float) -> None:
        """Until all that came is served, or to ``end``."""
        due, ticked = next(arrivals, math.inf), self.now
        while self.now < end and (due < math.inf or self._tasks or self.turns.line()):
            while due <= self.now:
                if self.overload.is_on and self.note():  # by its connection
                    self.refused.append(self.now)
                else:
                    self.turns.take(partial(self._spawn, due), REQUEST)
                due = next(arrivals, math.inf)
            before = len(self.started)
            await asyncio.sleep(0)
            self.now += self.cost * (len(self.started) - before)
            if not self._tasks and not self.turns.line():
                self.now = max(self.now, due)
            if self._stalls and self._stalls[0][0] <= self.now:
                self.now += self._stalls.pop(0)[1]
            if self.now >= ticked + 0.1:
                ticked = self.now
                self.note()

        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, came: float) -> None:
        task = asyncio.create_task(self._start(came))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, came: float) -> None:
        if self.note():
            self.refused.append(self.now)
            return
        await self.turns.start()
        self.started.append(self.now)
        self.waits.append(self.now - came)


def evenly(first: float, last: float, count: int) -> list[float]:
    return [first + (last - first) * number / count for number in range(count)]


@given(
    st.floats(0.001, 0.02),
    st.floats(0.1, 0.9),
    st.sampled_from([0.0, 0.1, 0.5, 2.0]),
    st.floats(0.0, 0.5),
)
def test_a_burst_is_never_refused(cost: float, part: float, within: float, load: float) -> None:
    """Nobody of a burst of what the server does in `BURST` seconds, nor of those who come with a
    steady load beside it, however late the first ones in line are."""

    async def main() -> None:
        one = Machine(cost)
        burst = evenly(3.0, 3.0 + within, int(part * BURST / cost))
        steady = evenly(0.0, 8.0, int(load * 8.0 / cost))
        await one.serve(iter(sorted(burst + steady)), 60.0)
        assert not one.refused
        assert len(one.started) == len(burst) + len(steady)

    run_async(main())


@given(st.floats(0.001, 0.01), st.floats(0.0, 0.6), st.floats(0.05, 0.5))
def test_a_burst_is_not_refused_for_a_pause_within_it(cost: float, at: float, pause: float) -> None:
    async def main() -> None:
        one = Machine(cost, {3.0 + at: pause})
        burst = evenly(3.0, 4.0, int(0.6 * BURST / cost))
        await one.serve(iter(burst), 60.0)
        assert not one.refused

    run_async(main())


@pytest.mark.parametrize("cost", [0.001, 0.003, 0.01])
@pytest.mark.parametrize("factor", [1.3, 2.0, 5.0])
def test_standing_overload_ends_in_refusals_and_no_less_is_done(cost: float, factor: float) -> None:
    async def main() -> None:
        one, seconds = Machine(cost), 20.0
        arrivals = evenly(1.0, 1.0 + seconds, int(factor * seconds / cost))
        await one.serve(iter(arrivals), 1.0 + seconds)
        done = len(one.started) * cost / seconds
        assert done >= 0.95, "starts, of those that it can do"
        assert len(one.refused) >= (factor - 1) * seconds / cost - 2 * BURST / cost
        assert max(one.waits) <= BURST + PATIENCE
        # Once that is known, whoever is admitted starts soon.
        late = [w for w, at in zip(one.waits, one.started, strict=True) if at > seconds / 2]
        assert max(late) <= MOST + 40 * cost

    run_async(main())


def test_after_overload_a_burst_is_admitted_again() -> None:
    async def main() -> None:
        one, cost = Machine(0.002), 0.002
        await one.serve(iter(evenly(0.0, 10.0, 15_000)), 60.0)
        assert one.refused
        one.refused.clear()
        calm = one.now + WARY + 1.0
        one.now = calm
        one.note()
        burst = evenly(calm, calm + 0.1, int(0.8 * BURST / cost))
        await one.serve(iter(burst), 120.0)
        assert not one.refused

    run_async(main())
