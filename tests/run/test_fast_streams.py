"""Fast streams of a provider on a socket: whatever ends one, a tick is no longer than a read."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

import pytest

from run.test_silent_providers import LAST, WORD, sse
from support.raw_provider import HEAD, chunked, raw_provider
from support.spine import ask, run_async
from tokenwire.errors import DeadlineError, NetworkError, TruncatedError
from tokenwire.events import model as m
from tokenwire.providers.http.connection import Connection
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.lane import switch

TOKENS = 60
END = chunked(sse(LAST)) + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"


@pytest.fixture(params=[True, False], ids=["lane", "no lane"], autouse=True)
def _lane(request, monkeypatch):
    monkeypatch.setattr(switch, "on", request.param)


@pytest.fixture
def pulls(monkeypatch):
    """What came of each read of a tick."""
    found: list[bool] = []
    pull = Connection.pull

    def counted(self):
        found.append(pull(self))
        return found[-1]

    monkeypatch.setattr(Connection, "pull", counted)
    return found


def fast(then, pulls, said=None):
    """A provider of `TOKENS` tokens, 2 ms apart, that then does what ``then`` does. On a machine
    that is too busy for this pace it goes on until ticks read. ``said``: its words."""

    async def answer(_, writer):
        said_here = [] if said is None else said
        writer.write(HEAD)
        until = time.monotonic() + 60
        while len(said_here) < TOKENS or not (any(pulls) or time.monotonic() > until):
            said_here.append(WORD)
            writer.write(chunked(sse(WORD)))
            await writer.drain()
            await asyncio.sleep(0.002)
        await then(writer)

    return answer


async def end(writer):
    writer.write(END)
    await writer.drain()
    await asyncio.Event().wait()  # the connection stays open


async def close(writer):
    writer.write(chunked(sse(WORD))[:20])
    await writer.drain()


async def reset(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def fall_silent(_):
    await asyncio.Event().wait()


async def slow_down(writer):
    for _ in range(5):
        await asyncio.sleep(0.05)
        writer.write(chunked(sse(WORD)))
        await writer.drain()
    await end(writer)


@pytest.mark.parametrize("then", [end, slow_down], ids=lambda then: then.__name__)
def test_the_whole_answer_in_fewer_events(then, pulls):
    async def main():
        said = []
        async with raw_provider(fast(then, pulls, said)) as provider:
            async with ask("x", provider.url) as run:
                events = [event async for event in run]
            deltas = [event for event in events if isinstance(event, m.TextDelta)]
            words = len(said) + (5 if then is slow_down else 0)
            assert "".join(delta.text for delta in deltas) == "a " * words
            assert run.state.outcome == "complete"
            assert any(pulls)
            assert len(deltas) < words

    run_async(main())


@pytest.mark.parametrize("then", [close, reset], ids=lambda then: then.__name__)
def test_a_connection_that_breaks_ends_it_as_an_error(then, pulls):
    async def main():
        async with raw_provider(fast(then, pulls)) as provider:
            async with ask("x", provider.url) as run:
                with pytest.raises((NetworkError, TruncatedError)):
                    await run.result()
            assert run.state.outcome != "complete"
            assert pulls

    run_async(main())


def test_silence_runs_into_its_deadline(pulls):
    async def main():
        deadlines = Deadlines(idle=0.4)
        async with raw_provider(fast(fall_silent, pulls)) as provider:
            async with ask("x", provider.url, deadlines=deadlines) as run:
                with pytest.raises(DeadlineError) as caught:
                    await run.result()
            assert caught.value.which == "idle"
            assert any(pulls)

    run_async(main())


def test_a_cancel_between_two_ticks_ends_it(pulls):
    async def main():
        async with raw_provider(fast(fall_silent, pulls)) as provider:
            async with ask("x", provider.url) as run:
                async for _ in run.batches():
                    if any(pulls):
                        run.cancel()
            assert run.state.outcome == "cancelled"
            count = len(pulls)
            await asyncio.sleep(0.06)
            assert len(pulls) <= count + 1  # the tick that was due finds nobody

    run_async(main())
