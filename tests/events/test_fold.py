"""The fold to a message."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.event_strategies import runs
from tokenwire.events import codec
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.run.coalesce import merge


def copies(events):
    return [codec.decode(codec.encode(e)) for e in events]


def plain(state: Fold):
    """A fold without what coalescing may change: the number of the last event."""
    return {k: v for k, v in state.snapshot().items() if k != "seq"}


@given(runs())
def test_folding_merged_events_gives_the_same(events):
    assert plain(fold(merge(copies(events)))) == plain(fold(events))


@given(runs(), st.lists(st.integers(1, 5), min_size=1, max_size=30))
def test_any_batches_give_the_same(events, sizes):
    out, at = [], 0
    batches = copies(events)
    while at < len(batches):
        size = sizes[at % len(sizes)]
        out.extend(merge(batches[at : at + size]))
        at += size
    assert plain(fold(out)) == plain(fold(events))


@given(runs(), st.data())
def test_a_snapshot_at_any_cut_folds_on_to_the_same_end(events, data):
    cut = data.draw(st.integers(0, len(events)))
    first = fold(events[:cut])
    restored = Fold.restore(json.loads(json.dumps(first.snapshot())))
    for event in events[cut:]:
        restored.apply(event)
    assert restored.snapshot() == fold(events).snapshot()


@given(runs())
def test_a_reset_leaves_no_trace_of_what_it_discards(events):
    state = fold(events)
    discarded = {p for e in events if isinstance(e, m.StepReset) for p in e.discard_parts}
    assert not discarded & set(state.parts)
    shown = "".join(
        e.text for e in events if isinstance(e, m.TextDelta) and e.part not in discarded
    )
    replaced = any(isinstance(e, m.PartEnd) and e.text is not None for e in events)
    if not replaced:
        by_part = {p.part: p.text for p in state.parts.values() if p.kind == "text"}
        assert sorted("".join(by_part.values())) == sorted(shown)


def test_history_puts_results_behind_the_calls_of_their_step():
    state = fold(
        [
            m.RunStart(run="r"),
            m.StepStart(step=1, dialect="openai-chat"),
            m.ToolCallStart(part=0, step=1, name="clock", call_id="c1"),
            m.ToolCallDelta(part=0, text='{"zone":'),
            m.ToolCallDelta(part=0, text='"UTC"}'),
            m.ToolCallEnd(part=0, arguments={"zone": "UTC"}),
            m.StepEnd(step=1, status="complete", terminal_seen=True),
            m.ToolStart(call_id="c1", name="clock"),
            m.ToolResult(call_id="c1", content={"time": "12:00"}, name="clock"),
            m.StepStart(step=2),
            m.TextStart(part=1, step=2),
            m.TextDelta(part=1, text="Noon."),
            m.TextEnd(part=1),
            m.StepEnd(step=2, status="complete", terminal_seen=True),
            m.RunEnd(outcome="complete"),
        ]
    )
    roles = [message.role for message in state.history()]
    assert roles == ["assistant", "tool", "assistant"]
    call = state.history()[0].tool_calls[0]
    assert (call.name, call.arguments, call.call_id) == ("clock", '{"zone":"UTC"}', "c1")
    assert state.history()[1].parts[0].content == {"time": "12:00"}
    assert state.text == "Noon."


def test_cumulative_usage_replaces_and_increments_add():
    state = fold(
        [
            m.RunStart(run="r"),
            m.StepStart(step=1),
            m.Usage(input_tokens=5, output_tokens=1),
            m.Usage(output_tokens=9),
            m.Usage(output_tokens=2, mode="increment"),
            m.StepEnd(step=1, status="complete"),
            m.StepStart(step=2),
            m.Usage(input_tokens=7, output_tokens=3),
        ]
    )
    assert state.usage == {"input_tokens": 12, "output_tokens": 14}


def test_the_first_approval_answer_wins():
    state = fold(
        [
            m.ApprovalRequest(approval_id="a", call_id="c", name="n", arguments={"x": 1}),
            m.ApprovalAnswer(approval_id="a", call_id="c", approved=False, by="ann"),
            m.ApprovalAnswer(approval_id="a", call_id="c", approved=True, by="bob"),
        ]
    )
    assert state.tools["c"].approved is False


def test_a_provider_correction_replaces_the_deltas():
    state = fold(
        [
            m.StepStart(step=1),
            m.TextStart(part=0),
            m.TextDelta(part=0, text="helo"),
            m.TextEnd(part=0, text="hello"),
        ]
    )
    assert state.text == "hello"


def test_what_a_lost_attempt_cost_is_told_or_called_unknown():
    def run(*, counted: bool, kept: bool) -> Fold:
        events = [
            m.RunStart(run="r"),
            m.StepStart(step=1),
            m.ResponseStart(id="resp_1", resumable=kept),
            *([m.Usage(input_tokens=3, output_tokens=9)] if counted else []),
            m.StepReset(step=1, attempt=2),
            m.StepStart(step=1, attempt=2),
            m.ResponseStart(id="resp_1", resumable=kept),
            m.Usage(output_tokens=1),
        ]
        return fold(events)

    assert run(counted=True, kept=False).usage == {"input_tokens": 3, "output_tokens": 10}
    assert not run(counted=True, kept=False).usage_unknown
    assert run(counted=False, kept=False).usage == {"output_tokens": 1}
    assert run(counted=False, kept=False).usage_unknown
    # A response that its provider keeps is read again, not paid again.
    assert run(counted=True, kept=True).usage == {"output_tokens": 1}
    assert not run(counted=False, kept=True).usage_unknown


@pytest.mark.parametrize(
    ("reason", "is_unknown"),
    [(None, True), ("restart", True), ("retry", True), ("fallback", True), ("refused", False)],
)
def test_an_attempt_that_no_provider_began_to_answer_costs_nothing(
    reason: str | None, is_unknown: bool
) -> None:
    events = [
        m.RunStart(run="r"),
        m.StepStart(step=1),
        m.StepReset(step=1, attempt=2, reason=reason),
        m.StepStart(step=1, attempt=2),
    ]
    assert fold(events).usage_unknown is is_unknown


@pytest.mark.parametrize("kind", ["agent", "task"])
def test_only_a_model_call_that_is_lost_costs_tokens_that_nobody_counted(kind: Any) -> None:
    events = [
        m.RunStart(run="r"),
        m.StepStart(step=1, kind=kind),
        m.StepReset(step=1, attempt=2),
        m.StepStart(step=1, kind=kind, attempt=2),
    ]
    assert not fold(events).usage_unknown


def test_a_message_does_not_change_with_later_citations() -> None:
    state = fold([m.RunStart(run="r"), m.StepStart(step=1), m.TextStart(part=0)])
    state.apply(m.PartAttr(part=0, name="citation", value={"url": "a"}))
    message = state.message()
    state.apply(m.PartAttr(part=0, name="citation", value={"url": "b"}))
    assert [citation["url"] for citation in message.parts[0].citations] == ["a"]
    assert [citation["url"] for citation in state.message().parts[0].citations] == ["a", "b"]


def test_facts_of_an_application_are_kept_and_replaced_by_id() -> None:
    fold = Fold()
    for fact in (
        m.Data(name="sources", payload=[1]),
        m.Data(name="stage", payload="one", id="s"),
        m.Data(name="sources", payload=[2]),
        m.Data(name="other", payload=1, id="s"),
        m.Data(name="stage", payload="two", id="s"),
        m.Data(name="flash", payload="!", transient=True),
    ):
        fold.apply(fact)
    assert fold.data == [
        {"name": "sources", "payload": [1], "id": None},
        {"name": "stage", "payload": "two", "id": "s"},
        {"name": "sources", "payload": [2], "id": None},
        {"name": "other", "payload": 1, "id": "s"},
    ]
