"""A run's events into its log: encoded once, appended in batches, by the one who owns the run.

Always true: nobody sees an event before the store has accepted it; an append whose outcome is
unknown is sent again as it was (the store answers ``duplicate``); after ``fenced`` nothing more is
written; records that a failover lost are written again, the same bytes at the same offsets.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from tokenwire.errors import (
    FencedError,
    LogError,
    LogLimitError,
    StoreFullError,
    StoreUnavailableError,
)
from tokenwire.events.model import (
    Event,
    RunEnd,
    StepStart,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.log.base import Log
from tokenwire.observe.facts import StoreAppended
from tokenwire.observe.hooks import report
from tokenwire.relay.record import Chain

__all__ = ["Producer", "ProducerLimits"]

#: Records of a memory log that observers are told of together.
_TELL_EVERY = 32
_DURABLE = frozenset({RunEnd, StepStart, ToolStart, ToolResult, ToolError})


class ProducerLimits(msgspec.Struct, kw_only=True, frozen=True):
    """Bounds of one run's log. ``bytes``: a model's pictures are in it, of 20 MB as base64 each.
    ``store_timeout``: seconds to keep trying while the store does not answer; the provider waits
    meanwhile."""

    records: int = 200_000
    bytes: int = 64 << 20
    store_timeout: float = 10.0


class Producer:
    """The writer of one run. ``records`` are those already in the log (a takeover's)."""

    __slots__ = (
        "_begun",
        "_bytes",
        "_chain",
        "_failure",
        "_kept",
        "_landed",
        "_limits",
        "_log",
        "_most_bytes",
        "_most_records",
        "_under_way",
        "_untold",
        "_unwritten",
        "appending",
        "epoch",
        "free",
        "run",
        "tail",
    )

    def __init__(
        self,
        log: Log,
        run: str,
        epoch: int,
        *,
        records: list[bytes] | None = None,
        limits: ProducerLimits | None = None,
    ) -> None:
        self._log, self.run, self.epoch = log, run, epoch
        self._limits = limits = limits or ProducerLimits()
        self._most_records, self._most_bytes = limits.records, limits.bytes
        self.tail = len(records or [])
        self._chain = Chain(run, records[-1][:16] if records else None)
        # Kept until the end, so that a tail which a failover loses can be written again.
        self._kept: list[bytes] | None = list(records or []) if log.shared else None
        self._bytes = sum(map(len, records or []))
        #: An append is under way: wake-ups of this run's log may be its own.
        self.appending = False
        #: `write_now` may be called: nothing is under way or left over, and there is room.
        self.free = not self._full()
        # Given to `append_soon`, which has not yet told what came of them.
        self._under_way: list[bytes] | None = None
        self._begun = 0.0
        self._landed: asyncio.Future[None] | None = None
        # Sealed, and not taken by the store; `write` appends them first.
        self._unwritten: list[bytes] = []
        self._failure: Exception | None = None
        # Appended in memory and not yet told to observers.
        self._untold = 0

    def write_now(self, events: list[Event]) -> bool:
        """Give deltas to the store without waiting. False when it did not take them: they are
        kept, and `write` must be called (with no events at least). When it fails later, they are
        kept too, and the next `write` meets the failure."""
        seal = self._chain.seal
        self.free, self.appending = False, True
        if self._log.shared:
            self._begun = time.perf_counter()
        first, taken = self.tail + 1, False
        try:
            records = [seal(events[0])] if len(events) == 1 else [seal(event) for event in events]
            self._under_way = records
            taken = self._log.append_soon(
                self.run, epoch=self.epoch, first=first, records=records, then=self._told
            )
        except LogError:
            pass  # `write` will meet it
        except Exception as error:  # a fault of ours, which is for the run's task to meet
            self._failure = error
        if not taken:
            self._told("the store does not take it now")
        return taken

    def _told(self, problem: object | None) -> None:
        """What came of the records under way: None when they were accepted."""
        records, self._under_way = self._under_way or [], None
        self.appending = False
        if problem is not None:
            self._unwritten = records
        else:
            count = len(records)
            self.tail += count
            self._bytes += len(records[0]) if count == 1 else sum(map(len, records))
            if self._kept is not None:
                self._kept += records
            if self._log.shared:
                report(StoreAppended(count, time.perf_counter() - self._begun))
            else:
                self._untold += count
                if self._untold >= _TELL_EVERY:  # a memory's append is over before a clock ticks
                    report(StoreAppended(self._untold, 0.0))
                    self._untold = 0
            self.free = not self._full()
        if self._landed is not None and not self._landed.done():
            self._landed.set_result(None)

    def _full(self) -> bool:
        return self.tail > self._most_records or self._bytes > self._most_bytes

    async def write(self, events: list[Event]) -> None:
        """Append a batch; ``run-end`` in it also closes the stream. Raises `FencedError` when the
        run has another owner, `LogError` when the store fails, and `LogLimitError` when this batch,
        which is in the log, reached the log's bounds: only the end may follow."""
        if self._under_way is not None:
            self._landed = asyncio.get_running_loop().create_future()
            await self._landed
            self._landed = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if not events and not self._unwritten:
            return
        last = events[-1] if events else None
        close = last.outcome if isinstance(last, RunEnd) else None
        seal = self._chain.seal
        records = [*self._unwritten, *[seal(event) for event in events]]
        self._unwritten = []
        durable = not _DURABLE.isdisjoint(map(type, events))
        begun = time.perf_counter()
        self.appending = True
        try:
            await self._append(records, close, durable)
        finally:
            self.appending = False
        told, self._untold = len(records) + self._untold, 0
        report(StoreAppended(told, time.perf_counter() - begun))
        if close is None and self._full():
            raise LogLimitError(
                f"the run's log is full ({self._limits.records} events or "
                f"{self._limits.bytes} bytes)",
                limit="log_limit",
                most=self._limits.bytes,
            )

    async def _append(self, records: list[bytes], close: str | None, durable: bool) -> None:
        first = self.tail + 1
        give_up = None
        while True:
            try:
                done = await self._log.append(
                    self.run,
                    epoch=self.epoch,
                    first=first,
                    records=records,
                    close=close,
                    durable=durable,
                )
            except (StoreUnavailableError, StoreFullError):
                now = time.monotonic()
                give_up = give_up or now + self._limits.store_timeout
                if now >= give_up:
                    raise
                await asyncio.sleep(0.1)
                continue
            if done.status in ("ok", "duplicate"):
                break
            if done.status == "gap" and self._kept is not None:
                await self._fill(done.tail, first)
                continue
            if done.status == "fenced":
                raise FencedError(
                    f"run {self.run} was taken over by another worker", epoch=done.epoch
                )
            raise LogError(f"the log of run {self.run} refused an append: {done.status}")
        self.tail = first + len(records) - 1
        self._bytes += sum(map(len, records))
        if self._kept is not None:
            self._kept.extend(records)
        self.free = not self._full()

    async def _fill(self, tail: int, first: int) -> None:
        """Write again what a failover lost, from ``tail`` + 1 up to before ``first``."""
        kept = self._kept or []
        done = await self._log.append(
            self.run,
            epoch=self.epoch,
            first=tail + 1,
            records=kept[tail : first - 1],
            durable=True,
        )
        if done.status == "fenced":
            raise FencedError(f"run {self.run} was taken over", epoch=done.epoch)
