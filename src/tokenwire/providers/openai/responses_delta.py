"""The ordinary text delta of the Responses API, read without an object of all its fields.

Always true: the shape has every field that the decoder knows, and no other: a delta with an unknown
field, log probabilities or a value of another type fails the typed decode and goes the general way.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["TEXT_DELTA", "OrdinaryDelta", "decode_delta"]

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
