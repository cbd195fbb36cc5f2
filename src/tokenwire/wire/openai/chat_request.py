"""OpenAI's chat and responses requests as requests of ours.

Always true: a field that tokenwire has no use for is passed on, dropped or refused by policy; one
that it cannot honour (several choices, audio) is refused unless its value asks for nothing.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.message import (
    Message,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.request import OutputSchema, Request, ToolSpec
from tokenwire.wire.fields import Fields, media_part, plain, text_of
from tokenwire.wire.passing import Policy, passed_fields

__all__ = ["CHAT_FIELDS", "OpenAIRequest", "parse_chat", "tool_choice_of", "tool_of"]

#: The fields of a request that are known.
CHAT_FIELDS = (
    "model messages stream stream_options temperature top_p max_tokens max_completion_tokens stop "
    "seed tools tool_choice parallel_tool_calls response_format reasoning_effort n user metadata "
    "store service_tier presence_penalty frequency_penalty logit_bias logprobs top_logprobs "
    "modalities prediction verbosity safety_identifier prompt_cache_key prompt_cache_retention "
    "audio web_search_options functions function_call"
).split()
#: Those that a provider may honour, with the values that ask for nothing.
_PASSED: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "prediction": (),
}
#: The same of those that change no answer: with the policy ``refuse`` they are taken and dropped.
_HINTS = (
    "user service_tier verbosity safety_identifier prompt_cache_key prompt_cache_retention".split()
)
#: Not ours to honour; these values ask for nothing.
_NOTHING: dict[str, tuple[Any, ...]] = {
    "modalities": (["text"],),
    "audio": (),
    "web_search_options": (),
    "functions": (),
    "function_call": (),
}


class OpenAIRequest(msgspec.Struct, kw_only=True):
    """A chat or responses request. ``echo``: what the response object repeats."""

    model: str
    request: Request
    stream: bool = False
    include_usage: bool = False
    background: bool = False
    store: bool = True
    previous: str | None = None
    metadata: dict[str, Any] | None = None
    echo: dict[str, Any] = {}

    @property
    def tools(self) -> frozenset[str]:
        """The names of the caller's tools."""
        return frozenset(tool.name for tool in self.request.tools or [])


def parse_chat(value: Any, *, unknown: Policy = "pass") -> OpenAIRequest:
    """The body of ``POST /v1/chat/completions``; ``unknown``: what becomes of fields that
    tokenwire has no use for. Raises `InputError`."""
    body = Fields(value)
    others = {*_PASSED, *(() if unknown == "refuse" else _HINTS)}
    own = [name for name in CHAT_FIELDS if name not in others]
    passed = passed_fields(body, wire="openai-chat", own=own, policy=unknown, harmless=_PASSED)
    refuse_asking(body, _NOTHING)
    if body.whole("n", 1, 128) not in (None, 1):
        raise body.fail("n", "must be 1 here")
    model = body.need("model")
    messages = [_message(m) for m in body.objects("messages", required=True)]
    if not messages:
        raise body.fail("messages", "must have at least one message")
    stop = body.raw("stop")
    options = body.object("stream_options")
    request = Request(
        messages=messages,
        temperature=body.number("temperature", 0, 2),
        top_p=body.number("top_p", 0, 1),
        max_tokens=body.whole("max_completion_tokens") or body.whole("max_tokens"),
        stop=[stop] if isinstance(stop, str) else _texts(body, "stop"),
        seed=body.whole("seed", -(1 << 62), 1 << 62),
        tools=[tool_of(tool) for tool in body.objects("tools")] or None,
        tool_choice=tool_choice_of(body),
        parallel_tool_calls=body.flag("parallel_tool_calls")
        if body.has("parallel_tool_calls")
        else None,
        output=_output(body.object("response_format")),
        reasoning=body.text("reasoning_effort"),
        passed=passed,
    )
    return OpenAIRequest(
        model=model,
        request=request,
        stream=body.flag("stream"),
        include_usage=options.flag("include_usage") if options is not None else False,
        metadata=cast("dict[str, Any] | None", body.raw("metadata")),
    )


def refuse_asking(body: Fields, nothing: dict[str, tuple[Any, ...]]) -> None:
    """Refuse known fields that ask for what we cannot do."""
    for name, harmless in nothing.items():
        if body.has(name) and body.raw(name) not in harmless:
            raise body.fail(name, "is not supported here")


