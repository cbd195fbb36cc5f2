"""A run's events into its log: encoded once, appended in batches, by the one who owns the run.

Always true: nobody sees an event before the store has accepted it; an append whose outcome is
unknown is sent again as it was (the store answers ``duplicate``); after ``fenced`` nothing more is
written; records that a failover lost are written again, the same bytes at the same offsets.
"""

from __future__ import annotations

import asyncio
import time

from tokenwire.errors import (
    LogError,
    LogLimitError,
    StoreFullError,
    StoreUnavailableError,
)
from tokenwire.events.model import (
    Event,
    PartDelta,
    RunEnd,
    StepStart,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.express import SETTLE, YES, Loan, Taken
from tokenwire.log.base import Appended, Inside, Records, Taped
from tokenwire.log.spool import Spool
from tokenwire.observe.facts import StoreAppended
from tokenwire.observe.hooks import report
from tokenwire.relay.produce.contract import (
    Ending,
    EndTransaction,
    LastAppend,
    OnEndError,
    ProducerLimits,
    RefusedAppendError,
)
from tokenwire.relay.produce.pending import Pending
from tokenwire.relay.record import Chain, cursor_of

__all__ = ["Producer"]

#: Records that nobody waited for, and that are reported to observers together.
_REPORT_EVERY = 32
#: Records of deltas that wait for the store's answer, at most; then the run waits.
_MOST_PENDING = 256
_DURABLE = frozenset({RunEnd, StepStart, ToolStart, ToolResult, ToolError})


class Producer:
    """The writer of one run, and the sink of its loop. ``records`` are those already in the log
    (a takeover's); ``ending`` is called before the run's end is appended, and ``closing``
    appends it."""

    __slots__ = (
        "_all_records",
        "_bytes",
        "_chain",
        "_lent",
        "_limits",
        "_log",
        "_most_bytes",
        "_most_records",
        "_pending",
        "_spool",
        "_taped",
        "_unreported",
        "closing",
        "ending",
        "epoch",
        "ready",
        "run",
        "tail",
    )

    def __init__(
        self,
        log: Records,
        run: str,
        epoch: int,
        *,
        records: list[bytes] | None = None,
        limits: ProducerLimits | None = None,
        ending: Ending | None = None,
        closing: EndTransaction | None = None,
    ) -> None:
        self._log, self.run, self.epoch = log, run, epoch
        self._taped = log if isinstance(log, Taped) else None
        self.ending, self.closing = ending, closing
        self._limits = limits = limits or ProducerLimits()
        self._most_records, self._most_bytes = limits.records, limits.bytes
        self.tail = len(records or [])
        self._chain = Chain(run, records[-1][:16] if records else None)
        # Until the end, so that a tail which a failover loses can be written again.
        self._all_records: list[bytes] | None = list(records or []) if log.rewinds else None
        self._bytes = sum(map(len, records or []))
        self._pending = Pending()
        #: `take` may be called: nothing is pending, and there is room.
        self.ready = not self._full()
        # Appended, and not yet reported to observers.
        self._unreported = 0
        #: What is appended to by hand, where that lands later; and the bytes of what was under way
        #: before, and is still.
        self._spool: Spool | None = None
        self._lent = 0

    @property
    def appending(self) -> bool:
        """Whether an append is under way: wake-ups of this run's log may be its own."""
        spool = self._spool
        is_behind = spool is not None and not spool.problem and spool.landed < len(spool.records)
        return self._pending.under_way or is_behind

    @property
    def is_fenced(self) -> bool:
        """Whether the store has reported another owner of the run."""
        return self._pending.fenced > 0

    @property
    def is_stuck(self) -> bool:
        """Whether records that the store refused wait here, or with the lane, for the run's next
        event."""
        spool, pending = self._spool, self._pending
        if spool and spool.problem and len(spool.records) > self.tail + len(pending.records):
            return True
        return pending.is_abandoned and not pending.under_way and pending.waiter is None

    async def repeat(self) -> None:
        """Append the records of `is_stuck`. Raises as `write` does."""
        try:
            await self.settle()
        except (StoreUnavailableError, StoreFullError):
            self._pending.is_abandoned = bool(self._pending.records)
            raise

    @property
    def cursor(self) -> str | None:
        """The cursor of the newest record in the log, while no append is under way; None before
        the first."""
        return cursor_of(self.tail, self._chain.last) if self.tail else None

    def take(self, events: list[Event]) -> Taken:
        """Give deltas to the store without waiting. ``SETTLE``: the store did not take them now;
        `settle` or the next `write` appends them. When the append fails later, the same holds."""
        try:
            records = self._chain.seal_all(events)
        except Exception as error:
            return self._fail(error)
        return self._give(records)

    def take_json(self, data: bytes) -> Taken:
        """`take` for one event, as its canonical JSON."""
        try:
            record = self._chain.seal_json(data)
        except Exception as error:
            return self._fail(error)
        return self._give([record])

    def lend(self) -> Loan | None:
        """See `tokenwire.run.call.reading.Sink`."""
        log, pending, self._spool = self._taped, self._pending, None
        tape = log.tape(self.run) if log is not None else None
        if tape is None or tape.writer != self.epoch or pending.fenced:
            return None
        size = 0
        if not isinstance(tape, Spool):
            if not self.ready:
                return None
        elif pending.waiter is None and pending.failure is None and not self._full():
            # What is under way goes on, and is in front of what comes by hand.
            size = sum(map(len, pending.records))
            if pending.behind or (pending.records and not pending.under_way):
                return None
        else:
            return None
        room = self._most_bytes - self._bytes - size
        tail = self.tail + len(pending.records)
        if len(tape.records) != tail or tail > self._most_records or room < 0:
            return None
        if isinstance(tape, Spool):
            self._spool, self._lent = tape, size
        return Loan(tape, self.epoch, self._chain.last, self._most_records + 1, room)

    def repay(self, check: bytes, tail: int, size: int) -> None:
        """See `tokenwire.run.call.reading.Sink`."""
        self._chain.go_on(check)
        spool, self._spool = self._spool, None
        if spool is not None:
            landed = min(spool.landed, tail)
            if self._all_records is not None:
                self._all_records += spool.records[self.tail : landed]
            rest = self._take_back(spool, landed, tail)
            size += self._lent - sum(map(len, rest))
            tail, self._lent = landed, 0
        else:
            rest = self._pending.records
        self._bytes += size
        unreported, self.tail = self._unreported + tail - self.tail, tail
        while unreported >= _REPORT_EVERY:
            self._unreported = _REPORT_EVERY
            unreported -= _REPORT_EVERY
            self._report()
        self._unreported = unreported
        self.ready = self._may_go_on() if rest else not self._full()

    def _take_back(self, spool: Spool, landed: int, tail: int) -> list[bytes]:
        """What was appended by hand and has not landed is pending, as if it had been given."""
        pending = self._pending
        pending.records = rest = spool.records[landed:tail]
        pending.size = sum(map(len, rest))
        pending.under_way = bool(rest) and spool.problem is None
        pending.is_abandoned = bool(rest) and not pending.under_way
        pending.since = time.perf_counter() - spool.seconds
        if pending.under_way:
            spool.then, spool.then_at = self.landed, tail
        else:
            spool.then = None
            pending.note_problem(spool.problem)
        return rest

    def _fail(self, error: Exception) -> Taken:
        """A fault of ours, for the run's task to raise."""
        self.ready, self._pending.failure = False, error
        return SETTLE

    def _may_go_on(self) -> bool:
        """Whether more may be given while the store has not answered for what was: it waits in the
        log's spool behind that."""
        pending, taped = self._pending, self._taped
        if taped is None or not pending.under_way or len(pending.records) >= _MOST_PENDING:
            return False
        if self.tail + len(pending.records) > self._most_records:
            return False
        if self._bytes + pending.size > self._most_bytes:
            return False
        spool = taped.tape(self.run)
        return isinstance(spool, Spool) and spool.has_room_behind(self.landed)

    def _go_on(self, records: list[bytes]) -> Taken:
        pending, taped = self._pending, self._taped
        spool = taped.tape(self.run) if taped is not None else None
        if not isinstance(spool, Spool) or not spool.go_on(self.landed, records):
            self.ready, pending.behind = False, records
            return SETTLE
        pending.records = [*pending.records, *records]
        pending.size += sum(map(len, records))
        self.ready = self._may_go_on()
        return YES

    def _give(self, records: list[bytes]) -> Taken:
        pending, log = self._pending, self._log
        if pending.under_way:
            return self._go_on(records)
        self.ready, pending.under_way, pending.records = False, True, records
        pending.size = sum(map(len, records))
        pending.since = time.perf_counter() if log.shared else None
        try:
            if log.append_soon(
                self.run, epoch=self.epoch, first=self.tail + 1, records=records, then=self.landed
            ):
                self.ready = self.ready or self._may_go_on()
                return YES
        except LogError:
            pass  # `settle` meets it again
        except Exception as error:  # a fault of ours, for the run's task to raise
            pending.failure = error
        self.landed("not now")
        return SETTLE

    def landed(self, problem: object | None) -> None:
        """The store answered: with None it accepted the pending records, on both ways."""
        pending = self._pending
        pending.under_way = False
        pending.note_problem(problem)
        behind, pending.behind = pending.behind, []
        pending.is_abandoned = problem is not None
        if problem is not None:
            self.ready, pending.records = False, [*pending.records, *behind]
        else:
            records, pending.records = pending.records, behind
            count = len(records)
            self.tail += count
            self._lent = 0
            self._bytes += len(records[0]) if count == 1 else sum(map(len, records))
            if self._all_records is not None:
                self._all_records += records
            self._unreported += count
            if self._unreported >= _REPORT_EVERY:
                self._report()
            self.ready = not behind and not self._full()
        waiter = pending.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _report(self) -> None:
        since, count = self._pending.since, self._unreported
        self._unreported = 0
        report(StoreAppended(count, 0.0 if since is None else time.perf_counter() - since))

    def _full(self) -> bool:
        return self.tail > self._most_records or self._bytes > self._most_bytes

    async def put(self, events: list[Event]) -> None:
        """`write`, which waits for no answer where ``events`` are deltas and the store has groups:
        a task that waits for each would find more than one token when it is done, and never sleep,
        so that none of them could go past it."""
        is_soon = self.ready and self._taped is not None and self._log.shared
        if is_soon and all(isinstance(event, PartDelta) for event in events):
            if self.take(events) is not YES:
                await self.settle()
        else:
            await self.write(events)

    async def refill(self) -> None:
        """Write records again that the store has lost, while no append is under way that would find
        the loss. Raises as `write` does."""
        pending, tail = self._pending, self.tail
        if self._all_records is None or not tail or self._spool is not None or pending.records:
            return
        appended = await self._log.append(self.run, epoch=self.epoch, first=tail + 1, records=[])
        pending.note_problem(appended)
        self.ready = self.ready and not pending.fenced
        pending.check(self.run)
        if appended.status == "gap" and appended.tail < tail:
            await self._fill(appended.tail, tail + 1)

    async def settle(self) -> None:
        """Wait for the append under way, and append what is pending. Raises as `write` does."""
        await self.write([])

    async def write(self, events: list[Event]) -> None:
        """Append a batch; ``run-end`` in it also closes the stream. Raises `FencedError` when the
        run has another owner, `RefusedAppendError` when the log holds what this producer does not
        know of, `LogError` when the store fails, and `LogLimitError` when this batch, which is in
        the log, reached the log's bounds: only the end may follow."""
        pending = self._pending
        if pending.under_way:
            pending.waiter = asyncio.get_running_loop().create_future()
            try:
                await pending.waiter
            finally:
                pending.waiter = None
        pending.check(self.run)
        if not events and not pending.records:
            return
        last = events[-1] if events else None
        close = last.outcome if isinstance(last, RunEnd) else None
        if close is not None and self.ending is not None:
            await self.ending(self.run)
        inside: Inside | None = None
        if close is not None and self.closing is not None and isinstance(last, RunEnd):
            await self.write(events[:-1])  # what the function is to see of the run
            events = [last]
            inside = await self.closing.prepare(self.run, last)
        durable = not _DURABLE.isdisjoint(map(type, events))
        before = self._chain.last
        pending.records = [*pending.records, *self._chain.seal_all(events)]
        pending.since, pending.under_way, self.ready = time.perf_counter(), True, False
        try:
            await self._append(pending.records, close, durable, inside)
        except OnEndError:
            self._chain, pending.records = Chain(self.run, before), []
            pending.under_way = False
            raise
        except BaseException as error:
            self.landed(error)  # who waits behind it gives it to the store again
            pending.is_abandoned = False  # whoever wrote hears of it
            raise
        self.landed(None)
        if self._unreported:
            self._report()
        if close is None and self._full():
            raise LogLimitError(
                f"the run's log is full ({self._limits.records} events or "
                f"{self._limits.bytes} bytes)",
                limit="log_limit",
                most=self._limits.bytes,
            )

    async def _append(
        self, records: list[bytes], close: str | None, durable: bool, inside: Inside | None = None
    ) -> None:
        first, pending = self.tail + 1, self._pending
        # From here on, not from the first failure: a store that hangs takes its time to fail.
        give_up = time.monotonic() + self._limits.store_timeout
        while True:
            try:
                appended = await self._send(first, records, close, durable, inside)
            except (StoreUnavailableError, StoreFullError):
                if time.monotonic() >= give_up:
                    raise
                await asyncio.sleep(0.1)
                continue
            if appended.status in ("ok", "duplicate"):
                break
            if appended.status == "gap" and self._all_records is not None:
                await self._fill(appended.tail, first)
                continue
            pending.note_problem(appended)
            pending.check(self.run)
            raise RefusedAppendError(
                f"the log of run {self.run} refused an append: {appended.status}"
            )

    async def _send(
        self,
        first: int,
        records: list[bytes],
        close: str | None,
        durable: bool,
        inside: Inside | None,
    ) -> Appended:
        run, epoch = self.run, self.epoch
        if inside is not None and self.closing is not None:
            last = LastAppend(run, epoch, first, records, close, inside)
            return await self.closing.append(last)
        return await self._log.append(
            run, epoch=epoch, first=first, records=records, close=close, durable=durable
        )

    async def _fill(self, tail: int, first: int) -> None:
        """Write again what a failover lost, from ``tail`` + 1 up to before ``first``."""
        records = self._all_records or []
        appended = await self._log.append(
            self.run,
            epoch=self.epoch,
            first=tail + 1,
            records=records[tail : first - 1],
            durable=True,
        )
        self._pending.note_problem(appended)
        self._pending.check(self.run)
