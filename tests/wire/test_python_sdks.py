"""The openai and anthropic packages of Python against the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from node_support import serving

TOOL_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"thing": {"type": "string"}},
    "required": ["thing"],
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(heartbeat=0.05) as server:  # many keep-alives: they must disturb nobody
        yield server.url


@pytest.fixture
def gpt(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)


@pytest.fixture
def claude(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0)


def asking(prompt: str) -> Any:
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("scenario", ["text", "slow", "reasoning", "length", "refusal"])
def test_openai_chat(gpt: openai.OpenAI, scenario: str) -> None:
    messages = asking(f"scenario:{scenario}")
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


def test_openai_chat_tools(gpt: openai.OpenAI) -> None:
    tools: Any = [{"type": "function", "function": {"name": "locate", "parameters": TOOL_SCHEMA}}]
    with gpt.chat.completions.stream(
        model="demo", messages=asking("Please locate the cat."), tools=tools
    ) as stream:
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "locate"
    assert final.choices[0].finish_reason == "tool_calls"


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


@pytest.mark.parametrize("scenario", ["text", "slow", "reasoning", "length", "refusal"])
def test_anthropic_messages(claude: anthropic.Anthropic, scenario: str) -> None:
    asked: Any = {
        "model": "demo",
        "max_tokens": 4000,
        "messages": asking(f"scenario:{scenario}"),
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
