"""Reading a conversation for a request builder: what belongs to whom, and files as data.

Always true: what only one dialect can read (signatures, encrypted payloads, its own items) is
given to that dialect alone, unchanged; every call that goes back has one result, after it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from typing import Any, TypeGuard

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request
from tokenwire.providers.decoding.values import dump, obj, parse_arguments

__all__ = [
    "NO_RESULT",
    "arguments_object",
    "arguments_text",
    "as_words",
    "base64_of",
    "call_id_for",
    "is_blank",
    "mended",
    "meta_of",
    "mine",
    "result_text",
    "something_in",
    "sorted_turns",
    "system_text",
    "text_in",
    "turns",
    "whole_calls",
]

#: Stands in for a result where the answer was broken off, because no provider takes a call alone.
NO_RESULT = "this call has no result: the answer was broken off before there was one"

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
    return "\n\n".join(t for t in texts if not is_blank(t))


def something_in(entries: list[dict[str, Any]], wire: str, request: Request) -> None:
    """Raise `InputError` when there is nothing to send to a provider that demands a message: blank
    texts, and what another provider made for itself, are left out."""
    own = {"messages", "contents", "input"} & set(request.extra or {})
    if not entries and not own:
        raise InputError(f"the conversation has no message that can be sent to {wire}; add text")


def is_blank(text: str) -> bool:
    """Whether a text is white space only, which some providers reject as a block."""
    return not text or text.isspace()


def turns(request: Request) -> list[Message]:
    """The messages that are not instructions, every call with its result."""
    return mended([m for m in request.messages if m.role not in ("system", "developer")])


def mended(messages: list[Message]) -> list[Message]:
    """The same conversation with the results of each answer's calls directly after it, in the
    order of the calls (some wires know no other way to tell them apart), and with one that says
    so for a whole call that never got a result."""
    conversation: list[Message] = []
    number = 0
    while number < len(messages):
        message = messages[number]
        number += 1
        conversation.append(message)
        calls = [p for p in message.tool_calls if p.executor != "provider"]
        if message.role != "assistant" or not calls:
            continue
        results: dict[str, Part] = {p.call_id: p for p in message.parts if _answers(p, calls)}
        inside, rest = set(results), list[Message]()
        while number < len(messages) and messages[number].role != "assistant":
            later = messages[number]
            number += 1
            for part in later.parts:
                if _answers(part, calls):
                    results.setdefault(part.call_id, part)
            others = [p for p in later.parts if not _answers(p, calls)]
            if len(others) == len(later.parts):
                rest.append(later)
            elif others:
                rest.append(msgspec.structs.replace(later, content=others))
        answers: list[Part] = [
            results.get(call.call_id) or _no_result(call)
            for call in calls
            if call.call_id not in inside and (call.call_id in results or call.status == "complete")
        ]
        conversation += [Message(role="tool", content=answers)] if answers else []
        conversation += rest
    return conversation


def _answers(part: Part, calls: list[ToolCallPart]) -> TypeGuard[ToolResultPart]:
    return isinstance(part, ToolResultPart) and any(part.call_id == c.call_id for c in calls)


def _no_result(call: ToolCallPart) -> ToolResultPart:
    return ToolResultPart(call_id=call.call_id, name=call.name, content=NO_RESULT, is_error=True)


def sorted_turns(
    turns: list[dict[str, Any]], is_call: Callable[[Any], bool], is_result: Callable[[Any], bool]
) -> list[dict[str, Any]]:
    """Turns of blocks in the order that Claude demands: an assistant's calls last, the results
    that answer them first."""
    for turn in turns:
        blocks = turn["content"]
        last = is_call if turn["role"] == "assistant" else lambda block: not is_result(block)
        turn["content"] = sorted(blocks, key=last)
    return turns


def whole_calls(messages: list[Message]) -> set[str]:
    """Ids of the calls to send back: whole ones, and broken ones that were answered anyway."""
    with_result = {
        p.call_id for m in messages for p in m.parts if isinstance(p, ToolResultPart) and p.call_id
    }
    return {
        p.call_id
        for m in messages
        for p in m.parts
        if isinstance(p, ToolCallPart) and (p.status == "complete" or p.call_id in with_result)
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


def arguments_text(call: ToolCallPart) -> str:
    """A call's arguments as the text of an object (of any text, for a free-form call)."""
    if call.format == "text":
        return call.arguments
    _, error = parse_arguments(call.arguments)
    return (call.arguments or "{}") if error is None else dump({"invalid_json": call.arguments})


def result_text(part: ToolResultPart) -> str:
    """A tool's result as text."""
    return part.content if isinstance(part.content, str) else dump(part.content)


def as_words(part: Part) -> Part:
    """A text file as a text that names it, for providers that take no such files; every other part
    as it is. Raises `InputError` when its bytes are no UTF-8."""
    text = text_in(part)
    if text is None or not isinstance(part, FilePart):
        return part
    name = (part.name or "file").replace('"', "'").replace("\n", " ")
    return TextPart(text=f'<file name="{name}" type="{part.media_type}">\n{text}\n</file>\n\n')


def text_in(part: Part) -> str | None:
    """What a text file says; None for every other part. Raises `InputError` when its bytes are no
    UTF-8."""
    if not isinstance(part, FilePart) or part.data is None:
        return None
    if not part.media_type.startswith("text/") and part.media_type != "application/json":
        return None
    try:
        return base64.b64decode(part.data, validate=True).decode()
    except ValueError as error:
        raise InputError(f"the text file '{part.name or 'file'}' is not UTF-8 in base64") from error


def base64_of(part: FilePart, dialect: str) -> str:
    """A file's base64 text. Raises `InputError` when there is only a URL."""
    if part.data is None:
        raise InputError(f"{dialect} needs the bytes of a file; this one has only a URL")
    return part.data
