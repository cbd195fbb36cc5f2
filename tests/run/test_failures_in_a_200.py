"""Failures that a provider reports in a response of status 200, over a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.spine import ask, run_async
from tokenwire.errors import AuthenticationError, OverloadedError, ProtocolError, ProviderError


def frames(*payloads: Any) -> bytes:
    texts = [p if isinstance(p, str) else json.dumps(p) for p in payloads]
    return b"".join(f"data: {text}\n\n".encode() for text in texts)


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "r", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


@asynccontextmanager
async def answering(body: bytes, kind: str) -> AsyncIterator[tuple[str, list[int]]]:
    """A provider that gives everyone the same body, and what it was asked."""
    requests: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            requests.append(len(head))
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n"
                b"connection: close\r\n\r\n%s" % (kind.encode(), len(body), body)
            )
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", requests
    finally:
        server.close()


def outcome(body: bytes, kind: str = "text/event-stream") -> tuple[Any, int]:
    """The result, or the error, of a run; and how often the provider was asked."""

    async def main() -> tuple[Any, int]:
        async with answering(body, kind) as (url, requests):
            try:
                async with ask("Hello", url) as run:
                    result: Any = await run.result()
            except ProviderError as error:
                result = error
            return result, len(requests)

    return run_async(main())


def test_an_authentication_error_as_a_body_is_not_tried_again() -> None:
    body = json.dumps({"code": "InvalidApiKey", "message": "Invalid API-key provided."}).encode()
    error, requests = outcome(body, "application/json")
    assert (type(error), requests) == (AuthenticationError, 1)


def test_an_error_object_first_is_tried_again() -> None:
    error, requests = outcome(frames({"object": "error", "message": "busy", "code": 503}))
    assert (type(error), requests) == (OverloadedError, 3)


@pytest.mark.parametrize("word", ["error", "abort", "network_error", "timeout"])
def test_a_failing_finish_reason_before_any_output_is_tried_again(word: str) -> None:
    error, requests = outcome(frames(chunk({"role": "assistant"}), chunk({}, word), "[DONE]"))
    assert isinstance(error, ProviderError)
    assert requests == 3


def test_what_is_not_understood_does_not_keep_a_failure_from_being_tried_again() -> None:
    error, requests = outcome(frames({"stage": "queued"}, {"error": {"code": 503}}))
    assert (type(error), requests) == (OverloadedError, 3)


def test_an_end_marker_alone_is_tried_again() -> None:
    error, requests = outcome(frames("[DONE]"))
    assert isinstance(error, ProviderError)
    assert requests == 3


def test_another_wire_is_named_and_not_tried_again() -> None:
    error, requests = outcome(frames({"type": "message_start", "message": {}}, "[DONE]"))
    assert (type(error), requests) == (ProtocolError, 1)
    assert "'anthropic'" in str(error)


def test_a_failing_finish_reason_after_text_ends_the_run_with_an_error() -> None:
    error, requests = outcome(frames(chunk({"content": "Hi"}), chunk({}, "abort"), "[DONE]"))
    assert isinstance(error, ProviderError)
    assert requests == 1


def test_an_empty_answer_that_says_stop_is_an_answer() -> None:
    message = {"message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
    body = json.dumps({"id": "r", "choices": [message]}).encode()
    result, requests = outcome(body, "application/json")
    assert (result.text, requests) == ("", 1)
