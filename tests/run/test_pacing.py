"""Reading fast models on a shared tick."""

from __future__ import annotations

import asyncio

from hypothesis import given
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
