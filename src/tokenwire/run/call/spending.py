"""What a run may still use: the run's side of budgets.

Always true: text is counted down here, without a call elsewhere; who runs out of it asks for more
and waits for the answer, so that a run goes beyond what it was granted by one read of its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tokenwire.events.estimate import quarters_of
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    Event,
    ReasoningDelta,
    RefusalDelta,
    RunBudget,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tokenwire.events.request import Request
from tokenwire.providers.base import Target
from tokenwire.run.inbox import Inbox

__all__ = ["BUDGET", "UNLIMITED", "Allowance", "Gate", "Inner"]

#: Why a run ends that has used its budget up.
BUDGET = "budget"
#: What a model says, piece by piece.
_SAID = frozenset({TextDelta, ReasoningDelta, RefusalDelta, ToolCallDelta})
#: More quarters of a token than any run says.
UNLIMITED = 1 << 62


class Allowance(Protocol):
    """What one run may still use. Belongs to one event loop."""

    @property
    def remaining(self) -> int:
        """Quarters of a token of text that may come before `more` must be called."""
        ...

    @property
    def is_due(self) -> bool:
        """Whether `more` must be called before the run goes on."""
        ...

    def count_text(self, quarters: int) -> None:
        """Count text of a model, in quarters of a token."""
        ...

    def apply(self, event: Event) -> None:
        """Take any other event of the run, in order."""
        ...

    def restore(self, events: Sequence[Event], request: Request) -> None:
        """Take what the log of an earlier worker says, before anything else; ``request``: what
        the run began with."""
        ...

    async def begin(self, request: Request | None, target: Target | None) -> RunBudget | None:
        """Before a model call, or before other work that uses a model: None, or the budget that
        does not allow it. Raises `LogError`."""
        ...

    async def more(self) -> RunBudget | None:
        """When `is_due`: what there is to say of a budget. With nothing left of it the run is to
        end. Raises `LogError`."""
        ...

    def estimate(self) -> Usage | None:
        """What the newest call used, where its provider has not said it; after its end."""
        ...

    def close(self) -> None:
        """The run is this process's no more."""
        ...


class Gate:
    """An allowance in the hands of who makes a run's events; without one it is open."""

    __slots__ = ("_allowance", "_inbox")

    def __init__(self, allowance: Allowance | None, inbox: Inbox) -> None:
        self._allowance, self._inbox = allowance, inbox

    @property
    def is_due(self) -> bool:
        """Whether `look` has something to do before the run goes on."""
        return self._allowance is not None and self._allowance.is_due

    @property
    def remaining(self) -> int:
        """Quarters of a token of text until `is_due`."""
        return UNLIMITED if self._allowance is None else self._allowance.remaining

    def count(self, events: list[Event]) -> None:
        """Count what the run says."""
        allowance = self._allowance
        if allowance is None:
            return
        for event in events:
            if type(event) in _SAID:
                allowance.count_text(quarters_of(event.text))  # type: ignore[attr-defined]
            else:
                allowance.apply(event)

    def delays(self, batch: list[Event], fold: Fold) -> bool:
        """Whether words of ``batch``, an end of a step, would wait for the store of budgets if they
        were written with what follows: a budget that is due, or the request of another step."""
        if self._allowance is None or not any(type(event) in _SAID for event in batch):
            return False
        is_paused = fold.finish_reason == "pause"
        return self.is_due or is_paused or bool(self._inbox.steers)

    async def begin(self, request: Request | None, target: Target | None) -> list[Event]:
        """Before a model is used: what there is to say where no budget is left for it, and the
        inbox is stopped. Raises `LogError`."""
        if self._allowance is None or self._inbox.ends_calls:
            return []
        refusal = await self._allowance.begin(request, target)
        if refusal is None:
            return []
        self._inbox.stop(BUDGET)
        return [refusal]

    def estimate(self) -> list[Event]:
        """After a model call: its tokens, where only an estimate says them."""
        usage = self._allowance.estimate() if self._allowance is not None else None
        return [] if usage is None else [usage]

    async def look(self) -> list[Event]:
        """Wait for what is due, and say it; where nothing is left the inbox is stopped. Raises
        `LogError`."""
        events: list[Event] = []
        allowance = self._allowance
        while allowance is not None and allowance.is_due and not self._inbox.ends_calls:
            event = await allowance.more()
            if event is not None:
                events.append(event)
                if not event.left:
                    self._inbox.stop(BUDGET)
        return events


class Inner:
    """The allowance of a run, for an answer inside of it, which that run counts."""

    def __init__(self, outer: Allowance) -> None:
        self._outer = outer

    @property
    def remaining(self) -> int:
        """As of the run."""
        return self._outer.remaining

    @property
    def is_due(self) -> bool:
        """As of the run."""
        return self._outer.is_due

    def count_text(self, quarters: int) -> None:
        """The run counts it."""

    def apply(self, event: Event) -> None:
        """The run counts it."""

    def restore(self, events: Sequence[Event], request: Request) -> None:
        """The run has done it."""

    async def begin(self, request: Request | None, target: Target | None) -> RunBudget | None:
        """As of the run."""
        return await self._outer.begin(request, target)

    async def more(self) -> RunBudget | None:
        """As of the run."""
        return await self._outer.more()

    def estimate(self) -> Usage | None:
        """The run has it."""
        return None

    def close(self) -> None:
        """The run closes its own."""
