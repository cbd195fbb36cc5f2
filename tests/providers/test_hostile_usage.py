"""Token counts that are none: negative, huge, no numbers, fewer than before, said twice."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.billing import WIRES, body_of, payloads_of
from tokenwire.events import model as m
from tokenwire.events.codec import encode
from tokenwire.events.fold import USAGE_COUNTS, fold
from tokenwire.providers.decoding.values import tokens_of
from tokenwire.providers.registry import Registry
from tokenwire.relay.spending.counts import MOST_TOKENS
from tokenwire.relay.spending.meter import Meter

COUNTS = frozenset(
    "prompt_tokens completion_tokens input_tokens output_tokens total_tokens cached_tokens "
    "reasoning_tokens cache_read_input_tokens cache_creation_input_tokens promptTokenCount "
    "candidatesTokenCount totalTokenCount cachedContentTokenCount thoughtsTokenCount "
    "prompt_eval_count eval_count total_input_tokens total_output_tokens inputTokens "
    "outputTokens".split()
)
NO_COUNTS: list[Any] = [
    *(-1, -5, -(2**63), 2**53, 2**63, 2**64, 10**30, -1.5, 1e300, -1e300, float("inf")),
    *("", "-12", "x", "1e3", "9" * 40, "١٢", None, True, False, [], [1], {}, {"a": 1}),
]


def with_counts(value: Any, count: Any) -> Any:
    """Payloads whose every count is ``count``."""
    if isinstance(value, dict):
        return {k: count if k in COUNTS else with_counts(v, count) for k, v in value.items()}
    return [with_counts(v, count) for v in value] if isinstance(value, list) else value


def decoded(wire: str, body: bytes, content_type: str = "text/event-stream") -> list[m.Event]:
    decoder = (
        Registry(env={})
        .dialect(wire)
        .decoder(step=1, first_part=0, quirks=frozenset(), content_type=content_type)
    )
    return [*decoder.feed(body), *decoder.finish()]


def calls_of(events: list[m.Event]) -> list[Any]:
    meter = Meter()
    for event in [m.StepStart(step=1, provider="p", model="m"), *events]:
        meter.apply(event)
    return meter.calls()


def check(events: list[m.Event]) -> None:
    """Every event can be written, and so can the sum of many such steps; no count is negative."""
    for event in events:
        encode(event)
    usage = fold([m.StepStart(step=1), *events]).usage
    assert all(type(count) is int and count >= 0 for count in usage.values())
    many = {name: 1000 * count for name, count in usage.items()}
    encode(m.RunEnd(outcome="complete", usage=many))
    for call in calls_of(events):
        if call.counts is not None:
            assert all(0 <= count <= 2 * MOST_TOKENS for _, count in call.counts.items())


@pytest.mark.parametrize("act", ["answer", "count_error"])
@pytest.mark.parametrize("wire", WIRES)
def test_what_is_no_count_is_not_counted(wire: str, act: Any) -> None:
    for count in NO_COUNTS:
        events = decoded(wire, body_of(wire, act, with_counts(payloads_of(wire, act, 7, 3), count)))
        check(events)
        assert not fold([m.StepStart(step=1), *events]).usage, count
        (call,) = calls_of(events)
        assert call.counts is None
        assert any(isinstance(event, m.Finish | m.Error) for event in events)


@pytest.mark.parametrize("count", NO_COUNTS)
def test_lines_of_ollama_and_events_of_cohere(count: Any) -> None:
    line = {"model": "m", "done": True, "done_reason": "stop", "eval_count": 3}
    line |= {"prompt_eval_count": 4, "message": {"role": "assistant", "content": "words"}}
    check(decoded("ollama", json.dumps(with_counts(line, count)).encode() + b"\n", "text/x-ndjson"))
    tokens = {"input_tokens": 4, "output_tokens": 3}
    end = {"finish_reason": "COMPLETE", "usage": {"tokens": tokens, "billed_units": tokens}}
    payloads = [
        {"type": "message-start", "id": "r", "delta": {"message": {"role": "assistant"}}},
        {"type": "message-end", "id": "r", "delta": end},
    ]
    check(decoded("cohere", body_of("cohere", "count_error", with_counts(payloads, count))))


@pytest.mark.parametrize("wire", WIRES)
def test_counts_that_come_again_count_once_and_the_last_ones(wire: str) -> None:
    def usage_of(*reports: tuple[int, int]) -> dict[str, int]:
        """The usage of an answer that is counted several times before its end."""
        first, *others = [payloads_of(wire, "count", *report) for report in reports]
        answer = payloads_of(wire, "answer", *reports[-1])
        middle = [payload for payloads in (first, *others) for payload in payloads]
        kinds = {json.dumps(payload) for payload in answer[:1]}
        start = [payload for payload in middle if json.dumps(payload) not in kinds]
        events = decoded(wire, body_of(wire, "answer", [*start, *answer]))
        check(events)
        return {
            name: fold([m.StepStart(step=1), *events]).usage[name]
            for name in ("input_tokens", "output_tokens")
        }

    last = {"input_tokens": 20, "output_tokens": 5}
    assert usage_of((20, 5)) == last
    assert usage_of((20, 5), (20, 5), (20, 5)) == last
    assert usage_of((900, 80), (20, 5)) == last


@given(st.one_of(st.integers(), st.floats(), st.text(max_size=30), st.none(), st.booleans()))
@settings(max_examples=200)
def test_a_count_is_a_whole_number_that_every_client_reads(value: Any) -> None:
    count = tokens_of(value)
    assert count is None or (type(count) is int and 0 <= count < 2**53)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        assert count == value


@given(st.lists(st.dictionaries(st.sampled_from(USAGE_COUNTS), st.integers(0, 2**53 - 1))))
def test_reports_of_one_call_never_add_up(reports: list[dict[str, int]]) -> None:
    events = [m.Usage(**report) for report in reports]  # type: ignore[arg-type]
    usage = fold([m.StepStart(step=1), *events]).usage
    for name, count in usage.items():
        assert count in [report.get(name) for report in reports]
