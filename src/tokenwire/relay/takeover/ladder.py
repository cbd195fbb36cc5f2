"""Resuming a run whose worker is gone: the ladder.

Always true: the new owner has a higher epoch before it reads, so the old one cannot write any
more; what was shown stays, or a ``step-reset`` that readers understand withdraws it; a cancelled
run is ended, not started again; a step that cost two workers their lives is not tried a third
time. A worker that hands its runs over costs them nothing, however often it happens.
"""

from __future__ import annotations

import time
from typing import Literal

from tokenwire.events.model import Control, Event, RunClaim, RunEnd, RunOutcome, RunStart
from tokenwire.events.order import closing
from tokenwire.log.base import Store
from tokenwire.relay.commands import is_cancel
from tokenwire.relay.conversation.history import described
from tokenwire.relay.description import RunMeta
from tokenwire.relay.produce import Closing, Ending, OnEndError, Producer, ProducerLimits
from tokenwire.relay.replay import HANDED_OVER, Replay, read_run
from tokenwire.run.failure import failed_end
from tokenwire.run.plan import Plan

__all__ = [
    "MOST_ATTEMPTS",
    "Rung",
    "claim_of",
    "ending",
    "rung",
    "start_of",
    "write_end",
]

#: Workers that one step may cost, and workers that a run may cost after the first.
MOST_ATTEMPTS = 2
MOST_LOSSES = 3

Rung = Literal["go-on", "cancelled", "interrupted", "expired"]


def rung(replay: Replay, commands: list[bytes], *, handed_over: bool = False) -> Rung:
    """What to do with a run without a worker; ``handed_over`` when its worker stopped gracefully.
    Only a lost worker counts, and only one that was at work: a run that waits costs nobody."""
    if replay.fold.cancel_requested or any(is_cancel(data) for data in commands):
        return "cancelled"
    if handed_over or replay.fold.waiting:
        return "go-on"
    step = replay.fold.last_step
    is_open = step is not None and step.status == "open"
    if replay.losses >= MOST_LOSSES or (is_open and replay.step_losses + 1 >= MOST_ATTEMPTS):
        return "interrupted"
    return "go-on"


def ending(replay: Replay, how: Rung, why: str = "worker_lost") -> list[Event]:
    """The events that end a run which cannot go on, because of ``why``."""
    outcome: RunOutcome = "interrupted"
    if how in ("cancelled", "expired"):
        outcome = "cancelled" if how == "cancelled" else "incomplete"
    events: list[Event] = []
    if how == "cancelled" and not replay.fold.cancel_requested:
        events.append(Control(command="cancel"))
    status = "cancelled" if how == "cancelled" else "incomplete"
    events += closing(replay.order, part="truncated", step=status)
    reason = {"cancelled": None, "expired": "expired"}.get(how, why)
    step = replay.fold.last_step
    is_unpaid = replay.is_calling and step is not None and not step.usage
    events.append(
        RunEnd(
            outcome=outcome,
            reason=reason,
            usage=replay.fold.usage or None,
            usage_unknown=replay.fold.usage_unknown or is_unpaid,
            recoverable=how == "interrupted",
        )
    )
    return events


def claim_of(replay: Replay, owner: str, epoch: int, *, handed_over: bool = False) -> RunClaim:
    """A new owner's first record, by which readers distinguish the epochs. It omits the owner's
    process number and secret."""
    reason = HANDED_OVER if handed_over else "lost"
    return RunClaim(epoch=epoch, owner=owner.partition(":")[0], reason=reason, t=replay.now())


async def write_end(
    store: Store,
    replay: Replay,
    events: list[Event],
    *,
    epoch: int,
    start: RunStart,
    limits: ProducerLimits | None = None,
    ending: Ending | None = None,
    closing: Closing | None = None,
) -> None:
    """Write the end of a run after the last record of its log; nothing when it has ended.
    ``start`` is for a run that was lost before its first record; ``ending`` and ``closing``: as of
    `Producer`; where the latter fails, the run ends as an error, without it.
    Raises `LogError`."""
    if replay.order.state == "ended":
        return
    if replay.order.state == "new":
        events = [start, *events]
    t = replay.now()
    for event in events:
        event.t = t
        replay.apply(event)
    producer = Producer(
        store,
        start.run,
        epoch,
        records=replay.records,
        limits=limits,
        ending=ending,
        closing=closing,
    )
    try:
        await producer.write(events)
    except OnEndError as error:
        again = await read_run(store, start.run)
        events = failed_end(again.order, again.fold, error)
        await write_end(store, again, events, epoch=epoch, start=start, limits=limits)


def start_of(run: str, of: RunMeta | Plan) -> RunStart:
    """The first event of a run, made now."""
    return RunStart(
        run=run,
        time=int(time.time() * 1000),
        thread=of.thread,
        model=of.model,
        metadata=of.metadata,
        history=of.history if isinstance(of, Plan) else described(of.history),
    )
