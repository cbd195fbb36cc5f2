"""Chunks of Chat Completions that add to one text, though they are not of the ordinary shape.

Some servers say in every chunk what their filters found, or the counts so far; some send reasoning
as a block. Always true: the shapes have the fields that the decoder reads and those that it skips,
and no others, so that nothing is overlooked.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tokenwire.events.model import PartDelta, ReasoningDelta
from tokenwire.providers.openai.chat_choice import OpenChoice
from tokenwire.providers.openai.chat_chunk import CallDelta, Delta

__all__ = ["COUNTS", "plain_chunk"]

#: Names of counts: each report replaces the one before, unless it is 0.
COUNTS = frozenset(
    {b"prompt_tokens", b"completion_tokens", b"total_tokens", b"reasoning_tokens"}
    | {b"input_tokens", b"output_tokens"}
)


class _Shape(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    pass


class _Text(_Shape):
    text: str
    type: Literal["text"]


class _Thinking(_Shape):
    thinking: str | tuple[_Text]
    type: Literal["thinking"]


class _Delta(_Shape):
    content: str | tuple[_Thinking] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: tuple[CallDelta] | None = None
    refusal: None = None
    function_call: None = None
    annotations: None = None
    role: str | None = None


class _Choice(_Shape):
    delta: _Delta
    index: Literal[0] = 0
    finish_reason: None = None
    native_finish_reason: None = None
    logprobs: None = None
    content_filter_results: dict[str, Any] | None = None


class _Chunk(_Shape):
    choices: tuple[_Choice]
    usage: dict[str, Any] | None = None
    id: str | None = None
    object: str | None = None
    created: int | None = None
    model: str | None = None
    provider: str | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    obfuscation: str | None = None
    p: str | None = None


_decode = msgspec.json.Decoder(_Chunk).decode


def plain_chunk(data: bytes, choice: OpenChoice, filters: Any) -> PartDelta | None:
    """The one delta of such a chunk; ``filters``: what they found when it was last said."""
    try:
        entry = _decode(data).choices[0]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    results, delta = entry.content_filter_results, entry.delta
    if choice.tags is not None or choice.call is not None or (results and results != filters):
        return None
    content = delta.content
    if isinstance(content, tuple):
        thinking = content[0].thinking
        thought = thinking if isinstance(thinking, str) else thinking[0].text
        is_alone = not (delta.reasoning_content or delta.reasoning or delta.tool_calls)
        if choice.reasoning is None or not thought or not is_alone:
            return None
        return ReasoningDelta(part=choice.reasoning.number, text=thought)
    if delta.tool_calls and choice.reasoning is not None:
        return None  # it ends the reasoning
    return choice.plain(
        Delta(
            content=content,
            reasoning_content=delta.reasoning_content,
            reasoning=delta.reasoning,
            tool_calls=delta.tool_calls,
        )
    )
