"""Which event may follow which: one table, and the rules of parts.

Always true of a valid run: ``seq`` is 1, 2, 3, ...; exactly one ``run-start``, first, and one
``run-end``, last; a part's deltas, attributes and end come between its start and its end, and a
part number is never reused; every part is ended (or discarded by ``step-reset``) before its
step is; anything else is an error that names the rule.

The diagram in the docs and the TypeScript copy are generated from `TABLE`.
"""

from __future__ import annotations

from tokenwire.errors import OrderError
from tokenwire.events.codec import AnyEvent
from tokenwire.events.model import (
    Event,
    FileDelta,
    FileEnd,
    OpaqueEnd,
    PartAttr,
    PartEnd,
    PartPatch,
    PartStart,
    PartStatus,
    ProviderResultDelta,
    ProviderResultEnd,
    ReasoningDelta,
    ReasoningEnd,
    RefusalDelta,
    RefusalEnd,
    StepEnd,
    StepReset,
    StepStart,
    StepStatus,
    TextDelta,
    TextEnd,
    ToolCallDelta,
    ToolCallEnd,
)

__all__ = ["ENDS", "TABLE", "Order", "closing"]

_PARTS = (
    "text-start text-delta text-end reasoning-start reasoning-delta reasoning-end "
    "refusal-start refusal-delta refusal-end tool-call-start tool-call-delta tool-call-end "
    "provider-result-start provider-result-delta provider-result-end "
    "file-start file-delta file-end opaque-start opaque-end part-attr part-patch"
).split()
_TOOLS = (
    "tool-start tool-progress tool-output tool-result tool-error approval-request approval-answer"
).split()
_ANYWHERE = "error control data raw checkpoint run-claim".split()

#: state -> {event type -> next state}. An unknown type may come wherever ``raw`` may.
TABLE: dict[str, dict[str, str]] = {
    "new": {"run-start": "between"},
    "between": {
        "step-start": "step",
        "step-reset": "between",
        "run-wait": "between",
        "usage": "between",
        "run-end": "ended",
        **dict.fromkeys(_TOOLS, "between"),
        **dict.fromkeys(_ANYWHERE, "between"),
    },
    "step": {
        "step-end": "between",
        "step-reset": "between",
        "response-start": "step",
        "usage": "step",
        "finish": "step",
        **dict.fromkeys(_PARTS, "step"),
        **dict.fromkeys(_ANYWHERE, "step"),
    },
    "ended": {},
}

#: kind of part -> the class of its end.
ENDS: dict[str, type[PartEnd]] = {
    "text": TextEnd,
    "reasoning": ReasoningEnd,
    "refusal": RefusalEnd,
    "tool-call": ToolCallEnd,
    "provider-result": ProviderResultEnd,
    "file": FileEnd,
    "opaque": OpaqueEnd,
}

_DELTAS: dict[type[Event], str] = {
    TextDelta: "text",
    ReasoningDelta: "reasoning",
    RefusalDelta: "refusal",
    ToolCallDelta: "tool-call",
    ProviderResultDelta: "provider-result",
    FileDelta: "file",
}


class Order:
    """The checker of one run. ``check`` numbers events that have no ``seq`` yet."""

    __slots__ = (
        "next_part",
        "open",
        "seq",
        "state",
        "step",
    )

    def __init__(self) -> None:
        self.state = "new"
        self.seq = 0
        self.step = 0
        self.next_part = 0
        #: open part -> kind, in the order of their starts.
        self.open: dict[int, str] = {}

    def check(self, event: AnyEvent) -> AnyEvent:
        """The same event, numbered. Raises `OrderError` with ``details['rule']``."""
        kind = _DELTAS.get(type(event))  # type: ignore[arg-type]
        if kind is not None:
            # The most frequent event: valid exactly where its part is open.
            if self.open.get(event.part) != kind:  # type: ignore[union-attr]
                raise self._part_error(event, "a delta needs its part open")  # type: ignore[arg-type]
            if event.seq == 0:
                self.seq = event.seq = self.seq + 1
                return event
        else:
            self._move(event)
        self._number(event)
        return event

    def _number(self, event: AnyEvent) -> None:
        expected = self.seq + 1
        if event.seq == 0:
            event.seq = expected
        elif event.seq != expected:
            raise OrderError(
                f"event {event.seq} ('{event.type}') arrived instead of {expected}",
                rule="seq grows by one",
            )
        self.seq = expected

    def _move(self, event: AnyEvent) -> None:
        name = event.type
        moves = TABLE[self.state]
        following = moves.get(name) or (moves.get("raw") if _is_unknown(event) else None)
        if following is None:
            raise OrderError(
                f"'{name}' may not come in state '{self.state}'", rule=f"{self.state}: {name}"
            )
        if isinstance(event, PartStart):
            self._start(event)
        elif isinstance(event, PartEnd):
            if self.open.get(event.part) != event.kind:
                raise self._part_error(event, "an end needs its part open")
            del self.open[event.part]
        elif isinstance(event, PartAttr | PartPatch):
            if event.part not in self.open:
                raise self._part_error(event, "an attribute needs its part open")
        elif isinstance(event, StepStart):
            self.step = event.step
        elif isinstance(event, StepEnd) and self.open:
            raise OrderError(
                f"step {event.step} may not end while parts {sorted(self.open)} are open",
                rule="parts end before their step",
            )
        elif isinstance(event, StepReset):
            self.open.clear()
        self.state = following

    def _start(self, event: PartStart) -> None:
        if event.part < self.next_part:
            raise OrderError(
                f"part {event.part} has already started", rule="a part number is used once"
            )
        self.next_part = event.part + 1
        self.open[event.part] = event.kind

    def _part_error(self, event: AnyEvent, rule: str) -> OrderError:
        part = getattr(event, "part", None)
        return OrderError(f"'{event.type}' names part {part}, which is not open", rule=rule)


def closing(order: Order, *, part: PartStatus, step: StepStatus) -> list[Event]:
    """The events that close the open parts, then the open step; for a run that lost its
    producer."""
    events: list[Event] = [
        ENDS[kind](part=number, status=part) for number, kind in order.open.items()
    ]
    if order.state == "step":
        events.append(StepEnd(step=order.step, status=step))
    return events


def _is_unknown(event: AnyEvent) -> bool:
    return not isinstance(event, Event)
