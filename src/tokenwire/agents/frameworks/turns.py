"""Turns of a framework: one run of its loop until it ends or asks a person.

Always true: the state that a framework needs to go on is stored before the run says that the turn
is over; a finished turn is not run again; a turn that a lost worker left open ends the run, because
what it did outside of its answer is unknown, unless the framework has a checkpoint of its own.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.agents.context import Approval, RunContext
from tokenwire.agents.journal import Operation
from tokenwire.agents.outlet import Source
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    Agent,
    ApprovalRequest,
    Event,
)
from tokenwire.run.expiry import denied_call, expires_at

__all__ = ["Turn", "ask", "cut_short", "lost"]


class Turn:
    """One turn: say its events, then store what the next one needs."""

    def __init__(self, ctx: RunContext, operation: Operation, source: Source) -> None:
        self._ctx, self._operation = ctx, operation
        self.source = source

    @classmethod
    async def begin(cls, ctx: RunContext, number: int, *, resumable: bool = False) -> Turn:
        """Turn ``number`` of the run. ``resumable``: the caller continues one that is open."""
        engine = ctx.engine
        operation = await engine.enter("turn", str(number), "")
        if operation.recorded and not operation.is_finished and not resumable:
            await lost(ctx)
        source = engine.source(operation.number)
        source.agent = Agent(id=engine.name, name=engine.name)
        engine.in_turn = not operation.is_finished
        return cls(ctx, operation, source)

    @property
    def is_open(self) -> bool:
        """Whether a lost worker began the turn, and said something of it."""
        return self._operation.recorded and not self._operation.is_finished

    @property
    def state(self) -> Any:
        """What was stored at the end of the turn; None for one that has not run."""
        value = self._operation.value
        return msgspec.json.decode(value) if value is not None else None

    async def say(self, events: list[Event]) -> None:
        """Events of the turn."""
        if events:
            await self._ctx.engine.outlet.put(self.source, events)

    async def finish(self, state: Any) -> None:
        """The turn is over; ``state`` is JSON, private, and what the next turn begins with."""
        await self._ctx.engine.journal.finish(self._operation, msgspec.json.encode(state))
        await self._ctx.engine.outlet.put(self.source, [], durable=True)
        self._ctx.engine.in_turn = False


async def lost(ctx: RunContext) -> None:
    """End the run: nobody knows what its open turn did. Does not return to the agent."""
    await ctx.engine.interrupt(
        "worker_lost",
        "the worker was lost in the middle of the framework's turn, and the framework has "
        "no way to continue it",
    )


async def ask(
    ctx: RunContext, call_id: str, name: str, arguments: Any, *, refuses: bool = True
) -> Approval:
    """Ask a person about a call that readers have seen. Answers survive a restart. ``refuses``: a
    no is the end of the call; else the framework tells the end itself."""
    engine = ctx.engine
    approval_id = f"ap_{call_id}"
    tool = engine.fold.tools.get(call_id)
    own = engine.outlet.own
    if tool is not None and tool.approved is not None:
        return Approval(
            approved=tool.approved, arguments=tool.approval_arguments, reason=tool.approval_reason
        )
    if tool is None or tool.approval_id is None:
        request = ApprovalRequest(
            approval_id=approval_id,
            call_id=call_id,
            name=name,
            arguments=arguments,
            expires=expires_at(engine.plan.limits.approval_timeout),
        )
        await engine.outlet.put(own, [request], durable=True)
    state = engine.fold.approvals.get(approval_id)
    at = state.expires if state is not None else None
    answer = await engine.approvals.wait(approval_id, call_id, None if at is None else at / 1000)
    events: list[Event] = [answer]
    if refuses and not answer.approved:
        events.append(denied_call(call_id, name, answer))
    await engine.outlet.put(own, events, durable=True)
    edited = answer.arguments if answer.arguments is not None else arguments
    return Approval(approved=answer.approved, arguments=edited, by=answer.by, reason=answer.reason)


def cut_short(ctx: RunContext, reason: str) -> None:
    """The last answer was not whole: the run ends as incomplete."""
    ctx.engine.stream_ended(Fold(outcome="incomplete", end_reason=reason))
