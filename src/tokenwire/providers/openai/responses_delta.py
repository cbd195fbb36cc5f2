"""The ordinary text delta of the Responses API, read without an object of all its fields.

Always true: the shape has every field that the decoder knows, and no other: a delta with an unknown
field, log probabilities or a value of another type fails the typed decode and goes the general way.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["ARGUMENTS", "TEXT_DELTA", "OrdinaryDelta", "PlainDelta", "decode_delta", "decode_plain"]

TEXT_DELTA = "response.output_text.delta"


class OrdinaryDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One piece of text, and where it belongs."""

    type: Literal["response.output_text.delta"]
    delta: str
    item_id: str
    output_index: int
    content_index: int
    logprobs: tuple[()] | None = None
    sequence_number: int | None = None
    obfuscation: str | None = None
    response_id: str | None = None
    event_id: str | None = None
    p: str | None = None


decode_delta = msgspec.json.Decoder(OrdinaryDelta).decode

#: Events that hold a piece of a call's arguments.
ARGUMENTS = tuple(
    f"response.{name}.delta"
    for name in (
        "function_call_arguments",
        "custom_tool_call_input",
        "mcp_call_arguments",
        "code_interpreter_call_code",
    )
)


class PlainDelta(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """One piece of anything, and where it belongs, with nothing beside it that counts."""

    type: str
    delta: str
    item_id: str
    output_index: int
    content_index: int = -1
    summary_index: int = 0
    logprobs: tuple[()] | None = None
    sequence_number: int | None = None
    obfuscation: str | None = None
    response_id: str | None = None
    event_id: str | None = None
    p: str | None = None


decode_plain = msgspec.json.Decoder(PlainDelta).decode
