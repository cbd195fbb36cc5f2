"""Reading a conversation for a request builder: what belongs to whom, and files as data.

Always true: what only one dialect can read (signatures, encrypted payloads, its own items) is
given to that dialect alone, unchanged.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from tokenwire.errors import InputError
from tokenwire.events.message import FilePart, Message, ToolCallPart, ToolResultPart
from tokenwire.events.request import Request
from tokenwire.providers.assembly import dump, obj, parse_arguments

__all__ = [
    "arguments_object",
    "base64_of",
    "call_id_for",
    "meta_of",
    "mine",
    "result_text",
    "system_text",
    "turns",
    "whole_calls",
]

_CALL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def meta_of(part: Any, dialect: str) -> dict[str, Any]:
    """What this dialect noted about a part."""
    return obj((part.meta or {}).get(dialect))


def mine(part: Any, dialect: str) -> bool:
    """Whether a part's signatures are this dialect's: it noted something, or nobody did (a part
    that the user made)."""
    return not part.meta or dialect in part.meta


def system_text(request: Request) -> str:
    """All system and developer texts, in order."""
    texts = [request.system] if request.system else []
    texts += [m.text for m in request.messages if m.role in ("system", "developer")]
    return "\n\n".join(t for t in texts if t)


def turns(request: Request) -> list[Message]:
    """The messages that are not instructions."""
    return [m for m in request.messages if m.role not in ("system", "developer")]


def whole_calls(messages: list[Message]) -> set[str]:
    """Ids of the calls to send back: whole ones, and broken ones that were answered anyway."""
    answered = {
        p.call_id for m in messages for p in m.parts if isinstance(p, ToolResultPart) and p.call_id
    }
    return {
        p.call_id
        for m in messages
        for p in m.parts
        if isinstance(p, ToolCallPart) and (p.status == "complete" or p.call_id in answered)
    }


def arguments_object(call: ToolCallPart) -> dict[str, Any]:
    """A call's arguments as an object, for providers that take no text."""
    value, error = parse_arguments(call.arguments)
    return value if error is None else {"invalid_json": call.arguments}


def call_id_for(call_id: str) -> str:
    """An id that every provider takes; another's that has other characters, or is longer, is
    mapped, always alike."""
    if _CALL_ID.fullmatch(call_id):
        return call_id
    return f"call_{hashlib.sha256(call_id.encode('utf-8', 'replace')).hexdigest()[:24]}"


def result_text(part: ToolResultPart) -> str:
    """A tool's result as text."""
    return part.content if isinstance(part.content, str) else dump(part.content)


def base64_of(part: FilePart, dialect: str) -> str:
    """A file's base64 text. Raises `InputError` when there is only a URL."""
    if part.data is None:
        raise InputError(f"{dialect} needs the bytes of a file; this one has only a URL")
    return part.data
