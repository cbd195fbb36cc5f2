"""Deltas to calls: any interleaving, any split, and everything that must never run."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.events.fold import fold
from tokenwire.events.model import (
    Event,
    Finish,
    PartAttr,
    PartPatch,
    StepEnd,
    StepReset,
    TextDelta,
    TextStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from tokenwire.tools import Assembler, ToolCall
from tokenwire.tools.calls.assemble import calls_of as state_calls

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, max_size=4)


def calls_of(events: list[Event]) -> list[ToolCall]:
    """From the events, and from the run's state: both give the same."""
    assembler, state = Assembler(), fold(events)
    for event in events:
        assembler.push(event)
    calls = assembler.calls
    if state.steps and not any(isinstance(event, PartPatch) for event in events):
        assert state_calls(state, state.steps[-1]) == calls
    return calls


def one(text: str, *, finish: Any = "tool_calls", end: StepEnd | None = None) -> ToolCall:
    (call,) = calls_of(
        [
            ToolCallStart(part=0, name="f", call_id="a"),
            ToolCallDelta(part=0, text=text),
            ToolCallEnd(part=0),
            Finish(reason=finish),
            end or StepEnd(step=1, status="complete", terminal_seen=True),
        ]
    )
    return call


def cut(text: str, places: list[int]) -> list[str]:
    marks = sorted({min(p, len(text)) for p in places} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(marks)]


