"""Messages as LangChain writes them in JSON, and ours from them.

Always true: the answer's messages have the run's id and their number in it (``RUN-0``), the same
in a stream, in a state and in a history; a content block of an unknown type is an `InputError`
that names it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.message import (
    FilePart,
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    steered,
)
from tokenwire.events.state import result_part
from tokenwire.wire.chunk_encoder import Chunk, clean, dumps_text
from tokenwire.wire.fields import Fields, media_part, plain

__all__ = [
    "ai_message",
    "answer_id",
    "answer_messages",
    "file_block",
    "parse_messages",
    "tool_message",
    "usage_metadata",
    "wire_messages",
]

_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}
_KINDS = ("image", "audio", "video", "file")


# --- ours to LangChain's --------------------------------------------------------------------------


def answer_id(run: str, number: int) -> str:
    """The id of the answer's message ``number`` of ``run``."""
    return f"{run}-{number}"


def wire_messages(messages: Iterable[Message], run: str = "") -> list[Chunk]:
    """A conversation's messages. ``run``: whose answer they are, which names those without an id
    of their own."""
    converted: list[Chunk] = []
    number = 0
    for place, message in enumerate(messages):
        if message.role == "tool":
            converted += [
                tool_message(part) for part in message.parts if isinstance(part, ToolResultPart)
            ]
        elif message.role == "assistant":
            name = answer_id(run, number) if run else message.id or f"kept-{place}"
            converted.append(ai_message(message.parts, name))
            number += 1
        else:
            kind = "human" if message.role == "user" else "system"
            name = message.id or f"kept-{place}"
            converted.append(
                {"type": kind, "content": _content(message.parts), "id": name, **_NONE}
            )
    return converted


_NONE: Chunk = {"additional_kwargs": {}, "response_metadata": {}}


def answer_messages(fold: Fold, *, has_open: bool = False) -> list[Chunk]:
    """What a run has said: the messages of its steps that have ended, with the tokens that they
    used, and the results of their calls. ``has_open``: with the words of a message so far."""
    converted: list[Chunk] = []
    number = 0
    for step in fold.steps:
        parts = fold.step_parts(step)
        if parts:
            if step.status == "open" and has_open:
                words = [part for part in parts if not isinstance(part, ToolCallPart)]
                converted.append(ai_message(words, answer_id(fold.run, number)))
            elif step.status != "open":
                message = ai_message(parts, answer_id(fold.run, number))
                if step.usage:
                    message["usage_metadata"] = usage_metadata(step.usage)
                facts = clean(
                    finish_reason=step.finish["reason"] if step.finish is not None else None,
                    model_name=step.model,
                )
                message["response_metadata"] = facts
                converted.append(message)
            number += 1
        calls = [part.call_id for part in parts if isinstance(part, ToolCallPart)]
        converted += [
            tool_message(result_part(fold.tools[name]))
            for name in calls
            if name in fold.tools and fold.tools[name].done
        ]
        converted += wire_messages(
            steered(steer.text, steer.id, fold.run)
            for steer in fold.steers
            if steer.step == step.step
        )
    return converted


def ai_message(parts: Iterable[Part], name: str) -> Chunk:
    """One message of an answer. Reasoning and a refusal are in ``additional_kwargs``."""
    extras: Chunk = {}
    content_parts: list[Part] = []
    calls: list[Chunk] = []
    invalid: list[Chunk] = []
    for part in parts:
        if isinstance(part, ReasoningPart):
            extras["reasoning_content"] = extras.get("reasoning_content", "") + part.text
        elif isinstance(part, RefusalPart):
            extras["refusal"] = extras.get("refusal", "") + part.text
        elif isinstance(part, ToolCallPart):
            if part.executor != "provider":
                _add_call(part, calls, invalid)
        else:
            content_parts.append(part)
    return {
        "type": "ai",
        "content": _content(content_parts),
        "id": name,
        "tool_calls": calls,
        "invalid_tool_calls": invalid,
        "additional_kwargs": extras,
        "response_metadata": {},
    }


def _add_call(part: ToolCallPart, calls: list[Chunk], invalid: list[Chunk]) -> None:
    try:
        arguments = msgspec.json.decode(part.arguments or "{}")
    except msgspec.DecodeError:
        arguments = None
    if isinstance(arguments, dict) and part.status == "complete":
        calls.append(
            {"name": part.name, "args": arguments, "id": part.call_id, "type": "tool_call"}
        )
        return
    invalid.append(
        {
            "name": part.name,
            "args": part.arguments,
            "id": part.call_id,
            "error": "the arguments are not a JSON object",
            "type": "invalid_tool_call",
        }
    )


def tool_message(part: ToolResultPart) -> Chunk:
    """The result of a call."""
    return {
        "type": "tool",
        "content": dumps_text(part.content) if part.content is not None else "",
        "id": f"result-{part.call_id}",
        "tool_call_id": part.call_id,
        **({"name": part.name} if part.name else {}),
        "status": "error" if part.is_error else "success",
        **_NONE,
    }


