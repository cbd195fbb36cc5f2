"""Our request to an Anthropic Messages request.

Always true: thinking goes back only with its own signature, byte for byte; blocks that Anthropic
made go back as they came; every ``tool_use`` that is sent has its ``tool_result``, or none came.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

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
from tokenwire.events.request import Request
from tokenwire.providers.base import Call, Target
from tokenwire.providers.decoding.values import text_of
from tokenwire.providers.history import (
    arguments_object,
    base64_of,
    call_id_for,
    is_blank,
    meta_of,
    mine,
    result_text,
    something_in,
    sorted_turns,
    system_text,
    text_in,
    turns,
    whole_calls,
)

__all__ = ["build"]

_NAME = "anthropic"
#: The API demands a limit; this one fits every current model.
DEFAULT_MAX_TOKENS = 8192
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
_VERSION = re.compile(r"claude-[a-z]+-(\d{1,2})(?:[-.@](\d+))?(?!\d)")
_OWN_KEYS = ("type", "index", "arguments")


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    messages = _messages(turns(request))
    something_in(messages, "Anthropic", request)
    body: dict[str, Any] = {
        "model": target.model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": messages,
        "stream": True,
    }
    system = system_text(request)
    if system:
        body["system"] = system
    if request.temperature is not None:
        if request.temperature > 1:
            raise InputError("Anthropic's temperature is 0 to 1")
        body["temperature"] = request.temperature
    if request.top_p is not None:
        body["top_p"] = request.top_p
    if request.stop:
        body["stop_sequences"] = request.stop
    if request.seed is not None:
        raise InputError("Anthropic does not accept a seed")
    _reasoning(request, body)
    _tools(request, body)
    if request.output is not None:
        output = {"type": "json_schema", "schema": request.output.schema}
        body["output_config"] = {**body.get("output_config", {}), "format": output}
    body |= request.extra or {}
    return _call(body, target)


def _call(body: dict[str, Any], target: Target) -> Call:
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    url = f"{target.base_url}/messages"
    if "vertex" in target.quirks:
        body["anthropic_version"] = "vertex-2023-10-16"
        url = f"{target.base_url}/models/{body.pop('model')}:streamRawPredict"
    elif "bedrock" in target.quirks:
        body["anthropic_version"] = "bedrock-2023-05-31"
        del body["stream"]
        headers["accept"] = "application/vnd.amazon.eventstream"
        model = quote(body.pop("model"), safe="")
        url = f"{target.base_url}/model/{model}/invoke-with-response-stream"
    else:
        headers["anthropic-version"] = "2023-06-01"
    if target.api_key:
        if {"vertex", "bedrock", "bearer"} & target.quirks:
            headers["authorization"] = f"Bearer {target.api_key}"
        else:
            headers["x-api-key"] = target.api_key
    return Call(url=url, headers=target.headers_over(headers), body=msgspec.json.encode(body))


def _reasoning(request: Request, body: dict[str, Any]) -> None:
    effort = request.reasoning
    if effort is None:
        return
    if effort == "none":
        body["thinking"] = {"type": "disabled"}
    elif isinstance(effort, str) and effort not in _BUDGETS:
        raise InputError("'reasoning' is none, minimal, low, medium, high or a token budget")
    elif isinstance(effort, str) and _decides_itself(body["model"]):
        # These models hide their thinking unless a summary is asked for.
        body["thinking"] = {"type": "adaptive", "display": "summarized"}
        body["output_config"] = {"effort": "low" if effort == "minimal" else effort}
    else:
        budget = _BUDGETS[effort] if isinstance(effort, str) else effort
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
        if body["max_tokens"] <= budget:  # the limit includes the thinking
            body["max_tokens"] = budget + (request.max_tokens or DEFAULT_MAX_TOKENS)


def _decides_itself(model: str) -> bool:
    """Whether a model takes an effort and budgets its own thinking: 4.6 and later."""
    version = _VERSION.search(model)
    if version is None:
        return False
    major, minor = int(version[1]), int(version[2] or 0)
    return (major, minor if minor < 100 else 0) >= (4, 6)


def _tools(request: Request, body: dict[str, Any]) -> None:
    if request.tools:
        body["tools"] = [
            tool.native
            or {
                "name": tool.name,
                **({"description": tool.description} if tool.description else {}),
                "input_schema": tool.parameters or {"type": "object", "properties": {}},
                **({"strict": tool.strict} if tool.strict is not None else {}),
            }
            for tool in request.tools
        ]
    choice: dict[str, Any] | None = None
    if request.tool_choice in ("auto", "none"):
        choice = {"type": request.tool_choice}
    elif request.tool_choice == "required":
        choice = {"type": "any"}
    elif request.tool_choice:
        choice = {"type": "tool", "name": request.tool_choice}
    if request.parallel_tool_calls is False and request.tools:
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    if choice is not None:
        body["tool_choice"] = choice


def _messages(messages: list[Message]) -> list[dict[str, Any]]:
    calls = whole_calls(messages)
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [b for p in message.parts if (b := _block(p, role, calls)) is not None]
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    return sorted_turns(
        turns, lambda b: b["type"] == "tool_use", lambda b: b["type"] == "tool_result"
    )


def _block(part: Part, role: str, calls: set[str]) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return _text(part)
    if isinstance(part, ToolResultPart):
        block = {
            "type": "tool_result",
            "tool_use_id": call_id_for(part.call_id),
            "content": result_text(part),
        }
        return block | ({"is_error": True} if part.is_error else {})
    if isinstance(part, FilePart):
        return _file(part) if role == "user" else None
    if isinstance(part, RefusalPart):
        return None if is_blank(part.text) else {"type": "text", "text": part.text}
    if isinstance(part, ToolCallPart):
        return _tool_call(part, calls)
    if not mine(part, _NAME):
        return None
    if isinstance(part, ReasoningPart):
        if part.signature is None:
            return None  # thinking without its signature is refused
        return {"type": "thinking", "thinking": part.text, "signature": part.signature}
    if isinstance(part, ProviderResultPart):
        block = {"type": part.name, "tool_use_id": part.call_id, "content": part.content}
        return block | _extra(part)
    return part.payload if isinstance(part, OpaquePart) and part.payload else None


def _text(part: TextPart) -> dict[str, Any] | None:
    if is_blank(part.text):
        return None
    block: dict[str, Any] = {"type": "text", "text": part.text}
    if part.citations and mine(part, _NAME):
        block["citations"] = [c.get("raw", c) for c in part.citations]
    return block | _extra(part)


def _tool_call(part: ToolCallPart, calls: set[str]) -> dict[str, Any] | None:
    if part.executor == "provider":
        if _NAME not in (part.meta or {}):
            return None
    elif part.call_id not in calls:
        return None
    block = {
        "type": text_of(meta_of(part, _NAME).get("type")) or "tool_use",
        "id": call_id_for(part.call_id),
        "name": part.name,
        "input": arguments_object(part),
    }
    return block | _extra(part)


def _extra(part: Part) -> dict[str, Any]:
    """Fields of the block that only Anthropic knows (``caller``, ``server_name``, ...)."""
    return {k: v for k, v in meta_of(part, _NAME).items() if k not in _OWN_KEYS}


def _file(part: FilePart) -> dict[str, Any]:
    kind = "image" if part.media_type.startswith("image/") else "document"
    if part.media_type.startswith(("audio/", "video/")):
        raise InputError(f"Anthropic does not accept {part.media_type} files")
    if part.url is not None and part.data is None:
        source: dict[str, Any] = {"type": "url", "url": part.url}
    elif (text := text_in(part)) is not None:
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        data = base64_of(part, "Anthropic")
        source = {"type": "base64", "media_type": part.media_type, "data": data}
    block: dict[str, Any] = {"type": kind, "source": source}
    if kind == "document" and part.name:
        block["title"] = part.name
    return block | _extra(part)
