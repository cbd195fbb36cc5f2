"""The AI SDK's WebSocket protocol, frame by frame."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import websockets

from support.node import serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


def send(prompt: str, request: str = "r1", chat: str = "ws-chat") -> dict[str, Any]:
    message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": prompt}]}
    return {
        "type": "send",
        "requestId": request,
        "id": chat,
        "trigger": "submit-message",
        "messages": [message],
        "headers": {},
        "body": {},
        "metadata": None,
    }


def talk(url: str, *frames: Any, ends: int = 1) -> list[dict[str, Any]]:
    """Send frames; all that comes until ``ends`` requests have ended."""

    async def main() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        address = url.replace("http", "ws") + "/api/chat/ws"
        async with websockets.connect(address) as socket:
            for frame in frames:
                await socket.send(frame if isinstance(frame, str) else json.dumps(frame))
            left = ends
            while left:
                told = json.loads(await asyncio.wait_for(socket.recv(), 60))
                found.append(told)
                left -= told["type"] in ("end", "no-active", "error")
        return found

    return asyncio.run(main())


def test_a_request_is_start_chunks_in_sequence_and_end(url: str) -> None:
    told = talk(url, send("scenario:tool"))
    assert told[0] == {"type": "start", "requestId": "r1"}
    assert told[-1] == {"type": "end", "requestId": "r1"}
    chunks = told[1:-1]
    assert [c["sequence"] for c in chunks] == list(range(len(chunks)))
    assert chunks[0]["chunk"]["type"] == "start"
    assert chunks[-1]["chunk"]["type"] == "finish"


def test_requests_share_a_socket(url: str) -> None:
    told = talk(url, send("Hello", "a", "chat-a"), send("Hello", "b", "chat-b"), ends=2)
    for name in ("a", "b"):
        mine = [t["sequence"] for t in told if t["requestId"] == name and t["type"] == "chunk"]
        assert mine == list(range(len(mine)))
        assert mine


def test_nothing_to_resume(url: str) -> None:
    frame = {"type": "resume", "requestId": "r", "id": "never-was"}
    assert talk(url, frame) == [{"type": "no-active", "requestId": "r"}]


def test_an_abort_detaches_and_a_resume_reads_from_the_start(url: str) -> None:
    async def main() -> None:
        address = url.replace("http", "ws") + "/api/chat/ws"
        async with websockets.connect(address) as socket:
            await socket.send(json.dumps(send("scenario:slow", "one", "ws-slow")))
            for _ in range(5):
                await socket.recv()
            await socket.send(json.dumps({"type": "abort", "requestId": "one"}))
            resume = {"type": "resume", "requestId": "two", "id": "ws-slow"}
            await socket.send(json.dumps(resume))
            chunks: list[Any] = []
            while True:
                told = json.loads(await asyncio.wait_for(socket.recv(), 60))
                if told["requestId"] == "two":
                    chunks.append(told)
                    if told["type"] == "end":
                        break
        sequence = [c["sequence"] for c in chunks if c["type"] == "chunk"]
        assert sequence == list(range(len(sequence)))
        assert chunks[-2]["chunk"]["type"] == "finish"

    asyncio.run(main())
    runs = httpx.get(f"{url}/v1/threads/ws-slow").json()["runs"]
    assert [r["state"] for r in runs] == ["complete"]


@pytest.mark.parametrize(
    "frame",
    [
        "{",
        "[]",
        {"type": "send"},
        {"type": "dance", "requestId": "r"},
        {**send("x"), "messages": "hello"},
        {**send("x"), "body": {"api_key": "k"}},
        {**send("x"), "id": "a\nb"},
    ],
)
def test_bad_frames_are_errors_of_their_request(url: str, frame: Any) -> None:
    told = talk(url, frame)
    assert [t["type"] for t in told] == ["error"]
    assert told[0]["errorText"]


def test_other_sites_may_not_connect(url: str) -> None:
    async def main() -> None:
        address = url.replace("http", "ws") + "/api/chat/ws"
        with pytest.raises(websockets.exceptions.InvalidStatus):
            async with websockets.connect(address, origin="https://evil.example"):  # type: ignore[arg-type]
                pass

    asyncio.run(main())


def test_a_request_may_be_as_long_as_a_body(url: str) -> None:
    told = talk(url, send("x" * 200_000, chat="ws-long"))
    assert told[-1] == {"type": "end", "requestId": "r1"}
    deep = '{"type":"send","requestId":"r1","messages":' + "[" * 100_000 + "]" * 100_000 + "}"
    (error,) = talk(url, deep)
    assert (error["type"], error["requestId"]) == ("error", "")
