"""What is asked of a Chat Completions server, with and without its quirks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenwire.errors import InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    OpaquePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    user,
)
from tokenwire.events.request import OutputSchema, Request, ToolSpec
from tokenwire.providers.base import Target
from tokenwire.providers.compatible import PROVIDERS
from tokenwire.providers.history import NO_RESULT
from tokenwire.providers.openai.chat import DIALECT


def target(*quirks: str, **more: Any) -> Target:
    return Target(
        provider="p",
        dialect="openai-chat",
        model="m",
        base_url="http://h/v1",
        quirks=frozenset(quirks),
        **more,
    )


def body(request: Request, *quirks: str) -> dict[str, Any]:
    return json.loads(DIALECT.build(request, target(*quirks)).body)


def messages(*given: Message, quirks: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    return body(Request(messages=list(given)), *quirks)["messages"]


def test_the_whole_call() -> None:
    call = DIALECT.build(
        Request(messages=[user("hi")]), target(api_key="k", headers={"X-Team": "blue"})
    )
    assert (call.method, call.url) == ("POST", "http://h/v1/chat/completions")
    assert call.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "authorization": "Bearer k",
        "x-team": "blue",
    }
    assert json.loads(call.body) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_setting_has_its_field() -> None:
    request = Request(
        messages=[user("hi")],
        system="be brief",
        temperature=0.5,
        top_p=0.9,
        max_tokens=7,
        stop=["x"],
        seed=3,
        tools=[
            ToolSpec(name="f", description="d", strict=True),
            ToolSpec(name="", native={"t": 1}),
        ],
        tool_choice="f",
        parallel_tool_calls=False,
        output=OutputSchema(schema={"type": "object"}),
        reasoning="low",
        extra={"top_k": 5, "seed": 4},
    )
    found = body(request)
    assert found["messages"][0] == {"role": "system", "content": "be brief"}
    assert (found["temperature"], found["top_p"], found["max_tokens"]) == (0.5, 0.9, 7)
    assert (found["stop"], found["seed"], found["top_k"]) == (["x"], 4, 5)
    assert found["tools"][0]["function"] == {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {}},
        "strict": True,
    }
    assert found["tools"][1] == {"t": 1}
    assert found["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert found["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert (found["parallel_tool_calls"], found["reasoning_effort"]) == (False, "low")


def test_quirks_rename_and_leave_out() -> None:
    request = Request(
        messages=[user("hi")],
        system="s",
        max_tokens=7,
        seed=3,
        tool_choice="required",
        output=OutputSchema(schema={}),
        reasoning=2000,
    )
    found = body(
        request,
        *"max_completion_tokens no_stream_options random_seed tool_choice_any".split(),
        *"json_object_only reasoning_object developer_role".split(),
    )
    assert found["max_completion_tokens"] == 7
    assert found["random_seed"] == 3
    assert found["tool_choice"] == "any"
    assert found["response_format"] == {"type": "json_object"}
    assert found["reasoning"] == {"max_tokens": 2000}
    assert found["messages"][0]["role"] == "developer"
    assert not {"stream_options", "seed", "max_tokens"} & set(found)
    headers = DIALECT.build(
        request, target("api_key_header", "reasoning_object", api_key="k")
    ).headers
    assert headers["api-key"] == "k"
    assert "authorization" not in headers


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(0, "none"), (1024, "low"), (4095, "low"), (4096, "medium"), (16_384, "high")],
)
def test_a_budget_becomes_an_effort_where_only_that_can_be_said(budget: int, effort: str) -> None:
    asked = Request(messages=[user("x")], reasoning=budget)
    assert body(asked)["reasoning_effort"] == effort


def test_a_wrong_effort_is_refused() -> None:
    with pytest.raises(InputError, match="one of"):
        body(Request(messages=[user("x")], reasoning="much"))


def test_images_sounds_and_files() -> None:
    parts = [
        TextPart(text="look"),
        FilePart(media_type="image/png", data="AAAA"),
        FilePart(media_type="image/jpeg", url="https://h/i.jpg"),
        FilePart(media_type="audio/wav", data="BBBB"),
        FilePart(media_type="application/pdf", data="CCCC", name="a.pdf"),
        OpaquePart(payload={"type": "new"}),
    ]
    (found,) = messages(Message(role="user", content=parts))
    assert found["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://h/i.jpg"}},
        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
        {
            "type": "file",
            "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,CCCC"},
        },
        {"type": "new"},
    ]
    with pytest.raises(InputError, match="as data only"):
        messages(Message(role="user", content=[FilePart(media_type="a/b", url="http://h")]))
    with pytest.raises(InputError, match="'refusal'"):
        messages(Message(role="user", content=[RefusalPart(text="no")]))


CALLED = Message(
    role="assistant",
    content=[
        ReasoningPart(
            text="hm",
            signature="S",
            meta={"openai-chat": {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}},
        ),
        TextPart(text="I look."),
        ToolCallPart(call_id="call_1", name="f", arguments='{"a": 1}', signature="T"),
        ToolCallPart(call_id="call_2", name="g", arguments='{"b"', status="truncated"),
        ToolResultPart(call_id="call_1", content={"ok": True}, name="f"),
    ],
)


def test_a_turn_with_tools_goes_back_as_it_came() -> None:
    first, result = messages(CALLED)
    assert first == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "f", "arguments": '{"a": 1}'},
                "extra_content": {"google": {"thought_signature": "T"}},
            }
        ],
    }
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": '{"ok":true}'}


def test_reasoning_goes_back_where_the_server_demands_it() -> None:
    assert messages(CALLED, quirks=("reasoning_content",))[0]["reasoning_content"] == "hm"
    details = messages(CALLED, quirks=("reasoning_details",))[0]["reasoning_details"]
    assert details == [{"type": "reasoning.text", "text": "hm"}]
    encrypted = Message(role="assistant", content=[ReasoningPart(encrypted="E")])
    assert messages(encrypted, quirks=("reasoning_details",))[0]["reasoning_details"] == [
        {"type": "reasoning.encrypted", "data": "E"}
    ]


def test_long_ids_are_mapped_alike_on_both_sides_for_who_wants_short_ones() -> None:
    first, result = messages(CALLED, quirks=("short_call_ids", "tool_result_name"))
    short = first["tool_calls"][0]["id"]
    assert len(short) == 9
    assert short.isalnum()
    assert (result["tool_call_id"], result["name"]) == (short, "f")


def test_tool_results_of_their_own_message_and_free_form_calls() -> None:
    given = Message(role="tool", content=[ToolResultPart(call_id="c", content="text")])
    assert messages(given) == [{"role": "tool", "tool_call_id": "c", "content": "text"}]
    call = ToolCallPart(call_id="c", name="f", arguments="x y", format="text")
    found, unanswered = messages(Message(role="assistant", content=[call]))
    assert found["content"] is None
    assert unanswered == {"role": "tool", "tool_call_id": "c", "content": NO_RESULT}
    assert found["tool_calls"][0]["custom"] == {"name": "f", "input": "x y"}
    (refused,) = messages(Message(role="assistant", content=[RefusalPart(text="no")]))
    assert refused == {"role": "assistant", "content": None, "refusal": "no"}


def test_the_same_request_gives_the_same_bytes_for_every_provider() -> None:
    request = Request(messages=[user("hi"), CALLED], max_tokens=5, seed=1)
    for provider in PROVIDERS.values():
        if provider.dialect == "openai-chat":
            there = target(*provider.quirks)
            assert DIALECT.build(request, there) == DIALECT.build(request, there)
