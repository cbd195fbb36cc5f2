"""A conversation with tools goes to every provider: each call with its result, in its place."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import InputError
from tokenwire.events.message import (
    Message,
    Part,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    assistant,
    user,
)
from tokenwire.events.request import Request, ToolSpec
from tokenwire.providers.base import Target
from tokenwire.providers.history import NO_RESULT, call_id_for
from tokenwire.providers.registry import DIALECTS, Registry

REGISTRY = Registry(env={})
NAMES = sorted(set(DIALECTS) - {"completions"})
#: What a wire tells, in its order: ("text", text), ("call", id, name, arguments), ("result", id,
#: content). A wire without ids numbers its calls.
Told = list[tuple[Any, ...]]


# --- what each wire says, read back --------------------------------------------------------------


def chat(body: dict[str, Any]) -> Told:
    told: Told = []
    for message in body["messages"]:
        if message["role"] == "tool":
            told.append(("result", message["tool_call_id"], message["content"]))
            continue
        if message.get("content"):
            told.append(("text", message["content"]))
        for call in message.get("tool_calls") or []:
            function = call["function"]
            told.append(("call", call["id"], function["name"], json.loads(function["arguments"])))
    return told


def responses(body: dict[str, Any]) -> Told:
    told: Told = []
    for item in body["input"]:
        if item.get("type") == "function_call":
            told.append(("call", item["call_id"], item["name"], json.loads(item["arguments"])))
        elif item.get("type") == "function_call_output":
            told.append(("result", item["call_id"], item["output"]))
        else:
            told.extend(("text", c["text"]) for c in item["content"])
    return told


def anthropic(body: dict[str, Any]) -> Told:
    told: Told = []
    roles = [m["role"] for m in body["messages"]]
    assert all(a != b for a, b in itertools.pairwise(roles))
    for message in body["messages"]:
        kinds = [b["type"] for b in message["content"]]
        if message["role"] == "assistant":
            assert kinds == sorted(kinds, key=lambda kind: kind == "tool_use")
        else:
            assert kinds == sorted(kinds, key=lambda kind: kind != "tool_result")
        for block in message["content"]:
            if block["type"] == "tool_use":
                told.append(("call", block["id"], block["name"], block["input"]))
            elif block["type"] == "tool_result":
                told.append(("result", block["tool_use_id"], block["content"]))
            else:
                told.append(("text", block["text"]))
    return told


def converse(body: dict[str, Any]) -> Told:
    told: Told = []
    for message in body["messages"]:
        for block in message["content"]:
            if "toolUse" in block:
                call = block["toolUse"]
                told.append(("call", call["toolUseId"], call["name"], call["input"]))
            elif "toolResult" in block:
                result = block["toolResult"]
                (content,) = result["content"]
                assert content.get("text") != ""
                given = content["json"] if "json" in content else content["text"]
                told.append(("result", result["toolUseId"], given))
            else:
                told.append(("text", block["text"]))
    if any(kind == "call" for kind, *_ in told):
        assert body["toolConfig"]["tools"]
    return told


def interactions(body: dict[str, Any]) -> Told:
    told: Told = []
    for item in body["input"]:
        if item["type"] == "function_call":
            told.append(("call", item["id"], item["name"], item["arguments"]))
        elif item["type"] == "function_result":
            told.append(("result", item["call_id"], item["result"]))
        else:
            told.extend(("text", c["text"]) for c in item["content"])
    return told


def gemini(body: dict[str, Any]) -> Told:
    """Results answer calls by their order and name; every turn answers the one before."""
    told: Told = []
    open_calls: list[tuple[int, str]] = []
    count = 0
    for content in body["contents"]:
        for part in content["parts"]:
            if "functionCall" in part:
                call = part["functionCall"]
                told.append(("call", count, call["name"], call["args"]))
                open_calls.append((count, call["name"]))
                count += 1
            elif "functionResponse" in part:
                number, name = open_calls.pop(0)
                assert part["functionResponse"]["name"] == name
                told.append(("result", number, part["functionResponse"]["response"]))
            else:
                told.append(("text", part["text"]))
        if content["role"] == "user":
            assert not open_calls
    return told


def ollama(body: dict[str, Any]) -> Told:
    told: Told = []
    open_calls: list[tuple[int, str]] = []
    count = 0
    for message in body["messages"]:
        if message["role"] == "tool":
            number, name = open_calls.pop(0)
            assert message["tool_name"] == name
            told.append(("result", number, message["content"]))
            continue
        assert not open_calls
        if message["content"]:
            told.append(("text", message["content"]))
        for call in message.get("tool_calls") or []:
            function = call["function"]
            told.append(("call", count, function["name"], function["arguments"]))
            open_calls.append((count, function["name"]))
            count += 1
    return told


def cohere(body: dict[str, Any]) -> Told:
    told: Told = []
    for message in body["messages"]:
        content = message.get("content")
        if message["role"] == "tool":
            told.append(("result", message["tool_call_id"], content))
            continue
        told.extend(("text", c["text"]) for c in content or [])
        for call in message.get("tool_calls") or []:
            function = call["function"]
            told.append(("call", call["id"], function["name"], json.loads(function["arguments"])))
    return told


READERS: dict[str, Callable[[dict[str, Any]], Told]] = {
    "openai-chat": chat,
    "openai-responses": responses,
    "anthropic": anthropic,
    "bedrock-converse": converse,
    "gemini": gemini,
    "gemini-interactions": interactions,
    "ollama": ollama,
    "cohere": cohere,
}


def test_every_dialect_with_tools_is_here() -> None:
    assert sorted(READERS) == NAMES


# --- conversations -------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | WORDS | st.just(""),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def conversations(draw: Any) -> list[Message]:
    """Turns of a user and a model that calls tools: results in any order, some calls broken
    (answered with an error), some never answered, ids of any provider."""
    found: list[Message] = []
    number = 0
    for _ in range(draw(st.integers(1, 3))):
        found.append(user(draw(WORDS)))
        for _ in range(draw(st.integers(0, 2))):
            parts: list[Part] = []
            results: list[Part] = []
            for kind in draw(st.lists(st.sampled_from(["text", "call"]), min_size=1, max_size=4)):
                if kind == "text":
                    parts.append(TextPart(text=draw(WORDS)))
                    continue
                number += 1
                call_id = draw(st.sampled_from(["call_", "toolu-", "functions.f:", "ü "]))
                call, result = _call(draw, f"{call_id}{number}")
                parts.append(call)
                results += [result] if result is not None else []
            found.append(Message(role="assistant", content=parts))
            if results:
                found.append(Message(role="tool", content=draw(st.permutations(results))))
    return [*found, user("go on")]


#: Wires whose providers reject a block of white space: it is left out.
NO_BLANKS = {"anthropic", "gemini", "gemini-interactions", "bedrock-converse"}


def _call(draw: Any, call_id: str) -> tuple[ToolCallPart, ToolResultPart | None]:
    name = draw(st.sampled_from(["f", "get_weather"]))
    arguments = json.dumps(draw(st.dictionaries(WORDS, JSON, max_size=2)))
    if draw(st.integers(0, 5)) == 0:
        broken = ToolCallPart(call_id=call_id, name=name, arguments='{"n":', status="invalid")
        return broken, ToolResultPart(call_id=call_id, name=name, content="bad", is_error=True)
    call = ToolCallPart(call_id=call_id, name=name, arguments=arguments)
    if draw(st.integers(0, 5)) == 0:
        return call, None
    return call, ToolResultPart(call_id=call_id, name=name, content=draw(JSON))


def told_of(name: str, request: Request) -> Told:
    dialect = REGISTRY.dialect(name)
    target = Target(provider="p", dialect=name, model="m", base_url="http://h/v1")
    data = dialect.build(request, target).body
    assert data == dialect.build(request, target).body
    return READERS[name](json.loads(data))


TOOLS = [ToolSpec(name=name, parameters={"type": "object"}) for name in ("f", "get_weather")]


@pytest.mark.parametrize("name", NAMES)
@given(messages=conversations(), tools=st.booleans())
def test_each_call_has_one_result_after_it_and_before_the_next_turn(
    name: str, messages: list[Message], tools: bool
) -> None:
    told = told_of(name, Request(messages=messages, tools=TOOLS if tools else None))
    made = [p for m in messages for p in m.tool_calls]
    calls = [entry for entry in told if entry[0] == "call"]
    assert [c[2] for c in calls] == [p.name for p in made]
    assert [c[3] for c in calls] == [
        json.loads(p.arguments) if p.status == "complete" else {"invalid_json": p.arguments}
        for p in made
    ]
    waiting: list[Any] = []
    for kind, key, *_ in told:
        if kind == "call":
            assert key not in waiting
            waiting.append(key)
        elif kind == "result":
            waiting.remove(key)
    assert waiting == []
    texts = "".join(entry[1] for entry in told if entry[0] == "text")
    parts = [p.text for m in messages for p in m.parts if isinstance(p, TextPart)]
    assert texts == "".join(t for t in parts if name not in NO_BLANKS or t.strip())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"gemini", "ollama"}))
@given(messages=conversations())
def test_results_go_to_the_calls_that_they_answer(name: str, messages: list[Message]) -> None:
    results = {key: content for kind, key, content in told_results(name, messages)}
    mapped = name not in ("openai-chat", "cohere", "gemini-interactions")
    given_results = {
        p.call_id: p.content for m in messages for p in m.parts if isinstance(p, ToolResultPart)
    }
    for message in messages:
        for call in message.tool_calls:
            shown = results[call_id_for(call.call_id) if mapped else call.call_id]
            content = given_results.get(call.call_id, NO_RESULT)
            text = content if isinstance(content, str) else json.dumps(content)
            same = shown == content or json_or_text(shown) == json_or_text(text)
            assert same or (text.strip(), shown) == ("", "(nothing)")


def told_results(name: str, messages: list[Message]) -> Told:
    return [e for e in told_of(name, Request(messages=messages, tools=TOOLS)) if e[0] == "result"]


def json_or_text(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


# --- what single wires demand --------------------------------------------------------------------

TALK = [
    user("Weather?"),
    Message(
        role="assistant",
        content=[
            TextPart(text="Let me look."),
            ToolCallPart(call_id="c1", name="f"),
            TextPart(text="A moment."),
        ],
    ),
    Message(role="tool", content=[ToolResultPart(call_id="c1", name="f", content="")]),
    assistant("Sunny."),
    user("Thanks"),
]


def body_of(name: str, **options: Any) -> dict[str, Any]:
    target = Target(provider="p", dialect=name, model="m", base_url="http://h/v1")
    request = Request(messages=TALK, **options)
    return json.loads(REGISTRY.dialect(name).build(request, target).body)


def test_claude_gets_calls_last_and_results_first() -> None:
    for name, kind in (("anthropic", "type"), ("bedrock-converse", None)):
        blocks = body_of(name)["messages"][1]["content"]
        last = blocks[-1]
        assert "toolUse" in last if kind is None else last["type"] == "tool_use"
        assert [b["text"] for b in blocks[:-1]] == ["Let me look.", "A moment."]
    mixed = Message(role="user", content=[TextPart(text="x"), ToolResultPart(call_id="c1")])
    talk = [*TALK[:2], mixed]
    target = Target(provider="p", dialect="anthropic", model="m", base_url="http://h/v1")
    built = REGISTRY.dialect("anthropic").build(Request(messages=talk), target)
    kinds = [b["type"] for b in json.loads(built.body)["messages"][2]["content"]]
    assert kinds == ["tool_result", "text"]


@pytest.mark.parametrize("choice", [None, "none"])
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_converse_always_gets_tools_with_calls(choice: str | None, tools: Any) -> None:
    config = body_of("bedrock-converse", tools=tools, tool_choice=choice)["toolConfig"]
    assert "toolChoice" not in config
    assert config["tools"][0]["toolSpec"]["name"] == "f"


def test_a_tool_that_cohere_must_call_is_the_only_one() -> None:
    found = body_of("cohere", tools=TOOLS, tool_choice="get_weather")
    assert [t["function"]["name"] for t in found["tools"]] == ["get_weather"]
    assert found["tool_choice"] == "REQUIRED"
    with pytest.raises(InputError, match="no tool has that name"):
        body_of("cohere", tools=TOOLS, tool_choice="fly")
