"""AG-UI's RunAgentInput (also as TanStack AI sends it) as a request of ours.

Always true: a message of an unknown role or without its id is an `InputError` that names it; keys
that a newer client adds are tolerated.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.events.message import (
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import Request, ToolSpec
from tokenwire.wire.fields import Fields, media_part, one_name, plain, refuse_routing, text_of

__all__ = ["AGUIRequest", "Resume", "parse_ag_ui_request"]


class Resume(msgspec.Struct, frozen=True):
    """An answer to an interrupt."""

    interrupt: str
    resolved: bool
    payload: Any = None


class AGUIRequest(msgspec.Struct, kw_only=True):
    """``POST /ag-ui``. ``outputs``: results of calls that the conversation ends with."""

    thread: str
    run: str
    request: Request
    messages: list[dict[str, Any]]
    model: str | None = None
    resume: list[Resume] = []
    outputs: list[ToolResultPart] = []


def parse_ag_ui_request(value: Any) -> AGUIRequest:
    """The body of ``POST /ag-ui``. Raises `InputError`."""
    body = Fields(value)
    refuse_routing(body)
    messages = body.objects("messages")
    conversation: list[Message] = []
    for message in messages:
        conversation += _message(message)
    context = [c.text("value") or "" for c in body.objects("context")]
    request = Request(
        messages=conversation,
        system="\n\n".join(filter(None, context)) or None,
        tools=[_tool(tool) for tool in body.objects("tools")] or None,
    )
    props = body.object("forwardedProps") if isinstance(body.raw("forwardedProps"), dict) else None
    if props is not None:
        refuse_routing(props)
    outputs: list[ToolResultPart] = []
    for message in reversed(conversation):
        if message.role != "tool":
            break
        outputs += [p for p in message.parts if isinstance(p, ToolResultPart)]
    return AGUIRequest(
        thread=one_name(body, "threadId"),
        run=one_name(body, "runId"),
        request=request,
        messages=[m.value for m in messages],
        model=props.text("model") if props is not None else None,
        resume=[_resume(entry) for entry in body.objects("resume")],
        outputs=outputs,
    )


def _resume(entry: Fields) -> Resume:
    status = entry.text("status") or "resolved"
    if status not in ("resolved", "cancelled"):
        raise entry.fail("status", "must be resolved or cancelled")
    return Resume(entry.need("interruptId"), status == "resolved", entry.raw("payload"))


def _tool(tool: Fields) -> ToolSpec:
    parameters = tool.raw("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise tool.fail("parameters", "must be a JSON Schema object")
    return ToolSpec(
        name=tool.need("name"),
        description=tool.text("description") or "",
        parameters=parameters,  # type: ignore[arg-type]
        executor="client",
    )


def _message(message: Fields) -> list[Message]:
    role = message.text("role", required=True)
    name = message.text("id")
    if role in ("system", "developer"):
        return [Message(role="system", content=text_of(message, "content"), id=name)]
    if role == "user":
        return [Message(role="user", content=_content(message), id=name)]
    if role == "assistant":
        return _assistant(message, name)
    if role == "tool":
        result = ToolResultPart(
            call_id=message.need("toolCallId"),
            content=message.text("error") or text_of(message, "content"),
            is_error=message.has("error"),
        )
        return [Message(role="tool", content=[result], id=name)]
    if role in ("activity", "reasoning"):
        return []  # the page's own; signatures come back with the assistant's messages
    raise message.fail("role", "is not a role of AG-UI")


def _assistant(message: Fields, name: str | None) -> list[Message]:
    parts: list[Part] = []
    text = text_of(message, "content")
    if text:
        parts.append(TextPart(text=text))
    for call in message.objects("toolCalls"):
        function = call.object("function")
        if function is None:
            raise call.fail("function", "is missing")
        parts.append(
            ToolCallPart(
                call_id=call.need("id"),
                name=function.need("name"),
                arguments=function.text("arguments") or "{}",
            )
        )
    return [Message(role="assistant", content=plain(parts), id=name)] if parts else []


def _content(message: Fields) -> str | list[Part]:
    content = message.raw("content")
    if isinstance(content, str):
        return content
    if content is None:
        content_parts = message.objects("parts", required=True)  # TanStack's own messages
    else:
        content_parts = message.objects("content")
    parts: list[Part] = []
    for part in content_parts:
        kind = part.text("type", required=True)
        if kind == "text":
            parts.append(TextPart(text=part.text("text") or part.text("content") or ""))
            continue
        url = part.text("url")
        source = part.object("source")
        media_type = part.text("mimeType")
        if source is not None:
            data, url = source.text("value") or "", None
            media_type = source.text("mimeType") or media_type
            if source.raw("type") == "url":
                url = data
            else:
                url = f"data:{media_type or 'application/octet-stream'};base64,{data}"
        elif part.has("data"):
            url = f"data:{media_type or 'application/octet-stream'};base64,{part.need('data')}"
        if not url:
            raise part.fail("type", "is not a supported content part")
        parts.append(media_part(url, media_type))
    return plain(parts)
