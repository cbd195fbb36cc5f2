"""The bounded buffer."""

from __future__ import annotations

import asyncio

import pytest

from support.spine import run_async
from tokenwire.errors import InputError
from tokenwire.events import model as m
from tokenwire.run.buffer import Buffer, BufferLimits


def deltas(*texts):
    return [m.TextDelta(part=0, text=t) for t in texts]


def test_a_full_buffer_makes_the_writer_wait_and_loses_nothing():
    async def main():
        buffer = Buffer(BufferLimits(events=3))
        await buffer.put(deltas("a", "b", "c"))
        writer = asyncio.create_task(buffer.put(deltas("d")))
        await asyncio.sleep(0)
        assert not writer.done()
        assert buffer.stats.writer_waits == 1
        taken = await buffer.take()
        await writer
        buffer.end()
        taken += await buffer.take()
        assert "".join(e.text for e in taken) == "abcd"
        assert await buffer.take() is None
        assert buffer.stats.fullest == 3

    run_async(main())


def test_bytes_are_a_bound_too():
    async def main():
        buffer = Buffer(BufferLimits(events=1000, bytes=10))
        await buffer.put(deltas("x" * 20))
        writer = asyncio.create_task(buffer.put(deltas("y")))
        await asyncio.sleep(0)
        assert not writer.done()
        await buffer.take()
        await writer

    run_async(main())


def test_the_merge_policy_joins_before_it_waits():
    async def main():
        buffer = Buffer(BufferLimits(events=3, policy="merge"))
        for number in range(100):
            await buffer.put(deltas(str(number)))
        assert buffer.stats.writer_waits == 0
        buffer.end()
        text = "".join(e.text for e in await buffer.take())
        assert text == "".join(map(str, range(100)))

    run_async(main())


def test_an_error_comes_after_what_was_held():
    async def main():
        buffer = Buffer()
        await buffer.put(deltas("a"))
        buffer.end(ValueError("broken"))
        assert (await buffer.take())[0].text == "a"
        with pytest.raises(ValueError, match="broken"):
            await buffer.take()

    run_async(main())


@pytest.mark.parametrize("bad", [{"events": 0}, {"bytes": 0}, {"policy": "drop"}])
def test_a_buffer_of_nothing_is_refused(bad):
    with pytest.raises(InputError):
        Buffer(BufferLimits(**bad))
