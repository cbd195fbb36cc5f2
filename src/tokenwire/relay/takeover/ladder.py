"""Resuming a run whose worker is gone: the ladder.

Always true: the new owner has a higher epoch before it reads, so the old one cannot write any
more; what was shown stays, or a ``step-reset`` that readers understand withdraws it; a cancelled
run is ended, not started again; a step that cost two workers their lives is not tried a third
time. A worker that hands its runs over costs them nothing, however often it happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Literal

from tokenwire.errors import TokenwireError
from tokenwire.events.model import Control, Event, RunClaim, RunOutcome, RunStart
from tokenwire.events.order import closing
from tokenwire.log.base import Store
from tokenwire.relay.commands import counting, is_expiry, is_stop
from tokenwire.relay.conversation.history import described
from tokenwire.relay.description import RunMeta
from tokenwire.relay.produce.contract import (
    Ending,
    EndTransaction,
    OnEndError,
    ProducerLimits,
    RefusedAppendError,
)
from tokenwire.relay.produce.producer import Producer
from tokenwire.relay.replay import HANDED_OVER, Replay, read_run
from tokenwire.run.failure import failed_end
from tokenwire.run.plan import Plan

__all__ = [
    "MOST_ATTEMPTS",
    "EndOf",
    "Rung",
    "claim_of",
    "ending",
    "failure",
    "rung",
    "start_of",
    "write_end",
]

#: Workers that one step may cost, and workers that a run may cost after the first.
MOST_ATTEMPTS = 2
MOST_LOSSES = 3

#: Looks at the log of a run that is to end: appends of its stopped task may come between.
_MOST_LOOKS = 5

Rung = Literal["go-on", "cancelled", "interrupted", "expired"]
#: The events that end a run after its log as it was read.
EndOf = Callable[[Replay], list[Event]]


def rung(
    replay: Replay, mailbox: Iterable[tuple[int, bytes]], *, handed_over: bool = False
) -> Rung:
    """What to do with a run without a worker; ``handed_over`` when its worker stopped gracefully.
    Only a lost worker counts, and only one that was at work: a run that waits costs nobody."""
    if replay.fold.cancel_requested:
        return "cancelled"
    for stop in filter(is_stop, counting(mailbox)):
        return "expired" if is_expiry(stop) else "cancelled"
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
    is_lost, is_calling = how == "interrupted", replay.is_calling
    events.append(replay.fold.end(outcome, reason, recoverable=is_lost, is_calling=is_calling))
    return events


def failure(error: TokenwireError) -> EndOf:
    """The events that end a run which failed with ``error``."""
    return lambda replay: failed_end(replay.order, replay.fold, error, is_calling=replay.is_calling)


def claim_of(replay: Replay, owner: str, epoch: int, *, handed_over: bool = False) -> RunClaim:
    """A new owner's first record, by which readers distinguish the epochs. It omits the owner's
    process number and secret."""
    reason = HANDED_OVER if handed_over else "lost"
    return RunClaim(epoch=epoch, owner=owner.partition(":")[0], reason=reason, t=replay.now())


async def write_end(
    store: Store,
    replay: Replay,
    end_of: EndOf,
    *,
    epoch: int,
    start: RunStart,
    limits: ProducerLimits | None = None,
    ending: Ending | None = None,
    closing: EndTransaction | None = None,
) -> Replay:
    """Write the end of a run after the last record of its log, and return the log as it is then;
    nothing is written when it has ended. An append that the run's own task left under way may come
    first: the end then follows that. ``start`` is for a run that was lost before its first record;
    ``ending`` and ``closing``: as of `Producer`; where the latter fails, the run ends as an error,
    without it. Raises `LogError`."""
    looks = 1
    while replay.order.state != "ended":
        try:
            await _append_end(store, replay, end_of, epoch, start, limits, ending, closing)
        except OnEndError as error:
            end_of, ending, closing = failure(error), None, None
            replay = await read_run(store, start.run, fresh=True)
        except RefusedAppendError:
            if looks == _MOST_LOOKS:
                raise
            looks += 1
            replay = await read_run(store, start.run, fresh=True)
    return replay


async def _append_end(
    store: Store,
    replay: Replay,
    end_of: EndOf,
    epoch: int,
    start: RunStart,
    limits: ProducerLimits | None,
    ending: Ending | None,
    closing: EndTransaction | None,
) -> None:
    events = end_of(replay)
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
    await producer.write(events)


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
