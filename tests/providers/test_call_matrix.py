"""Tool calls that may be whole or cut, and calls that come again: on every wire only what is known
to be a whole call is complete, and none is complete twice."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.answers import ANSWERS, calls_of, chunk, events_of, status_of
from support.order import in_order
from tokenwire.providers.registry import Registry
from tokenwire.providers.summary import facts
from tokenwire.run.tool_phase import calls_of as runnable_calls

WHOLE, NONE = [("f", {}, "complete")], None


def chat(arguments: str | None, reason: Any) -> list[Any]:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}
    return [chunk({"tool_calls": [call]}), chunk(reason=reason), "[DONE]"]


def responses(arguments: str | None, reason: Any) -> list[Any]:
    item = {"type": "function_call", "id": "i", "call_id": "a", "name": "f"}
    item |= {} if arguments is None else {"arguments": arguments}
    end = {"id": "r", "status": "completed"}
    if reason is not None:
        end = {"id": "r", "status": "incomplete", "incomplete_details": {"reason": reason}}
    return [
        {"type": "response.created", "response": {"id": "r"}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{end['status']}", "response": end},
    ]


def messages(arguments: str | None, reason: Any) -> list[Any]:
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": arguments or ""}
    end = {"type": "message_delta", "delta": {"stop_reason": reason}}
    return [
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *([] if arguments is None else [{**DELTA, "delta": delta}]),
        {"type": "content_block_stop", "index": 0},
        *([] if reason is None else [end]),
        {"type": "message_stop"},
    ]


DELTA = {"type": "content_block_delta", "index": 0}


def gemini(arguments: str | None, reason: Any) -> list[Any]:
    call = {"name": "f"} if arguments is None else {"name": "f", "args": json.loads(arguments)}
    return [
        {"candidates": [{"content": {"parts": [{"functionCall": call}]}}]},
        {"candidates": [{"finishReason": reason}]},
    ]


def interactions(arguments: str | None, reason: Any) -> list[Any]:
    step = {"type": "function_call", "id": "a", "name": "f"}
    step |= {} if arguments is None else {"arguments": json.loads(arguments)}
    return [
        {"event_type": "step.start", "index": 0, "step": step},
        {"event_type": "step.stop", "index": 0},
        {"event_type": "interaction.completed", "interaction": {"id": "i", "status": reason}},
    ]


def ollama(arguments: str | None, reason: Any) -> list[Any]:
    function = {"name": "f"} | ({} if arguments is None else {"arguments": json.loads(arguments)})
    return [
        {"model": "m", "message": {"tool_calls": [{"function": function}]}, "done": False},
        {"model": "m", "message": {"content": ""}, "done": True, "done_reason": reason},
    ]


def cohere(arguments: str | None, reason: Any) -> list[Any]:
    call = {"id": "a", "function": {"name": "f", "arguments": arguments}}
    return [
        {"type": "message-start", "id": "x"},
        {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": call}}},
        {"type": "tool-call-end", "index": 0},
        {"type": "message-end", "delta": {"finish_reason": reason}},
    ]


def converse(arguments: str | None, reason: Any) -> list[Any]:
    place = {"contentBlockIndex": 0}
    start = {"toolUse": {"toolUseId": "a", "name": "f"}}
    delta = {"toolUse": {"input": arguments}}
    return [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockStart": {**place, "start": start}},
        *([] if arguments is None else [{"contentBlockDelta": {**place, "delta": delta}}]),
        {"contentBlockStop": place},
        {"messageStop": {"stopReason": reason}},
    ]


#: wire -> (its call, words of a good end, words of a cut one)
WIRES: dict[str, tuple[Any, list[Any], list[Any]]] = {
    "openai-chat": (
        chat,
        ["tool_calls", "stop", "function_call", "tool_use", "STOP"],
        ["length", "max_tokens", "MAX_TOKENS", "content_filter", "error", "weird", "incomplete"],
    ),
    "openai-responses": (responses, [None], ["max_output_tokens", "content_filter", "new", ""]),
    "anthropic": (
        messages,
        ["tool_use", "end_turn"],
        ["max_tokens", "refusal", "model_context_window_exceeded", "error", "weird"],
    ),
    "gemini": (gemini, ["STOP"], ["MAX_TOKENS", "SAFETY", "OTHER", "MALFORMED_FUNCTION_CALL"]),
    "gemini-interactions": (
        interactions,
        ["requires_action", "completed"],
        ["incomplete", "failed", "cancelled", "budget_exceeded"],
    ),
    "ollama": (ollama, ["stop", None], ["length", "error", "weird"]),
    "cohere": (cohere, ["TOOL_CALL", "COMPLETE"], ["MAX_TOKENS", "ERROR", "TIMEOUT", "weird"]),
    "bedrock-converse": (
        converse,
        ["tool_use", "end_turn"],
        ["max_tokens", "content_filtered", "malformed_tool_use", "weird"],
    ),
}
GOOD = [(d, word) for d, (_, words, _) in WIRES.items() for word in words]
BAD = [(d, word) for d, (_, _, words) in WIRES.items() for word in words]


@pytest.mark.parametrize(("dialect", "word"), GOOD)
@pytest.mark.parametrize("arguments", [None, "{}"])
def test_a_call_without_arguments_is_whole_with_a_good_reason(
    dialect: str, word: Any, arguments: str | None
) -> None:
    events = events_of(dialect, WIRES[dialect][0](arguments, word))
    assert calls_of(events) == WHOLE
    assert status_of(events) == "complete"
    state = in_order(events)
    assert [c.runnable for c in runnable_calls(state, state.steps[-1])] == [True]


@pytest.mark.parametrize(("dialect", "word"), BAD)
@pytest.mark.parametrize("arguments", [None, "{}"])
def test_a_call_without_arguments_is_cut_with_any_other_reason(
    dialect: str, word: Any, arguments: str | None
) -> None:
    events = events_of(dialect, WIRES[dialect][0](arguments, word))
    assert calls_of(events) == [("f", None, "truncated")]
    state = in_order(events)
    assert [c.runnable for c in runnable_calls(state, state.steps[-1])] == [False]


@pytest.mark.parametrize("dialect", ["openai-chat", "anthropic", "cohere", "bedrock-converse"])
@pytest.mark.parametrize("word", [None, "", "null"])
def test_a_call_whose_arguments_never_came_needs_a_reason(dialect: str, word: Any) -> None:
    events = events_of(dialect, WIRES[dialect][0](None, word))
    assert calls_of(events) == [("f", None, "truncated")]


@pytest.mark.parametrize("dialect", WIRES)
def test_a_call_without_arguments_of_a_stream_that_was_cut(dialect: str) -> None:
    payloads = WIRES[dialect][0](None, None)[:-2]
    events = events_of(dialect, payloads)
    assert [status for *_, status in calls_of(events)] in ([], ["truncated"])
    assert status_of(events) != "complete"


# --- the same call again -------------------------------------------------------------------------

SAME: dict[str, list[Any]] = {
    "gemini": [{"functionCall": {"name": "f", "args": {"x": 1}}}],
    "ollama": [{"function": {"name": "f", "arguments": {"x": 1}}}],
    "openai-chat": [{"function": {"name": "f", "arguments": '{"x":1}'}}],
}


def nameless(dialect: str, *payloads: list[Any]) -> list[Any]:
    """An answer with calls that have no ids; a list of them for each payload."""
    _, reason, end = ANSWERS[dialect]
    found: list[Any] = []
    for calls in payloads:
        if dialect == "gemini":
            found.append({"candidates": [{"content": {"parts": calls}}]})
        elif dialect == "ollama":
            found.append({"model": "m", "message": {"tool_calls": calls}, "done": False})
        else:
            found.append(chunk({"tool_calls": calls}))
    return [*found, *reason, *end]


ONE = ("f", {"x": 1}, "complete")
AGAIN = ("f", {"x": 1}, "discarded")


@pytest.mark.parametrize("dialect", SAME)
def test_a_call_without_an_id_that_comes_again_runs_once(dialect: str) -> None:
    call = SAME[dialect]
    events = events_of(dialect, nameless(dialect, call, call, call))
    assert [c for c in calls_of(events) if c[2] == "complete"] == [ONE]
    assert len(facts(events)["tool_calls"]) == 1
    state = in_order(events)
    assert [c.runnable for c in runnable_calls(state, state.steps[-1])].count(True) == 1


@pytest.mark.parametrize("dialect", SAME)
def test_two_like_calls_side_by_side_are_two(dialect: str) -> None:
    events = events_of(dialect, nameless(dialect, SAME[dialect] * 2))
    assert [c for c in calls_of(events) if c[2] == "complete"] == [ONE, ONE]


@pytest.mark.parametrize("dialect", SAME)
def test_a_call_without_id_and_arguments_that_comes_again_runs_once(dialect: str) -> None:
    text = json.dumps(SAME[dialect]).replace('{"x": 1}', "{}").replace('{\\"x\\":1}', "{}")
    events = events_of(dialect, nameless(dialect, json.loads(text), json.loads(text)))
    assert [c for c in calls_of(events) if c[2] == "complete"] == WHOLE


def test_calls_that_are_numbered_are_two() -> None:
    def calls(number: int) -> list[Any]:
        return [{"function": {"index": number, "name": "f", "arguments": {"x": 1}}}]

    assert calls_of(events_of("ollama", nameless("ollama", calls(0), calls(1)))) == [ONE, ONE]
    again = calls_of(events_of("ollama", nameless("ollama", calls(0), calls(0))))
    assert again == [ONE, AGAIN]
    pieces = [{"index": n, **SAME["openai-chat"][0]} for n in (0, 1)]
    events = events_of("openai-chat", nameless("openai-chat", pieces[:1], pieces[1:]))
    assert [c for c in calls_of(events) if c[2] == "complete"] == [ONE, ONE]


# --- Responses -----------------------------------------------------------------------------------


def responses_of(*payloads: Any, output: list[Any] | None = None) -> list[Any]:
    end = {"id": "r", "status": "completed", "output": output or []}
    events = events_of(
        "openai-responses",
        [
            {"type": "response.created", "response": {"id": "r"}},
            *payloads,
            {"type": "response.completed", "response": end},
        ],
    )
    in_order(events)
    return calls_of(events)


ITEM = {"type": "function_call", "id": "i", "call_id": "a", "name": "f"}
ADDED = {"type": "response.output_item.added", "output_index": 0, "item": ITEM}
DONE = {"type": "response.output_item.done", "output_index": 0, "item": ITEM}
PIECE = {
    "type": "response.function_call_arguments.delta",
    "output_index": 0,
    "item_id": "i",
    "delta": '{"x":1}',
}
OVER = {"type": "response.function_call_arguments.done", "output_index": 0, "item_id": "i"}


@pytest.mark.parametrize("stray", [PIECE, {**PIECE, "item_id": "q", "output_index": 4}])
def test_an_item_that_ends_before_its_arguments(stray: Any) -> None:
    assert responses_of(ADDED, DONE, stray) == [ONE]


@pytest.mark.parametrize("arguments", [{}, {"arguments": ""}, {"arguments": None}])
def test_arguments_that_end_without_saying_them(arguments: dict[str, Any]) -> None:
    over = {**OVER, **arguments}
    assert responses_of(ADDED, PIECE, over, DONE) == [ONE]
    assert responses_of(ADDED, over, PIECE, DONE) == [ONE]
    assert responses_of(ADDED, over, DONE, PIECE) == [ONE]
    assert responses_of(ADDED, over, DONE) == WHOLE


def test_a_final_response_with_other_arguments_runs_nothing() -> None:
    last = {**ITEM, "arguments": '{"x":2}'}
    assert responses_of(ADDED, PIECE, DONE, output=[last]) == [("f", None, "invalid")]
    same = {**ITEM, "arguments": '{ "x": 1 }'}
    assert responses_of(ADDED, PIECE, DONE, output=[same]) == [ONE]
    assert responses_of(ADDED, PIECE, DONE, output=[{**ITEM, "arguments": "{}"}]) == [ONE]
    assert responses_of(ADDED, DONE, output=[same]) == [ONE]
    assert responses_of(ADDED, DONE, output=[ITEM]) == WHOLE


def test_a_call_of_gemini_that_was_to_go_on_and_did_not() -> None:
    call = {"functionCall": {"name": "f", "willContinue": True}}
    parts = [{"candidates": [{"content": {"parts": [call]}}]}]
    end = ANSWERS["gemini"][1]
    assert calls_of(events_of("gemini", [*parts, *end])) == [("f", None, "truncated")]
    rest = {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]}
    assert calls_of(events_of("gemini", [*parts, rest, *end])) == WHOLE


def test_every_wire_with_tools_is_here() -> None:
    registry = Registry(env={})
    assert all(registry.dialect(name).name == name for name in WIRES)
    assert set(ANSWERS) - set(WIRES) == {"completions"}
