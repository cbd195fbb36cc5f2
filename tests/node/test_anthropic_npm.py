"""The @anthropic-ai/sdk package of npm against the server's ``POST /v1/messages``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.node import need_node, run_node, serving

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving(heartbeat=0.05) as server:  # many pings: they must disturb nobody
        yield server.url


def client(url: str, case: str, prompt: str) -> Any:
    return run_node("anthropic.mjs", url, case, prompt)


def without_ids(message: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in message.items() if k not in ("id", "parsed_output")}


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [("text", "end_turn"), ("length", "max_tokens"), ("refusal", "refusal"), ("empty", "end_turn")],
)
def test_a_stream_gives_what_is_answered_whole(url: str, scenario: str, reason: str) -> None:
    told = client(url, "stream", f"scenario:{scenario}?rate=300")
    assert without_ids(told["message"]) == without_ids(told["whole"])
    assert told["message"]["stop_reason"] == reason
    texts = [b["text"] for b in told["message"]["content"] if b["type"] == "text"]
    assert told["heard"]["text"] == "".join(texts)
    assert bool(texts) == (scenario != "empty")
    assert (told["seen"][0], told["seen"][-1]) == ("message_start", "message_stop")
    assert told["message"]["usage"]["input_tokens"] > 0
    assert (told["message"]["usage"]["output_tokens"] > 0) == (scenario != "empty")


def test_the_events_are_numbered_and_closed(url: str) -> None:
    events = client(url, "raw", "scenario:reasoning")["events"]
    opened = [e["index"] for e in events if e["type"] == "content_block_start"]
    stopped = [e["index"] for e in events if e["type"] == "content_block_stop"]
    assert opened == stopped == [0, 1]
    assert [e["type"] for e in events].count("message_stop") == 1


def test_thinking_is_shown_and_goes_back(url: str) -> None:
    told = client(url, "thinking", "scenario:reasoning")
    first = told["first"]
    thinking, text = first["message"]["content"]
    assert (thinking["type"], text["type"]) == ("thinking", "text")
    assert first["heard"]["thinking"] == thinking["thinking"] != ""
    assert first["heard"]["text"] == text["text"]
    assert told["second"]["stop_reason"] == "end_turn"


def test_tools_and_their_results(url: str) -> None:
    told = client(url, "tools", "Please locate the cat.")
    assert told["first"]["message"]["stop_reason"] == "tool_use"
    assert told["call"]["name"] == "locate"
    assert set(told["call"]["input"]) == {"thing"}
    assert told["first"]["heard"]["json"].replace(" ", "").startswith('{"thing":')
    second = told["second"]["message"]
    assert second["stop_reason"] == "end_turn"
    assert "garden" in second["content"][0]["text"]


def test_bad_requests_have_the_packages_own_errors(url: str) -> None:
    told = client(url, "errors", "x")
    wanted = {
        "model": ("NotFoundError", 404, "not_found_error"),
        "stream": ("NotFoundError", 404, "not_found_error"),
        "role": ("BadRequestError", 400, "invalid_request_error"),
        "tokens": ("BadRequestError", 400, "invalid_request_error"),
        "unknown": ("BadRequestError", 400, "invalid_request_error"),
        "many": ("ContentTooLargeError", 413, "request_too_large"),
    }
    for name, (kind, status, code) in wanted.items():
        error = told[name]["error"]
        assert (error["name"], error["status"], error["type"]) == (kind, status, code), name
        assert error["body"]["type"] == "error"
        assert error["request"] == error["body"]["request_id"]


def test_without_a_key_it_is_an_authentication_error() -> None:
    need_node()
    with serving(api_keys=["a:the-long-key-of-a"]) as server:
        error = client(server.url, "key", "x")["none"]["error"]
    assert (error["name"], error["type"]) == ("AuthenticationError", "authentication_error")


@pytest.mark.parametrize("scenario", ["error", "cut"])
def test_a_broken_answer_is_an_error(url: str, scenario: str) -> None:
    told = client(url, "broken", f"scenario:{scenario}")
    kind = "overloaded_error" if scenario == "error" else "api_error"
    assert told["streamed"]["error"]["type"] == told["whole"]["error"]["type"] == kind
    assert told["whole"]["error"]["status"] == (503 if scenario == "error" else 502)


def test_a_cut_connection_is_never_a_whole_message(url: str) -> None:
    told = client(url, "cut", "scenario:slow?rate=90")
    for how in ("reset", "end"):
        assert told[how]["count"] > 1
        assert told[how]["last"] != "message_stop"
        assert told[how]["helper"]["error"]["name"] == "AnthropicError", how
    # The package's plain iteration takes a clean end for the end; that is why we never end a
    # stream cleanly before message_stop.
    assert told["reset"]["outcome"]["error"]["name"] == "TypeError"


def test_the_same_request_and_the_last_id_give_the_rest(url: str) -> None:
    told = client(url, "resume", "scenario:slow?rate=90")
    assert told["failed"]["error"]["name"] == "AnthropicError"
    whole = told["whole"]["content"][0]["text"]
    assert 0 < len(told["before"]) < len(whole)
    assert told["before"] + told["rest"]["heard"]["text"] == whole
    assert told["rest"]["message"]["stop_reason"] == "end_turn"
    assert told["rest"]["message"]["usage"] == told["whole"]["usage"]


def test_an_abort_stops_only_the_reader(url: str) -> None:
    told = client(url, "abort", "scenario:slow")
    assert told["outcome"]["error"]["name"] == "APIUserAbortError"


def test_effort_and_a_schema_are_passed_on(url: str) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    body = {
        "model": "demo",
        "max_tokens": 400,
        "messages": [{"role": "user", "content": "scenario:object"}],
        "output_config": {"effort": "max", "format": {"type": "json_schema", "schema": schema}},
    }
    answer = httpx.post(f"{url}/v1/messages", json=body, timeout=30).json()
    assert answer["content"][-1]["text"].startswith('{"name":')
    for wrong in (
        {"output_config": {"effort": "much"}},
        {"output_config": {"format": {"type": "xml"}}},
        {"thinking": {"type": "enabled"}},
        {"thinking": {"type": "sometimes"}},
    ):
        refused = httpx.post(f"{url}/v1/messages", json={**body, **wrong}, timeout=30)
        assert refused.status_code == 400, wrong
        assert refused.json()["error"]["type"] == "invalid_request_error"
