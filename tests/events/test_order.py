"""The order table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.event_strategies import runs
from tokenwire.errors import OrderError
from tokenwire.events import codec
from tokenwire.events import model as m
from tokenwire.events.order import TABLE, Order, closing


def started(*events: m.Event) -> Order:
    order = Order()
    for event in (m.RunStart(run="r"), m.StepStart(step=1), *events):
        order.check(event)
    return order


@given(runs())
def test_valid_runs_pass_and_are_numbered_without_gap(events):
    order = Order()
    for number, event in enumerate(events, 1):
        event.seq = 0
        assert order.check(event).seq == number
    assert order.state == "ended"
    assert not order.open


@given(runs(), st.data())
def test_nothing_may_follow_the_end(events, data):
    order = Order()
    for event in events:
        order.check(event)
    late = data.draw(st.sampled_from(events))
    with pytest.raises(OrderError):
        order.check(codec.decode(codec.encode(late)))


@given(runs(), st.data())
def test_a_missing_event_is_noticed(events, data):
    """Drop any one event but the last: the numbers, at least, no longer fit."""
    at = data.draw(st.integers(0, len(events) - 2))
    order = Order()
    with pytest.raises(OrderError) as caught:
        for event in events[:at] + events[at + 1 :]:
            order.check(event)
    assert caught.value.details["rule"]


@pytest.mark.parametrize(
    ("order", "event", "rule"),
    [
        (Order(), m.StepStart(step=1), "new: step-start"),
        (started(), m.RunStart(run="r"), "step: run-start"),
        (started(), m.TextDelta(part=0, text="x"), "a delta needs its part open"),
        (started(m.ReasoningStart(part=0)), m.TextDelta(part=0, text="x"), "a delta needs"),
        (started(m.TextStart(part=0), m.TextEnd(part=0)), m.TextStart(part=0), "used once"),
        (started(m.TextStart(part=0)), m.StepEnd(step=1, status="complete"), "parts end before"),
        (started(m.TextStart(part=0)), m.ReasoningEnd(part=0), "an end needs its part open"),
        (started(), m.PartAttr(part=4, name="signature"), "an attribute needs"),
        (started(), m.RunEnd(outcome="complete"), "step: run-end"),
        (started(), m.ToolStart(call_id="c", name="n"), "step: tool-start"),
    ],
)
def test_each_rule_is_named(order, event, rule):
    with pytest.raises(OrderError) as caught:
        order.check(event)
    assert rule in caught.value.details["rule"]


def test_a_reset_closes_what_was_open_and_numbers_go_on():
    order = started(m.TextStart(part=0), m.TextDelta(part=0, text="a"))
    order.check(m.StepReset(step=1, attempt=2, discard_parts=[0]))
    order.check(m.StepStart(step=1, attempt=2))
    with pytest.raises(OrderError):
        order.check(m.TextStart(part=0))
    order.check(m.TextStart(part=1))


def test_unknown_events_may_come_wherever_raw_may():
    order = started()
    order.check(codec.decode(b'{"type":"from-the-future"}'))
    with pytest.raises(OrderError):
        Order().check(codec.decode(b'{"type":"from-the-future"}'))


@given(runs(), st.data())
def test_closing_makes_any_cut_run_whole(events, data):
    cut = data.draw(st.integers(1, len(events) - 1))
    order = Order()
    for event in events[:cut]:
        order.check(event)
    for event in closing(order, part="truncated", step="incomplete"):
        order.check(event)
    order.check(m.RunEnd(outcome="interrupted"))
    assert order.state == "ended"


def test_the_table_names_only_events_that_exist():
    for allowed in TABLE.values():
        assert set(allowed) <= set(m.EVENT_TYPES)
        assert set(allowed.values()) <= set(TABLE)
    everywhere = set().union(*TABLE.values())
    assert set(m.EVENT_TYPES) - everywhere == {"heartbeat", "reconnect"}


def run_of(*events: m.Event) -> Order:
    order = Order()
    for event in (m.RunStart(run="r" * 16), *events):
        order.check(event)
    return order


def test_tasks_overlap_the_step_that_holds_parts_and_each_other() -> None:
    order = run_of(
        m.StepStart(step=1, kind="task", name="a"),
        m.StepStart(step=2),
        m.TextStart(part=0, step=2),
        m.StepStart(step=3, kind="task", name="b"),
        m.StepEnd(step=1, status="complete"),
        m.TextDelta(part=0, text="x"),
        m.TextEnd(part=0),
        m.StepEnd(step=2, status="complete"),
    )
    assert order.tasks == (3,)
    assert [e.type for e in closing(order, part="truncated", step="incomplete")] == ["step-end"]
    order.check(m.StepReset(step=3, attempt=2))
    order.check(m.StepStart(step=3, kind="task", name="b", attempt=2))
    order.check(m.StepEnd(step=3, status="complete"))
    order.check(m.RunEnd(outcome="complete"))


@pytest.mark.parametrize(
    ("before", "event"),
    [
        ([m.StepStart(step=1)], m.StepStart(step=2)),
        ([m.StepStart(step=1)], m.StepStart(step=2, kind="agent")),
        ([m.StepStart(step=1)], m.StepStart(step=1, kind="task")),
        ([m.StepStart(step=1, kind="task")], m.StepStart(step=1, kind="task")),
        ([m.StepStart(step=1, kind="task")], m.RunEnd(outcome="complete")),
        ([m.StepStart(step=1, kind="task")], m.TextStart(part=0)),
        ([], m.StepEnd(step=1, status="complete")),
    ],
)
def test_what_tasks_do_not_allow(before: list[m.Event], event: m.Event) -> None:
    order = run_of(*before)
    with pytest.raises(OrderError):
        order.check(event)
