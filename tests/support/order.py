"""The order of a run around the events of one response."""

from __future__ import annotations

from typing import Any

from tokenwire.events.codec import decode, encode
from tokenwire.events.fold import Fold
from tokenwire.events.model import TRANSIENT, RunEnd, RunStart, StepStart
from tokenwire.events.order import Order


def in_order(events: list[Any], dialect: str | None = None) -> Fold:
    """Check a response's events as one step of a run, each also through its JSON form."""
    order, state = Order(), Fold()
    for event in (RunStart(run="r"), StepStart(step=1, dialect=dialect), *events):
        if not isinstance(event, TRANSIENT):
            order.check(event)
            assert decode(encode(event)) == event
            state.apply(event)
            event.seq = 0
    order.check(RunEnd(outcome="complete"))
    return state
