"""The protocol and framing of a recorded stream, by its first bytes and payloads.

Always true: pure; reads the first payloads only, however long the recording is.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from tokenwire.errors import FramingError
from tokenwire.providers.decoding.payloads import PayloadReader

__all__ = ["FRAMINGS", "guess_family", "guess_framing"]

#: Framing -> its media type.
FRAMINGS: Final = {
    "sse": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "jsonl": "application/jsonl",
    "json-array": "application/json",
    "aws-eventstream": "application/vnd.amazon.eventstream",
}
#: Payloads to look at; some streams begin with pings or settings.
_MOST_PAYLOADS: Final = 40
_CHUNK: Final = 16 * 1024
_CONVERSE: Final = frozenset(
    "messageStart contentBlockStart contentBlockDelta contentBlockStop messageStop metadata "
    "internalServerException modelStreamErrorException throttlingException validationException "
    "serviceUnavailableException".split()
)
_MESSAGES: Final = frozenset(
    "message_start content_block_start content_block_delta content_block_stop message_delta "
    "message_stop".split()
)
_COHERE: Final = frozenset(
    "message-start content-start content-delta content-end tool-plan-delta tool-call-start "
    "tool-call-delta tool-call-end citation-start citation-end message-end".split()
)


def guess_framing(data: bytes) -> str:
    """The framing, by the first bytes."""
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    if data[:1] == b"\0":
        return "aws-eventstream"
    if start[:1] == b"[":
        return "json-array"
    return "jsonl" if start[:1] == b"{" else "sse"


def guess_family(data: bytes, framing: str) -> str | None:
    """The protocol, by the first payloads; None if all of them are unknown."""
    reader = PayloadReader(FRAMINGS[framing])
    number = 0
    try:
        for start in range(0, len(data) + 1, _CHUNK):
            piece = data[start : start + _CHUNK]
            for frame in reader.feed(piece) if piece else reader.finish():
                family = _family(frame.data, frame.event)
                number += 1
                if family is not None or number > _MOST_PAYLOADS:
                    return family
        for frame in reader.finish() if len(data) % _CHUNK else []:
            family = _family(frame.data, frame.event)
            if family is not None:
                return family
    except FramingError:
        return None
    return None


def _family(data: bytes, event: str) -> str | None:
    if event in _CONVERSE:
        return "converse"
    try:
        value = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    if isinstance(value, list) and value:
        value = value[0]
    return _by_fields(value, event) if isinstance(value, dict) else None


def _by_fields(value: dict[str, Any], event: str) -> str | None:
    name = str(value.get("type") or event)
    if "choices" in value:
        return _chat_or_completions(value)
    if name.startswith("response.") or name == "codex.rate_limits":
        return "responses"
    if name in _MESSAGES:
        return "messages"
    if name in _COHERE:
        return "cohere-v2"
    event_type = str(value.get("event_type") or event)
    if event_type.startswith(("interaction.", "content.", "step.")):
        return "interactions"
    if value.keys() & {"candidates", "promptFeedback", "usageMetadata"}:
        return "gemini"
    if value.keys() & _CONVERSE:
        return "converse"
    if "done" in value or ("created_at" in value and "model" in value):
        return "ollama" if "message" in value else "ollama-generate"
    return _by_error(value.get("error"), name)


def _chat_or_completions(value: dict[str, Any]) -> str:
    choices = value["choices"]
    first = choices[0] if isinstance(choices, list) and choices else {}
    plain = isinstance(first, dict) and "text" in first and "delta" not in first
    return "completions" if plain or value.get("object") == "text_completion" else "chat"


def _by_error(error: Any, name: str) -> str | None:
    if error is None:
        return None
    if name == "error":
        return "messages"
    if isinstance(error, dict) and {"code", "status"} <= error.keys():
        return "gemini"
    return "chat"
