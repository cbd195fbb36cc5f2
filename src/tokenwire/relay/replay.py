"""A run's log, read back: its records, and the order and state after them.

Always true: a record whose check does not follow from the one before is an error, never an event;
reading a long log leaves the event loop to others every few milliseconds.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from tokenwire.errors import StoreDamagedError
from tokenwire.events.codec import AnyEvent, decode
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    ApprovalAnswer,
    Checkpoint,
    Event,
    PartDelta,
    PartEnd,
    PartStart,
    RunClaim,
    RunEnd,
    RunStart,
    RunWait,
    StepEnd,
    StepReset,
    StepStart,
    ToolError,
    ToolResult,
)
from tokenwire.events.order import Order
from tokenwire.log.base import Records
from tokenwire.relay.record import CHECK, Chain, cursor_of, follows, json_of

__all__ = ["HANDED_OVER", "Replay", "Wait", "read_run", "waits"]

#: `RunClaim.reason` after an owner that stopped gracefully; such a claim costs a run nothing.
HANDED_OVER = "handed-over"

#: Records, and KiB, between two turns of the event loop: some 3 ms of work.
SLICE = 512
#: Records of one look for the newest wait, from the tail backwards.
GLANCE = 32

#: What a run does only while it works. Not the end of a step: tasks of agents overlap a wait.
_AT_WORK = (RunStart, StepStart, PartStart, PartDelta, PartEnd, RunEnd)


class Wait(msgspec.Struct, frozen=True):
    """A place where a run waited: the offset and cursor of its ``run-wait``, and the ids of the
    approvals and calls that it waited for."""

    offset: int
    cursor: str
    pending: list[str]


class Replay(msgspec.Struct):
    """A run's log, read back: its records, and the order and state after them."""

    records: list[bytes]
    order: Order
    fold: Fold
    #: Workers that the run lost, and how many of them in its open step. One that handed the run
    #: over, or lost it while it waited for a person, is not counted.
    losses: int = 0
    step_losses: int = 0
    #: An attempt of a model call was announced and has not ended: it may have been billed.
    is_calling: bool = False
    #: Unix seconds at which the run began to wait; None when it does not wait.
    waiting_since: float | None = None

    def events(self) -> list[Event]:
        """The events of its records."""
        events = (decode(json_of(record)) for record in self.records)
        return [event for event in events if isinstance(event, Event)]

    def waits(self) -> list[Wait]:
        """Every place where the run waited."""
        waits: list[Wait] = []
        for offset, record in enumerate(self.records, 1):
            if b'"run-wait"' not in record:
                continue
            event = decode(json_of(record))
            if isinstance(event, RunWait):
                waits.append(Wait(offset, cursor_of(offset, record), list(event.pending)))
        return waits

    def now(self) -> int:
        """Milliseconds since the run started; the clocks of two workers may differ, so never
        before its last event."""
        if not self.records:
            return 0
        event: AnyEvent = decode(json_of(self.records[-1]))
        return max(event.t, int(time.time() * 1000) - self.fold.time)

    def apply(self, event: AnyEvent) -> None:
        """Add one event. Raises `OrderError`."""
        self.order.check(event)
        if isinstance(event, RunClaim):
            if event.reason != HANDED_OVER and not self.fold.waiting:
                self.losses += 1
                self.step_losses += 1
        elif isinstance(event, StepStart):
            self.is_calling = self.is_calling or event.kind == "model"
        elif isinstance(event, StepReset):
            self.is_calling = False
        elif isinstance(event, StepEnd):
            step = self.fold.last_step
            if step is not None and step.step == event.step:
                self.step_losses = 0
                self.is_calling = False
        elif isinstance(event, RunWait) and self.waiting_since is None:
            self.waiting_since = (self.fold.time + event.t) / 1000
        self.fold.apply(event)
        if not self.fold.waiting:
            self.waiting_since = None


async def read_run(store: Records, run: str, *, fresh: bool = False) -> Replay:
    """All of a run, verified; ``fresh`` as of `Records.read`. Raises `StoreDamagedError` when its
    chain does not hold."""
    replay = Replay([], Order(), Fold())
    records = replay.records
    check = Chain(run).last
    work = 0
    while True:
        page = await store.read(run, after=len(records), most=4096, most_bytes=4 << 20, fresh=fresh)
        for record in page.records:
            number = len(records) + 1
            if not follows(check, record):
                raise StoreDamagedError(
                    f"record {number} of run {run} fails its check", offset=number
                )
            check = record[:CHECK]
            records.append(record)
            replay.apply(decode(json_of(record)))
            work += 1 + (len(record) >> 10)
            if work >= SLICE:
                work = 0
                await asyncio.sleep(0)
        if not page.records or len(records) >= page.tail:
            return replay


async def waits(store: Records, run: str, tail: int) -> bool:
    """Whether an open run waits for a person or a client, by its newest records."""
    answer_ids: set[str] = set()
    while tail > 0:
        after = max(0, tail - GLANCE)
        records: list[bytes] = []
        while after + len(records) < tail:
            start = after + len(records)
            page = await store.read(run, after=start, most=tail - start)
            if not page.records:
                return False  # rewound by a failover meanwhile
            records += page.records
        for record in reversed(records):
            event = decode(json_of(record))
            if isinstance(event, RunWait):
                return not answer_ids.issuperset(event.pending)
            if isinstance(event, _AT_WORK):
                return False
            if isinstance(event, Checkpoint):
                return (await read_run(store, run)).fold.status == "waiting"
            if isinstance(event, ApprovalAnswer):
                answer_ids.add(event.approval_id)
            elif isinstance(event, ToolResult | ToolError):
                answer_ids.add(event.call_id)
        tail = after
    return False
