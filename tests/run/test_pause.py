"""A turn of hosted tools that the provider paused goes on, with all that it said sent back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from support.spine import QUICK, run_async
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.anthropic.decoder import DIALECT
from tokenwire.providers.base import Call, Target
from tokenwire.run.plan import Plan
from tokenwire.run.stream import Run, new_run_id

SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
RESULT = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted": "e"}]}
TEXT = {"type": "text", "text": "found"}


def answer(reason: str, *blocks: dict[str, Any]) -> bytes:
    payloads: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": reason}}]
    for index, block in enumerate(blocks):
        payloads.append({"type": "content_block_start", "index": index, "content_block": block})
        payloads.append({"type": "content_block_stop", "index": index})
    payloads.append({"type": "message_delta", "delta": {"stop_reason": reason}})
    payloads.append({"type": "message_stop"})
    return b"".join(encode_frame(json.dumps(p)) for p in payloads)


class Body:
    """One answer, whole in one piece."""

    status = 200
    headers: Mapping[str, str] = {"content-type": "text/event-stream"}

    def __init__(self, data: bytes) -> None:
        self.pieces = [data, b""]

    async def read(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def abort(self, error: Exception) -> None:
        self.pieces = []

    async def aclose(self) -> None:
        self.pieces = []


class Client:
    """Answers one after another; keeps what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, Any]] = []

    async def open(self, call: Call, *, connect_timeout: float) -> Body:
        self.asked.append(json.loads(call.body))
        return Body(self.answers.pop(0))

    async def aclose(self) -> None:
        self.answers = []


def run_of(client: Client) -> tuple[list[Any], Any]:
    target = Target(provider="p", dialect="anthropic", model="m", base_url="http://h/v1")
    plan = Plan(
        run=new_run_id(),
        request=Request(messages=[user("hi")]),
        candidates=[(DIALECT, target)],
        model="m",
        retry=QUICK,
    )

    async def main() -> tuple[list[Any], Any]:
        async with Run(plan, http=lambda: client) as run:  # type: ignore[arg-type, return-value]
            events = [event async for event in run]
            return events, await run.result()

    return run_async(main())


def test_a_paused_turn_goes_on() -> None:
    client = Client(answer("pause_turn", SEARCH, RESULT), answer("end_turn", TEXT))
    events, result = run_of(client)
    assert result.finish_reason == "stop"
    assert result.message.text == "found"
    assert [e.step for e in events if e.type == "step-start"] == [1, 2]
    assert client.asked[1]["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [SEARCH, RESULT]},
    ]


def test_it_does_not_go_on_for_ever() -> None:
    client = Client(*(answer("pause_turn", SEARCH, RESULT) for _ in range(100)))
    events, result = run_of(client)
    assert result.finish_reason == "pause"
    assert events[-1].type == "run-end"
    assert len(client.asked) < 100
