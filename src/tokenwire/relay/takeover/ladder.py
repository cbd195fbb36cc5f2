"""Going on with a run whose worker was lost: the ladder.

Always true: the new owner has a higher epoch before it reads, so the old one can write nothing any
more; what was shown stays, or is taken back by a ``step-reset`` that readers understand; a run
that was asked to stop is ended, not started again; a step that cost two workers their lives is not
tried a third time.
"""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.codec import AnyEvent, decode
from tokenwire.events.fold import Fold
from tokenwire.events.model import Control, Event, RunClaim, RunEnd, RunOutcome, RunStart
from tokenwire.events.order import Order, closing
from tokenwire.log.base import Log
from tokenwire.relay.description import RunMeta
from tokenwire.relay.produce import Producer
from tokenwire.relay.record import json_of, verify
from tokenwire.run.plan import Plan

__all__ = [
    "MOST_ATTEMPTS",
    "Rung",
    "Taken",
    "asks_to_stop",
    "claim_of",
    "ending",
    "read_run",
    "rung",
    "start_of",
    "write_end",
]

#: Tries of one step, over all workers.
MOST_ATTEMPTS = 2
#: Owners after the first that a run may have.
MOST_CLAIMS = 3

Rung = Literal["go-on", "cancelled", "interrupted"]


class Taken(msgspec.Struct):
    """A run's log, read back: its records, and the order and state after them."""

    records: list[bytes]
    order: Order
    fold: Fold
    claims: int

    def now(self) -> int:
        """Milliseconds since the run started; the clocks of two workers may differ, so never
        before its last event."""
        if not self.records:
            return 0
        event: AnyEvent = decode(json_of(self.records[-1]))
        return max(event.t, int(time.time() * 1000) - self.fold.time)


async def read_run(log: Log, run: str) -> Taken:
    """All of a run, checked. Raises `StoreDamagedError` when its chain does not hold."""
    records: list[bytes] = []
    while True:
        page = await log.read(run, after=len(records), most=4096, most_bytes=4 << 20)
        if not page.records:
            break
        records.extend(page.records)
        if len(records) >= page.tail:
            break
    verify(run, records)
    order, fold, claims = Order(), Fold(), 0
    for record in records:
        event: AnyEvent = decode(json_of(record))
        order.check(event)
        fold.apply(event)
        claims += isinstance(event, RunClaim)
    return Taken(records, order, fold, claims)


def rung(taken: Taken, commands: list[bytes]) -> Rung:
    """What may be done with a run that lost its worker."""
    if taken.fold.cancel_requested or any(asks_to_stop(data) for data in commands):
        return "cancelled"
    step = taken.fold.last_step
    if taken.claims >= MOST_CLAIMS:
        return "interrupted"
    if step is not None and step.status == "open" and step.attempt >= MOST_ATTEMPTS:
        return "interrupted"
    return "go-on"


def ending(taken: Taken, how: Rung) -> list[Event]:
    """The events that end a run which cannot go on."""
    outcome: RunOutcome = "cancelled" if how == "cancelled" else "interrupted"
    events: list[Event] = []
    if how == "cancelled" and not taken.fold.cancel_requested:
        events.append(Control(command="cancel"))
    status = "cancelled" if how == "cancelled" else "incomplete"
    events += closing(taken.order, part="truncated", step=status)
    reason = None if how == "cancelled" else "worker_lost"
    step = taken.fold.last_step
    lost = step is not None and step.status == "open" and not step.usage
    events.append(
        RunEnd(
            outcome=outcome,
            reason=reason,
            usage=taken.fold.usage or None,
            usage_unknown=taken.fold.usage_unknown or lost,
            recoverable=how == "interrupted",
        )
    )
    return events


def claim_of(taken: Taken, owner: str, epoch: int) -> RunClaim:
    """What a new owner writes first: readers of the log can tell the epochs apart by it. The
    owner's process number and secret stay out of it."""
    return RunClaim(epoch=epoch, owner=owner.partition(":")[0], reason="lost", t=taken.now())


async def write_end(
    log: Log, taken: Taken, events: list[Event], *, epoch: int, start: RunStart
) -> None:
    """Write the end of a run after the last record that its log has, which is all that readers
    know; nothing when it has an end. ``start`` is for a run that was lost before its first
    record. Raises `LogError`."""
    if taken.order.state == "ended":
        return
    if taken.order.state == "new":
        events = [start, *events]
    t = taken.now()
    for event in events:
        event.t = t
        taken.order.check(event)
        taken.fold.apply(event)
    await Producer(log, start.run, epoch, records=taken.records).write(events)


def start_of(run: str, of: RunMeta | Plan) -> RunStart:
    """The first event of a run, made now."""
    return RunStart(
        run=run,
        time=int(time.time() * 1000),
        thread=of.thread,
        model=of.model,
        metadata=of.metadata,
    )


def asks_to_stop(data: bytes) -> bool:
    """Whether a command that was left for a run is a cancel."""
    try:
        event = decode(data)
    except InputError:
        return False
    return isinstance(event, Control) and event.command == "cancel"
