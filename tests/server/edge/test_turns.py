"""Requests that begin and readers that leave, spread over the turns of the event loop."""

from __future__ import annotations

import asyncio
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from support.server import site
from support.spine import run_async
from tokenwire.server.edge.connection.turns import MOST, Turns, turns


@given(st.lists(st.integers(0, 25), min_size=1, max_size=8), st.integers(1, 7))
def test_all_is_done_in_order_and_so_much_in_a_turn(crowds: list[int], most: int) -> None:
    async def main() -> None:
        loop, one = asyncio.get_running_loop(), Turns(most)
        done: list[int] = []
        turn, by_turn = 0, dict[int, int]()

        def work(number: int) -> None:
            done.append(number)
            by_turn[turn] = by_turn.get(turn, 0) + 1

        count = 0
        for crowd in crowds:
            for _ in range(crowd):
                one.take(partial(work, count))
                count += 1
            await asyncio.sleep(0)
            turn += 1
        while len(done) < count:
            await asyncio.sleep(0)
            turn += 1
        assert done == list(range(count))
        # Work that comes and work that waits may meet in what is one turn to this task.
        assert max(by_turn.values(), default=0) <= 2 * most
        assert one.lateness() == 0.0
        assert loop.is_running()

    run_async(main())


def test_few_wait_for_nothing() -> None:
    async def main() -> None:
        done: list[int] = []
        for _ in range(3):
            for number in range(MOST):
                turns().take(partial(done.append, number))
            assert done == list(range(MOST))
            done.clear()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    run_async(main())


def test_what_waits_is_late() -> None:
    async def main() -> None:
        now = 100.0
        one = Turns(1, clock=lambda: now)
        done: list[str] = []
        for name in "abc":
            one.take(partial(done.append, name))
        now = 103.0
        assert (done, one.lateness()) == (["a"], 3.0)
        await asyncio.sleep(0)
        assert (done, one.lateness()) == (["a", "b"], 3.0)
        await asyncio.sleep(0)
        assert (done, one.lateness()) == (["a", "b", "c"], 0.0)

    run_async(main())


def test_what_fails_holds_up_nobody() -> None:
    async def main() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda _, what: told.append(what["message"])
        )
        one, done = Turns(1), asyncio.Event()

        def fail() -> None:
            raise RuntimeError("a fault of ours")

        for work in (fail, fail, done.set):
            one.take(work)
        await asyncio.wait_for(done.wait(), 30)
        assert told == ["work of a turn failed"] * 2

    run_async(main())


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
