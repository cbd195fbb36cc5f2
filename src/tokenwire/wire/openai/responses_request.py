"""OpenAI's responses request as a request of ours."""

from __future__ import annotations

from typing import Any, cast

from tokenwire.events.message import (
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    user,
)
from tokenwire.events.request import OutputSchema, Request
from tokenwire.wire.fields import Fields, plain, text_of
from tokenwire.wire.openai.chat_request import (
    OpenAIRequest,
    content_part,
    output_schema,
    refuse_asking,
    tool_choice_of,
    tool_of,
)
from tokenwire.wire.passing import Policy, passed_fields

__all__ = ["RESPONSES_FIELDS", "parse_responses"]

#: The fields of a request that are known.
RESPONSES_FIELDS = (
    "model input instructions stream stream_options background store max_output_tokens temperature "
    "top_p tools tool_choice parallel_tool_calls reasoning text previous_response_id metadata user "
    "include truncation service_tier safety_identifier prompt_cache_key prompt_cache_retention "
    "max_tool_calls top_logprobs prompt conversation"
).split()
#: Those that a provider may honour, with the values that ask for nothing; a provider of another
#: kind may do without them.
_PASSED: dict[str, tuple[Any, ...]] = {
    "truncation": ("disabled", "auto"),
    "top_logprobs": (0,),
}
_HINTS = "user service_tier safety_identifier prompt_cache_key prompt_cache_retention".split()
_NOTHING: dict[str, tuple[Any, ...]] = {
    "prompt": (),
    "conversation": (),
}
_ECHOED = (
    "instructions max_output_tokens temperature top_p tools tool_choice parallel_tool_calls "
    "reasoning text previous_response_id metadata background store"
).split()


def parse_responses(value: Any, *, unknown: Policy = "pass") -> OpenAIRequest:
    """The body of ``POST /v1/responses``; ``unknown``: what becomes of fields that tokenwire has
    no use for. Raises `InputError`."""
    body = Fields(value)
    others = {*_PASSED, *(() if unknown == "refuse" else _HINTS)}
    own = [name for name in RESPONSES_FIELDS if name not in others]
    passed = passed_fields(body, wire="openai-responses", own=own, policy=unknown, harmless=_PASSED)
    refuse_asking(body, _NOTHING)
    reasoning = body.object("reasoning")
    if isinstance(body.raw("input"), str):
        messages = [user(body.need("input"))]
    else:
        messages = _merged(
            [m for item in body.objects("input", required=True) for m in _item(item)]
        )
    if not messages:
        raise body.fail("input", "must not be empty")
    request = Request(
        messages=messages,
        system=body.text("instructions"),
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        max_tokens=body.whole("max_output_tokens"),
        tools=[tool_of(tool) for tool in body.objects("tools")] or None,
        tool_choice=tool_choice_of(body),
        parallel_tool_calls=body.flag("parallel_tool_calls")
        if body.has("parallel_tool_calls")
        else None,
        output=_output(body.object("text")),
        reasoning=reasoning.text("effort") if reasoning is not None else None,
        passed=passed,
    )
    return OpenAIRequest(
        model=body.need("model"),
        request=request,
        stream=body.flag("stream"),
        background=body.flag("background"),
        store=body.flag("store", True),
        previous=body.text("previous_response_id"),
        echo={name: body.raw(name) for name in _ECHOED if body.has(name)},
    )


def _output(text: Fields | None) -> OutputSchema | None:
    form = text.object("format") if text is not None else None
    if form is None or form.text("type") == "text":
        return None
    if form.text("type") == "json_schema":
        return output_schema(form)
    if form.text("type") == "json_object":
        return OutputSchema(schema={"type": "object"}, strict=False)
    raise form.fail("type", "must be text, json_object or json_schema")


def _item(item: Fields) -> list[Message]:
    kind = item.text("type") or "message"
    if kind == "message":
        return [_message(item)]
    if kind == "function_call":
        call = ToolCallPart(
            call_id=item.need("call_id"),
            name=item.need("name"),
            arguments=item.text("arguments") or "{}",
        )
        return [Message(role="assistant", content=[call])]
    if kind == "function_call_output":
        content = item.raw("output")
        if not isinstance(content, str):
            content = text_of(item, "output", ("input_text", "output_text"))
        result = ToolResultPart(call_id=item.need("call_id"), content=content)
        return [Message(role="tool", content=[result])]
    if kind == "reasoning":
        texts = item.objects("content") or item.objects("summary")
        part = ReasoningPart(
            text="".join(p.text("text") or "" for p in texts),
            summary=not item.has("content"),
            encrypted=item.text("encrypted_content"),
        )
        return [Message(role="assistant", content=[part])]
    raise item.fail("type", f"'{kind[:40]}' is not supported here")


def _message(item: Fields) -> Message:
    role = item.text("role", required=True)
    if role in ("system", "developer"):
        return Message(role="system", content=text_of(item, "content", ("input_text", "text")))
    if role == "user":
        if isinstance(item.raw("content"), str):
            return Message(role="user", content=item.need("content"))
        parts = [content_part(part) for part in item.objects("content", required=True)]
        return Message(role="user", content=plain(parts))
    if role != "assistant":
        raise item.fail("role", "must be user, assistant, system or developer")
    if isinstance(item.raw("content"), str):
        return Message(role="assistant", content=item.text("content") or "")
    parts: list[Part] = []
    for part in item.objects("content", required=True):
        if part.raw("type") == "refusal":
            parts.append(RefusalPart(text=part.text("refusal") or ""))
        else:
            parts.append(TextPart(text=part.text("text", required=True) or ""))
    return Message(role="assistant", content=plain(parts))


def _merged(messages: list[Message]) -> list[Message]:
    """Items of one turn as one message: calls with their text, results with each other."""
    merged: list[Message] = []
    for message in messages:
        before = merged[-1] if merged else None
        if before is not None and before.role == message.role and message.role != "user":
            parts = cast("list[Part]", [*before.parts, *message.parts])
            merged[-1] = Message(role=message.role, content=parts)
        else:
            merged.append(message)
    return merged
