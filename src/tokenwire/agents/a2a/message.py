"""A conversation as one message of A2A: the question, after what was said before it.

Always true: pure; nothing is left out but what a provider keeps for itself; a remote agent gets
files as they are, bytes or address.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tokenwire.agents.frameworks.conversation import Content, entries_of, question_of
from tokenwire.errors import InputError
from tokenwire.events.message import FilePart, Message, TextPart, ToolCallPart
from tokenwire.providers.history import arguments_text, result_text

__all__ = ["message_name", "parts_of", "text_part"]


def message_name(run: str, agent: str, number: int) -> str:
    """The id of a message, and the same one whoever sends it; ``number`` 0: of the context."""
    return hashlib.sha256(f"a2a\0{run}\0{agent}\0{number}".encode()).hexdigest()[:32]


def text_part(text: str) -> dict[str, Any]:
    """A text."""
    return {"text": text}


def parts_of(messages: list[Message]) -> list[dict[str, Any]]:
    """The parts of a message. Raises `InputError` for a conversation whose last message is not the
    user's."""
    before, question = question_of(entries_of(messages))
    if question is None:
        raise InputError("a remote A2A agent needs a message of the user as the last one")
    parts: list[dict[str, Any]] = []
    for entry in before:
        for part in entry.parts:
            parts += _earlier(entry.role, part)
    if parts:
        parts = [text_part("<conversation>\n"), *parts, text_part("</conversation>\n\n")]
    for part in question.parts:
        if isinstance(part, TextPart):
            parts.append(text_part(part.text))
        elif isinstance(part, FilePart):
            parts.append(_file(part))
    return _joined(parts)


def _earlier(role: str, part: Content) -> list[dict[str, Any]]:
    if isinstance(part, TextPart):
        return [text_part(f"{role}: {part.text}\n\n")]
    if isinstance(part, ToolCallPart):
        return [text_part(f"{role} called {part.name}({arguments_text(part)})\n\n")]
    if isinstance(part, FilePart):
        name = part.name or part.media_type
        return [text_part(f"{role} sent the file {name}:\n"), _file(part), text_part("\n\n")]
    failed = " failed" if part.is_error else ""
    return [text_part(f"result of {part.name}{failed}: {result_text(part)}\n\n")]


def _file(part: FilePart) -> dict[str, Any]:
    value: dict[str, Any] = {"raw": part.data} if part.data is not None else {"url": part.url}
    value["mediaType"] = part.media_type
    return {**value, "filename": part.name} if part.name else value


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same parts, with texts that follow each other as one."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        if joined and set(part) == set(joined[-1]) == {"text"}:
            joined[-1] = text_part(joined[-1]["text"] + part["text"])
        else:
            joined.append(part)
    return joined
