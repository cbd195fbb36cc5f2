"""Speakers of one run that speak at the same time."""

from __future__ import annotations

from tokenwire.agents.outlet import Outlet, Source
from tokenwire.events import model as m
from tokenwire.events.fold import Fold
from tokenwire.events.order import Order


def answer(*texts: str) -> list[m.Event]:
    return [
        m.StepStart(step=1),
        m.TextStart(part=0),
        *(m.TextDelta(part=0, text=text) for text in texts),
        m.TextEnd(part=0),
        m.StepEnd(step=1, status="complete"),
    ]


def test_whole_answers_that_waited_are_said_once_and_in_turn() -> None:
    order = Order()
    order.check(m.RunStart(run="r", time=1))
    outlet = Outlet(order, Fold(), most_steps=9, name="agent")
    slow, quick, third = Source(operation=1), Source(operation=1), Source(operation=1)
    long = answer("a", "b")
    outlet.emit(slow, long[:3])
    outlet.emit(quick, answer("quick"))
    outlet.emit(third, answer("third"))
    outlet.emit(slow, long[3:])
    events, _ = outlet.take()
    for event in events:
        order.check(event)
    assert order.state == "between"
    assert [e.text for e in events if isinstance(e, m.TextDelta)] == ["a", "b", "quick", "third"]
    assert [e.step for e in events if isinstance(e, m.StepEnd)] == [1, 2, 3]
