"""Eight megabytes in small pieces: whole at the end, and in time that grows with the bytes only.

There is no clock here. A decoder that joins its buffer on every piece needs minutes for these, and
whoever runs the tests will notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tokenwire.events.model import ToolCallEnd
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import Registry
from tokenwire.providers.summary import facts

REGISTRY = Registry(env={})
SIZE = 8 << 20
PIECE = "x" * 128
DELTAS = SIZE // len(PIECE)


def sse(*payloads: dict[str, Any]) -> bytes:
    return b"".join(encode_frame(json.dumps(p)) for p in payloads)


def messages() -> Iterator[bytes]:
    tool = {"type": "tool_use", "id": "t", "name": "f", "input": {}}

    def delta(text: str) -> dict[str, Any]:
        inner = {"type": "input_json_delta", "partial_json": text}
        return {"type": "content_block_delta", "index": 0, "delta": inner}

    yield sse({"type": "content_block_start", "index": 0, "content_block": tool}, delta('{"a":"'))
    piece = sse(delta(PIECE))
    for _ in range(DELTAS):
        yield piece
    yield sse(delta('"}'), {"type": "content_block_stop", "index": 0})
    yield sse({"type": "message_delta", "delta": {"stop_reason": "tool_use"}})
    yield sse({"type": "message_stop"})


def responses() -> Iterator[bytes]:
    item = {"type": "function_call", "id": "f", "call_id": "t", "name": "f", "arguments": ""}

    def delta(text: str) -> dict[str, Any]:
        kind = "response.function_call_arguments.delta"
        return {"type": kind, "output_index": 0, "delta": text}

    yield sse({"type": "response.output_item.added", "output_index": 0, "item": item})
    yield sse(delta('{"a":"'))
    piece = sse(delta(PIECE))
    for _ in range(DELTAS):
        yield piece
    whole = {**item, "arguments": '{"a":"' + PIECE * DELTAS + '"}'}
    yield sse(delta('"}'), {"type": "response.output_item.done", "output_index": 0, "item": whole})
    yield sse({"type": "response.completed", "response": {"status": "completed"}})


def gemini() -> Iterator[bytes]:
    def call(**fields: Any) -> dict[str, Any]:
        return {"candidates": [{"content": {"parts": [{"functionCall": fields}]}}]}

    def patch(text: str, more: bool) -> dict[str, Any]:
        inner = {"jsonPath": "$.a", "stringValue": text, "willContinue": more}
        return call(partialArgs=[inner], willContinue=more)

    yield sse(call(name="f", id="t", willContinue=True))
    piece = sse(patch(PIECE, True))
    for _ in range(DELTAS):
        yield piece
    yield sse(patch("", False), {"candidates": [{"finishReason": "STOP"}]})


@pytest.mark.parametrize("wire", [messages, responses, gemini], ids=lambda w: w.__name__)
def test_long_arguments(wire: Any) -> None:
    decoder = REGISTRY.dialect(wire.__name__).decoder()
    events = [e for piece in wire() for e in decoder.feed(piece)] + decoder.finish()
    (end,) = [e for e in events if isinstance(e, ToolCallEnd)]
    assert end.status == "complete"
    assert len(end.arguments["a"]) == DELTAS * len(PIECE)


LONG = b'"' + b"y" * SIZE + b'"'
_DELTA = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
ONE_VALUE = {
    "messages": _DELTA + b'"text":' + LONG + b"}}\n\n",
    "gemini": b'[{"candidates":[{"content":{"parts":[{"text":' + LONG + b"}]}}]}]",
    "ollama": b'{"message":{"content":' + LONG + b'},"done":false}\n',
    "converse": b'{"contentBlockDelta":{"delta":{"text":' + LONG + b"}}}",
}


@pytest.mark.parametrize("family", ONE_VALUE)
def test_one_huge_value_in_small_pieces(family: str) -> None:
    decoder = REGISTRY.dialect(family).decoder()
    data = ONE_VALUE[family]
    events = [e for i in range(0, len(data), 64) for e in decoder.feed(data[i : i + 64])]
    assert len(facts(events + decoder.finish())["text"]) == SIZE
