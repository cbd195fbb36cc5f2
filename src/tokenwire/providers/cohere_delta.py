"""The ordinary deltas of Cohere's wire, as types.

Always true: the shapes have the fields that the decoder knows, and no others: a delta with an
unknown field, log probabilities or a value of another type fails the typed decode.
"""

from __future__ import annotations

import msgspec

__all__ = ["ArgumentsDelta", "ContentDelta", "PlainDelta", "PlanDelta", "decode_plain"]


class _Shape(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    pass


class _Content(_Shape):
    text: str | None = None
    thinking: str | None = None
    type: str | None = None


class _ContentMessage(_Shape):
    content: _Content


class _ContentFields(_Shape):
    message: _ContentMessage


class ContentDelta(_Shape, tag="content-delta"):
    """A piece of text, or of thinking."""

    delta: _ContentFields
    index: int = 0
    logprobs: None = None


class _PlanMessage(_Shape):
    tool_plan: str


class _PlanFields(_Shape):
    message: _PlanMessage


class PlanDelta(_Shape, tag="tool-plan-delta"):
    """A piece of what the model says before it calls tools."""

    delta: _PlanFields
    index: int = 0


class _Function(_Shape):
    arguments: str


class _Call(_Shape):
    function: _Function


class _CallMessage(_Shape):
    tool_calls: _Call


class _CallFields(_Shape):
    message: _CallMessage


class ArgumentsDelta(_Shape, tag="tool-call-delta"):
    """A piece of a call's arguments."""

    delta: _CallFields
    index: int = 0


PlainDelta = ContentDelta | PlanDelta | ArgumentsDelta

_decoder: msgspec.json.Decoder[PlainDelta] = msgspec.json.Decoder(PlainDelta)
decode_plain = _decoder.decode