def _texts(body: Fields, name: str) -> list[str] | None:
    texts = body.items(name, most=16)
    if not all(isinstance(item, str) for item in texts):
        raise body.fail(name, "must be a string or a list of strings")
    return texts or None


def tool_of(tool: Fields) -> ToolSpec:
    """A function tool, in the nested form of chat or the flat one of responses."""
    if tool.text("type") not in (None, "function"):
        raise tool.fail("type", "must be function here")
    spec = tool.object("function") or tool
    parameters = spec.raw("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise spec.fail("parameters", "must be a JSON Schema object")
    return ToolSpec(
        name=spec.need("name"),
        description=spec.text("description") or "",
        parameters=cast(dict[str, Any], parameters),
        strict=spec.flag("strict") if spec.has("strict") else None,
    )


def tool_choice_of(body: Fields) -> str | None:
    """``auto``, ``none``, ``required``, or a tool's name."""
    choice = body.raw("tool_choice")
    if choice is None or choice in ("auto", "none", "required"):
        return cast("str | None", choice)
    if isinstance(choice, dict):
        named = body.object("tool_choice")
        if named is not None and named.raw("type") == "function":
            return (named.object("function") or named).need("name")
    raise body.fail("tool_choice", "must be auto, none, required, or name a function")


def _output(form: Fields | None) -> OutputSchema | None:
    if form is None or form.text("type") == "text":
        return None
    if form.text("type") == "json_schema":
        return output_schema(form.object("json_schema") or form)
    if form.text("type") == "json_object":
        return OutputSchema(schema={"type": "object"}, strict=False)
    raise form.fail("type", "must be text, json_object or json_schema")


def output_schema(form: Fields) -> OutputSchema:
    """A JSON schema with its name."""
    schema = form.raw("schema")
    if not isinstance(schema, dict):
        raise form.fail("schema", "must be a JSON Schema object")
    name = form.text("name") or "answer"
    return OutputSchema(
        schema=cast(dict[str, Any], schema), name=name, strict=form.flag("strict", True)
    )


def _message(message: Fields) -> Message:
    role = message.text("role", required=True)
    if role in ("system", "developer"):
        return Message(role="system", content=text_of(message, "content"))
    if role == "user":
        return Message(role="user", content=_content(message))
    if role == "tool":
        result = ToolResultPart(
            call_id=message.need("tool_call_id"), content=text_of(message, "content")
        )
        return Message(role="tool", content=[result])
    if role == "assistant":
        return _assistant(message)
    raise message.fail("role", "must be system, developer, user, assistant or tool")


def _assistant(message: Fields) -> Message:
    parts: list[Part] = []
    reasoning = message.text("reasoning_content")
    if reasoning:
        parts.append(ReasoningPart(text=reasoning))
    content = message.raw("content")
    if isinstance(content, list):
        for part in message.objects("content"):
            if part.raw("type") == "refusal":
                parts.append(RefusalPart(text=part.text("refusal") or ""))
            else:
                parts.append(TextPart(text=part.text("text", required=True) or ""))
    elif content is not None:
        text = message.text("content") or ""
        parts += [TextPart(text=text)] if text else []
    if message.text("refusal"):
        parts.append(RefusalPart(text=message.need("refusal")))
    for call in message.objects("tool_calls"):
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
    return Message(role="assistant", content=plain(parts))


def _content(message: Fields) -> str | list[Part]:
    content = message.raw("content")
    if content is None:
        raise message.fail("content", "is missing")
    if isinstance(content, str):
        return content
    return plain([content_part(part) for part in message.objects("content")])


def content_part(part: Fields) -> Part:
    """A part of a user's message, in the words of chat or of responses."""
    kind = part.text("type", required=True)
    if kind in ("text", "input_text"):
        return TextPart(text=part.text("text", required=True) or "")
    if kind == "image_url":
        image = part.object("image_url")
        return media_part(image.need("url") if image is not None else "")
    if kind == "input_image":
        return media_part(part.need("image_url"))
    if kind == "input_audio":
        audio = part.object("input_audio") or part
        url = f"data:audio/{audio.need('format')};base64,{audio.need('data')}"
        return media_part(url)
    if kind in ("file", "input_file"):
        file = part.object("file") or part
        if not file.has("file_data"):
            raise file.fail("file_data", "is needed; files by id are not kept here")
        return media_part(file.need("file_data"), name=file.text("filename"))
    raise InputError(f"'{part.at('type')}' is not a supported message part", field=part.at("type"))
