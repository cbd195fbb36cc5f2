"""A request in our words to the JSON body of Chat Completions, with the quirks of its speakers.

Always true: the same request gives the same bytes; what a provider must get back (reasoning
details, signatures, ids) is sent as it came; ``extra`` is merged last.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    Part,
    ProviderResultPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request, ToolSpec
from tokenwire.providers.base import Call, Target, effort_of
from tokenwire.providers.history import arguments_text, as_words, mended, mine, whole_calls
from tokenwire.providers.openai.schema_call import READING, call_schema, told
from tokenwire.providers.openai.schema_call import forced as forced_tools

__all__ = ["body_of", "build"]

_DIALECT = "openai-chat"
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh")
_CHOICES = ("auto", "none", "required")


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    if target.api_key:
        if "api_key_header" in target.quirks:
            headers["api-key"] = target.api_key
        else:
            headers["authorization"] = f"Bearer {target.api_key}"
    headers.update({k.lower(): v for k, v in target.headers.items()})
    by_schema = bool(_forced(request, target.quirks))
    return Call(
        url=f"{target.base_url}/chat/completions",
        headers=headers,
        body=msgspec.json.encode(body_of(request, target)),
        reading=frozenset({READING}) if by_schema else frozenset(),
    )


def body_of(request: Request, target: Target) -> dict[str, Any]:
    """The body as a plain object."""
    quirks = target.quirks
    body: dict[str, Any] = {
        "model": target.model,
        "messages": _messages(request, quirks),
        "stream": True,
    }
    if "no_stream_options" not in quirks:
        body["stream_options"] = {"include_usage": True}
    limit = "max_completion_tokens" if "max_completion_tokens" in quirks else "max_tokens"
    plain = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        limit: request.max_tokens,
        "stop": request.stop,
        "random_seed" if "random_seed" in quirks else "seed": request.seed,
        "parallel_tool_calls": request.parallel_tool_calls,
    }
    body.update({k: v for k, v in plain.items() if v is not None})
    if request.tools:
        body["tools"] = [_tool(t) for t in request.tools]
    forced = _forced(request, quirks)
    if forced:
        body["response_format"] = _schema_format(call_schema(forced), "call", strict=True)
        if "tools_in_prompt" in quirks:
            _add_to_system(body["messages"], told(forced), quirks)
    elif request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice, quirks)
    if request.output is not None and not forced:
        body["response_format"] = _output(request, quirks)
    if request.reasoning is not None:
        body.update(_reasoning(request.reasoning, quirks))
    body.update(request.extra or {})
    return body


def _tool(spec: ToolSpec) -> dict[str, Any]:
    if spec.native is not None:
        return spec.native
    function: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters or {"type": "object", "properties": {}},
    }
    if spec.strict is not None:
        function["strict"] = spec.strict
    return {"type": "function", "function": function}


def _forced(request: Request, quirks: frozenset[str]) -> list[ToolSpec]:
    """The tools of a call that is to be forced by a schema."""
    return forced_tools(request) if "call_by_schema" in quirks else []


def _add_to_system(messages: list[dict[str, Any]], text: str, quirks: frozenset[str]) -> None:
    role = "developer" if "developer_role" in quirks else "system"
    first = messages[0] if messages else {}
    if first.get("role") == role and isinstance(first.get("content"), str):
        messages[0] = {**first, "content": f"{first['content']}\n\n{text}"}
    else:
        messages.insert(0, {"role": role, "content": text})


def _tool_choice(choice: str, quirks: frozenset[str]) -> Any:
    if choice == "required" and "tool_choice_any" in quirks:
        return "any"
    if choice in _CHOICES:
        return choice
    return {"type": "function", "function": {"name": choice}}


def _output(request: Request, quirks: frozenset[str]) -> dict[str, Any]:
    output = request.output
    assert output is not None
    if "json_object_only" in quirks:
        return {"type": "json_object"}
    return _schema_format(output.schema, output.name, strict=output.strict)


def _schema_format(schema: dict[str, Any], name: str, *, strict: bool) -> dict[str, Any]:
    described = {"name": name, "schema": schema, "strict": strict}
    return {"type": "json_schema", "json_schema": described}


def _reasoning(amount: str | int, quirks: frozenset[str]) -> dict[str, Any]:
    if "reasoning_object" in quirks:
        key = "max_tokens" if isinstance(amount, int) else "effort"
        return {"reasoning": {key: amount}}
    effort = effort_of(amount)
    if effort not in _EFFORTS:
        raise InputError(f"'reasoning' must be one of {', '.join(_EFFORTS)}", field="reasoning")
    return {"reasoning_effort": effort}


# --- messages ------------------------------------------------------------------------------------


def _messages(request: Request, quirks: frozenset[str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    if request.system:
        role = "developer" if "developer_role" in quirks else "system"
        entries.append({"role": role, "content": request.system})
    messages = mended(request.messages)
    calls = whole_calls(messages)
    for message in messages:
        entries.extend(_message(message, calls, quirks))
    return entries


def _message(message: Message, whole: set[str], quirks: frozenset[str]) -> list[dict[str, Any]]:
    results = [p for p in message.parts if isinstance(p, ToolResultPart)]
    rest: list[Part] = [p for p in message.parts if not isinstance(p, ToolResultPart)]
    entries = [_result(p, quirks) for p in results]
    if message.role == "assistant":
        return [_assistant(rest, whole, quirks), *entries] if rest or not entries else entries
    if rest or not results:
        role = "user" if message.role == "tool" else message.role
        if role in ("system", "developer"):
            role = "developer" if "developer_role" in quirks else "system"
        entries.append({"role": role, "content": _content(rest)})
    return entries


def _result(part: ToolResultPart, quirks: frozenset[str]) -> dict[str, Any]:
    content = part.content
    if not isinstance(content, str):
        content = msgspec.json.encode(content).decode()
    entry = {
        "role": "tool",
        "tool_call_id": _call_id(part.call_id, quirks),
        "content": content,
    }
    if "tool_result_name" in quirks and part.name:
        entry["name"] = part.name
    return entry


def _content(parts: list[Part]) -> str | list[dict[str, Any]]:
    parts = [as_words(part) for part in parts]
    if all(isinstance(p, TextPart) for p in parts):
        return "".join(p.text for p in parts if isinstance(p, TextPart))
    blocks: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, TextPart):
            blocks.append({"type": "text", "text": part.text})
        elif isinstance(part, FilePart):
            blocks.append(_file(part))
        elif isinstance(part, OpaquePart) and isinstance(part.payload, dict):
            blocks.append(part.payload)
        elif not isinstance(part, ReasoningPart | ProviderResultPart):
            kind = str(part.__struct_config__.tag)
            raise InputError(f"a user's message cannot hold a part of type '{kind}'")
    return blocks


def _file(part: FilePart) -> dict[str, Any]:
    kind = part.media_type.partition("/")[0]
    url = part.url or f"data:{part.media_type};base64,{part.data or ''}"
    if kind == "image":
        return {"type": "image_url", "image_url": {"url": url}}
    if part.data is None:
        raise InputError(
            f"this provider takes a file of type {part.media_type} as data only, not by its URL"
        )
    if kind == "audio":
        form = part.media_type.partition("/")[2].removeprefix("x-")
        audio = {"data": part.data, "format": "mp3" if form == "mpeg" else form}
        return {"type": "input_audio", "input_audio": audio}
    return {"type": "file", "file": {"filename": part.name or "file", "file_data": url}}


def _assistant(parts: list[Part], whole: set[str], quirks: frozenset[str]) -> dict[str, Any]:
    text = "".join(p.text for p in parts if isinstance(p, TextPart))
    refusal = "".join(p.text for p in parts if isinstance(p, RefusalPart))
    calls = [
        p
        for p in parts
        if isinstance(p, ToolCallPart) and p.executor != "provider" and p.call_id in whole
    ]
    entry: dict[str, Any] = {"role": "assistant"}
    entry["content"] = text or (None if calls or refusal else "")
    if refusal:
        entry["refusal"] = refusal
    if calls:
        entry["tool_calls"] = [_call(p, quirks) for p in calls]
    reasoning = [p for p in parts if isinstance(p, ReasoningPart)]
    if "reasoning_details" in quirks:
        details = [d for p in reasoning for d in _details(p)]
        if details:
            entry["reasoning_details"] = details
    elif "reasoning_content" in quirks and calls:
        entry["reasoning_content"] = "".join(p.text for p in reasoning)
    return entry


def _details(part: ReasoningPart) -> list[dict[str, Any]]:
    details = ((part.meta or {}).get(_DIALECT) or {}).get("reasoning_details")
    if details:
        return details
    if not mine(part, _DIALECT):
        return []  # another provider's secrets are of no use here
    if part.encrypted:
        return [{"type": "reasoning.encrypted", "data": part.encrypted}]
    if part.signature:
        return [{"type": "reasoning.text", "text": part.text, "signature": part.signature}]
    return []


def _call(part: ToolCallPart, quirks: frozenset[str]) -> dict[str, Any]:
    call_id = _call_id(part.call_id, quirks)
    if part.format == "text":
        custom = {"name": part.name, "input": part.arguments}
        return {"id": call_id, "type": "custom", "custom": custom}
    function = {"name": part.name, "arguments": arguments_text(part)}
    call: dict[str, Any] = {"id": call_id, "type": "function", "function": function}
    if part.signature and mine(part, _DIALECT):
        call["extra_content"] = {"google": {"thought_signature": part.signature}}
    return call


def _call_id(call_id: str, quirks: frozenset[str]) -> str:
    """Mistral takes ids of nine letters and digits only; others' ids are mapped, always alike."""
    if "short_call_ids" not in quirks or (len(call_id) == 9 and call_id.isalnum()):
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]
