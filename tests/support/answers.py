"""A small whole answer on each wire, in three pieces: its text, its finish reason, its end marker;
and a tool call on each, so that one case can be tried everywhere."""

from __future__ import annotations

import json
from typing import Any

from support.corpus import decode
from tokenwire.events.model import Error, Event, PartAttr, StepEnd, ToolCallEnd, ToolCallStart
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import Registry

REGISTRY = Registry(env={})


def chunk(delta: dict[str, Any] | None = None, reason: Any = None) -> dict[str, Any]:
    """A chunk of Chat Completions."""
    return {"id": "x", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}]}


def sse(payloads: list[Any]) -> bytes:
    """Payloads as a stream; a text is sent as it is."""
    return b"".join(encode_frame(p if isinstance(p, str) else json.dumps(p)) for p in payloads)


#: wire -> (a beginning with the text ``Hi``, the finish reason, the end marker)
ANSWERS: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "openai-chat": ([chunk({"content": "Hi"})], [chunk(reason="stop")], ["[DONE]"]),
    "completions": (
        [{"id": "x", "choices": [{"index": 0, "text": "Hi"}]}],
        [{"id": "x", "choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}],
        ["[DONE]"],
    ),
    "openai-responses": (
        [
            {"type": "response.created", "response": {"id": "r"}},
            {
                "type": "response.output_text.delta",
                "output_index": 0,
                "item_id": "m",
                "content_index": 0,
                "delta": "Hi",
            },
        ],
        [],
        [{"type": "response.completed", "response": {"id": "r", "status": "completed"}}],
    ),
    "anthropic": (
        [
            {"type": "message_start", "message": {"id": "m"}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text"}},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "Hi"},
            },
        ],
        [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        ],
        [{"type": "message_stop"}],
    ),
    "gemini": (
        [{"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}],
        [{"candidates": [{"finishReason": "STOP"}]}],
        [],
    ),
    "gemini-interactions": (
        [
            {"event_type": "interaction.created", "interaction": {"id": "i"}},
            {"event_type": "step.start", "index": 0, "step": {"type": "model_output"}},
            {"event_type": "step.delta", "index": 0, "delta": {"type": "text", "text": "Hi"}},
        ],
        [],
        [
            {
                "event_type": "interaction.completed",
                "interaction": {"id": "i", "status": "completed"},
            }
        ],
    ),
    "ollama": (
        [{"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False}],
        [],
        [{"model": "m", "message": {"content": ""}, "done": True, "done_reason": "stop"}],
    ),
    "cohere": (
        [
            {"type": "message-start", "id": "x"},
            {
                "type": "content-delta",
                "index": 0,
                "delta": {"message": {"content": {"text": "Hi"}}},
            },
        ],
        [],
        [{"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}],
    ),
    "bedrock-converse": (
        [
            {"messageStart": {"role": "assistant"}},
            {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}},
        ],
        [
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
        ],
        [{"metadata": {"usage": {"inputTokens": 1, "outputTokens": 1}}}],
    ),
}


def events_of(dialect: str, data: bytes | list[Any], **options: Any) -> list[Event]:
    """The events of an answer, as bytes or as payloads."""
    body = sse(data) if isinstance(data, list) else data
    return decode(REGISTRY.dialect(dialect).decoder(**options), [body] if body else [])


def status_of(events: list[Event]) -> str:
    """How the step ended."""
    assert isinstance(events[-1], StepEnd)
    return events[-1].status


def error_of(events: list[Event]) -> Error | None:
    """The first error, if there is one."""
    return next((e for e in events if isinstance(e, Error)), None)


def calls_of(events: list[Event]) -> list[tuple[str, Any, str]]:
    """(name, arguments, status) of each call in the order of their ends."""
    names: dict[int, str] = {}
    calls: list[tuple[str, Any, str]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            names[event.part] = event.name
        elif isinstance(event, PartAttr) and event.name == "tool_name":
            names[event.part] = event.value
        elif isinstance(event, ToolCallEnd):
            calls.append((names[event.part], event.arguments, event.status))
    return calls
