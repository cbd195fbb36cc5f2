"""Which event may follow which: one table, and the rules of parts.

Always true of a valid run: ``seq`` is 1, 2, 3, ...; exactly one ``run-start``, first, and one
``run-end``, last; a part's deltas, attributes and end come between its start and its end, and a
part number is never used again; every part is ended (or discarded by ``step-reset``) before its
step is; one step holds parts at a time, while steps of the kind ``task``, which hold none, may
overlap it and each other, and are ended before the run is; what is not in the table is an error
that names the rule.

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
    RunEnd,
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
_ANYWHERE = "error control data state progress budget raw checkpoint run-claim".split()

#: state -> {event type -> next state}. An unknown type is allowed wherever ``raw`` is. The start
#: and end of a ``task`` leave the state as it is; within a step only a task may start, and between
#: steps only a task may end.
TABLE: dict[str, dict[str, str]] = {
    "new": {"run-start": "between"},
    "between": {
        "step-start": "step",
        "step-end": "between",
        "step-reset": "between",
        "run-wait": "between",
        "usage": "between",
        "run-end": "ended",
        **dict.fromkeys(_TOOLS, "between"),
        **dict.fromkeys(_ANYWHERE, "between"),
    },
    "step": {
        "step-start": "step",
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
        "tasks",
    )

    def __init__(self) -> None:
        self.state = "new"
        self.seq = 0
        self.step = 0
        self.next_part = 0
        #: open part -> kind, in the order of their starts.
        self.open: dict[int, str] = {}
        #: Steps of the kind ``task`` that have not ended.
        self.tasks: tuple[int, ...] = ()

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
        elif isinstance(event, StepStart | StepEnd):
            following = self._step(event, following)
        elif isinstance(event, StepReset):
            if event.step in self.tasks:
                following = self.state
                self._end_task(event.step)
            else:
                self.open.clear()
        elif isinstance(event, RunEnd) and self.tasks:
            raise OrderError(
                f"the run may not end while steps {[*self.tasks]} are open",
                rule="steps end before their run",
            )
        self.state = following

    def _step(self, event: StepStart | StepEnd, following: str) -> str:
        """The state after the start or the end of a step."""
        number, task = event.step, event.step in self.tasks
        if isinstance(event, StepStart):
            if task or (self.state == "step" and (event.kind != "task" or number == self.step)):
                raise OrderError(
                    f"step {number} may not start while step {self.step} is open",
                    rule="one step holds parts at a time",
                )
            if event.kind == "task":
                self.tasks = (*self.tasks, number)
                return self.state
            self.step = number
            return following
        if task:
            self._end_task(number)
            return self.state
        if self.state == "between":
            raise OrderError(f"step {number} is not open", rule="an end needs its step open")
        if self.open:
            raise OrderError(
                f"step {number} may not end while parts {sorted(self.open)} are open",
                rule="parts end before their step",
            )
        return following

    def _end_task(self, number: int) -> None:
        self.tasks = tuple(task for task in self.tasks if task != number)

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
    """The events that close what is open: ends for parts, then for steps; for a run that lost
    its producer."""
    events: list[Event] = [
        ENDS[kind](part=number, status=part) for number, kind in order.open.items()
    ]
    if order.state == "step":
        events.append(StepEnd(step=order.step, status=step))
    events += [StepEnd(step=number, status=step) for number in order.tasks]
    return events


def _is_unknown(event: AnyEvent) -> bool:
    return not isinstance(event, Event)
