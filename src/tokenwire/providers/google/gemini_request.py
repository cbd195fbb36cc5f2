"""Our request to a Gemini generateContent request.

Always true: a thought signature goes back on the part that it came with, byte for byte; a call's
id goes back only when Gemini gave one; a result names its function, as the API demands.
"""

from __future__ import annotations

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
from tokenwire.events.request import Request
from tokenwire.providers.base import Call, Target
from tokenwire.providers.decoding.values import text_of
from tokenwire.providers.history import (
    arguments_object,
    is_blank,
    meta_of,
    mine,
    something_in,
    system_text,
    turns,
    whole_calls,
)

__all__ = ["build"]

_NAME = "gemini"
#: What the API documents for calls that another model made, which can have no signature.
_FOREIGN_CALL = "skip_thought_signature_validator"
_LEVELS = ("minimal", "low", "medium", "high")
_BUDGETS = {"none": 0, "minimal": 512, "low": 1024, "medium": 8192, "high": 24576}


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    contents = _contents(turns(request), target.model)
    something_in(contents, "Gemini", request)
    body: dict[str, Any] = {"contents": contents}
    system = system_text(request)
    if system:
        body["systemInstruction"] = {"parts": [{"text": system}]}
    config = _config(request, target.model)
    if config:
        body["generationConfig"] = config
    _tools(request, body)
    body |= request.extra or {}
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    if target.api_key:
        if {"vertex", "bearer"} & target.quirks:
            headers["authorization"] = f"Bearer {target.api_key}"
        else:
            headers["x-goog-api-key"] = target.api_key
    url = f"{target.base_url}/models/{target.model}:streamGenerateContent?alt=sse"
    return Call(url=url, headers=target.headers_over(headers), body=msgspec.json.encode(body))


def _config(request: Request, model: str) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in (
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("maxOutputTokens", request.max_tokens),
        ("stopSequences", request.stop),
        ("seed", request.seed),
    ):
        if value is not None:
            config[name] = value
    if request.output is not None:
        config["responseMimeType"] = "application/json"
        config["responseJsonSchema"] = request.output.schema
    effort = request.reasoning
    if isinstance(effort, int):
        config["thinkingConfig"] = {"includeThoughts": True, "thinkingBudget": effort}
    elif effort is not None:
        if effort not in _BUDGETS:
            raise InputError("'reasoning' is none, minimal, low, medium, high or a token budget")
        thinking = {"includeThoughts": effort != "none"}
        if "gemini-3" in model and effort in _LEVELS:
            config["thinkingConfig"] = thinking | {"thinkingLevel": effort}
        else:
            config["thinkingConfig"] = thinking | {"thinkingBudget": _BUDGETS[effort]}
    return config


def _tools(request: Request, body: dict[str, Any]) -> None:
    tools = [tool.native for tool in request.tools or [] if tool.native]
    declared = [
        {
            "name": tool.name,
            **({"description": tool.description} if tool.description else {}),
            **({"parametersJsonSchema": tool.parameters} if tool.parameters else {}),
        }
        for tool in request.tools or []
        if not tool.native
    ]
    if declared:
        tools.append({"functionDeclarations": declared})
    if tools:
        body["tools"] = tools
    choice = request.tool_choice
    if choice:
        modes = {"auto": "AUTO", "none": "NONE", "required": "ANY"}
        calling: dict[str, Any] = {"mode": modes.get(choice, "ANY")}
        if choice not in modes:
            calling["allowedFunctionNames"] = [choice]
        body["toolConfig"] = {"functionCallingConfig": calling}


def _contents(messages: list[Message], model: str) -> list[dict[str, Any]]:
    calls = whole_calls(messages)
    calls_by_id = {p.call_id: p for m in messages for p in m.tool_calls}
    contents: list[dict[str, Any]] = []
    for message in messages:
        role = "model" if message.role == "assistant" else "user"
        parts = [b for p in message.parts if (b := _part(p, calls, calls_by_id, model)) is not None]
        if not parts:
            continue
        if contents and contents[-1]["role"] == role:
            contents[-1]["parts"].extend(parts)
        else:
            contents.append({"role": role, "parts": parts})
    return contents


def _part(
    part: Part, calls: set[str], calls_by_id: dict[str, ToolCallPart], model: str
) -> dict[str, Any] | None:
    own = mine(part, _NAME)
    if isinstance(part, TextPart):
        signature = part.signature if own else None
        if is_blank(part.text) and not (part.text and signature):
            return None
        return _signed({"text": part.text}, signature)
    if isinstance(part, RefusalPart):
        return None if is_blank(part.text) else {"text": part.text}
    if isinstance(part, FilePart):
        return _file(part)
    if isinstance(part, ToolResultPart):
        return _result(part, calls_by_id.get(part.call_id))
    if isinstance(part, ToolCallPart):
        return _call(part, calls, own, model)
    if not own:
        return None
    if isinstance(part, ReasoningPart):
        if part.signature is None:
            return None  # thoughts are of use to Gemini only with their signature
        return _signed({"text": part.text, "thought": True}, part.signature)
    if isinstance(part, ProviderResultPart):
        meta = meta_of(part, _NAME)
        kind = text_of(meta.get("type"))
        if not kind:
            return None
        return _signed({kind: part.content}, text_of(meta.get("thoughtSignature")))
    if isinstance(part, OpaquePart) and isinstance(part.payload, dict):
        return _signed(dict(part.payload), part.signature)
    return None


def _signed(part: dict[str, Any], signature: str | None) -> dict[str, Any]:
    return part | ({"thoughtSignature": signature} if signature else {})


def _call(part: ToolCallPart, calls: set[str], own: bool, model: str) -> dict[str, Any] | None:
    meta = meta_of(part, _NAME)
    if part.executor == "provider":
        kind = text_of(meta.get("type"))
        return _signed({kind: meta[kind]}, part.signature) if kind in meta else None
    if part.call_id not in calls:
        return None
    function: dict[str, Any] = {"name": part.name, "args": arguments_object(part)}
    if meta.get("id"):
        function["id"] = meta["id"]
    signature = part.signature if own else None
    if signature is None and not own and "gemini-3" in model:
        signature = _FOREIGN_CALL
    return _signed({"functionCall": function}, signature)


def _result(part: ToolResultPart, call: ToolCallPart | None) -> dict[str, Any]:
    name = part.name or (call.name if call is not None else "")
    if not name:
        raise InputError(f"Gemini needs the function's name of the result of call {part.call_id!r}")
    if part.is_error:
        response: Any = {"error": part.content}
    else:
        response = part.content if isinstance(part.content, dict) else {"output": part.content}
    function: dict[str, Any] = {"name": name, "response": response}
    provider_id = meta_of(call, _NAME).get("id") if call is not None else None
    if provider_id:
        function["id"] = provider_id
    return {"functionResponse": function}


def _file(part: FilePart) -> dict[str, Any]:
    signature = text_of(meta_of(part, _NAME).get("thoughtSignature"))
    if part.data is not None:
        data = {"mimeType": part.media_type, "data": part.data}
        return _signed({"inlineData": data}, signature)
    if part.url is None:
        raise InputError("a file needs its bytes or a URL")
    return _signed({"fileData": {"mimeType": part.media_type, "fileUri": part.url}}, signature)
