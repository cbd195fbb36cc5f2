"""The openai package of npm against the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.node import MODELS, need_node, run_node, serving

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving(model=MODELS) as server:
        yield server.url


@pytest.mark.parametrize("scenario", ["text", "reasoning", "length", "refusal"])
def test_chat_streams_what_it_answers_whole(url: str, scenario: str) -> None:
    told = run_node("openai.mjs", url, "chat", f"scenario:{scenario}?rate=300")
    whole, streamed = told["whole"], told["streamed"]
    one, other = whole["choices"][0], streamed["choices"][0]
    assert (one["message"]["content"] or "") == (other["message"]["content"] or "")
    assert (one["message"]["refusal"] or "") == (other["message"].get("refusal") or "")
    assert one["finish_reason"] == other["finish_reason"]
    assert one["finish_reason"] == ("length" if scenario == "length" else "stop")
    assert whole["usage"]["completion_tokens"] == streamed["usage"]["completion_tokens"] > 0


def test_chat_gives_the_callers_tools_back(url: str) -> None:
    told = run_node("openai.mjs", url, "chat_tools", "Please locate the cat.")
    first = told["first"]["choices"][0]
    assert first["finish_reason"] == "tool_calls"
    assert first["message"]["tool_calls"][0]["function"]["name"] == "locate"
    assert "garden" in told["second"]["choices"][0]["message"]["content"]


@pytest.mark.parametrize("scenario", ["error", "cut"])
def test_a_broken_answer_is_an_error(url: str, scenario: str) -> None:
    told = run_node("openai.mjs", url, "chat_error", f"scenario:{scenario}")
    assert told["error"]["message"]


def test_bad_requests_have_the_packages_own_errors(url: str) -> None:
    told = run_node("openai.mjs", url, "bad", "x")
    assert told["model"]["error"]["code"] == "model_not_found"
    assert told["model"]["error"]["name"] == "NotFoundError"
    for name in ("role", "n", "unknown"):
        assert told[name]["error"]["name"] == "BadRequestError", name
        assert told[name]["error"]["type"] == "invalid_request_error", name
    assert told["response"]["error"]["name"] == "NotFoundError"


@pytest.mark.parametrize("scenario", ["text", "reasoning"])
def test_responses_stream_what_they_answer_whole(url: str, scenario: str) -> None:
    told = run_node("openai.mjs", url, "responses", f"scenario:{scenario}?rate=300")
    assert told["types"][0] == "response.created"
    assert told["types"][-1] == "response.completed"
    streamed, whole = told["streamed"]["output"][-1], told["whole"]["output"][-1]
    assert streamed["content"][0]["text"] == whole["content"][0]["text"] == told["text"]
    assert [i["id"] for i in told["again"]["output"]] == [
        i["id"] for i in told["streamed"]["output"]
    ]
    assert told["again"]["usage"] == told["streamed"]["usage"]


def test_models_are_listed_and_found(url: str) -> None:
    told = run_node("openai.mjs", url, "models", "x")
    assert told["listed"] == told["found"] == MODELS
    for failed in told["missing"]:
        assert failed["error"]["name"] == "NotFoundError"
        assert failed["error"]["code"] == "model_not_found"


def test_responses_go_on_from_the_response_before(url: str) -> None:
    told = run_node("openai.mjs", url, "responses_tools", "Please locate the cat.")
    assert told["first"]["status"] == "completed"
    assert "garden" in told["text"]


def test_a_background_response_is_read_on_after_a_break(url: str) -> None:
    told = run_node("openai.mjs", url, "background", "scenario:slow")
    assert told["text"] == told["output"]
    assert len(told["before"]) < len(told["text"])
    assert told["numbers"] == list(range(told["last"] + 1, told["last"] + 1 + len(told["numbers"])))


def test_a_background_response_is_cancelled(url: str) -> None:
    told = run_node("openai.mjs", url, "cancel", "scenario:slow")
    assert told["begun"]["status"] == "in_progress"
    assert told["cancelled"]["status"] == "cancelled"
