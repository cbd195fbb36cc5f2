"""The openai and anthropic packages of Python against the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from support.node import MODELS, serving

TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"thing": {"type": "string"}},
    "required": ["thing"],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    # Many keep-alives: they must disturb nobody.
    with serving(heartbeat=0.05, model=MODELS) as server:
        yield server.url


@pytest.fixture
def gpt(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def asking(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


def test_openai_models(gpt: openai.OpenAI) -> None:
    assert [model.id for model in gpt.models.list()] == MODELS
    for name in MODELS:
        model = gpt.models.retrieve(name)
        assert (model.id, model.object) == (name, "model")
        assert model.owned_by != "unknown"
    for name in ("gpt-9", "demo/", "DEMO", "a/../demo", "%2e%2e"):
        with pytest.raises(openai.NotFoundError) as caught:
            gpt.models.retrieve(name)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
        assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize("scenario", ["text", "slow", "reasoning", "length", "refusal"])
def test_openai_chat(gpt: openai.OpenAI, scenario: str) -> None:
    messages = asking(f"scenario:{scenario}?rate=300")
    whole = gpt.chat.completions.create(model="demo", messages=messages)
    with gpt.chat.completions.stream(
        model="demo", messages=messages, stream_options={"include_usage": True}
    ) as stream:
        final = stream.get_final_completion() if scenario != "length" else None
    if final is None:
        chunks = gpt.chat.completions.create(model="demo", messages=messages, stream=True)
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
        assert [r for r in reasons if r] == ["length"]
        return
    one, other = whole.choices[0].message, final.choices[0].message
    assert (one.content or "", one.refusal) == (other.content or "", other.refusal)
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert final.usage is not None
    assert whole.usage is not None
    assert final.usage.completion_tokens == whole.usage.completion_tokens


def test_openai_chat_gives_one_choice_and_usage_to_whom_asks(gpt: openai.OpenAI) -> None:
    messages = asking("scenario:length")
    one = gpt.chat.completions.create(model="demo", messages=messages, n=1)
    assert (len(one.choices), one.choices[0].index, one.object) == (1, 0, "chat.completion")
    assert one.usage is not None
    assert one.usage.total_tokens == one.usage.prompt_tokens + one.usage.completion_tokens > 0
    plain = list(gpt.chat.completions.create(model="demo", messages=messages, stream=True))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in plain)
    assert len({chunk.id for chunk in plain}) == 1
    asked = gpt.chat.completions.create(
        model="demo", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    *before, last = asked
    assert all(chunk.usage is None for chunk in before)
    assert (last.choices, last.usage) == ([], one.usage)


def test_openai_chat_tools(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "locate", "parameters": TOOL_SCHEMA}}]
    messages = asking("Please locate the cat.")
    with gpt.chat.completions.stream(model="demo", messages=messages, tools=tools) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "locate"
    assert final.choices[0].finish_reason == "tool_calls"
    said: Any = final.choices[0].message.model_dump(exclude_none=True, exclude={"parsed"})
    for call in said["tool_calls"]:
        call["function"].pop("parsed_arguments", None)
    result = {"role": "tool", "tool_call_id": calls[0].id, "content": "in the garden"}
    second = gpt.chat.completions.create(
        model="demo", messages=[*messages, said, result], tools=tools
    )
    assert "garden" in (second.choices[0].message.content or "")
    forced = gpt.chat.completions.create(
        model="demo", messages=messages, tools=tools, tool_choice="none"
    )
    assert forced.choices[0].finish_reason == "stop"
    assert not forced.choices[0].message.tool_calls


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 9}, "temperature"),
        ({"extra_body": {"api_base": "http://x"}}, "api_base"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ],
)
def test_openai_chat_says_which_field_is_wrong(gpt: openai.OpenAI, wrong: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.chat.completions.create(**{"model": "demo", "messages": asking("x"), **wrong})
    assert (caught.value.type, caught.value.param) == ("invalid_request_error", param)
    assert caught.value.request_id


def test_openai_chat_error(gpt: openai.OpenAI) -> None:
    chunks = gpt.chat.completions.create(
        model="demo", messages=asking("scenario:error"), stream=True
    )
    with pytest.raises(openai.APIError):
        list(chunks)
    with pytest.raises(openai.InternalServerError):
        gpt.chat.completions.create(model="demo", messages=asking("scenario:error"))


def test_openai_responses(gpt: openai.OpenAI) -> None:
    with gpt.responses.stream(model="demo", input="scenario:reasoning") as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert final.status == "completed"
    assert final.output_text
    assert gpt.responses.retrieve(final.id).output_text == final.output_text


def test_openai_responses_tools_and_errors(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "name": "locate", "parameters": TOOL_SCHEMA}]
    first = gpt.responses.create(model="demo", input="Please locate the cat.", tools=tools)
    call = next(item for item in first.output if item.type == "function_call")
    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "a garden"}
    with gpt.responses.stream(
        model="demo", tools=tools, previous_response_id=first.id, input=[output]
    ) as stream:
        for _ in stream:
            pass
        second = stream.get_final_response()
    assert "garden" in second.output_text
    assert second.usage is not None
    assert second.usage.total_tokens == second.usage.input_tokens + second.usage.output_tokens > 0
    last = [*gpt.responses.create(model="demo", input="scenario:error", stream=True)][-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.status == "failed"
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve("resp_none")
    with pytest.raises(openai.BadRequestError) as caught:
        gpt.responses.create(model="demo", input="x", previous_response_id="resp_none")
    assert caught.value.param == "previous_response_id"


def test_openai_responses_background(gpt: openai.OpenAI) -> None:
    begun = gpt.responses.create(model="demo", input="scenario:slow", background=True)
    assert begun.status == "in_progress"
    seen: list[int] = []
    text = ""
    for event in gpt.responses.retrieve(begun.id, stream=True):
        seen.append(event.sequence_number)
        text += event.delta if event.type == "response.output_text.delta" else ""
    assert seen == list(range(len(seen)))
    assert gpt.responses.retrieve(begun.id).output_text == text
    middle = len(seen) // 2
    rest = gpt.responses.retrieve(begun.id, stream=True, starting_after=seen[middle])
    assert [e.sequence_number for e in rest] == seen[middle + 1 :]
    assert not list(gpt.responses.retrieve(begun.id, stream=True, starting_after=seen[-1]))
    gpt.responses.delete(begun.id)
    with pytest.raises(openai.NotFoundError):
        gpt.responses.retrieve(begun.id)
    stopped = gpt.responses.create(model="demo", input="scenario:stall", background=True)
    assert gpt.responses.cancel(stopped.id).status == "cancelled"


@pytest.mark.parametrize("scenario", ["text", "slow", "reasoning", "length", "refusal"])
def test_anthropic_messages(claude: anthropic.Anthropic, scenario: str) -> None:
    asked: Any = {
        "model": "demo",
        "max_tokens": 4000,
        "messages": asking(f"scenario:{scenario}?rate=300"),
    }
    whole = claude.messages.create(**asked)
    with claude.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    assert [b.to_dict() for b in final.content] == [b.to_dict() for b in whole.content]
    assert final.stop_reason == whole.stop_reason
    assert final.stop_reason == ("max_tokens" if scenario == "length" else final.stop_reason)
    assert final.usage.output_tokens == whole.usage.output_tokens > 0


def test_anthropic_tools(claude: anthropic.Anthropic) -> None:
    tools: Any = [{"name": "locate", "input_schema": TOOL_SCHEMA}]
    messages = asking("Please locate the cat.")
    with claude.messages.stream(
        model="demo", max_tokens=400, messages=messages, tools=tools
    ) as stream:
        first = stream.get_final_message()
    call = next(b for b in first.content if b.type == "tool_use")
    assert first.stop_reason == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "in the garden"}
    more: Any = [
        *messages,
        {"role": "assistant", "content": [b.to_dict() for b in first.content]},
        {"role": "user", "content": [result]},
    ]
    second = claude.messages.create(model="demo", max_tokens=400, messages=more, tools=tools)
    assert "garden" in "".join(b.text for b in second.content if b.type == "text")


def test_anthropic_errors(claude: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError),
        claude.messages.stream(
            model="demo", max_tokens=400, messages=asking("scenario:error")
        ) as stream,
    ):
        stream.get_final_message()
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="nothing", max_tokens=10, messages=asking("x"))
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["error"]["type"] == "not_found_error"
    assert caught.value.request_id == body["request_id"]