def usage_metadata(usage: dict[str, int]) -> Chunk:
    """Token counts as LangChain names them."""
    total = usage.get("total_tokens")
    counts: Chunk = {
        "input_tokens": usage.get("input_tokens", 0),
        "output_tokens": usage.get("output_tokens", 0),
    }
    counts["total_tokens"] = total if total is not None else sum(counts.values())
    input_details = clean(
        cache_read=usage.get("cached_input_tokens"), cache_creation=usage.get("cache_write_tokens")
    )
    output_details = clean(reasoning=usage.get("reasoning_tokens"))
    if input_details:
        counts["input_token_details"] = input_details
    if output_details:
        counts["output_token_details"] = output_details
    return counts


def _content(parts: Iterable[Part]) -> str | list[Chunk]:
    """A text where there is nothing else, or content blocks."""
    blocks: list[Chunk] = []
    for part in parts:
        if isinstance(part, TextPart):
            blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, FilePart):
            blocks.append(file_block(part))
    if all(block["type"] == "text" for block in blocks):
        return "".join(block["text"] for block in blocks)
    return blocks


def file_block(part: FilePart) -> Chunk:
    """A file as a content block."""
    kind = part.media_type.partition("/")[0]
    return clean(
        type=kind if kind in _KINDS else "file",
        base64=None if part.url else part.data,
        url=part.url,
        mime_type=part.media_type,
        filename=part.name,
    )


# --- LangChain's to ours --------------------------------------------------------------------------


def parse_messages(fields: Fields, name: str) -> list[Message]:
    """The messages of ``fields[name]``: one, or a list of them. Raises `InputError`."""
    value = fields.raw(name)
    entries = cast("list[Any]", value) if isinstance(value, list) else [value]
    if len(entries) > 10_000:
        raise fields.fail(name, "may have at most 10000 entries")
    return [_message(entry, f"{fields.at(name)}[{place}]") for place, entry in enumerate(entries)]


def _message(value: Any, path: str) -> Message:
    if isinstance(value, str):
        return Message(role="user", content=value)
    if isinstance(value, list) and len(cast("list[Any]", value)) == 2:
        role, content = cast("list[Any]", value)
        value = {"role": role, "content": content}
    entry = Fields(value, path)
    field = "type" if entry.has("type") else "role"
    kind = entry.need(field).removesuffix("MessageChunk").removesuffix("Message").lower()
    role = _ROLES.get(kind)
    if role is None:
        raise entry.fail(field, f"is '{kind[:40]}'; it must be one of {', '.join(_ROLES)}")
    name = entry.text("id") or None
    if role == "tool":
        result = ToolResultPart(
            call_id=entry.need("tool_call_id"),
            content=_tool_content(entry),
            name=entry.text("name") or "",
            is_error=entry.text("status") == "error",
        )
        return Message(role="tool", content=[result], id=name)
    parts = _parts(entry)
    if role == "assistant":
        parts += [_call(call) for call in entry.objects("tool_calls")]
    return Message(role=cast("Any", role), content=plain(parts), id=name)


def _tool_content(entry: Fields) -> Any:
    content = entry.raw("content")
    return content if content is not None else ""


def _call(call: Fields) -> ToolCallPart:
    arguments = call.raw("args")
    return ToolCallPart(
        call_id=call.need("id"),
        name=call.need("name"),
        arguments=dumps_text(arguments if arguments is not None else {}),
    )


def _parts(entry: Fields) -> list[Part]:
    content = entry.raw("content")
    if content is None or isinstance(content, str):
        return [TextPart(text=content)] if content else []
    parts: list[Part] = []
    for place, item in enumerate(entry.items("content")):
        path = f"{entry.at('content')}[{place}]"
        block = Fields({"type": "text", "text": item} if isinstance(item, str) else item, path)
        part = _block(block)
        if part is not None:
            parts.append(part)
    return parts


def _block(block: Fields) -> Part | None:
    kind = block.need("type")
    if kind == "text":
        return TextPart(text=block.text("text") or "")
    if kind in ("tool_call", "tool_use", "reasoning", "thinking"):
        return None  # of an answer that came back; its calls stand beside its content
    if kind == "image_url":
        image = block.raw("image_url")
        url = image if isinstance(image, str) else Fields(image, block.at("image_url")).need("url")
        return media_part(url)
    if kind not in _KINDS:
        raise block.fail("type", f"'{kind[:40]}' is not a supported content block")
    media_type = block.text("mime_type") or block.text("mimeType") or None
    metadata = block.object("metadata")
    name = block.text("filename") or (metadata.text("filename") if metadata else None)
    if block.text("url"):
        return media_part(block.need("url"), media_type, name)
    data = block.text("base64") or block.text("data")
    if not data:
        raise block.fail("url", "or 'base64' must be there")
    return media_part(f"data:{media_type or f'{kind}/*'};base64,{data}", media_type, name)
