"""How many tokens a request or a text may be, where no provider has counted it.

Always true: it is an estimate, by the length of what is sent and without the model's tokenizer; the
count that is billed is the provider's, in the answer's ``usage``.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request

__all__ = ["QUARTERS", "estimate_tokens", "quarters_of"]

#: Quarters of a token. A character of ASCII text is one of them, any other character a token.
QUARTERS = 4
#: Tokens around a message, a tool, and a whole request.
_PER_MESSAGE, _PER_TOOL, _PER_REQUEST = 4, 8, 3
#: An image of the largest size that is not scaled down.
_IMAGE = 1600


def estimate_tokens(request: Request) -> int:
    """The request's input tokens, roughly; at least 1."""
    total = _PER_REQUEST + _text(request.system or "")
    total += sum(_message(message) for message in request.messages)
    for tool in request.tools or []:
        total += _PER_TOOL + _text(tool.name) + _text(tool.description)
        total += _text(_json(tool.parameters))
    if request.output is not None:
        total += _text(msgspec.json.encode(request.output.schema).decode())
    return max(1, total)


def _message(message: Message) -> int:
    return _PER_MESSAGE + sum(_part(part) for part in message.parts)


def _part(part: Part) -> int:
    if isinstance(part, TextPart | ReasoningPart | RefusalPart):
        return _text(part.text)
    if isinstance(part, ToolCallPart):
        return _PER_TOOL + _text(part.name) + _text(part.arguments)
    if isinstance(part, ToolResultPart):
        return _PER_TOOL + _text(_json(part.content))
    if isinstance(part, FilePart):
        if part.media_type.startswith("image/") or part.data is None:
            return _IMAGE
        return len(part.data) * 3 // 4 // QUARTERS
    if isinstance(part, OpaquePart):
        return _text(_json(part.payload))
    return 0


def quarters_of(text: str) -> int:
    """A text's tokens, roughly, in quarters of a token."""
    if text.isascii():
        return len(text)
    ascii_count = sum(c < "\x80" for c in text)
    return ascii_count + QUARTERS * (len(text) - ascii_count)


def _text(text: str) -> int:
    return -(-quarters_of(text) // QUARTERS)


def _json(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
