"""A run in one's own process, against the simulator over a real socket."""

from __future__ import annotations

import asyncio

import pytest

from support.spine import ask, run_async, simulator
from tokenwire.errors import (
    CancelledRunError,
    ConflictError,
    DeadlineError,
    NetworkError,
    ProtocolError,
    TokenwireError,
    TruncatedError,
)
from tokenwire.events import model as m
from tokenwire.run.buffer import BufferLimits
from tokenwire.run.call.deadlines import Deadlines

SLOW = "".join(f"{n} " for n in range(1, 91))


def test_text_arrives_in_pieces_and_is_whole():
    async def main():
        async with simulator(rate=2000.0) as server:
            async with ask("scenario:slow?rate=0", server.url) as run:
                pieces = [text async for text in run.text()]
            assert "".join(pieces).startswith("1 2 3 ")
            result = await run.result()
            assert result.finish_reason == "stop"
            assert result.outcome == "complete"
            assert result.usage["output_tokens"] > 0
            assert result.timings.first_token_seconds is not None
            assert (await server.wait_ended()).outcome == "complete"

    run_async(main())


def test_cancel_closes_the_providers_connection_and_is_written_down():
    async def main():
        async with simulator() as server:
            async with ask("scenario:stall", server.url) as run:
                events = []
                async for event in run:
                    events.append(event)
                    if isinstance(event, m.TextDelta):
                        run.cancel("enough")
            types = [e.type for e in events]
            assert types[-1] == "run-end"
            assert events[-1].outcome == "cancelled"
            assert types.index("control") < types.index("text-end") < types.index("step-end")
            record = await asyncio.wait_for(server.wait_ended(), 60)
            assert record.outcome == "disconnected"
            with pytest.raises(CancelledRunError):
                await run.result()

    run_async(main())


def test_leaving_early_closes_everything():
    async def main():
        async with simulator() as server:
            async with ask("scenario:stall", server.url) as run:
                async for _ in run.text():
                    break
            record = await asyncio.wait_for(server.wait_ended(), 60)
            assert record.outcome == "disconnected"

    run_async(main())


def test_a_reader_that_fails_closes_everything():
    async def main():
        async with simulator() as server:
            with pytest.raises(ZeroDivisionError):
                async with ask("scenario:stall", server.url) as run:
                    async for _ in run.text():
                        raise ZeroDivisionError
            assert (await asyncio.wait_for(server.wait_ended(), 60)).outcome == "disconnected"

    run_async(main())


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ("cut-rst@900", NetworkError),
        ("cut-fin@900", NetworkError),
        ("cut-end@900", TruncatedError),
        ("no-finish", TruncatedError),
        ("html", ProtocolError),
        ("garbage@3", ProtocolError),
    ],
)
def test_a_broken_answer_is_a_typed_error_and_never_a_whole_one(faults, error):
    async def main():
        async with simulator(faults=faults) as server:
            async with ask("scenario:text", server.url) as run:
                with pytest.raises(error):
                    await run.result()
            assert run.state.outcome == "error"
            assert run.state.finish_reason != "stop" or not run.state.steps[-1].terminal_seen

    run_async(main())


@pytest.mark.parametrize(
    ("faults", "deadlines", "which"),
    [
        ("slow-start@30", Deadlines(first_event=0.2), "first_event"),
        ("stall@0", Deadlines(keep_alive=0.2), "keep_alive"),
        ("stall@900", Deadlines(idle=0.2), "idle"),
        ("stall@900", Deadlines(total=0.3), "total"),
    ],
)
def test_each_clock_gives_its_own_error(faults, deadlines, which):
    async def main():
        async with simulator(faults=faults) as server:
            async with ask("scenario:text", server.url, deadlines=deadlines) as run:
                with pytest.raises(DeadlineError) as caught:
                    await run.result()
            assert caught.value.which == which

    run_async(main())


def test_a_timer_that_comes_a_moment_early_is_the_deadline_all_the_same():
    async def main():
        asyncio.get_running_loop()._clock_resolution = 30.0  # calls timers that much too early
        async with simulator(faults="slow-start@30") as server:
            async with ask("hi", server.url, deadlines=Deadlines(first_event=20)) as run:
                with pytest.raises(DeadlineError) as caught:
                    await run.result()
            assert caught.value.which == "first_event"

    run_async(main())


def test_nobody_there_is_a_network_error_in_words():
    async def main():
        async with ask("x", "http://127.0.0.1:9") as run:
            with pytest.raises(NetworkError) as caught:
                await run.result()
            assert "cannot connect to 127.0.0.1:9" in str(caught.value)

    run_async(main())


def test_a_slow_reader_makes_the_model_wait_in_a_bounded_buffer():
    async def main():
        async with simulator() as server:
            async with ask("scenario:burst", server.url, buffer=BufferLimits(events=50)) as run:
                text = []
                async for batch in run.batches():
                    await asyncio.sleep(0)
                    text += [e.text for e in batch if isinstance(e, m.TextDelta)]
                assert run.buffer.fullest < 50 + 20_000
                assert run.buffer.events > 0
            assert len("".join(text).split()) > 5000

    run_async(main())


def test_a_run_cannot_be_started_twice_or_read_before_it_is_started():
    async def main():
        async with simulator() as server:
            run = ask("Hello", server.url)
            with pytest.raises(ConflictError):
                await run.result()
            async with run:
                with pytest.raises(ConflictError):
                    await run.__aenter__()
                await run.result()

    run_async(main())


def test_a_run_that_was_left_is_not_taken_for_a_whole_answer():
    async def main():
        async with simulator() as server:
            async with ask("scenario:stall", server.url) as run:
                async for _ in run.text():
                    break
            with pytest.raises(TokenwireError):
                await run.result()

    run_async(main())


def test_a_run_that_was_left_before_its_first_turn_has_an_end():
    async def main():
        async with simulator() as server:
            async with ask("scenario:text", server.url) as run:
                pass  # its task was cancelled before it began
            with pytest.raises(TruncatedError):
                await asyncio.wait_for(run.result(), 60)
            assert [batch async for batch in run.batches()] == []

    run_async(main())
