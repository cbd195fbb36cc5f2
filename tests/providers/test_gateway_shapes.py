"""Shapes that gateways and half-compatible servers send: reasons, counts, arguments and words under
other names and in other places, whole answers after their pieces, characters cut in two."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.answers import ANSWERS, calls_of, chunk, events_of, status_of
from support.order import in_order
from tokenwire.events.model import Finish, Raw, ToolCallStart
from tokenwire.providers.summary import facts

STOP, CALLED = chunk(reason="stop"), chunk(reason="tool_calls")


def chat(*payloads: Any) -> list[Any]:
    events = events_of("openai-chat", [*payloads, "[DONE]"])
    in_order(events)
    return events


def raws(events: list[Any]) -> list[Any]:
    return [e.payload for e in events if isinstance(e, Raw)]


# --- reasons -------------------------------------------------------------------------------------


def ended(dialect: str, reason: Any) -> list[Any]:
    """An answer with the text ``Hi`` and this reason."""
    begin = ANSWERS[dialect][0]
    ends: dict[str, list[Any]] = {
        "openai-chat": [chunk(reason=reason), "[DONE]"],
        "completions": [
            {"id": "x", "choices": [{"index": 0, "text": "", "finish_reason": reason}]},
            "[DONE]",
        ],
        "anthropic": [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": reason}},
            {"type": "message_stop"},
        ],
        "gemini": [{"candidates": [{"finishReason": reason}]}],
        "ollama": [{"model": "m", "message": {}, "done": True, "done_reason": reason}],
        "cohere": [{"type": "message-end", "delta": {"finish_reason": reason}}],
        "bedrock-converse": [{"messageStop": {"stopReason": reason}}],
    }
    return events_of(dialect, [*begin, *ends[dialect]])


WORDS = ["openai-chat", "completions", "anthropic", "ollama", "cohere", "bedrock-converse"]


@pytest.mark.parametrize("dialect", WORDS)
@pytest.mark.parametrize(
    ("reason", "ours", "status"),
    [
        *((w, "stop", "complete") for w in ("STOP", "Stop", "stop", "eos", "eos_token")),
        *((w, "stop", "complete") for w in ("end_turn", "stop_sequence", "COMPLETE", "EndTurn")),
        *((w, "length", "incomplete") for w in ("length", "max_tokens", "MAX_TOKENS", "MaxTokens")),
        *((w, "tool_calls", "complete") for w in ("tool_use", "TOOL_USE", "function_call")),
        *((w, "other", "incomplete") for w in (1, 2, 7.0, True, [3])),
        *((w, "stop", "complete") for w in ({"type": "stop"}, ["stop"], {"reason": "STOP"})),
        *((w, "length", "incomplete") for w in ({"type": "length"}, ["max_tokens"])),
        *((w, "error", "error") for w in (500, "500", {"type": "error"}, "ERROR")),
    ],
    ids=repr,
)
def test_a_reason_in_another_form(dialect: str, reason: Any, ours: str, status: str) -> None:
    events = ended(dialect, reason)
    assert [e.reason for e in events if isinstance(e, Finish)] == [ours]
    assert status_of(events) == status


@pytest.mark.parametrize("reason", ["", " ", "null", 0, False, [], {}, None, -1])
def test_what_is_no_reason(reason: Any) -> None:
    events = chat(chunk({"content": "H"}, reason), chunk({"content": "i"}), STOP)
    assert facts(events)["text"] == "Hi"
    assert [e.raw for e in events if isinstance(e, Finish)] == ["stop"]


@pytest.mark.parametrize(
    ("event", "response", "status"),
    [
        ("completed", {"status": "completed"}, "complete"),
        ("completed", {"status": "COMPLETED"}, "complete"),
        ("completed", {}, "complete"),
        ("completed", {"status": "cancelled"}, "error"),
        ("completed", {"status": "failed"}, "error"),
        ("completed", {"status": "incomplete"}, "incomplete"),
        ("completed", {"status": "in_progress"}, "incomplete"),
        ("completed", {"status": "new"}, "incomplete"),
        ("completed", {"status": 3}, "incomplete"),
        ("incomplete", {"incomplete_details": {"reason": "new"}}, "incomplete"),
        ("incomplete", {"incomplete_details": None}, "incomplete"),
        ("cancelled", {}, "error"),
        ("expired", {}, "error"),
        ("timed_out", {}, "error"),
    ],
)
def test_ends_of_a_response(event: str, response: dict[str, Any], status: str) -> None:
    end = {"type": f"response.{event}", "response": {"id": "r", **response}}
    events = events_of("openai-responses", [*ANSWERS["openai-responses"][0], end])
    assert (status_of(events), facts(events)["text"]) == (status, "Hi")


# --- counts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": {"prompt_tokens": "12", "completion_tokens": 3.0, "total_tokens": -1}},
        {"x_groq": {"usage": {"prompt_tokens": 12, "completion_tokens": 3}}},
        {"usage_metadata": {"prompt_token_count": 12, "candidates_token_count": 3}},
        {"usageMetadata": {"promptTokenCount": 12, "candidatesTokenCount": 3}},
        {"amazon-bedrock-invocationMetrics": {"inputTokenCount": 12, "outputTokenCount": 3}},
        {"timings": {"prompt_n": 12, "predicted_n": 3}},
        {"usage": {"inputTokens": 12, "outputTokens": 3}},
    ],
    ids=lambda f: next(iter(f)),
)
def test_counts_in_another_form(fields: dict[str, Any]) -> None:
    usage = facts(chat(chunk({"content": "Hi"}), {**STOP, **fields}))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 3)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None}, 3])
def test_counts_that_are_none(usage: Any) -> None:
    assert facts(chat(chunk({"content": "Hi"}), {**STOP, "usage": usage}))["usage"] is None


def test_counts_of_bedrock_beside_the_end_of_a_message() -> None:
    begin, reason, _ = ANSWERS["anthropic"]
    metrics = {"inputTokenCount": 12, "outputTokenCount": 3, "invocationLatency": 9}
    end = {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics}
    usage = facts(events_of("anthropic", [*begin, *reason, end]))["usage"]
    assert (usage["input_tokens"], usage["output_tokens"]) == (12, 3)


# --- calls ---------------------------------------------------------------------------------------

ONE = [("f", {"x": 1}, "complete")]
NAMES = ["arguments", "args", "input", "parameters"]


@pytest.mark.parametrize("value", [{"x": 1}, '{"x":1}'])
@pytest.mark.parametrize("name", NAMES)
def test_arguments_under_another_name(name: str, value: Any) -> None:
    """Without them the call would run with none."""
    function, fields = {"name": "f", name: value}, {name: value}
    for call in ({"index": 0, "id": "a", "function": function}, {"id": "a", **function}):
        assert calls_of(chat(chunk({"tool_calls": [call]}), CALLED)) == ONE
    for call in ({"function": function}, function):
        line = {"model": "m", "message": {"tool_calls": [call]}, "done": False}
        assert calls_of(events_of("ollama", [line, *ANSWERS["ollama"][2]])) == ONE
    part = {"candidates": [{"content": {"parts": [{"functionCall": function}]}}]}
    assert calls_of(events_of("gemini", [part, *ANSWERS["gemini"][1]])) == ONE
    block = {"type": "tool_use", "id": "a", **function}
    start = {"type": "content_block_start", "index": 0, "content_block": block}
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    assert calls_of(events_of("anthropic", [start, end, {"type": "message_stop"}])) == ONE
    use = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "a", **function}}}
    payloads = [{"contentBlockStart": use}, {"messageStop": {"stopReason": "tool_use"}}]
    assert calls_of(events_of("bedrock-converse", payloads)) == ONE
    for call in ({"id": "a", "function": function}, {"id": "a", **function}):
        begin = {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": call}}}
        end = {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}}
        assert calls_of(events_of("cohere", [begin, end])) == ONE
    step = {"type": "function_call", "id": "a", **function}
    payloads = [
        {"event_type": "step.start", "index": 0, "step": step},
        {"event_type": "step.stop", "index": 0},
        {"event_type": "interaction.completed", "interaction": {"status": "requires_action"}},
    ]
    assert calls_of(events_of("gemini-interactions", payloads)) == ONE
    item = {"type": "function_call", "id": "i", "call_id": "a", "name": "f", **fields}
    payloads = [
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {"id": "r", "status": "completed"}},
    ]
    assert calls_of(events_of("openai-responses", payloads)) == ONE


@pytest.mark.parametrize("indexes", [(0, 0), (None, None), (0, 1), ("0", "1")])
@pytest.mark.parametrize("texts", [('{"x":1}', '{"x":2}'), ('{"x":1}', '{"x":1}'), ("{}", "{}")])
def test_parallel_calls_in_one_chunk(indexes: tuple[Any, Any], texts: tuple[str, str]) -> None:
    """Some endpoints give every parallel call the index 0, or none, and ids that differ."""
    calls = [
        {"index": i, "id": call_id, "function": {"name": "f", "arguments": text}}
        for i, call_id, text in zip(indexes, "ab", texts, strict=True)
    ]
    events = chat(chunk({"tool_calls": calls}), CALLED)
    assert [c[1] for c in calls_of(events)] == [json.loads(text) for text in texts]
    assert [e.call_id for e in events if isinstance(e, ToolCallStart)] == ["a", "b"]


@pytest.mark.parametrize(
    "end",
    [
        [chunk({"tool_calls": [{"index": 0, "function": {"arguments": ""}}]}, "tool_calls")],
        [CALLED, {**CALLED, "usage": {"prompt_tokens": 1, "completion_tokens": 1}}],
        [chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x":1}'}}]}), CALLED],
        [chunk({"tool_calls": []}, "tool_calls")],
        [CALLED, chunk({"content": ""}), CALLED],
    ],
    ids=["empty piece", "reason again", "whole again", "empty list", "content after"],
)
@pytest.mark.parametrize("text", ['{"x":1}', "{}"])
def test_what_servers_send_after_a_call(end: list[Any], text: str) -> None:
    call = {"index": 0, "id": "a", "function": {"name": "f", "arguments": text}}
    events = chat(chunk({"tool_calls": [call]}), *end)
    has_more = '{\\"x\\":1}' in json.dumps(end)
    assert calls_of(events) == [("f", {"x": 1} if has_more else json.loads(text), "complete")]
    assert status_of(events) == "complete"


def test_empty_arguments_then_the_real_ones_under_one_id() -> None:
    payloads: list[Any] = [{"type": "message_start", "message": {"id": "m"}}]
    for index, text in enumerate(("", '{"x":1}')):
        block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
        delta = {"type": "input_json_delta", "partial_json": text}
        payloads += [
            {"type": "content_block_start", "index": index, "content_block": block},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    payloads.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}})
    assert calls_of(events_of("anthropic", [*payloads, {"type": "message_stop"}])) == ONE


def test_arguments_after_the_end_of_their_own_block() -> None:
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    delta = {"type": "input_json_delta", "partial_json": '{"x":1}'}
    payloads = [
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 0, "delta": delta},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
        {"type": "message_stop"},
    ]
    assert calls_of(events_of("anthropic", payloads)) == ONE


# --- words ---------------------------------------------------------------------------------------


def last(message: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    return {"id": "x", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}


@pytest.mark.parametrize(
    ("whole", "text", "kept"),
    [
        ("Hello", "Hello", []),
        ("Hel", "Hel", []),
        ("He", "Hel", []),
        ("", "Hel", []),
        ([{"type": "text", "text": "Hello"}], "Hello", []),
        ([{"type": "thinking", "thinking": "x"}, {"type": "text", "text": "Hello"}], "Hello", []),
        ("Bye", "Hel", [{"content": "Bye"}]),
    ],
)
def test_a_whole_message_after_its_deltas(whole: Any, text: str, kept: list[Any]) -> None:
    events = chat(chunk({"content": "H"}), chunk({"content": "el"}), last({"content": whole}))
    assert (facts(events)["text"], raws(events), status_of(events)) == (text, kept, "complete")


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content", "cot"])
def test_a_whole_message_brings_the_rest_of_its_reasoning(field: str) -> None:
    message = {field: "hmm", "content": "Hi", "refusal": "no"}
    events = chat(chunk({field: "hm"}), chunk({"content": "Hi"}), last(message))
    found = facts(events)
    assert (found["reasoning"], found["text"], found["refusal"]) == ("hmm", "Hi", "no")


#: wire -> the same answer whole, with the text ``Hi you``
AGAIN: dict[str, Any] = {
    "anthropic": {
        "type": "message",
        "content": [{"type": "text", "text": "Hi you"}],
        "stop_reason": "end_turn",
    },
    "cohere": {
        "finish_reason": "COMPLETE",
        "message": {"content": [{"type": "text", "text": "Hi you"}]},
    },
    "bedrock-converse": {
        "output": {"message": {"content": [{"text": "Hi you"}]}},
        "stopReason": "end_turn",
    },
    "ollama": {"message": {"content": "Hi you"}, "done": True, "done_reason": "stop"},
    "openai-responses": {
        "type": "response.completed",
        "response": {
            "id": "r",
            "status": "completed",
            "output": [
                {
                    "type": "message",
                    "id": "m",
                    "content": [{"type": "output_text", "text": "Hi you"}],
                }
            ],
        },
    },
    "completions": {
        "choices": [{"index": 0, "message": {"content": "Hi you"}, "finish_reason": "stop"}]
    },
}


@pytest.mark.parametrize("dialect", AGAIN)
def test_a_whole_answer_after_its_pieces(dialect: str) -> None:
    events = events_of(dialect, [*ANSWERS[dialect][0], AGAIN[dialect]])
    assert (facts(events)["text"], status_of(events)) == ("Hi you", "complete")
    same = json.loads(json.dumps(AGAIN[dialect]).replace("Hi you", "Hi"))
    assert facts(events_of(dialect, [*ANSWERS[dialect][0], same]))["text"] == "Hi"


def test_an_interaction_that_only_its_end_tells() -> None:
    step = {"type": "model_output", "content": [{"type": "text", "text": "Hi"}]}
    interaction = {"id": "i", "status": "completed", "steps": [step]}
    end = {"event_type": "interaction.completed", "interaction": interaction}
    assert facts(events_of("gemini-interactions", [end]))["text"] == "Hi"


#: wire -> a delta of text with one more field
EXTRA: dict[str, Any] = {
    "openai-chat": chunk({"content": " you", "novel": "x"}),
    "completions": {"choices": [{"index": 0, "text": " you", "novel": "x"}]},
    "openai-responses": {**ANSWERS["openai-responses"][0][1], "delta": " you", "novel": "x"},
    "anthropic": {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": " you", "novel": "x"},
    },
    "gemini": {"candidates": [{"content": {"parts": [{"text": " you", "novel": "x"}]}}]},
    "gemini-interactions": {
        "event_type": "step.delta",
        "index": 0,
        "delta": {"type": "text", "text": " you", "novel": "x"},
    },
    "ollama": {"message": {"content": " you", "novel": "x"}, "done": False},
    "cohere": {
        "type": "content-delta",
        "index": 0,
        "delta": {"message": {"content": {"text": " you", "novel": "x"}}},
    },
    "bedrock-converse": {
        "contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": " you", "novel": "x"}}
    },
}


@pytest.mark.parametrize("dialect", EXTRA)
def test_a_field_that_is_not_known_is_kept(dialect: str) -> None:
    begin, reason, end = ANSWERS[dialect]
    events = events_of(dialect, [*begin, EXTRA[dialect], EXTRA[dialect], *reason, *end])
    in_order(events)
    assert (facts(events)["text"], raws(events)) == ("Hi you you", ["x"])


@pytest.mark.parametrize(
    "name", ["cot", "chain_of_thought", "analysis", "thought", "thoughts", "thinking_content"]
)
def test_reasoning_under_names_in_use(name: str) -> None:
    events = chat(chunk({name: "h"}), chunk({name: "m"}), chunk({"content": "Hi"}), STOP)
    assert (facts(events)["reasoning"], facts(events)["text"]) == ("hm", "Hi")


#: What a gateway sends -> what was said.
SHAPES: list[tuple[str, list[Any], str]] = [
    (
        "a filter's chunks without choices or deltas",
        [
            {"id": "", "model": "", "object": "", "choices": [], "prompt_filter_results": [{}]},
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Hi"}),
            {"id": "", "choices": [{"index": 0, "content_filter_offsets": {"check_offset": 1}}]},
            STOP,
        ],
        "Hi",
    ),
    (
        "thinking inside of the content",
        [
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}]}]}),
            chunk({"content": [{"type": "text", "text": "Hi"}]}),
            STOP,
        ],
        "Hi",
    ),
    (
        "the message so far beside each delta",
        [
            {"choices": [{"index": 0, "delta": {"content": t}, "message": {"content": w}}]}
            for t, w in (("H", "H"), ("i", "Hi"))
        ]
        + [{"choices": [{"delta": {}, "message": {"content": "Hi"}, "finish_reason": "stop"}]}],
        "Hi",
    ),
    ("a delta of null", [chunk({"content": "Hi"}), {"choices": [{"delta": None}]}, STOP], "Hi"),
    ("choices of null", [chunk({"content": "Hi"}), {"choices": None, "usage": {}}, STOP], "Hi"),
    ("numbers as content", [chunk({"content": 12}), STOP], "12"),
    ("texts in a list", [chunk({"content": ["H", "i"]}), STOP], "Hi"),
    ("a list of contents beside", [chunk({"content": "Hi", "content_list": []}), STOP], "Hi"),
    ("an end without brackets", [chunk({"content": "Hi"}), STOP, "done"], "Hi"),
    ("two ends", [chunk({"content": "Hi"}), STOP, "[DONE]", "[DONE]"], "Hi"),
    (
        "a whole answer in an envelope",
        [{"success": True, "errors": [], "result": last({"content": "Hi"})}],
        "Hi",
    ),
    ("fields of a server's own", [{**chunk({"content": "Hi"}), "provider": "x"}, STOP], "Hi"),
    (
        "a stop token's id",
        [chunk({"content": "Hi"}), {"choices": [{"matched_stop": 2}]}, STOP],
        "Hi",
    ),
]


@pytest.mark.parametrize(
    ("name", "payloads", "text"), SHAPES, ids=lambda v: v if type(v) is str else ""
)
def test_a_shape_of_a_gateway(name: str, payloads: list[Any], text: str) -> None:
    events = chat(*payloads)
    assert (facts(events)["text"], status_of(events)) == (text, "complete"), name


# --- characters ----------------------------------------------------------------------------------

HALVES = ("\\ud83d", "\\ude00")


def in_halves(payloads: list[Any], *, tail: bool = False) -> bytes:
    """Payloads as bytes, ``<1>`` and ``<2>`` in them as the halves of one character."""
    text = "".join(
        f"data: {p if isinstance(p, str) else json.dumps(p)}\n\n" for p in payloads
    ).replace("<1>", HALVES[0])
    return text.replace("<2>", "" if tail else HALVES[1]).encode()


@pytest.mark.parametrize(("tail", "sign"), [(False, "\U0001f600"), (True, "\ufffd")])
def test_a_character_cut_in_two_in_every_field(tail: bool, sign: str) -> None:
    def call(text: str) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"arguments": text}}]})

    first = chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f"}}]})
    payloads = [
        *(chunk({"reasoning_content": t}) for t in ("h<1>", "<2>")),
        *(chunk({"content": t}) for t in ("H<1>", "<2>")),
        first,
        *(call(t) for t in ('{"x":"<1>', '<2>"}')),
        CALLED,
        "[DONE]",
    ]
    events = events_of("openai-chat", in_halves(payloads, tail=tail))
    found = facts(events)
    assert (found["reasoning"], found["text"]) == (f"h{sign}", f"H{sign}")
    assert calls_of(events) == [("f", {"x": sign}, "complete")]
    in_order(events)


@pytest.mark.parametrize("dialect", ANSWERS)
def test_half_a_character_at_the_very_end_is_one_sign(dialect: str) -> None:
    begin, reason, end = ANSWERS[dialect]
    data = in_halves([*begin, *reason, *end]).replace(b'"Hi"', b'"Hi\\ud83d"')
    events = events_of(dialect, data)
    assert (facts(events)["text"], status_of(events)) == ("Hi\ufffd", "complete")
    cut = in_halves(begin).replace(b'"Hi"', b'"Hi\\ud83d"')
    assert facts(events_of(dialect, cut))["text"] == "Hi\ufffd"


def test_half_a_character_in_a_citation() -> None:
    source = {"type": "url_citation", "url_citation": {"url": "http://a", "title": "T<1>"}}
    payloads = [chunk({"content": "Hi"}), chunk({"annotations": [source]}), STOP, "[DONE]"]
    events = events_of("openai-chat", in_halves(payloads, tail=True))
    titles = [e.value["title"] for e in events if getattr(e, "name", None) == "citation"]
    assert titles == ["T\ufffd"]
