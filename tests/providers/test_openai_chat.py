"""Chat Completions: every odd case, any cut, any bytes, part order, and what goes back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.corpus import cut_every, decode, merged
from tokenwire.errors import FramingError, ProtocolError
from tokenwire.events.codec import encode
from tokenwire.events.model import (
    Error,
    FileStart,
    Finish,
    Heartbeat,
    PartAttr,
    PartDelta,
    PartEnd,
    PartStart,
    Raw,
    ReasoningStart,
    ResponseStart,
    StepEnd,
    TextStart,
    ToolCallEnd,
    ToolCallStart,
    Usage,
)
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.providers.summary import facts

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "conformance" / "providers" / "chat.json").read_text())["cases"]


def body(payloads: list[Any]) -> bytes:
    return b"".join(encode_frame(p if isinstance(p, str) else json.dumps(p)) for p in payloads)


def events_of(*payloads: Any, **kwargs: Any) -> list[Any]:
    return decode(DIALECT.decoder(**kwargs), [body(list(payloads))])


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **top: Any) -> Any:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "r1", "model": "m1", "choices": [choice], **top}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_odd_cases_give_their_facts(case: dict[str, Any]) -> None:
    data = case["raw"].encode() if "raw" in case else body(case["payloads"])
    quirks = frozenset(case.get("quirks", ()))
    whole = decode(DIALECT.decoder(quirks=quirks), [data])
    found, expected = facts(whole), dict(case["expected"])
    assert (found.pop("error") is None) == (expected.pop("error") is None)
    assert {name: found[name] for name in expected} == expected
    assert whole[-1].status == case.get("status", whole[-1].status)
    for kind, count in case.get("events", {}).items():
        assert len([e for e in whole if e.type == kind]) == count
    for event in whole:
        encode(event)
    assert merged(decode(DIALECT.decoder(quirks=quirks), cut_every(1)(data))) == merged(whole)


def check_parts(events: list[Any]) -> None:
    """Starts, deltas and ends in order; one step-end, last."""
    open_parts: dict[int, PartStart] = {}
    seen: set[int] = set()
    for event in events:
        if isinstance(event, PartStart):
            assert event.part not in seen
            seen.add(event.part)
            open_parts[event.part] = event
        elif isinstance(event, PartDelta):
            assert open_parts[event.part].kind == event.kind
            assert event.text
        elif isinstance(event, PartEnd):
            assert open_parts.pop(event.part).kind == event.kind
        elif isinstance(event, PartAttr):
            assert event.part in open_parts
    assert not open_parts
    assert [i for i, e in enumerate(events) if isinstance(e, StepEnd)] == [len(events) - 1]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_parts_are_in_order(case: dict[str, Any]) -> None:
    data = case["raw"].encode() if "raw" in case else body(case["payloads"])
    check_parts(decode(DIALECT.decoder(), [data]))


def test_a_plain_answer_as_events() -> None:
    events = events_of(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo €"}),
        chunk({}, "stop"),
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
        "[DONE]",
    )
    assert [e.type for e in events] == [
        "response-start",
        "text-start",
        "text-delta",
        "text-delta",
        "finish",
        "usage",
        "text-end",
        "step-end",
    ]
    assert events[0] == ResponseStart(id="r1", model="m1")
    assert (events[4].reason, events[6].size) == ("stop", 9)
    assert events[5].raw == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert (events[7].status, events[7].terminal_seen) == ("complete", True)


def test_parts_are_numbered_from_where_they_are_told() -> None:
    events = events_of(chunk({"content": "a"}), "[DONE]", step=3, first_part=7)
    assert events[1] == TextStart(part=7, step=3)
    assert events[-1].step == 3


def test_the_end_marker_ends_the_parts_before_the_bytes_end() -> None:
    decoder = DIALECT.decoder()
    events = decoder.feed(body([chunk({"content": "a"}, "stop"), "[DONE]"]))
    assert decoder.terminal_seen
    assert events[-1].type == "text-end"
    assert [e.type for e in decoder.finish()] == ["step-end"]


def test_a_cut_answer_ends_its_parts_as_truncated() -> None:
    error = Error(scope="transport", code="truncated", message="cut")
    decoder = DIALECT.decoder()
    decoder.feed(body([chunk({"content": "a"})]))
    ends = decoder.finish(error)
    assert [e.type for e in ends] == ["text-end", "error", "step-end"]
    assert (ends[0].status, ends[2].status, ends[2].terminal_seen) == ("truncated", "error", False)


def test_truncation_is_not_told_when_the_last_bytes_hold_the_end() -> None:
    decoder = DIALECT.decoder()
    decoder.feed(body([chunk({"content": "a"})]) + b'data: {"choices":[{"finish_reason":"stop"}]}')
    ends = decoder.finish(Error(scope="transport", code="truncated", message="cut"))
    assert [e.type for e in ends] == ["finish", "text-end", "step-end"]
    assert ends[-1].terminal_seen


def test_an_error_inside_the_stream_is_typed_redacted_and_told_once() -> None:
    events = events_of(
        chunk({"content": "a"}),
        {"error": {"message": "bad key sk-abcdefghijklmnop", "code": 429}},
        chunk({"content": "ignored"}),
        "[DONE]",
    )
    (error,) = [e for e in events if isinstance(e, Error)]
    assert (error.code, error.retryable, error.after_output) == ("rate_limited", True, True)
    assert "sk-abc" not in repr(error)
    assert events[-1].status == "error"
    assert facts(events)["text"] == "a"


def test_keep_alives_are_heartbeats() -> None:
    decoder = DIALECT.decoder()
    assert decoder.feed(b": PROCESSING\n\n") == [Heartbeat(source="comment")]


def test_reasoning_details_and_their_proofs_are_kept_for_the_way_back() -> None:
    events = events_of(
        chunk({"reasoning_details": [{"type": "reasoning.text", "text": "a", "index": 0}]}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "text": "b", "index": 0}]}),
        chunk({"reasoning_details": [{"type": "reasoning.text", "signature": "S", "index": 0}]}),
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "E", "index": 1}]}),
        chunk({"content": "x"}, "stop"),
        "[DONE]",
    )
    attrs = {e.name: e.value for e in events if isinstance(e, PartAttr)}
    assert (attrs["signature"], attrs["encrypted"]) == ("S", "E")
    assert attrs["meta"]["reasoning_details"] == [
        {"type": "reasoning.text", "text": "ab", "index": 0, "signature": "S"},
        {"type": "reasoning.encrypted", "data": "E", "index": 1},
    ]
    kinds = [type(e) for e in events if isinstance(e, PartStart)]
    assert kinds == [ReasoningStart, TextStart]


def test_citations_logprobs_and_filters_decorate_the_text() -> None:
    cited = {"type": "url_citation", "url_citation": {"url": "http://u", "title": "T"}}
    logprobs = {"content": [{"token": "a", "logprob": -0.1}]}
    first = chunk({"content": "a"}, citations=["http://c", "http://d"])
    second = chunk({"content": "b", "annotations": [cited]}, citations=["http://c", "http://d"])
    second["choices"][0]["logprobs"] = logprobs
    second["choices"][0]["content_filter_results"] = {"hate": {"filtered": False}}
    events = events_of(first, second, chunk({}, "stop"), "[DONE]")
    attrs = [e for e in events if isinstance(e, PartAttr)]
    assert [a.value["url"] for a in attrs if a.name == "citation"] == [
        "http://c",
        "http://d",
        "http://u",
    ]
    assert [a.value for a in attrs if a.name == "logprobs"] == [logprobs["content"]]
    assert [a.value for a in attrs if a.name == "meta"] == [
        {"content_filter_results": {"hate": {"filtered": False}}}
    ]


def test_images_audio_custom_tools_and_the_unknown_survive() -> None:
    events = events_of(
        chunk({"images": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}),
        chunk({"audio": {"id": "au", "data": "BBBB", "transcript": "hi"}}),
        chunk({"tool_calls": [{"index": 0, "id": "c", "custom": {"name": "f", "input": "x y"}}]}),
        {"object": "something.new", "payload": 1},
        chunk({}, "stop"),
        "[DONE]",
    )
    files = [e for e in events if isinstance(e, FileStart)]
    assert [(f.media, f.media_type) for f in files] == [
        ("image", "image/png"),
        ("audio", "audio/pcm"),
    ]
    (call,) = [e for e in events if isinstance(e, ToolCallEnd)]
    assert (call.status, call.arguments) == ("complete", "x y")
    assert [e.payload for e in events if isinstance(e, Raw)] == [
        {"object": "something.new", "payload": 1}
    ]
    assert facts(events)["text"] == "hi"


def test_what_the_parts_say_wins_over_the_reason() -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    events = events_of(chunk({"tool_calls": [call]}), chunk({}, "stop"), "[DONE]")
    (finish,) = [e for e in events if isinstance(e, Finish)]
    assert (finish.reason, finish.raw) == ("tool_calls", "stop")
    events = events_of(chunk({"refusal": "no"}), chunk({}, "stop"), "[DONE]")
    assert next(e for e in events if isinstance(e, Finish)).reason == "refusal"


def test_a_nameless_call_never_runs_and_a_synthetic_id_is_marked() -> None:
    events = events_of(
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}), "[DONE]"
    )
    (start,) = [e for e in events if isinstance(e, ToolCallStart)]
    (end,) = [e for e in events if isinstance(e, ToolCallEnd)]
    assert (start.id_source, bool(start.call_id), end.status) == ("synthetic", True, "invalid")


def test_usage_counts_under_every_name() -> None:
    found = {
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    (usage,) = [e for e in events_of({"choices": [], "usage": found}) if isinstance(e, Usage)]
    assert (usage.cached_input_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (
        4,
        2,
        3,
    )


def test_many_tiny_pieces_of_arguments_are_read_in_linear_time() -> None:
    decoder = DIALECT.decoder()
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"'}}
    decoder.feed(body([chunk({"tool_calls": [call]})]))
    piece = body([chunk({"tool_calls": [{"index": 0, "function": {"arguments": "x"}}]})])
    for _ in range(120):
        decoder.feed(piece * 1000)
    last = chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"}'}}]}, "tool_calls")
    events = decoder.feed(body([last, "[DONE]"]))
    (end,) = [e for e in events if isinstance(e, ToolCallEnd)]
    assert (end.status, end.arguments) == ("complete", {"a": "x" * 120_000})


KEYS = st.sampled_from(
    "choices delta content tool_calls index id function name arguments finish_reason usage error "
    "message reasoning reasoning_details type text data logprobs annotations images audio code "
    "refusal prompt_tokens function_call citations search_results x_groq image_url url".split()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["stop", "length", "{}", '{"a":1}', "f", "c1", "reasoning.text"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(VALUES, max_size=6), st.integers(1, 50))
@settings(max_examples=150)
def test_any_payloads_give_ordered_events_however_cut(values: list[Any], size: int) -> None:
    data = body(
        [json.dumps({"choices": [{"delta": v}], "x": v}) for v in values]
        + [*map(json.dumps, values)]
    )
    events = decode(DIALECT.decoder(), [data])
    check_parts(events)
    facts(events)
    assert repr(merged(decode(DIALECT.decoder(), cut_every(size)(data)))) == repr(merged(events))


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: ", b"\n\n", b"{", b"[DONE]"])))
@settings(max_examples=150)
def test_any_bytes_give_events_or_a_typed_error(pieces: list[bytes]) -> None:
    decoder = DIALECT.decoder()
    events: list[Any] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.finish()
    except (FramingError, ProtocolError):
        events += decoder.finish(Error(scope="parse", code="bad_framing", message="x"))
    check_parts(events)


def test_bad_utf8_inside_a_payload_is_replaced_not_fatal() -> None:
    good = body([chunk({"content": "a"})])
    bad = body([chunk({"content": "XYZ"})]).replace(b"Y", b"\xff")
    found = facts(decode(DIALECT.decoder(), [good + bad + body([chunk({}, "stop"), "[DONE]"])]))
    assert (found["text"], found["complete"], found["error"]) == ("aX\ufffdZ", True, None)
