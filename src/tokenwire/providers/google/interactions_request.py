"""Our request to a Gemini Interactions request.

Always true: the conversation goes as steps, and a thought's or call's signature goes back on its
step byte for byte; nothing is stored at the provider unless the request says so.
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
    ProviderResultPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request
from tokenwire.providers.base import Call, Target, effort_of
from tokenwire.providers.history import (
    arguments_object,
    is_blank,
    meta_of,
    mine,
    system_text,
    turns,
    whole_calls,
)

__all__ = ["build", "resume"]

_NAME = "gemini-interactions"
#: The wire has changed its shape before; this is the one of steps.
_REVISION = "2026-05-20"


def build(request: Request, target: Target) -> Call:
    """The HTTP request that sends ``request`` and streams the answer."""
    body: dict[str, Any] = {
        "model": target.model,
        "input": _steps(turns(request)),
        "stream": True,
        "store": False,
    }
    system = system_text(request)
    if system:
        body["system_instruction"] = system
    config: dict[str, Any] = {}
    for name, value in (
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("max_output_tokens", request.max_tokens),
        ("stop_sequences", request.stop),
        ("seed", request.seed),
    ):
        if value is not None:
            config[name] = value
    if request.reasoning is not None:
        config |= {"thinking_level": effort_of(request.reasoning), "thinking_summaries": "auto"}
    _tools(request, body, config)
    if config:
        body["generation_config"] = config
    if request.output is not None:
        body["response_format"] = {
            "type": "text",
            "mime_type": "application/json",
            "schema": request.output.schema,
        }
    body |= request.extra or {}
    return Call(
        url=f"{target.base_url}/interactions",
        headers={"content-type": "application/json"} | _headers(target),
        body=msgspec.json.encode(body),
    )


def resume(response: str, after: str | None, target: Target) -> Call:
    """The request that re-attaches to a background interaction."""
    url = f"{target.base_url}/interactions/{quote(response, safe='')}?stream=true"
    if after:
        url += f"&last_event_id={quote(after, safe='')}"
    return Call(url=url, headers=_headers(target), body=b"", method="GET")


def _headers(target: Target) -> dict[str, str]:
    headers = {"accept": "text/event-stream", "api-revision": _REVISION}
    if target.api_key:
        headers["x-goog-api-key"] = target.api_key
    return target.headers_over(headers)


def _tools(request: Request, body: dict[str, Any], config: dict[str, Any]) -> None:
    if request.tools:
        body["tools"] = [
            tool.native
            or {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters or {"type": "object", "properties": {}},
            }
            for tool in request.tools
        ]
    choice = request.tool_choice
    if choice in ("auto", "none"):
        config["tool_choice"] = choice
    elif choice == "required":
        config["tool_choice"] = "any"
    elif choice:
        config["tool_choice"] = {"allowed_tools": {"mode": "any", "tools": [choice]}}


def _steps(messages: list[Message]) -> list[dict[str, Any]]:
    calls = whole_calls(messages)
    calls_by_id = {p.call_id: p for m in messages for p in m.tool_calls}
    steps: list[dict[str, Any]] = []
    for message in messages:
        kind = "model_output" if message.role == "assistant" else "user_input"
        content: list[dict[str, Any]] = []
        for part in message.parts:
            if isinstance(part, TextPart | RefusalPart):
                if not is_blank(part.text):
                    content.append({"type": "text", "text": part.text})
                continue
            if isinstance(part, FilePart):
                content.append(_file(part))
                continue
            step = _step(part, calls, calls_by_id)
            if step is None:
                continue
            if content:
                steps.append({"type": kind, "content": content})
                content = []
            steps.append(step)
        if content:
            steps.append({"type": kind, "content": content})
    return steps


def _step(
    part: Part, calls: set[str], calls_by_id: dict[str, ToolCallPart]
) -> dict[str, Any] | None:
    own = mine(part, _NAME)
    if isinstance(part, ToolResultPart):
        call = calls_by_id.get(part.call_id)
        name = part.name or (call.name if call is not None else "")
        step = {"type": "function_result", "call_id": part.call_id, "result": part.content}
        return (
            step | ({"name": name} if name else {}) | ({"is_error": True} if part.is_error else {})
        )
    if isinstance(part, ToolCallPart):
        if part.executor == "provider":
            whole = meta_of(part, _NAME).get("step")
            return whole if isinstance(whole, dict) else None
        if part.call_id not in calls:
            return None
        step = {
            "type": "function_call",
            "id": part.call_id,
            "name": part.name,
            "arguments": arguments_object(part),
        }
        return step | ({"signature": part.signature} if own and part.signature else {})
    if not own:
        return None
    if isinstance(part, ReasoningPart):
        if part.signature is None:
            return None
        summary = [{"type": "text", "text": part.text}] if part.text else []
        return {"type": "thought", "signature": part.signature, "summary": summary}
    if isinstance(part, ProviderResultPart):
        return part.content if part.meta and isinstance(part.content, dict) else None
    if isinstance(part, OpaquePart) and isinstance(part.payload, dict):
        return part.payload
    return None


def _file(part: FilePart) -> dict[str, Any]:
    family = part.media_type.partition("/")[0]
    kind = family if family in ("image", "audio", "video") else "document"
    entry: dict[str, Any] = {"type": kind, "mime_type": part.media_type}
    if part.data is not None:
        return entry | {"data": part.data}
    if part.url is None:
        raise InputError("a file needs its bytes or a URL")
    return entry | {"uri": part.url}
