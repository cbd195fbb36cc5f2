"""Our request to a Bedrock Converse request.

Always true: reasoning goes back only with its own signature, byte for byte; files go as bytes in
the formats that the API names.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request, ToolSpec
from tokenwire.providers.base import Call, Target
from tokenwire.providers.decoding.values import dump
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
    turns,
    whole_calls,
)

__all__ = ["build"]

_NAME = "bedrock-converse"
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    if request.seed is not None:
        raise InputError("Bedrock Converse does not accept a seed")
    messages = _messages(turns(request))
    something_in(messages, "Bedrock", request)
    body: dict[str, Any] = {"messages": messages}
    system = system_text(request)
    if system:
        body["system"] = [{"text": system}]
    config: dict[str, Any] = {}
    for name, value in (
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("maxTokens", request.max_tokens),
        ("stopSequences", request.stop),
    ):
        if value is not None:
            config[name] = value
    if config:
        body["inferenceConfig"] = config
    _tools(request, body)
    if request.output is not None:
        schema = {"schema": dump(request.output.schema), "name": request.output.name}
        output_format = {"type": "json_schema", "structure": {"jsonSchema": schema}}
        body["outputConfig"] = {"textFormat": output_format}
    if request.reasoning is not None and request.reasoning != "none":
        budget = request.reasoning
        if isinstance(budget, str):
            if budget not in _BUDGETS:
                raise InputError("'reasoning' is none, minimal, low, medium, high or a budget")
            budget = _BUDGETS[budget]
        thinking = {"type": "enabled", "budget_tokens": budget}
        body["additionalModelRequestFields"] = {"thinking": thinking}
    body |= request.extra or {}
    headers = {
        "content-type": "application/json",
        "accept": "application/vnd.amazon.eventstream",
    }
    if target.api_key:
        headers["authorization"] = f"Bearer {target.api_key}"
    return Call(
        url=f"{target.base_url}/model/{quote(target.model, safe='')}/converse-stream",
        headers=target.headers_over(headers),
        body=msgspec.json.encode(body),
    )


def _tools(request: Request, body: dict[str, Any]) -> None:
    """Converse takes no calls without tools, and has no word for calling none of them."""
    called = {p.name for m in request.messages for p in m.tool_calls if p.executor != "provider"}
    tools = request.tools or [ToolSpec(name=name) for name in sorted(called)]
    choice = request.tool_choice
    if not tools or (choice == "none" and not called):
        return
    config: dict[str, Any] = {
        "tools": [
            tool.native
            or {
                "toolSpec": {
                    "name": tool.name,
                    **({"description": tool.description} if tool.description else {}),
                    "inputSchema": {
                        "json": tool.parameters or {"type": "object", "properties": {}}
                    },
                }
            }
            for tool in tools
        ]
    }
    if choice == "auto":
        config["toolChoice"] = {"auto": {}}
    elif choice == "required":
        config["toolChoice"] = {"any": {}}
    elif choice and choice != "none":
        config["toolChoice"] = {"tool": {"name": choice}}
    body["toolConfig"] = config


def _messages(messages: list[Message]) -> list[dict[str, Any]]:
    calls = whole_calls(messages)
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [b for p in message.parts if (b := _block(p, calls)) is not None]
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"].extend(blocks)
        else:
            turns.append({"role": role, "content": blocks})
    return sorted_turns(turns, lambda b: "toolUse" in b, lambda b: "toolResult" in b)


def _block(part: Part, calls: set[str]) -> dict[str, Any] | None:
    if isinstance(part, TextPart | RefusalPart):
        return None if is_blank(part.text) else {"text": part.text}
    if isinstance(part, ToolResultPart):
        whole = isinstance(part.content, dict)
        text = result_text(part)
        text = "(nothing)" if is_blank(text) else text  # a blank text is rejected
        return {
            "toolResult": {
                "toolUseId": call_id_for(part.call_id),
                "content": [{"json": part.content} if whole else {"text": text}],
                "status": "error" if part.is_error else "success",
            }
        }
    if isinstance(part, FilePart):
        return _file(part)
    if isinstance(part, ToolCallPart):
        if part.executor == "provider" or part.call_id not in calls:
            return None
        call = {
            "toolUseId": call_id_for(part.call_id),
            "name": part.name,
            "input": arguments_object(part),
        }
        return {"toolUse": call}
    if isinstance(part, ReasoningPart):
        # Some models sign nothing; what they made may go back as it came.
        if not mine(part, _NAME) or (part.signature is None and not meta_of(part, _NAME)):
            return None
        text = {"text": part.text}
        if part.signature is not None:
            text["signature"] = part.signature
        return {"reasoningContent": {"reasoningText": text}}
    if isinstance(part, OpaquePart) and mine(part, _NAME) and isinstance(part.payload, dict):
        return part.payload
    return None


def _file(part: FilePart) -> dict[str, Any]:
    source = {"bytes": base64_of(part, "Bedrock Converse")}
    family, _, kind = part.media_type.partition("/")
    if family == "image":
        return {"image": {"format": kind, "source": source}}
    if part.media_type not in _DOCUMENTS:
        raise InputError(f"Bedrock Converse does not accept {part.media_type} files")
    name = part.name or "document"
    return {"document": {"format": _DOCUMENTS[part.media_type], "name": name, "source": source}}
