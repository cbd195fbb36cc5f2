"""A refusal inside a 200, before anything was shown, is treated as any other refusal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

import tokenwire
from tokenwire.errors import AuthenticationError, TokenwireError
from tokenwire.framing.sse import encode_frame
from tokenwire.run.call.recover import RetryPolicy

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def refusal(code: str) -> bytes:
    return encode_frame(json.dumps({"id": "r", "error": {"message": "no", "code": code}}))


def answer(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    return encode_frame(json.dumps({"id": "r", "choices": [choice]})) + encode_frame("[DONE]")


def served(bodies: list[bytes], use: Callable[[str], Awaitable[None]]) -> int:
    """Answer each request with the next body; how many came."""
    asked = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        head = await reader.readuntil(b"\r\n\r\n")
        size = next(int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if b"content-l" in x)
        await reader.readexactly(size)
        writer.write(HEAD + bodies[min(asked, len(bodies) - 1)])
        asked += 1
        await writer.drain()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        await use(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1#m")
        server.close()

    asyncio.run(main())
    return asked


def test_an_overload_told_in_a_200_is_tried_again() -> None:
    async def use(model: str) -> None:
        retry = RetryPolicy(first=0.001)
        async with tokenwire.stream("hi", model=model, retry=retry) as run:
            assert (await run.result()).text == "hello"

    assert served([refusal("overloaded"), answer("hello")], use) == 2


def test_a_refused_key_told_in_a_200_is_not_tried_again() -> None:
    async def use(model: str) -> None:
        with pytest.raises(TokenwireError) as caught:
            async with tokenwire.stream("hi", model=model) as run:
                await run.result()
        assert caught.value.code == AuthenticationError.code

    assert served([refusal("invalid_api_key")], use) == 1


def test_an_error_after_text_is_told_and_never_tried_again() -> None:
    first = answer("half").replace(b'"finish_reason": "stop"', b'"finish_reason": null')
    body = first.replace(b"data: [DONE]\n\n", b"") + refusal("overloaded")

    async def use(model: str) -> None:
        async with tokenwire.stream("hi", model=model) as run:
            types = [event.type async for event in run]
        assert types.count("error") == 1
        assert "text-delta" in types

    assert served([body], use) == 1
