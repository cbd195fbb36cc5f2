"""Our requests against the types of the providers' own packages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from support.native import TOOL, talk
from tokenwire.events.message import FilePart, Message, TextPart
from tokenwire.events.request import OutputSchema, Request
from tokenwire.providers.base import Target
from tokenwire.providers.registry import Registry

REGISTRY = Registry(env={})
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}


def body(name: str, model: str = "m", **fields: Any) -> dict[str, Any]:
    meta = {name: {"id": "rs_1"}} if name == "openai-responses" else None
    pdf = FilePart(media_type="application/pdf", data="aGk=", name="a.pdf")
    messages = [*talk(meta), Message(role="user", content=[TextPart(text="and this?"), pdf])]
    request = Request(messages=messages, system="be kind", tools=[TOOL], max_tokens=99, **fields)
    target = Target(provider="p", dialect=name, model=model, base_url="http://h/v1")
    return json.loads(REGISTRY.dialect(name).build(request, target).body)


def check(kind: Any, value: Any) -> None:
    TypeAdapter(kind).validate_python(value)


def test_anthropic() -> None:
    types = pytest.importorskip("anthropic.types")
    for model, more in (
        ("claude-sonnet-4-5", {"reasoning": "low", "temperature": 1.0, "stop": ["x"]}),
        ("claude-opus-4-8", {"reasoning": "high", "output": OutputSchema(schema=SCHEMA)}),
        ("claude-opus-4-8", {"tool_choice": "add", "parallel_tool_calls": False}),
    ):
        found = body("anthropic", model, **more)
        for message in found["messages"]:
            for block in message["content"]:
                check(types.ContentBlockParam, block)
        check(types.ToolParam, found["tools"][0])
        if "thinking" in found:
            check(types.ThinkingConfigParam, found["thinking"])
        if "output_config" in found:
            check(types.OutputConfigParam, found["output_config"])
        if "tool_choice" in found:
            check(types.ToolChoiceParam, found["tool_choice"])


def test_gemini() -> None:
    types = pytest.importorskip("google.genai.types")
    found = body(
        "gemini",
        "gemini-2.5-flash",
        reasoning="low",
        tool_choice="add",
        output=OutputSchema(schema=SCHEMA),
        seed=1,
        stop=["x"],
    )
    for content in [*found["contents"], found["systemInstruction"]]:
        types.Content.model_validate(content)
    for tool in found["tools"]:
        types.Tool.model_validate(tool)
    types.ToolConfig.model_validate(found["toolConfig"])
    types.GenerationConfig.model_validate(found["generationConfig"])


def test_responses() -> None:
    types = pytest.importorskip("openai.types.responses")
    inputs = pytest.importorskip("openai.types.responses.response_input_item_param")
    found = body(
        "openai-responses",
        reasoning="low",
        tool_choice="add",
        output=OutputSchema(schema=SCHEMA),
        extra={"store": True},
    )
    check(types.FunctionToolParam, found["tools"][0])
    check(types.ToolChoiceFunctionParam, found["tool_choice"])
    check(types.ResponseTextConfigParam, found["text"])
    kinds = {
        "reasoning": types.ResponseReasoningItemParam,
        "function_call": types.ResponseFunctionToolCallParam,
        "function_call_output": inputs.FunctionCallOutput,
        "input_text": types.ResponseInputTextParam,
        "input_image": types.ResponseInputImageParam,
        "input_file": types.ResponseInputFileParam,
        "output_text": types.ResponseOutputTextParam,
    }
    for item in found["input"]:
        for value in item["content"] if "role" in item else [item]:
            check(kinds[value["type"]], value)


def test_interactions() -> None:
    types = pytest.importorskip("google.genai._gaos.types.interactions")
    found = body(
        "gemini-interactions",
        "gemini-3-flash-preview",
        reasoning="low",
        tool_choice="add",
        output=OutputSchema(schema=SCHEMA),
        seed=1,
    )
    types.CreateModelInteraction.model_validate(found)
