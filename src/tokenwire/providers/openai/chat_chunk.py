"""One chunk of Chat Completions: its ordinary shape, and the words that servers use in it.

Always true: the typed shape holds what the fast way of the decoder understands; a field typed None
is one that it must not skip, so a chunk that has it fails the typed decode and goes the long way.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.events.model import FinishReason, Usage
from tokenwire.providers.decoding.parts import citation, number, obj

__all__ = [
    "CUT_SHORT",
    "FINISH_REASONS",
    "Chunk",
    "Delta",
    "citation_of",
    "decode_chunk",
    "usage_of",
]

#: The words of all servers that speak this wire, as ours.
FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "completed": "stop",
    "length": "length",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "refusal": "refusal",
    "model_length": "context_overflow",
    "model_context_window_exceeded": "context_overflow",
    "pause_turn": "pause",
    "malformed_function_call": "malformed_tool_call",
    "error": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
    "abort": "cancelled",
    "cancelled": "cancelled",
}


class FunctionDelta(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, gc=False):
    index: int
    function: FunctionDelta
    id: Literal[""] | None = None
    custom: None = None
    extra_content: None = None


class Delta(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[CallDelta] | None = None
    refusal: None = None
    reasoning_details: None = None
    annotations: None = None
    images: None = None
    audio: None = None
    function_call: None = None
    provider_metadata: None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None
    content_filter_results: None = None
    usage: None = None


class Chunk(msgspec.Struct, gc=False):
    choices: tuple[Choice]
    usage: None = None
    error: None = None
    citations: None = None
    search_results: None = None
    prompt_filter_results: None = None
    x_groq: None = None
    moderation: None = None


decode_chunk = msgspec.json.Decoder(Chunk).decode


#: The provider's words for an answer that the length limit cut.
CUT_SHORT = frozenset({"length", "max_tokens", "max_output_tokens", "model_length"})


def citation_of(raw: Any, source: dict[str, Any]) -> dict[str, Any]:
    start, end = number(source.get("start_index")), number(source.get("end_index"))
    return citation(
        raw,
        url=source.get("url"),
        title=source.get("title"),
        text=source.get("content") or source.get("snippet"),
        start=start,
        end=end,
        unit="characters" if start is not None else None,
    )


def usage_of(value: Any) -> Usage | None:
    """Token counts under the names that servers of this wire use."""
    usage = obj(value)
    if not usage:
        return None
    into = obj(usage.get("prompt_tokens_details")) or obj(usage.get("input_tokens_details"))
    out = obj(usage.get("completion_tokens_details")) or obj(usage.get("output_tokens_details"))

    def first(*values: Any) -> int | None:
        return next((n for v in values if (n := number(v)) is not None), None)

    return Usage(
        input_tokens=first(usage.get("prompt_tokens"), usage.get("input_tokens")),
        output_tokens=first(usage.get("completion_tokens"), usage.get("output_tokens")),
        total_tokens=number(usage.get("total_tokens")),
        cached_input_tokens=first(
            into.get("cached_tokens"),
            usage.get("prompt_cache_hit_tokens"),
            usage.get("cache_read_input_tokens"),
            usage.get("cached_tokens"),
        ),
        cache_write_tokens=first(
            into.get("cache_write_tokens"), usage.get("cache_creation_input_tokens")
        ),
        reasoning_tokens=first(out.get("reasoning_tokens"), usage.get("reasoning_tokens")),
        raw=usage,
    )
