"""Our messages as TanStack AI keeps them, for a page that asks what its conversation was.

Always true: results of tools stand with the call that they answer, in the assistant's message.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.events.message import (
    FilePart,
    Message,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.wire.frames import dumps_text

__all__ = ["tanstack_messages"]


def tanstack_messages(messages: list[Message], prefix: str) -> list[dict[str, Any]]:
    """Our messages as TanStack's; ``prefix`` makes ids for those without one."""
    found: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        results = [p for p in message.parts if isinstance(p, ToolResultPart)]
        if results:
            for result in results:
                _answer(found, result)
            continue
        role = "system" if message.role == "developer" else message.role
        parts = [told for part in message.parts for told in _part(part)]
        if parts:
            found.append({"id": message.id or f"{prefix}-{number}", "role": role, "parts": parts})
    return found


def _answer(found: list[dict[str, Any]], result: ToolResultPart) -> None:
    state = "error" if result.is_error else "complete"
    told = {
        "type": "tool-result",
        "toolCallId": result.call_id,
        "content": dumps_text(result.content),
        "state": state,
    }
    for message in reversed(found):
        for part in message["parts"]:
            if part["type"] == "tool-call" and part["id"] == result.call_id:
                part["state"], part["output"] = "complete", result.content
                message["parts"].append(told)
                return


def _part(part: Any) -> list[dict[str, Any]]:
    if isinstance(part, TextPart | RefusalPart):
        return [{"type": "text", "content": part.text}] if part.text else []
    if isinstance(part, ReasoningPart):
        return [{"type": "thinking", "content": part.text}] if part.text else []
    if isinstance(part, ToolCallPart):
        call = {
            "type": "tool-call",
            "id": part.call_id,
            "name": part.name,
            "arguments": part.arguments,
            "state": "input-complete",
        }
        if part.status == "complete":
            call["input"] = msgspec.json.decode(part.arguments or "{}")
        return [call]
    if isinstance(part, FilePart) and part.media_type.startswith("image/"):
        source = {"type": "data", "value": part.data, "mimeType": part.media_type}
        if part.url is not None:
            source = {"type": "url", "value": part.url}
        return [{"type": "image", "source": source}]
    return []
