"""A provider that trickles, floods, repeats or never ends a line, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from support.spine import ask, run_async
from tokenwire.errors import DeadlineError, FramingError, ProviderError, TokenwireError
from tokenwire.run.call.deadlines import Deadlines

Say = Callable[[bytes], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def delta(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % text.encode()


STOP = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


@asynccontextmanager
async def saying(body: Callable[[Say], Awaitable[None]]) -> AsyncIterator[str]:
    """A provider that takes any request and then does what ``body`` says."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def say(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        try:
            await reader.readuntil(b"\r\n\r\n")
            await say(HEAD)
            await body(say)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def answer(body: Callable[[Say], Awaitable[None]], **options: Deadlines) -> str:
    """The text of the answer; raises what the run raises."""

    async def main() -> str:
        async with saying(body) as url, ask("Hello", url, **options) as run:
            return (await run.result()).text

    return run_async(main())


def test_bytes_that_never_make_an_event_are_silence() -> None:
    async def trickle(say: Say) -> None:
        await say(delta("Hello"))
        await say(b'data: {"choices":[{"index":0,"delta":{"content":"')
        while True:
            await say(b"x")
            await asyncio.sleep(0.01)

    with pytest.raises(DeadlineError) as caught:
        answer(trickle, deadlines=Deadlines(idle=0.3))
    assert caught.value.which == "idle"


def test_a_byte_at_a_time_is_an_answer_all_the_same() -> None:
    async def slowly(say: Say) -> None:
        for byte in delta("Hel") + delta("lo") + STOP + DONE:
            await say(bytes([byte]))

    assert answer(slowly) == "Hello"


def test_a_thousand_events_in_one_piece() -> None:
    async def flood(say: Say) -> None:
        await say(b"".join(delta(f"{number} ") for number in range(1000)) + STOP + DONE)

    assert answer(flood) == "".join(f"{number} " for number in range(1000))


def test_a_line_without_end_is_refused_before_it_fills_the_memory() -> None:
    sent = 0

    async def endless(say: Say) -> None:
        nonlocal sent
        await say(b"data: ")
        while sent < 256 << 20:
            await say(b"x" * (1 << 16))
            sent += 1 << 16

    with pytest.raises((FramingError, ProviderError)):
        answer(endless)
    assert sent < 80 << 20


@pytest.mark.parametrize(
    "body",
    [
        STOP + delta("more"),
        STOP + STOP,
        STOP + DONE + delta("more"),
        DONE + DONE,
        b'data: {"choices":[{"index":5,"delta":{"content":"five"}}]}\n\n',
        b'data: {"error":{"message":"overloaded","code":"server_error"}}\n\n',
        b"data: [1,2]\n\n",
        b"\xff\xfe\n\n",
    ],
    ids=["delta after stop", "two stops", "delta after the end", "two ends", "index 5", "error",
         "no object", "no text"],
)  # fmt: skip
def test_what_a_provider_must_not_send_never_makes_text_nor_a_hang(body: bytes) -> None:
    async def odd(say: Say) -> None:
        await say(delta("Hello") + body)

    try:
        text = answer(odd, deadlines=Deadlines(idle=5.0))
    except TokenwireError:
        return
    assert text in ("Hello", "Hellomore")
