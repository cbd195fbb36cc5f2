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
from tokenwire.log.base import Store
from tokenwire.relay.description import RunMeta
from tokenwire.relay.produce import Producer
from tokenwire.relay.record import json_of, verify
from tokenwire.run.plan import Plan

__all__ = [
    "MOST_ATTEMPTS",
    "Replay",
    "Rung",
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


class Replay(msgspec.Struct):
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


async def read_run(store: Store, run: str) -> Replay:
    """All of a run, checked. Raises `StoreDamagedError` when its chain does not hold."""
    records: list[bytes] = []
    while True:
        page = await store.read(run, after=len(records), most=4096, most_bytes=4 << 20)
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
    return Replay(records, order, fold, claims)


def rung(replay: Replay, commands: list[bytes]) -> Rung:
    """What to do with a run that lost its worker."""
    if replay.fold.cancel_requested or any(asks_to_stop(data) for data in commands):
        return "cancelled"
    step = replay.fold.last_step
    if replay.claims >= MOST_CLAIMS:
        return "interrupted"
    if step is not None and step.status == "open" and step.attempt >= MOST_ATTEMPTS:
        return "interrupted"
    return "go-on"


def ending(replay: Replay, how: Rung) -> list[Event]:
    """The events that end a run which cannot go on."""
    outcome: RunOutcome = "cancelled" if how == "cancelled" else "interrupted"
    events: list[Event] = []
    if how == "cancelled" and not replay.fold.cancel_requested:
        events.append(Control(command="cancel"))
    status = "cancelled" if how == "cancelled" else "incomplete"
    events += closing(replay.order, part="truncated", step=status)
    reason = None if how == "cancelled" else "worker_lost"
    step = replay.fold.last_step
    lost = step is not None and step.status == "open" and not step.usage
    events.append(
        RunEnd(
            outcome=outcome,
            reason=reason,
            usage=replay.fold.usage or None,
            usage_unknown=replay.fold.usage_unknown or lost,
            recoverable=how == "interrupted",
        )
    )
    return events


def claim_of(replay: Replay, owner: str, epoch: int) -> RunClaim:
    """A new owner's first record, by which readers distinguish the epochs. It omits the owner's
    process number and secret."""
    return RunClaim(epoch=epoch, owner=owner.partition(":")[0], reason="lost", t=replay.now())


async def write_end(
    store: Store, replay: Replay, events: list[Event], *, epoch: int, start: RunStart
) -> None:
    """Write the end of a run after the last record of its log; nothing when it has ended.
    ``start`` is for a run that was lost before its first record. Raises `LogError`."""
    if replay.order.state == "ended":
        return
    if replay.order.state == "new":
        events = [start, *events]
    t = replay.now()
    for event in events:
        event.t = t
        replay.order.check(event)
        replay.fold.apply(event)
    await Producer(store, start.run, epoch, records=replay.records).write(events)


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
    """Whether a command is a cancel."""
    try:
        event = decode(data)
    except InputError:
        return False
    return isinstance(event, Control) and event.command == "cancel"
