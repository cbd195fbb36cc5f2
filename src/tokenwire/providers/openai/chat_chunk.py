"""One chunk of Chat Completions: its ordinary shape, and the words that servers use in it.

Always true: the typed shape holds what the fast way of the decoder understands; a field typed None
is one that it must not skip, so a chunk that has it fails the typed decode and goes the long way.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.events.model import FinishReason, Usage
from tokenwire.providers.decoding.values import (
    citation,
    number,
    obj,
    tokens_of,
)

__all__ = [
    "FINISH_REASONS",
    "KNOWN_FIELDS",
    "REASONING_FIELDS",
    "Chunk",
    "Delta",
    "citation_of",
    "decode_chunk",
    "usage_beside",
    "usage_of",
]

#: The words of this wire that mean something else elsewhere.
FINISH_REASONS: dict[str, FinishReason] = {
    "safety": "content_filter",
    "sensitive": "content_filter",
    "network_error": "error",
    "insufficient_system_resource": "error",
}
#: Fields of a delta that hold reasoning, the first that has text counts; servers that use two send
#: the same in both.
REASONING_FIELDS = (
    "reasoning_content",
    "reasoning",
    "reasoning_text",
    "thinking",
    "thinking_content",
    "thinking_blocks",
    "thought",
    "thoughts",
    "reasoningContent",
    "thinkingContent",
    "chain_of_thought",
    "cot",
    "analysis",
)
#: Fields of a delta that hold nothing that was said, or that the decoder reads elsewhere.
KNOWN_FIELDS = frozenset(REASONING_FIELDS) | {
    *("role", "content", "refusal", "tool_calls", "function_call", "reasoning_details"),
    *("annotations", "images", "audio", "provider_metadata", "name", "channel", "index"),
    *("token_id", "token_ids", "error", "padding", "obfuscation", "id", "type", "object"),
}


class FunctionDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    name: str | None = None
    arguments: str | None = None


class CallDelta(msgspec.Struct, gc=False):
    index: int
    function: FunctionDelta
    id: Literal[""] | None = None
    custom: None = None
    extra_content: None = None


class Delta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[CallDelta] | None = None
    refusal: None = None
    reasoning_details: None = None
    reasoning_text: None = None
    thinking: None = None
    annotations: None = None
    images: None = None
    audio: None = None
    function_call: None = None
    provider_metadata: None = None
    role: str | None = None
    name: str | None = None
    channel: str | None = None
    token_id: int | None = None
    index: None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta
    index: Literal[0] = 0
    finish_reason: None = None
    logprobs: None = None
    content_filter_results: None = None
    usage: None = None
    error: None = None


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


#: Names of counts, of this wire and of those that gateways translate from.
_INPUT_COUNTS = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "inputTokenCount")
_INPUT_COUNTS += ("promptTokenCount", "prompt_token_count", "prompt_eval_count", "prompt_n")
_OUTPUT_COUNTS = ("completion_tokens", "output_tokens", "completionTokens", "outputTokens")
_OUTPUT_COUNTS += ("outputTokenCount", "candidatesTokenCount", "candidates_token_count")
_OUTPUT_COUNTS += ("eval_count", "predicted_n")
_BESIDE = ("usage_metadata", "usageMetadata", "amazon-bedrock-invocationMetrics", "timings")


def usage_beside(value: dict[str, Any]) -> Any:
    """Token counts that a payload has elsewhere than under ``usage``."""
    groq = obj(value.get("x_groq")).get("usage")
    return groq or next((value[name] for name in _BESIDE if value.get(name)), None)


def usage_of(value: Any) -> Usage | None:
    """Token counts under the names that servers of this wire use."""
    usage = obj(value)
    if not usage:
        return None
    into = obj(usage.get("prompt_tokens_details")) or obj(usage.get("input_tokens_details"))
    out = obj(usage.get("completion_tokens_details")) or obj(usage.get("output_tokens_details"))

    def first(*values: Any) -> int | None:
        return next((n for v in values if (n := tokens_of(v)) is not None), None)

    return Usage(
        input_tokens=first(*map(usage.get, _INPUT_COUNTS)),
        output_tokens=first(*map(usage.get, _OUTPUT_COUNTS)),
        total_tokens=first(usage.get("total_tokens"), usage.get("totalTokens")),
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
