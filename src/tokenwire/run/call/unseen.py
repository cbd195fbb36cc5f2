"""Attempts that failed before anything of them was visible: what they cost, and what follows.

Always true: what a provider reported of an attempt is counted once, whoever answers in the end;
nothing is said of a request that no provider began to answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from tokenwire.errors import (
    CancelledRunError,
    DeadlineError,
    NetworkError,
    TokenwireError,
    TruncatedError,
)
from tokenwire.events.fold import USAGE_COUNTS, StepState
from tokenwire.events.model import Event, ResponseStart, StepReset, StepStart, Usage
from tokenwire.providers.base import Call, Dialect, Target

__all__ = ["Again", "AgainReason", "Failed", "Unseen", "start_of", "step_start"]

#: Why a step has a further attempt: the same model again, or another one, after an attempt that was
#: billed; ``refused``: another one, as the model before began no answer, so that nothing is billed.
AgainReason = Literal["retry", "fallback", "refused"]


class Failed(msgspec.Struct):
    """An attempt has failed that its provider had begun to answer: ``events`` say what is known of
    its tokens."""

    events: list[Event]


class Again(msgspec.Struct):
    """A further attempt is about to begin, which readers and budgets are to know of."""

    reason: AgainReason
    dialect: Dialect
    target: Target

    def events(self, step: int, attempt: int) -> list[Event]:
        """What readers hear of it."""
        return [
            StepReset(step=step, attempt=attempt, reason=self.reason),
            step_start(step, attempt, self.dialect, self.target),
        ]


class Unseen:
    """What came of one attempt before anything was visible."""

    __slots__ = ("events", "is_accepted")

    def __init__(self) -> None:
        self.events: list[Event] = []
        #: Whether the head of a successful response arrived.
        self.is_accepted = False

    def take(self) -> list[Event]:
        """All events, which are visible from now on."""
        events, self.events = self.events, []
        return events

    def bill(self, error: TokenwireError) -> list[Event]:
        """What the failed attempt has to be paid for; nothing where no answer had begun."""
        bill: list[Event] = []
        bill += [event for event in self.events if isinstance(event, ResponseStart)][-1:]
        usage = _total([e for e in self.events if isinstance(e, Usage)])
        if usage is not None:
            bill.append(usage)
        if not bill and self.is_accepted and _is_transport(error):
            # The provider is at work on what it accepted, and bills it.
            bill.append(ResponseStart())
        return bill


def step_start(step: int, attempt: int, dialect: Dialect, target: Target) -> StepStart:
    """The event by which an attempt at a model begins."""
    return StepStart(
        step=step,
        attempt=attempt,
        provider=target.provider,
        dialect=dialect.name,
        model=target.model,
    )


def start_of(
    number: int, steps: list[StepState], candidate: tuple[Dialect, Target]
) -> tuple[int, list[Event], Callable[[Target], Call | None] | None]:
    """How a model call begins after ``steps``: the number of its step (``number``, or of the open
    one, which an earlier owner was lost in and which restarts), the events that say so, and what
    re-attaches to that one's response, where its provider keeps it: no second bill."""
    dialect, target = candidate
    if not steps or steps[-1].status != "open":
        return number, [step_start(number, 1, dialect, target)], None
    step = steps[-1]
    number, attempt = step.step, step.attempt + 1
    reset = StepReset(step=number, attempt=attempt, discard_parts=[*step.parts], reason="restart")
    events: list[Event] = [reset, step_start(number, attempt, dialect, target)]
    response = step.response_id
    if not step.resumable or response is None or step.dialect != dialect.name:
        return number, events, None
    return number, events, lambda at: dialect.resume(response, None, at)


def _is_transport(error: TokenwireError) -> bool:
    """Whether an accepted request failed by no word of its provider's."""
    return isinstance(error, NetworkError | TruncatedError | DeadlineError | CancelledRunError)


def _total(reports: list[Usage]) -> Usage | None:
    """All reports of one attempt as one."""
    if len(reports) < 2:
        return reports[0] if reports else None
    counts: dict[str, int] = {}
    raw: dict[str, Any] | None = None
    for report in reports:
        raw = report.raw or raw
        for name in USAGE_COUNTS:
            count = getattr(report, name)
            if count is not None:
                before = counts.get(name, 0) if report.mode == "increment" else 0
                counts[name] = before + count
    return msgspec.structs.replace(reports[-1], **counts, mode="cumulative", raw=raw)
