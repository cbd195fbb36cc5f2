"""Reading fast models on a shared tick."""

from __future__ import annotations

import asyncio
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from support.spine import ask, run_async, simulator
from tokenwire.events import model as m
from tokenwire.run.call.pacing import FAST, LARGE, Pacer, ticks


def waits(gaps, size=300):
    pacer, now, found = Pacer(), 0.0, []
    for gap in gaps:
        now += gap
        found.append(pacer.read(now, size, 1))
    return found


@given(st.lists(st.floats(FAST, 1.0), max_size=60))
def test_an_ordinary_stream_is_always_read_at_once(gaps):
    assert not any(waits(gaps))


def test_a_fast_stream_waits_after_a_while_and_never_at_its_first_read():
    found = waits([0.005] * 60)
    assert found[0] is False
    assert found[-1] is True


def test_a_stream_that_slows_down_is_read_at_once_again():
    found = waits([0.005] * 60 + [0.05] * 3)
    assert found[59] is True
    assert found[-1] is False


def test_a_flood_is_not_slowed():
    assert not any(waits([0.0001] * 60, size=LARGE))


def test_everybody_who_waits_goes_on_together():
    async def main():
        loop = asyncio.get_running_loop()
        order = []

        async def one(number):
            await ticks().wait()
            order.append((number, loop.time()))

        await asyncio.gather(*(one(n) for n in range(5)))
        assert [n for n, _ in order] == list(range(5))

    run_async(main())


def test_whoever_stays_is_called_at_each_tick_until_he_leaves():
    async def main():
        calls = []

        def call():
            calls.append(asyncio.get_running_loop().time())
            return len(calls) < 3

        ticks().join(call)
        for _ in range(2):
            await ticks().wait()
            ticks().join(lambda: False)
        await ticks().wait()
        assert len(calls) == 3
        await ticks().wait()  # and a timer is set again after all have left
        assert len(calls) == 3

    run_async(main())


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_each_is_called_as_often_as_it_wants_and_few_in_one_turn(members, most):
    """``members``: how many ticks each stays, and how many others it brings at its last one."""

    async def main():
        loop, turns, calls = asyncio.get_running_loop(), [0], []

        def join(stays, brings):
            left = [stays]

            def call():
                turns[-1] += 1
                calls.append(1)
                left[0] -= 1
                if left[0] >= 0:
                    return True
                for _ in range(brings):
                    join(0, 0)
                return False

            ticks().join(call)

        def turn():
            turns.append(0)
            loop.call_soon(turn)

        for member in members:
            join(*member)
        turn()
        expected = sum(1 + stays + brings for stays, brings in members)
        while len(calls) < expected:
            await asyncio.sleep(0)
        await ticks().wait()
        assert len(calls) == expected
        assert max(turns) <= most
        turns.clear()

    with (
        patch("tokenwire.run.call.pacing.MOST_AT_ONCE", most),
        patch("tokenwire.run.call.pacing.TICK", 0.001),
    ):
        with asyncio.Runner() as runner:
            runner.run(main())


def test_one_that_fails_does_not_stop_the_others():
    async def main():
        seen = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context))
        ticks().join(lambda: 1 // 0)
        await ticks().wait()
        await ticks().wait()
        assert [type(context["exception"]) for context in seen] == [ZeroDivisionError]

    run_async(main())


def test_a_fast_answer_is_whole_and_comes_in_fewer_events():
    async def main():
        async with simulator(rate=400.0) as server:
            async with ask("scenario:text", server.url) as run:
                batches = [batch async for batch in run.batches()]
            deltas = [e for b in batches for e in b if isinstance(e, m.TextDelta)]
            tokens = run.state.usage["output_tokens"]
            assert run.state.outcome == "complete"
            assert len(deltas) < tokens
        async with simulator() as server:
            async with ask("scenario:text", server.url) as again:
                text = (await again.result()).text
            assert text == run.state.text

    run_async(main())
