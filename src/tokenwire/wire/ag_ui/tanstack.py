"""What TanStack AI needs beside AG-UI's events: newline-delimited JSON, and our messages in its
form, for a page that loads its conversation.

Always true: the result of a tool stands with its call, in the assistant's message; a line is one
JSON value with one event; empty lines only keep a connection open.
"""

from __future__ import annotations

from typing import Any, ClassVar

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
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.chunk_encoder import Chunk, dumps, dumps_text

__all__ = ["AGUILinesEncoder", "tanstack_messages"]


class AGUILinesEncoder(AGUIEncoder):
    """AG-UI events as newline-delimited JSON: ``{"id", "chunk"}`` for TanStack, which resumes by
    the id; the bare event for others."""

    content_type: ClassVar[str] = "application/x-ndjson"

    def heartbeat(self) -> bytes:
        """An empty line."""
        return b"\n"

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        if frame_id is None or not self.tanstack:
            return dumps(chunk) + b"\n"
        return b'{"id":"%b","chunk":%b}\n' % (frame_id.encode("ascii"), dumps(chunk))


def tanstack_messages(messages: list[Message], prefix: str) -> list[dict[str, Any]]:
    """Our messages as TanStack's; ``prefix`` makes ids for those without one."""
    converted: list[dict[str, Any]] = []
    names: set[str] = set()
    for number, message in enumerate(messages):
        results = [p for p in message.parts if isinstance(p, ToolResultPart)]
        if results:
            for result in results:
                _attach_result(converted, result)
            continue
        role = "system" if message.role == "developer" else message.role
        parts = [block for part in message.parts for block in _part(part)]
        if parts:
            name = message.id or f"{prefix}-{number}"
            name = name if name not in names else f"{name}-{number}"  # the steps of one answer
            names.add(name)
            converted.append({"id": name, "role": role, "parts": parts})
    return converted


def _attach_result(messages: list[dict[str, Any]], result: ToolResultPart) -> None:
    state = "error" if result.is_error else "complete"
    result_part = {
        "type": "tool-result",
        "toolCallId": result.call_id,
        "content": dumps_text(result.content),
        "state": state,
    }
    for message in reversed(messages):
        for part in message["parts"]:
            if part["type"] == "tool-call" and part["id"] == result.call_id:
                part["state"], part["output"] = "complete", result.content
                message["parts"].append(result_part)
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
