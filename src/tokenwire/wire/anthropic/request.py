"""Anthropic's messages request as a request of ours.

Always true: a field that tokenwire has no use for is passed on, dropped or refused by policy;
thinking blocks and their signatures are kept byte for byte.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tokenwire.events.message import (
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import OutputSchema, Request, ToolSpec
from tokenwire.wire.chunk_encoder import dumps_text
from tokenwire.wire.fields import Fields, media_part, plain, text_of
from tokenwire.wire.passing import Policy, passed_fields

__all__ = ["MESSAGES_FIELDS", "AnthropicRequest", "parse_messages"]

#: The fields of a request that are known.
MESSAGES_FIELDS = (
    "model messages max_tokens system stream temperature top_p top_k stop_sequences tools "
    "tool_choice thinking metadata service_tier container context_management mcp_servers "
    "output_config output_format cache_control"
).split()
#: Those that a provider may honour and others may do without.
_HINTS = ("top_k", "metadata", "service_tier", "cache_control")
_REFUSED = ("container", "mcp_servers", "context_management")
#: Words for how hard to think; the two above ``high`` are not known elsewhere.
_EFFORTS = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "high"}


class AnthropicRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/messages``."""

    model: str
    request: Request
    stream: bool = False

    @property
    def tools(self) -> frozenset[str]:
        """The names of the caller's tools."""
        return frozenset(tool.name for tool in self.request.tools or [])


def parse_messages(
    value: Any, *, is_count: bool = False, unknown: Policy = "pass"
) -> AnthropicRequest:
    """The body of ``POST /v1/messages``, or (with ``is_count``) of ``.../count_tokens``, which
    needs no ``max_tokens``; ``unknown``: what becomes of fields that tokenwire has no use for.
    Raises `InputError`."""
    body = Fields(value)
    others = () if unknown == "refuse" else _HINTS
    own = [name for name in MESSAGES_FIELDS if name not in others]
    passed = passed_fields(body, wire="anthropic", own=own, policy=unknown, harmless={})
    for name in _REFUSED:
        if body.has(name):
            raise body.fail(name, "is not supported here")
    if not is_count and not body.has("max_tokens"):
        raise body.fail("max_tokens", "is missing")
    messages = [m for message in body.objects("messages", required=True) for m in _message(message)]
    if not messages:
        raise body.fail("messages", "must have at least one message")
    choice, parallel = _choice(body.object("tool_choice"))
    stops = body.items("stop_sequences", most=16)
    if not all(isinstance(stop, str) for stop in stops):
        raise body.fail("stop_sequences", "must be a list of strings")
    request = Request(
        messages=messages,
        system=text_of(body, "system") or None,
        temperature=body.number("temperature", 0, 1),
        top_p=body.number("top_p", 0, 1),
        max_tokens=body.whole("max_tokens"),
        stop=stops or None,
        tools=[_tool(tool) for tool in body.objects("tools")] or None,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        output=_output(body),
        reasoning=_reasoning(body),
        passed=passed,
    )
    return AnthropicRequest(model=body.need("model"), request=request, stream=body.flag("stream"))


def _reasoning(body: Fields) -> str | int | None:
    """An effort, or a budget of tokens; None leaves it to the model."""
    config = body.object("output_config")
    effort = config.text("effort") if config is not None else None
    if config is not None and effort is not None and effort not in _EFFORTS:
        raise config.fail("effort", f"must be one of {', '.join(_EFFORTS)}")
    thinking = body.object("thinking")
    if thinking is None:
        return _EFFORTS[effort] if effort else None
    kind = thinking.need("type")
    if kind == "disabled":
        return "none"
    if kind == "enabled":
        budget = thinking.whole("budget_tokens")
        if budget is None:
            raise thinking.fail("budget_tokens", "is missing")
        return budget
    if kind != "adaptive":
        raise thinking.fail("type", "must be enabled, adaptive or disabled here")
    return _EFFORTS[effort or "high"]


def _output(body: Fields) -> OutputSchema | None:
    config = body.object("output_config")
    form = config.object("format") if config is not None else body.object("output_format")
    if form is None:
        return None
    if form.need("type") != "json_schema":
        raise form.fail("type", "must be json_schema")
    schema = form.object("schema")
    if schema is None:
        raise form.fail("schema", "is missing")
    return OutputSchema(schema=schema.value)


def _tool(tool: Fields) -> ToolSpec:
    if tool.text("type") not in (None, "custom"):
        raise tool.fail("type", "must be custom here")
    schema = tool.raw("input_schema")
    if not isinstance(schema, dict):
        raise tool.fail("input_schema", "must be a JSON Schema object")
    return ToolSpec(
        name=tool.need("name"),
        description=tool.text("description") or "",
        parameters=cast(dict[str, Any], schema),
    )


def _choice(choice: Fields | None) -> tuple[str | None, bool | None]:
    if choice is None:
        return None, None
    parallel = False if choice.flag("disable_parallel_tool_use") else None
    kind = choice.need("type")
    if kind == "tool":
        return choice.need("name"), parallel
    words = {"auto": "auto", "any": "required", "none": "none"}
    if kind not in words:
        raise choice.fail("type", "must be auto, any, tool or none")
    return words[kind], parallel


def _message(message: Fields) -> list[Message]:
    role = message.text("role", required=True)
    if role not in ("user", "assistant"):
        raise message.fail("role", "must be user or assistant")
    if isinstance(message.raw("content"), str):
        return [Message(role=role, content=message.text("content") or "")]
    parts: list[Part] = []
    results: list[Part] = []
    for block in message.objects("content", required=True):
        part = _part(block)
        (results if isinstance(part, ToolResultPart) else parts).append(part)
    messages: list[Message] = []
    if results:
        messages.append(Message(role="tool", content=results))
    if parts:
        messages.append(Message(role=role, content=plain(parts)))
    return messages


def _part(block: Fields) -> Part:
    kind = block.text("type", required=True) or ""
    if kind == "text":
        return TextPart(text=block.text("text", required=True) or "")
    if kind in ("image", "document"):
        return _media(block)
    if kind == "thinking":
        text = block.text("thinking") or ""
        return ReasoningPart(text=text, signature=block.text("signature"))
    if kind == "redacted_thinking":
        return OpaquePart(name=kind, payload=block.raw("data"))
    if kind == "tool_use":
        arguments = dumps_text(block.raw("input") if block.has("input") else {})
        return ToolCallPart(call_id=block.need("id"), name=block.need("name"), arguments=arguments)
    if kind == "tool_result":
        return ToolResultPart(
            call_id=block.need("tool_use_id"),
            content=text_of(block, "content"),
            is_error=block.flag("is_error"),
        )
    raise block.fail("type", f"'{kind[:40]}' is not supported here")


def _media(block: Fields) -> Part:
    source = block.object("source")
    if source is None:
        raise block.fail("source", "is missing")
    if source.raw("type") == "url":
        return media_part(source.need("url"))
    if source.raw("type") == "text":
        return TextPart(text=source.need("data"))
    return media_part(f"data:{source.need('media_type')};base64,{source.need('data')}")