@given(st.lists(OBJECTS, min_size=1, max_size=5), st.data())
def test_any_interleaving_and_split_gives_the_same_calls(
    wanted: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Starts come in the model's order; after that deltas of all calls may come in any order."""
    queues: list[list[Event]] = []
    for number, value in enumerate(wanted):
        text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
        pieces = cut(text, data.draw(st.lists(st.integers(0, 40), max_size=4)))
        deltas: list[Event] = [ToolCallDelta(part=number, text=p) for p in pieces]
        late = data.draw(st.booleans())
        start = ToolCallStart(part=number, name="" if late else f"f{number}", call_id=f"c{number}")
        if late:
            deltas.append(PartAttr(part=number, name="tool_name", value=f"f{number}"))
        queues.append([start, *deltas, ToolCallEnd(part=number)])
    events: list[Event] = [queue.pop(0) for queue in queues]
    while any(queues):
        chosen = data.draw(st.sampled_from([q for q in queues if q]))
        events.append(chosen.pop(0))
        if data.draw(st.booleans()):
            events.append(TextDelta(part=99, text="between"))
    events += [
        Finish(reason="tool_calls"),
        StepEnd(step=1, status="complete", terminal_seen=True),
    ]
    found = calls_of([TextStart(part=99), *events])
    assert [(c.call_id, c.name) for c in found] == [(f"c{n}", f"f{n}") for n in range(len(wanted))]
    assert all(c.runnable for c in found)
    assert [json.dumps(c.arguments) for c in found] == [json.dumps(v) for v in wanted]


def test_a_complete_step_gives_a_runnable_call_and_no_arguments_are_an_empty_object() -> None:
    assert one('{"city":"Paris"}').arguments == {"city": "Paris"}
    assert one("").arguments == {}
    assert one('{"a":1}', finish="stop").runnable, "trust the parts, not the reason"


@pytest.mark.parametrize("finish", ["length", "content_filter", "context_overflow", "error"])
def test_a_stopped_model_calls_nothing(finish: Any) -> None:
    call = one('{"a":1}', finish=finish)
    assert (call.status, call.runnable) == ("truncated", False)
    assert call.error is not None
    assert finish in call.error


@pytest.mark.parametrize(
    "end",
    [
        StepEnd(step=1, status="complete", terminal_seen=False),
        StepEnd(step=1, status="incomplete", terminal_seen=True),
        StepEnd(step=1, status="cancelled"),
        StepEnd(step=1, status="error"),
    ],
)
def test_a_cut_step_calls_nothing(end: StepEnd) -> None:
    assert one('{"a":1}', end=end).status == "truncated"


def test_a_call_without_its_end_or_before_the_step_has_ended_is_not_runnable() -> None:
    start, delta = ToolCallStart(part=0, name="f", call_id="a"), ToolCallDelta(part=0, text="{}")
    end = StepEnd(step=1, status="complete", terminal_seen=True)
    assert not calls_of([start, delta, end])[0].runnable
    assert not calls_of([start, delta, ToolCallEnd(part=0)])[0].runnable
    assert not calls_of([start, delta, ToolCallEnd(part=0, status="truncated"), end])[0].runnable


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":', "not valid JSON"),
        ('{"a":1}{"b":2}', "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ('{"a":1,"a":2}', "occurs twice"),
        ('{"x":{"a":1,"a":1}}', "occurs twice"),
        ('{"a":NaN}', "NaN"),
        ('{"a":-Infinity}', "Infinity"),
        ('{"a":1e999}', "out of range"),
        ('{"a":' + "9" * 5000 + "}", "out of range"),
        ('{"a":18446744073709551616}', "out of range"),
        ('{"a":"\\ud800"}', "surrogate"),
        ('{"a":"' + "x" * 300_000 + '"}', "longer than"),
        ('{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper"),
        ("[" * 100_000, "nested deeper"),
        ('{"a":' * 60_000, "longer than"),
    ],
)
def test_arguments_that_two_readers_could_read_in_two_ways_are_invalid(
    text: str, reason: str
) -> None:
    call = one(text)
    assert (call.status, call.runnable, call.arguments) == ("invalid", False, None)
    assert call.error is not None
    assert reason in call.error


@given(st.text() | st.text('{}[]":,\\ \n0eE.-tfn', max_size=60))
def test_any_text_is_a_call_or_a_reason(text: str) -> None:
    call = one(text)
    assert (call.error is None) == (call.status == "complete")


def test_a_reset_forgets_the_calls_of_the_earlier_attempt() -> None:
    found = calls_of(
        [
            ToolCallStart(part=0, name="old", call_id="a"),
            ToolCallDelta(part=0, text='{"x":'),
            StepReset(step=1, attempt=2, discard_parts=[0]),
            ToolCallStart(part=1, name="new", call_id="b"),
            ToolCallEnd(part=1),
            StepEnd(step=1, status="complete", terminal_seen=True),
        ]
    )
    assert [(c.name, c.runnable) for c in found] == [("new", True)]


def test_patches_build_the_arguments() -> None:
    (call,) = calls_of(
        [
            ToolCallStart(part=0, name="f", call_id="a"),
            PartPatch(part=0, path="$.city", value="Par", open=True),
            PartPatch(part=0, path="$.city", value="is"),
            PartPatch(part=0, path="$.days[1].n", value=2),
            PartPatch(part=0, path="nonsense", value=2),
            ToolCallEnd(part=0),
            StepEnd(step=1, status="complete", terminal_seen=True),
        ]
    )
    assert call.arguments == {"city": "Paris", "days": [None, {"n": 2}]}
    assert json.loads(call.arguments_text) == call.arguments


def test_a_corrected_text_and_a_value_without_text_count() -> None:
    end = StepEnd(step=1, status="complete", terminal_seen=True)
    start = ToolCallStart(part=0, name="f", call_id="a")
    corrected = ToolCallEnd(part=0, text='{"a":2}')
    assert calls_of([start, ToolCallDelta(part=0, text="x"), corrected, end])[0].arguments == {
        "a": 2
    }
    assert calls_of([start, ToolCallEnd(part=0, arguments={"b": 1}), end])[0].arguments == {"b": 1}


def test_other_choices_and_provider_tools_are_not_ours_to_run() -> None:
    end = StepEnd(step=1, status="complete", terminal_seen=True)
    second = ToolCallStart(part=0, name="f", call_id="a", choice=1)
    assert calls_of([second, ToolCallEnd(part=0), end]) == []
    theirs = ToolCallStart(part=0, name="web_search", call_id="a", executor="provider")
    assert not calls_of([theirs, ToolCallEnd(part=0), end])[0].runnable


def test_free_form_input_is_its_text() -> None:
    end = StepEnd(step=1, status="complete", terminal_seen=True)
    start = ToolCallStart(part=0, name="f", call_id="a", format="text")
    (call,) = calls_of([start, ToolCallDelta(part=0, text="SELECT 1"), ToolCallEnd(part=0), end])
    assert (call.runnable, call.arguments) == (True, "SELECT 1")


def test_a_hundred_thousand_one_character_deltas() -> None:
    text = '{"a":"' + "x" * 119_992 + '"}'
    events: list[Event] = [ToolCallStart(part=0, name="f", call_id="a")]
    events += [ToolCallDelta(part=0, text=character) for character in text]
    events += [ToolCallEnd(part=0), StepEnd(step=1, status="complete", terminal_seen=True)]
    assert calls_of(events)[0].arguments == {"a": "x" * 119_992}
