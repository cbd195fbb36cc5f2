"""Reads, requests and departures that come in crowds, spread over the turns of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.server import site
from support.spine import run_async
from tokenwire.turns import CROWDED, LEAST, LONG, MOST, RATE, REQUEST, START, Turns, turns


class Clock:
    """Seconds of CPU: each look is ``step`` later."""

    def __init__(self, step: float = 0.0) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def read(one: Turns, work: Callable[[], None]) -> None:
    """A read, as a connection handles it."""
    if one.admit():
        work()
    else:
        one.wait(work)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), min_size=1, max_size=8),
    st.integers(LEAST, MOST),
    st.sampled_from([0.0, 2 * LONG]),
)
def test_all_is_done_in_order_and_so_much_in_a_turn(
    crowds: list[tuple[int, int]], most: int, step: float
) -> None:
    async def main() -> None:
        one = Turns(most, cpu=Clock(step))
        done: dict[str, list[int]] = {"read": [], "start": []}
        turn, by_turn = 0, dict[int, int]()

        def work(kind: str, number: int, pieces: int) -> None:
            done[kind].append(number)
            by_turn[turn] = by_turn.get(turn, 0) + pieces

        counts = {"read": 0, "start": 0}
        for crowd in crowds:
            for kind, count in zip(counts, crowd, strict=True):
                for _ in range(count):
                    if kind == "read":
                        read(one, partial(work, kind, counts[kind], 1))
                    else:
                        one.take(partial(work, kind, counts[kind], START))
                    counts[kind] += 1
            await asyncio.sleep(0)
            turn += 1
        while {kind: len(order) for kind, order in done.items()} != counts:
            before = done["read"][-1:], done["start"][-1:]
            await asyncio.sleep(0)
            turn += 1
            assert (done["read"][-1:], done["start"][-1:]) != before, "a turn did nothing"
        assert done == {kind: list(range(count)) for kind, count in counts.items()}
        # Work that comes and work that waits may meet in what is one turn to this task.
        assert max(by_turn.values(), default=0) <= 2 * (MOST + START)
        assert one.lateness() == 0.0

    run_async(main())


def test_few_wait_for_nothing() -> None:
    async def main() -> None:
        done: list[int] = []
        for _ in range(3):
            for number in range(MOST // START):
                turns().take(partial(done.append, number))
            assert done == list(range(MOST // START))
            done.clear()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [turns().admit() for _ in range(MOST + 1)] == [True] * MOST + [False]
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    run_async(main())


def test_a_quiet_loop_is_not_woken_again() -> None:
    """A read that waits for nothing costs one callback, and none comes after it."""

    async def main() -> None:
        loop, calls = asyncio.get_running_loop(), 0

        def call_soon(work: Callable[..., object], *arguments: object, **more: Any) -> Any:
            nonlocal calls
            calls += getattr(work, "__self__", None) is one
            return soon(work, *arguments, **more)

        one, soon = Turns(), loop.call_soon
        with patch.object(loop, "call_soon", call_soon):
            assert one.admit()
            for _ in range(5):
                await asyncio.sleep(0)
        assert calls <= 2

    run_async(main())


def test_reads_go_first_and_hold_up_no_request() -> None:
    async def main() -> None:
        one, done = Turns(4, cpu=Clock(1.5 * LONG)), list[str]()
        for number in range(12):
            read(one, partial(done.append, f"read {number}"))
        for number in range(2):
            one.take(partial(done.append, f"start {number}"))
        assert done == [f"read {number}" for number in range(4)]
        await asyncio.sleep(0)
        assert done[4:] == ["read 4", "read 5", "read 6", "read 7", "start 0"]
        await asyncio.sleep(0)
        assert done[9:] == ["read 8", "read 9", "read 10", "read 11", "start 1"]

    run_async(main())


def test_long_turns_make_the_next_ones_smaller_until_they_are_short_again() -> None:
    async def main() -> None:
        cpu = Clock(1.5 * LONG)
        one, sizes = Turns(cpu=cpu), list[int]()
        for step in (1.5 * LONG, LONG / 2):
            cpu.step, done = step, list[int]()
            for number in range(30 * MOST):
                read(one, partial(done.append, number))
            while len(done) < 30 * MOST:
                before = len(done)
                await asyncio.sleep(0)
                sizes.append(len(done) - before)
        smallest = sizes.index(LEAST)
        assert sizes[:smallest] == [MOST, *range(MOST - 2, LEAST, -2)]
        grown = sizes[sizes.index(LEAST + 1) :]
        assert grown[: MOST - LEAST] == list(range(LEAST + 1, MOST + 1))

    run_async(main())


@pytest.mark.parametrize("pieces", [MOST + 1, CROWDED, 10 * CROWDED])
def test_turns_that_are_long_anyway_have_room_for_more(pieces: int) -> None:
    async def main() -> None:
        one, done = Turns(cpu=Clock(LONG + (pieces + 0.5) / RATE)), list[int]()
        for number in range(9 * CROWDED):
            read(one, partial(done.append, number))
        sizes = list[int]()
        while len(done) < 9 * CROWDED:
            before = len(done)
            await asyncio.sleep(0)
            sizes.append(len(done) - before)
        # How long a turn is, is known when the second one begins.
        assert sizes[0] == MOST
        assert set(sizes[1:-1]) == {min(pieces, CROWDED)}

    run_async(main())


def test_starts_have_a_line_of_their_own() -> None:
    """A stop, or a refusal, waits for none of the runs that are about to start."""

    async def main() -> None:
        one, done = Turns(START + REQUEST, cpu=Clock()), list[str]()

        async def start(name: str) -> None:
            await one.start()
            done.append(name)

        tasks = [asyncio.create_task(start(f"start {number}")) for number in range(6)]
        await asyncio.sleep(0)
        assert done == ["start 0"]
        tasks[2].cancel()
        for number in range(3):
            one.take(partial(done.append, f"request {number}"), REQUEST)
        assert done == ["start 0", "request 0"]
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [name for name in done if name[0] == "r"] == [f"request {n}" for n in range(3)]
        assert [name for name in done if name[0] == "s"] == [f"start {n}" for n in (0, 1, 3, 4, 5)]
        assert done.index("request 2") < done.index("start 3")
        assert one.lateness() == 0.0

    run_async(main())


def test_how_long_one_more_start_would_wait() -> None:
    async def main() -> None:
        now = 0.0
        one = Turns(START, clock=lambda: now, cpu=Clock(1.5 * LONG))
        assert one.wait_for_start() == 0.0
        tasks = [asyncio.create_task(one.start()) for _ in range(100)]
        for _ in range(60):
            await asyncio.sleep(0)
            now += 0.02  # one of them in each turn
        waiting = len(one._starts)
        assert 35 <= waiting <= 42
        assert 0.018 * waiting <= one.wait_for_start() <= 0.021 * waiting
        await asyncio.gather(*tasks)
        assert one.wait_for_start() == 0.0

    run_async(main())


def test_a_turn_of_seconds_counts_for_those_who_wait_behind_it_and_no_longer() -> None:
    async def main() -> None:
        now = 0.0
        one = Turns(START, clock=lambda: now, cpu=Clock())
        for crowd in range(3):
            tasks = [asyncio.create_task(one.start()) for _ in range(4)]
            await asyncio.sleep(0)
            assert one.wait_for_start() < 0.01, f"crowd {crowd}, with none of those before in line"
            while len(one._starts) > 1:
                await asyncio.sleep(0)
            now += 60.0  # the program stood still
            await asyncio.gather(*tasks)

    run_async(main())


def test_what_waits_is_late() -> None:
    async def main() -> None:
        now = 100.0
        one = Turns(START, clock=lambda: now)
        done: list[str] = []
        for name in "abc":
            one.take(partial(done.append, name))
        now = 103.0
        assert (done, one.lateness()) == (["a"], 3.0)
        await asyncio.sleep(0)
        assert (done, one.lateness()) == (["a", "b"], 3.0)
        one.wait(partial(done.append, "read"))
        now = 104.0
        await asyncio.sleep(0)
        assert (done, one.lateness()) == (["a", "b", "read", "c"], 0.0)
        assert not one.admit()
        one.wait(partial(done.append, "late"))
        now = 106.5
        assert one.lateness() == 2.5
        await asyncio.sleep(0)
        assert (done[-1], one.lateness()) == ("late", 0.0)

    run_async(main())


def test_what_fails_holds_up_nobody() -> None:
    async def main() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, what: told.append(what["message"])
        )
        one, done = Turns(START), asyncio.Event()

        def fail() -> None:
            raise RuntimeError("a fault of ours")

        for work in (fail, fail, done.set):
            one.take(work)
        await asyncio.wait_for(done.wait(), 30)
        assert told == ["work of a turn failed"] * 2

    run_async(main())


def test_an_exit_in_a_turn_leaves_nobody_waiting_for_ever() -> None:
    done: list[str] = []

    def leave() -> None:
        raise KeyboardInterrupt

    async def wait() -> None:
        one = Turns(START)
        one.take(partial(done.append, "first"))
        one.take(leave)
        one.take(partial(done.append, "last"))
        await asyncio.sleep(60)

    loop = asyncio.new_event_loop()
    try:
        task = loop.create_task(wait())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        task.cancel()  # as `asyncio.run` does
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(asyncio.sleep(0))
    finally:
        loop.close()
    assert done == ["first", "last"]


def test_a_crowd_of_requests_is_answered_and_its_readers_may_leave_at_once() -> None:
    with site(on_disconnect="stop") as here:

        async def main() -> None:
            async def read() -> tuple[asyncio.StreamWriter, bytes]:
                reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
                body = b'{"prompt":"scenario:stall"}'
                head = (
                    f"POST /v1/runs HTTP/1.1\r\nHost: 127.0.0.1:{here.port}\r\n"
                    "Accept: text/event-stream\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                writer.write(head.encode() + body)
                return writer, await reader.readuntil(b"text-delta")

            opened = await asyncio.gather(*(read() for _ in range(8 * MOST)))
            assert all(data.startswith(b"HTTP/1.1 201 ") for _, data in opened)
            for writer, _ in opened:
                writer.transport.abort()
            async with asyncio.timeout(30):
                while len(here.app.state.connections) or here.app.state.runs.owned:
                    await asyncio.sleep(0.02)

        run_async(main())
        assert here.runs_started == 8 * MOST
