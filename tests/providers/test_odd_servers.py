"""What servers send that is like the cases of `conformance/providers`, in other words and places:
no failure is told as success, and no call runs with arguments that are not its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.corpus import decode
from tokenwire.events.model import Finish, PartAttr, StepEnd, ToolCallEnd, ToolCallStart
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import Registry
from tokenwire.providers.summary import facts

REGISTRY = Registry(env={})


def events_of(dialect: str, payloads: list[Any]) -> list[Any]:
    frames = [
        encode_frame("[DONE]" if p == "[DONE]" else json.dumps(p), event=None) for p in payloads
    ]
    return decode(REGISTRY.dialect(dialect).decoder(), [b"".join(frames)])


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None) -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "delta": delta or {}, "finish_reason": reason}]}


def calls_of(events: list[Any]) -> list[tuple[str, Any, str]]:
    """(name, arguments, status) of each call in the order of their ends."""
    names: dict[int, str] = {}
    calls: list[tuple[str, Any, str]] = []
    for event in events:
        if isinstance(event, ToolCallStart):
            names[event.part] = event.name
        elif isinstance(event, PartAttr) and event.name == "tool_name":
            names[event.part] = event.value
        elif isinstance(event, ToolCallEnd):
            calls.append((names[event.part], event.arguments, event.status))
    return calls


def status_of(events: list[Any]) -> str:
    assert isinstance(events[-1], StepEnd)
    return events[-1].status


FAULTS: list[dict[str, Any]] = [
    {"fault": {"faultstring": "quota violation", "detail": {"errorcode": "policies.ratelimit"}}},
    {"failure": "x"},
    {"err": "x"},
    {"err": {"message": "x"}},
    {"exception": "Traceback"},
    {"state": "error"},
    {"reason": "quota exceeded", "request_id": "r"},
    {"header": {"code": 10013, "message": "x"}},
    {"ret_code": 1, "ret_msg": "x"},
    {"errno": 17, "errmsg": "daily limit"},
    {"choices": [{"delta": {"error": {"message": "x"}}}]},
    {"choices": [{"message": {"error": {"message": "x"}}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "error": {"code": 502}}]},
]
BEGIN: dict[str, list[Any]] = {
    "openai-chat": [chunk({"content": "Hi"})],
    "anthropic": [
        {"type": "message_start", "message": {"id": "m"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    ],
    "gemini": [{"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}],
    "cohere": [
        {"type": "message-start", "id": "x"},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
    ],
}
END: dict[str, list[Any]] = {
    "openai-chat": [chunk(reason="stop"), "[DONE]"],
    "anthropic": [{"type": "message_stop"}],
    "gemini": [{"candidates": [{"finishReason": "STOP"}]}],
    "cohere": [{"type": "message-end", "delta": {"finish_reason": "COMPLETE"}}],
}


@pytest.mark.parametrize("dialect", BEGIN)
@pytest.mark.parametrize("fault", FAULTS, ids=json.dumps)
def test_an_error_in_the_words_of_a_gateway(dialect: str, fault: dict[str, Any]) -> None:
    after = events_of(dialect, [*BEGIN[dialect], fault, *END[dialect]])
    assert status_of(after) == "error"
    assert facts(after)["text"] == "Hi"
    assert status_of(events_of(dialect, [fault, *END[dialect]])) == "error"


@pytest.mark.parametrize("fields", [{"usage": {"prompt_tokens": 1, "completion_tokens": 0}}, {}])
def test_an_error_code_beside_empty_choices(fields: dict[str, Any]) -> None:
    fault = {"id": "x", "choices": [], "error_code": 3, "error_msg": "x", **fields}
    assert status_of(events_of("openai-chat", [*BEGIN["openai-chat"], fault, "[DONE]"])) == "error"
    fault["error_code"] = 0
    whole = events_of("openai-chat", [*BEGIN["openai-chat"], fault, *END["openai-chat"]])
    assert status_of(whole) == "complete"


@pytest.mark.parametrize(
    "word",
    (
        "dropped rejected worker_lost TERMINATED expired evicted stalled connection_closed "
        "connection_reset no_capacity busy throttled denied unauthorized bad_gateway panic "
        "deadline_exceeded FINISH_REASON_ERROR"
    ).split(),
)
def test_a_reason_that_speaks_of_a_failure(word: str) -> None:
    events = events_of("openai-chat", [chunk({"content": "Hi"}), chunk(reason=word), "[DONE]"])
    assert status_of(events) == "error"


@pytest.mark.parametrize(
    "word", ["incomplete", "partial", "repetition_truncation", "stopped_early", "cut-off"]
)
def test_a_reason_that_says_that_the_answer_is_not_whole(word: str) -> None:
    events = events_of("openai-chat", [chunk({"content": "Hi"}), chunk(reason=word), "[DONE]"])
    assert status_of(events) == "incomplete"
    messages = [*BEGIN["anthropic"], {"type": "message_delta", "delta": {"stop_reason": word}}]
    assert status_of(events_of("anthropic", [*messages, *END["anthropic"]])) == "incomplete"


def test_a_reason_with_the_name_of_its_enum() -> None:
    events = events_of(
        "openai-chat", [chunk({"content": "Hi"}), chunk(reason="FINISH_REASON_STOP")]
    )
    assert status_of(events) == "complete"
    assert [e.reason for e in events if isinstance(e, Finish)] == ["stop"]


def call(index: int | None, call_id: str | None, name: str | None, text: str | None) -> Any:
    function = {"name": name, "arguments": text}
    entry = {"index": index, "id": call_id, "function": function}
    return chunk({"tool_calls": [{k: v for k, v in entry.items() if v is not None}]})


ONE = [("f", {"x": 1}, "complete")]


@pytest.mark.parametrize("nothing", ["null", '""', "[]", " null "])
def test_a_word_for_no_arguments_gives_way_to_the_real_ones(nothing: str) -> None:
    pieces = [call(0, "a", "f", nothing), call(0, None, None, '{"x"'), call(0, None, None, ":1}")]
    assert calls_of(events_of("openai-chat", [*pieces, chunk(reason="tool_calls")])) == ONE


def test_a_name_with_another_id_names_the_arguments_before_it() -> None:
    pieces = [call(0, "a", None, '{"x":1}'), call(0, "b", "f", None)]
    assert calls_of(events_of("openai-chat", [*pieces, chunk(reason="tool_calls")])) == ONE


def test_arguments_of_an_index_that_is_no_call() -> None:
    end = [chunk(reason="tool_calls"), "[DONE]"]
    pieces = [call(0, "a", "f", ""), call(1, None, None, '{"x"'), call(1, None, None, ":1}")]
    assert [c for c in calls_of(events_of("openai-chat", [*pieces, *end])) if c[0]] == ONE
    pieces = [call(0, "a", "f", ""), call(1, "b", "g", ""), call(2, None, None, '{"x":1}')]
    calls = calls_of(events_of("openai-chat", [*pieces, *end]))
    assert [(name, status) for name, _, status in calls] == [
        ("f", "invalid"),
        ("g", "invalid"),
        ("", "invalid"),
    ]


def test_a_call_that_the_limit_cut_before_its_arguments_does_not_run() -> None:
    events = events_of("openai-chat", [call(0, "a", "f", ""), chunk(reason="length"), "[DONE]"])
    assert calls_of(events) == [("f", None, "truncated")]


def test_a_call_in_the_old_form_and_the_new_one_runs_once() -> None:
    both = call(0, "a", "f", '{"x":1}')
    both["choices"][0]["delta"]["function_call"] = {"name": "f", "arguments": '{"x":1}'}
    assert calls_of(events_of("openai-chat", [both, chunk(reason="tool_calls")])) == ONE


def test_a_whole_message_after_chunks_of_the_legacy_form() -> None:
    chunks = [{"id": "x", "choices": [{"index": 0, "text": text}]} for text in ("He", "llo")]
    last = {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}
    events = events_of("openai-chat", [*chunks, {"id": "x", "choices": [last]}, "[DONE]"])
    assert facts(events)["text"] == "Hello"


def test_a_whole_message_beside_a_delta_that_says_nothing() -> None:
    last = {"index": 0, "delta": {"role": "assistant"}, "finish_reason": "stop"}
    last["message"] = {"content": "Hello"}
    assert facts(events_of("openai-chat", [{"id": "x", "choices": [last]}]))["text"] == "Hello"


def cohere_call(kind: str, index: Any, **fields: Any) -> dict[str, Any]:
    return {
        "type": f"tool-call-{kind}",
        "index": index,
        "delta": {"message": {"tool_calls": fields}},
    }


def test_cohere_arguments_of_an_index_that_is_no_call() -> None:
    end = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}
    first = cohere_call("start", 0, id="a", function={"name": "f", "arguments": ""})
    second = cohere_call("start", 1, id="b", function={"name": "g", "arguments": ""})
    piece = cohere_call("delta", 7, function={"arguments": '{"x":1}'})
    for payloads in ([first, piece], [first, cohere_call("end", 0), piece]):
        assert calls_of(events_of("cohere", [*payloads, end])) == ONE
    calls = calls_of(events_of("cohere", [first, second, piece, end]))
    assert calls == [("f", None, "invalid"), ("g", None, "invalid")]
    assert calls_of(events_of("cohere", [first, end])) == [("f", {}, "complete")]


def test_cohere_indexes_as_text() -> None:
    payloads = [
        cohere_call("start", "0", id="a", function={"name": "f"}),
        cohere_call("start", "1", id="b", function={"name": "g"}),
        cohere_call("delta", "0", function={"arguments": '{"x":1}'}),
        cohere_call("delta", "1", function={"arguments": '{"y":2}'}),
        {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
    ]
    assert calls_of(events_of("cohere", payloads)) == [*ONE, ("g", {"y": 2}, "complete")]


def messages(*payloads: Any, reason: str = "tool_use") -> list[Any]:
    start = {"type": "message_start", "message": {"id": "m"}}
    end = {"type": "message_delta", "delta": {"stop_reason": reason}}
    return events_of("anthropic", [start, *payloads, end, {"type": "message_stop"}])


def block(content: dict[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": content}


TOOL_USE = block({"type": "tool_use", "id": "a", "name": "f", "input": {}})


def test_messages_deltas_that_do_not_say_their_kind() -> None:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"text": "Hi"}}
    assert facts(messages(block({"type": "text"}), delta, reason="end_turn"))["text"] == "Hi"
    delta["delta"] = {"partial_json": '{"x":1}'}
    assert calls_of(messages(TOOL_USE, delta)) == ONE


def test_an_open_call_that_the_limit_cut_before_its_arguments() -> None:
    assert calls_of(messages(TOOL_USE, reason="max_tokens")) == [("f", None, "truncated")]
    assert calls_of(messages(TOOL_USE)) == [("f", {}, "complete")]
    tool = {"toolUse": {"toolUseId": "a", "name": "f"}}
    for reason, call_end in (
        ("max_tokens", ("f", None, "truncated")),
        ("tool_use", ("f", {}, "complete")),
    ):
        payloads = [
            {"contentBlockStart": {"contentBlockIndex": 0, "start": tool}},
            {"messageStop": {"stopReason": reason}},
        ]
        assert calls_of(events_of("bedrock-converse", payloads)) == [call_end]


def response_call(number: int, name: str) -> dict[str, Any]:
    item = {"type": "function_call", "id": f"fc{number}", "call_id": f"c{number}", "name": name}
    return {"type": "response.output_item.added", "output_index": number, "item": item}


def test_responses_arguments_of_an_item_that_is_no_call() -> None:
    begin = {"type": "response.created", "response": {"id": "r"}}
    piece = {"type": "response.function_call_arguments.delta", "output_index": 5, "item_id": "q"}
    piece["delta"] = '{"x":1}'
    end = {"type": "response.completed", "response": {"id": "r", "status": "completed"}}
    one, two = response_call(0, "f"), response_call(1, "g")
    assert calls_of(events_of("openai-responses", [begin, one, piece, end])) == ONE
    calls = calls_of(events_of("openai-responses", [begin, one, two, piece, end]))
    assert calls == [("f", None, "invalid"), ("g", None, "invalid")]
    assert calls_of(events_of("openai-responses", [begin, one, end])) == [("f", {}, "complete")]


def test_messages_arguments_that_come_after_their_call_ended_run_nothing() -> None:
    """Both orders look alike on the wire: a call without arguments, and one whose arguments got
    another index. So the step fails and no call of it runs."""
    lost = {"type": "input_json_delta", "partial_json": '{"path": "/"}'}
    use = {"type": "tool_use", "id": "t1", "name": "delete", "input": {}}
    events = messages(
        {"type": "content_block_start", "index": 0, "content_block": use},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 7, "delta": lost},
    )
    assert status_of(events) == "error"


def test_converse_arguments_that_come_after_their_call_ended_run_nothing() -> None:
    start = {"toolUse": {"toolUseId": "t1", "name": "delete"}}
    events = decode(
        REGISTRY.dialect("bedrock-converse").decoder(),
        [
            b"\n".join(
                json.dumps(line).encode()
                for line in (
                    {"messageStart": {"role": "assistant"}},
                    {"contentBlockStart": {"contentBlockIndex": 0, "start": start}},
                    {"contentBlockStop": {"contentBlockIndex": 0}},
                    {
                        "contentBlockDelta": {
                            "contentBlockIndex": 7,
                            "delta": {"toolUse": {"input": '{"path": "/"}'}},
                        }
                    },
                    {"messageStop": {"stopReason": "tool_use"}},
                )
            )
            + b"\n"
        ],
    )
    assert status_of(events) == "error"


def test_a_call_without_arguments_runs_beside_one_that_has_some() -> None:
    uses = [{"type": "tool_use", "id": f"t{n}", "name": "look", "input": {}} for n in range(2)]
    whole = {"type": "input_json_delta", "partial_json": '{"at": 1}'}
    events = messages(
        {"type": "content_block_start", "index": 0, "content_block": uses[0]},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": uses[1]},
        {"type": "content_block_delta", "index": 1, "delta": whole},
        {"type": "content_block_stop", "index": 1},
    )
    assert calls_of(events) == [("look", {}, "complete"), ("look", {"at": 1}, "complete")]
    assert status_of(events) == "complete"
