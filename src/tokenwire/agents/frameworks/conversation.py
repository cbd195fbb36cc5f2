"""A conversation in front of a framework: what each message is made of, and its files as bytes.

Always true: pure; nothing of a message is left out but what a provider keeps for itself (reasoning,
signatures, its own tools); what a framework cannot take is an `InputError` that names it.
"""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.providers.history import mended

__all__ = ["Content", "Entry", "bytes_of", "described", "entries_of", "question_of", "refused"]

#: What a framework is given of a message.
Content = TextPart | FilePart | ToolCallPart | ToolResultPart


class Entry(msgspec.Struct):
    """One message: of a role with text and files, of an assistant with its calls as well, or of
    tools with their results alone."""

    role: Literal["system", "user", "assistant", "tool"]
    parts: list[Content]

    @property
    def text(self) -> str:
        """All of its texts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def files(self) -> list[FilePart]:
        """Its files, in order."""
        return [part for part in self.parts if isinstance(part, FilePart)]


def entries_of(messages: list[Message]) -> list[Entry]:
    """A conversation, each call with its result after it; every result has its tool's name."""
    entries: list[Entry] = []
    names: dict[str, str] = {}
    for message in mended(messages):
        content: list[Content] = []
        results: list[Content] = []
        for part in message.parts:
            if isinstance(part, RefusalPart):
                content.append(TextPart(text=part.text))
            elif (isinstance(part, TextPart) and part.text) or isinstance(part, FilePart):
                content.append(part)
            elif isinstance(part, ToolCallPart) and part.executor != "provider":
                names[part.call_id] = part.name
                content.append(part)
            elif isinstance(part, ToolResultPart):
                name = part.name or names.get(part.call_id, "tool")
                results.append(msgspec.structs.replace(part, name=name))
        role = "system" if message.role == "developer" else message.role
        if content:
            entries.append(Entry("user" if role == "tool" else role, content))
        if results:
            entries.append(Entry("tool", results))
    return entries


def question_of(entries: list[Entry]) -> tuple[list[Entry], Entry | None]:
    """What came before, and the user's last message; None where the last one is not the user's."""
    if entries and entries[-1].role == "user":
        return entries[:-1], entries[-1]
    return entries, None


def bytes_of(part: FilePart, framework: str) -> bytes:
    """The bytes of a file. Raises `InputError` for one that has only a URL, which the framework
    would fetch from here, and for one that is not base64."""
    if part.data is None:
        raise InputError(
            f"{framework} takes the bytes of a file; '{described(part)}' has only a URL"
        )
    try:
        return base64.b64decode(part.data, validate=True)
    except binascii.Error as error:
        raise InputError(f"the file '{described(part)}' is not base64") from error


def refused(part: FilePart, framework: str) -> InputError:
    """What to raise for a file of a kind that a framework does not take."""
    return InputError(f"{framework} takes no {part.media_type}; leave out '{described(part)}'")


def described(part: FilePart) -> str:
    """A file's name, else its type."""
    return part.name or part.media_type
