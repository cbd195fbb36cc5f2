"""What a new worker makes of the log of an agent's run before the agent runs again.

Pure: the state and the operations in, events out. What an operation recorded as finished stays.
"""

from __future__ import annotations

from tokenwire.agents.journal import Journal
from tokenwire.events.fold import Fold, StepState
from tokenwire.events.model import Error, Event, StepEnd, StepReset, StepStart

__all__ = ["last_failure", "voids"]


def last_failure(events: list[Event]) -> Error | None:
    """The error after which nobody began to speak."""
    failure: Error | None = None
    for event in events:
        if isinstance(event, Error):
            failure = event
        elif isinstance(event, StepStart) and event.kind != "task":
            failure = None
    return failure


def voids(fold: Fold, journal: Journal) -> list[Event]:
    """The events that take back what the agent will say again: its own words after its last
    operation, and a question to a person that was lost before it was whole."""
    last = max((s.step for s in fold.steps if s.operation is not None), default=0)
    events: list[Event] = []
    for step in fold.steps:
        if _is_void(step, last, journal):
            attempt, number = step.attempt + 1, step.step
            discard = list(step.parts)
            events += [
                StepReset(step=number, attempt=attempt, discard_parts=discard, reason="restart"),
                StepStart(
                    step=number,
                    attempt=attempt,
                    kind=step.kind,  # type: ignore[arg-type]
                    name=step.name,
                    operation=step.operation,
                ),
                StepEnd(step=number, status="complete", terminal_seen=True),
            ]
    return events


def _is_void(step: StepState, last: int, journal: Journal) -> bool:
    if step.operation is not None:
        return step.status == "open" and journal.is_approval(step.operation)
    if step.kind == "task" or step.step < last:
        return False
    return step.status == "open" or bool(step.parts)  # else it was taken back before
