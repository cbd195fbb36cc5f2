"""A provider that bills what it answers, in the words of four wires, and fails as a test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from support.raw_provider import RawProvider, raw_provider
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.registry import Registry

__all__ = [
    "FAILURES",
    "WIRES",
    "Act",
    "BillingPeer",
    "Script",
    "billing_peer",
    "body_of",
    "payloads_of",
]

#: ``answer``: some words. ``refuse``: 503. All others fail in a 200 before anything is visible:
#: ``silent`` says nothing, ``begin`` that an answer begins, ``count`` and ``count_error`` also
#: what it costs, before the connection is cut, or an error comes; ``hold`` keeps it open.
Act = Literal["answer", "refuse", "silent", "begin", "count", "count_error", "hold"]
#: What the requests get, in turn, and their tokens in and out.
Script = list[tuple[Act, int, int]]
FAILURES: tuple[Act, ...] = ("refuse", "silent", "begin", "count", "count_error")
WIRES = ("openai-chat", "openai-responses", "anthropic", "gemini")

_Payloads = list[dict[str, Any]]


def _chat(act: Act, enter: int, leave: int) -> _Payloads:
    usage = {"prompt_tokens": enter, "completion_tokens": leave, "total_tokens": enter + leave}
    payloads: _Payloads = [_choice({"role": "assistant"})]
    if act == "answer":
        payloads += [_choice({"content": "words"}), _choice({}, "stop")]
    if act != "begin":
        payloads.append({"id": "r", "choices": [], "usage": usage})
    if act == "count_error":
        payloads.append({"error": {"message": "busy", "code": 503}})
    return payloads


def _choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"id": "r", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def _responses(act: Act, enter: int, leave: int) -> _Payloads:
    usage = {"input_tokens": enter, "output_tokens": leave, "total_tokens": enter + leave}
    response: dict[str, Any] = {"id": "resp", "model": "m", "output": []}
    payloads: _Payloads = [{"type": "response.created", "response": response}]
    if act == "answer":
        item = {"type": "message", "id": "i", "role": "assistant", "content": []}
        of = {"item_id": "i", "output_index": 0, "content_index": 0}
        text = {"type": "output_text", "text": "words", "annotations": []}
        payloads += [
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **of, "part": {**text, "text": ""}},
            {"type": "response.output_text.delta", **of, "delta": "words"},
            {"type": "response.output_text.done", **of, "text": "words"},
            {"type": "response.content_part.done", **of, "part": text},
            {
                "type": "response.output_item.done",
                "output_index": 0,
                "item": {**item, "content": [text]},
            },
            {
                "type": "response.completed",
                "response": {**response, "status": "completed", "usage": usage},
            },
        ]
    elif act == "count":
        payloads.append({"type": "response.in_progress", "response": {**response, "usage": usage}})
    elif act == "count_error":
        error = {"code": "server_error", "message": "busy"}
        failed = {**response, "status": "failed", "usage": usage, "error": error}
        payloads.append({"type": "response.failed", "response": failed})
    return payloads


def _anthropic(act: Act, enter: int, leave: int) -> _Payloads:
    message: dict[str, Any] = {"id": "msg", "type": "message", "role": "assistant", "model": "m"}
    if act != "begin":
        message["usage"] = {"input_tokens": enter, "output_tokens": leave}
    payloads: _Payloads = [{"type": "message_start", "message": message}]
    if act == "answer":
        block = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": "words"}
        payloads += [
            {"type": "content_block_start", "index": 0, "content_block": block},
            {"type": "content_block_delta", "index": 0, "delta": delta},
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn"},
                "usage": {"output_tokens": leave},
            },
            {"type": "message_stop"},
        ]
    elif act == "count_error":
        payloads.append({"type": "error", "error": {"type": "overloaded_error", "message": "x"}})
    return payloads


def _gemini(act: Act, enter: int, leave: int) -> _Payloads:
    usage = {
        "promptTokenCount": enter,
        "candidatesTokenCount": leave,
        "totalTokenCount": enter + leave,
    }
    payload: dict[str, Any] = {"responseId": "r", "modelVersion": "m"}
    if act == "begin":
        payload["candidates"] = [{"index": 0, "content": {"role": "model", "parts": []}}]
    else:
        payload["usageMetadata"] = usage
    if act == "answer":
        content = {"role": "model", "parts": [{"text": "words"}]}
        payload["candidates"] = [{"index": 0, "content": content, "finishReason": "STOP"}]
    payloads: _Payloads = [payload]
    if act == "count_error":
        error = {"code": 503, "message": "busy", "status": "UNAVAILABLE"}
        payloads.append({"error": error})
    return payloads


_BY_WIRE = {
    "openai-chat": _chat,
    "openai-responses": _responses,
    "anthropic": _anthropic,
    "gemini": _gemini,
}


def payloads_of(wire: str, act: Act, enter: int, leave: int) -> list[dict[str, Any]]:
    """What ``act`` sends, by a wire, and counts."""
    return _BY_WIRE[wire](act, enter, leave)


def body_of(wire: str, act: Act, payloads: list[dict[str, Any]]) -> bytes:
    """Payloads as the body of a stream."""
    pieces: list[bytes] = []
    for payload in payloads:
        if "type" in payload:
            pieces.append(b"event: %s\n" % str(payload["type"]).encode())
        pieces.append(b"data: %s\n\n" % json.dumps(payload).encode())
    if act == "answer" and wire == "openai-chat":
        pieces.append(b"data: [DONE]\n\n")
    return b"".join(pieces)


class BillingPeer:
    """One provider. ``script``: what its requests get; ``billed``: the tokens that it told."""

    def __init__(self, wire: str, raw: RawProvider) -> None:
        self.wire, self._raw = wire, raw
        self.script: Script = []
        self.billed: list[tuple[int, int]] = []
        #: Called with each request's number, before it is answered.
        self.before: Any = None

    @property
    def requests(self) -> int:
        """How often it was asked."""
        return len(self._raw.requests)

    def candidate(self, name: str) -> tuple[Dialect, Target]:
        """It as a model of the provider ``name``."""
        base = f"{self._raw.url}/v1"
        target = Target(provider=name, dialect=self.wire, model="m", base_url=base, api_key="k")
        return Registry(env={}).dialect(self.wire), target

    async def answer(self, number: int, writer: asyncio.StreamWriter) -> None:
        if self.before is not None:
            self.before(number)
        act, enter, leave = self.script[number]
        if act == "refuse":
            writer.write(b"HTTP/1.1 503 X\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
            await writer.drain()
            return
        payloads = [] if act == "silent" else payloads_of(self.wire, act, enter, leave)
        body = body_of(self.wire, act, payloads)
        if act in ("answer", "count", "count_error"):
            self.billed.append((enter, leave))
        kind = b"text/event-stream"
        whole = act in ("answer", "count_error")
        length = len(body) + (0 if whole else 1000)  # the others are cut
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%s" % (kind, length, body)
        )
        await writer.drain()
        if act == "hold":
            await asyncio.Event().wait()


@asynccontextmanager
async def billing_peer(wire: str) -> AsyncIterator[BillingPeer]:
    """A provider that speaks ``wire``."""
    peer: BillingPeer | None = None

    async def answer(number: int, writer: asyncio.StreamWriter) -> None:
        assert peer is not None
        await peer.answer(number, writer)

    async with raw_provider(answer) as raw:
        peer = BillingPeer(wire, raw)
        yield peer
