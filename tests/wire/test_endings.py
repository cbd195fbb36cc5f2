"""How a run ended, as the clients of every wire see it: outcome, reason and error in one table."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tokenwire.events import model as m
from tokenwire.events.fold import Fold
from tokenwire.events.reasons import OUTCOMES
from tokenwire.wire.a2a.encoder import A2AEncoder
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.anthropic.encoder import AnthropicEncoder, message_object
from tokenwire.wire.failure import fold_failure
from tokenwire.wire.langgraph.encoder import LangGraphEncoder
from tokenwire.wire.openai.chat import OpenAIChatEncoder, completion
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder, response_object
from tokenwire.wire.token_sse import TokenEncoder

WHOLE = ("stop", "tool_calls", "refusal", "other")
CUT = ("length", "content_filter", "context_overflow", "pause")
FAILED = ("error", "cancelled", "malformed_tool_call")
REASONS = (*WHOLE, *CUT, *FAILED, None)


def expected(outcome: str, reason: str | None, end_reason: str | None, error: bool) -> str:
    """What a client must be shown; written out, not taken from the code."""
    if outcome == "cancelled":
        return "cancelled"
    if outcome in ("error", "interrupted") or reason in FAILED:
        return "failed"
    if outcome == "complete":
        return "cut" if reason in CUT else "complete"
    assert outcome == "incomplete"
    if error:
        return "failed"
    return "cut" if end_reason == "max_steps" or reason in (*CUT, "refusal") else "failed"


def run_of(outcome: str, reason: str | None, end_reason: str | None, error: bool) -> list[Any]:
    events: list[Any] = [
        m.RunStart(run="run-of-the-test-1", time=1, model="m"),
        m.StepStart(step=1),
        m.TextStart(part=1),
        m.TextDelta(part=1, text="Hello"),
        m.TextEnd(part=1),
    ]
    if reason is not None:
        events.append(m.Finish(reason=reason, raw=f"raw-{reason}"))  # type: ignore[arg-type]
    if error:
        events.append(
            m.Error(scope="provider", code="overloaded", message="the provider is overloaded")
        )
    events.append(m.StepEnd(step=1, status="complete"))
    events.append(m.RunEnd(outcome=outcome, reason=end_reason))  # type: ignore[arg-type]
    for number, event in enumerate(events, 1):
        event.seq = number
    return events


def values(encoder: Any, events: list[Any]) -> list[tuple[str, Any]]:
    """(event name, data) of every block of the stream."""
    text = b"".join(encoder.encode(e, f"{e.seq}-{e.seq:016x}") for e in events).decode()
    blocks: list[tuple[str, Any]] = []
    for block in text.split("\n\n"):
        name, data = "", []
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
        if data or name:
            joined = "\n".join(data)
            blocks.append((name, json.loads(joined) if joined.startswith("{") else joined))
    return blocks


def chat(events: list[Any]) -> tuple[str, str | None]:
    last = values(OpenAIChatEncoder(), events)[-1][1]
    if "error" in last:
        code = last["error"]["code"]
        return ("cancelled" if code == "cancelled" else "failed"), code
    word = last["choices"][0]["finish_reason"]
    return ("cut" if word in ("length", "content_filter") else "complete"), None


def messages(events: list[Any]) -> tuple[str, str | None]:
    said = values(AnthropicEncoder(), events)
    if said[-1][0] == "error":
        assert not any(name == "message_stop" for name, _ in said)
        assert said[-1][1]["error"]["type"] in ("api_error", "overloaded_error")
        return ("cancelled" if events[-1].outcome == "cancelled" else "failed"), None
    word = next(v for name, v in said if name == "message_delta")["delta"]["stop_reason"]
    assert said[-1][0] == "message_stop"
    if word == "refusal":  # one word for a refusal and for a filter
        reason = next((e.reason for e in events if isinstance(e, m.Finish)), None)
        outcome = events[-1].outcome
        return ("complete" if reason == "refusal" and outcome == "complete" else "cut"), None
    cut = ("max_tokens", "model_context_window_exceeded", "pause_turn")
    return ("cut" if word in cut else "complete"), None


def responses(events: list[Any]) -> tuple[str, str | None]:
    name, value = values(OpenAIResponsesEncoder(), events)[-1]
    response = value["response"]
    if response["status"] == "cancelled":
        return "cancelled", "cancelled"
    if response["status"] == "failed":
        assert name == "response.failed"
        assert response["error"]["code"] == "server_error"
        return "failed", None
    kinds = {"completed": "complete", "incomplete": "cut"}
    assert name == f"response.{response['status']}"
    return kinds[response["status"]], None


def ui(events: list[Any]) -> tuple[str, str | None]:
    last = values(UIMessageEncoder(), events)[-1][1]
    if last["type"] == "abort":
        return "cancelled", "cancelled"
    if last["type"] == "error":
        return "failed", None
    word = last["finishReason"]
    facts = last["messageMetadata"]["tokenwire"]
    is_cut = word == "length" or facts["finishReason"] in CUT or facts["outcome"] == "incomplete"
    return ("cut" if is_cut else "complete"), None


def ag_ui(events: list[Any]) -> tuple[str, str | None]:
    last = values(AGUIEncoder(tanstack=True), events)[-1][1]
    if last["type"] == "RUN_ERROR":
        return "failed", last["code"]
    if last["outcome"]["type"] == "cancelled":
        return "cancelled", "cancelled"
    word = last["metadata"]["tanstack"]["finishReason"]
    reason = last["metadata"]["tokenwire"]["finishReason"]
    if reason == "refusal":  # one word for a refusal and for a filter
        assert word == "content_filter"
        return ("complete" if events[-1].outcome == "complete" else "cut"), None
    assert (word in ("length", "content_filter")) == (reason in CUT)
    return ("cut" if reason in CUT else "complete"), None


def token(events: list[Any]) -> tuple[str, str | None]:
    name, data = values(TokenEncoder("run-of-the-test-1"), events)[-1]
    if name == "error":
        return "failed", data["code"]
    assert name == "done"
    word = data["finish_reason"] if data else "stop"
    if word == "cancelled":
        return "cancelled", "cancelled"
    if word == "refusal":
        return ("complete" if events[-1].outcome == "complete" else "cut"), None
    return ("cut" if word in (*CUT, "max_steps") else "complete"), None


def a2a(events: list[Any]) -> tuple[str, str | None]:
    last = values(A2AEncoder(), events)[-1][1]["statusUpdate"]
    state = last["status"]["state"].removeprefix("TASK_STATE_")
    facts = last["metadata"]["tokenwire"]
    if state == "CANCELED":
        return "cancelled", "cancelled"
    if state == "REJECTED":
        assert facts["finishReason"] == "refusal"
        return ("complete" if events[-1].outcome == "complete" else "cut"), None
    if state == "COMPLETED":
        assert "error" not in facts
        return "complete", None
    # A task knows no answer that is not whole: it has failed, and says why.
    assert state == "FAILED"
    assert last["status"]["message"]["parts"][0]["text"]
    is_cut = facts["error"] in (*CUT, "max_steps")
    return ("cut", None) if is_cut else ("failed", facts["error"])


def langgraph(events: list[Any]) -> tuple[str, str | None]:
    frames = values(LangGraphEncoder(), events)
    name, last = frames[-1]
    assert [n for n, _ in frames].count(name) == 1
    if name == "error":
        if last["error"] == "UserInterrupt":
            return "cancelled", "cancelled"
        is_cut = last["error"] == "GraphRecursionError"
        return ("cut", None) if is_cut else ("failed", last["error"])
    assert name == "end"
    (said,) = (m for m in frames[-2][1]["messages"] if m["type"] == "ai")
    reason = said["response_metadata"].get("finish_reason")
    is_cut = reason in CUT or (reason == "refusal" and events[-1].outcome == "incomplete")
    return ("cut" if is_cut else "complete"), None


WIRES = {
    "a2a": a2a,
    "langgraph": langgraph,
    "chat": chat,
    "messages": messages,
    "responses": responses,
    "ui": ui,
    "ag-ui": ag_ui,
    "token": token,
}
CASES = [
    (outcome, reason, end_reason, error)
    for outcome in OUTCOMES
    for reason in REASONS
    for end_reason in (reason, "max_steps", "expired", None)
    for error in (False, True)
]


@pytest.mark.parametrize("wire", WIRES)
def test_every_ending_is_shown_as_what_it_is(wire: str) -> None:
    for case in CASES:
        kind, code = WIRES[wire](run_of(*case))
        assert kind == expected(*case), (wire, case)
        if kind == "failed" and code is not None:
            assert code == code_of(case), (wire, case)


def code_of(case: Any) -> str:
    outcome, reason, _, error = case
    if error:
        return "overloaded"
    return "provider_error" if reason in FAILED else outcome


def test_the_whole_answer_agrees_with_the_stream() -> None:
    for case in CASES:
        fold = Fold()
        for event in run_of(*case):
            fold.apply(event)
        want = expected(*case)
        failure = fold_failure(fold)
        assert (failure is not None) == (want in ("failed", "cancelled")), case
        kinds = {"completed": "complete", "incomplete": "cut"}
        status = response_object(fold)["status"]
        assert kinds.get(status, status) == want, case
        if failure is not None:
            assert failure.code == ("cancelled" if want == "cancelled" else code_of(case)), case
            continue
        word = completion(fold)["choices"][0]["finish_reason"]
        assert (word in ("length", "content_filter")) == (want == "cut"), case
        stop = message_object(fold)["stop_reason"]
        assert (stop == "end_turn") <= (want == "complete"), case


def test_the_message_names_the_provider_s_own_word() -> None:
    events = run_of("complete", "error", "error", False)
    last = values(OpenAIChatEncoder(), events)[-1][1]
    assert "raw-error" in last["error"]["message"]


def test_counts_that_no_provider_gave_are_absent_and_not_zero() -> None:
    events = [e for e in run_of("complete", "stop", None, False) if not isinstance(e, m.Usage)]
    fold = Fold()
    for event in events:
        fold.apply(event)
    assert completion(fold)["usage"] is None
    assert response_object(fold)["usage"] is None
    assert values(OpenAIResponsesEncoder(), events)[-1][1]["response"]["usage"] is None
    with_usage = values(OpenAIChatEncoder(include_usage=True), events)
    assert all(
        data["usage"] is None for _, data in with_usage if data != "[DONE]" and "usage" in data
    )
