"""Appends by hand to a store that is not this process's memory, and their way into it in groups.

Always true: records of a log reach the store in their order, and its readers only after the store
has them; one group is under way at a time, unless somebody else writes and takes the next along. A
group that begins while few records come leaves in its own turn of the event loop; where groups
carry many, of this process or of others, the next one waits a moment for more, since what a group
costs hardly depends on how much it carries. What the store refuses ends its spool: whoever appends
hears why, from `landed` on.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from tokenwire import __version__
from tokenwire.errors import LogError
from tokenwire.express import Reader, Taker, Tape, Usage, offer_newest, offer_several
from tokenwire.log.base import Appended, Page, Then
from tokenwire.log.intake import Intake
from tokenwire.log.paces import PACES, pace_after
from tokenwire.log.tail import MOST_BYTES as TAIL_BYTES
from tokenwire.log.tail import MOST_PIECES, MOST_RECORDS, Heard, Tail, Tails

__all__ = ["MOST_PIECES", "SPOOL", "Batch", "Item", "Outcome", "Spool", "Spools", "native"]

_log = logging.getLogger("tokenwire.log")

#: Bytes of all logs that the store does not have yet; more waits with its provider.
MOST_BYTES = 8 << 20
#: Records of all logs in one group.
MOST_ITEMS = 2048
#: The last offset before a spool's first record: each of those costs a pointer.
MOST_BEFORE = 200_000
#: Records that a spool keeps after the store has them, before the cache of the log's tail does.
MOST_LANDED = 64
#: Seconds that a group may take until nothing more is appended by hand, so that the provider of a
#: run waits for the store.
STALL_SECONDS = 1.0

#: Characters of the check at the head of a record; see `tokenwire.relay.record`.
_CHECK = 16

#: Raised with every change of what `Spools.land`, `Spools.hear` or `pack_items`
#: (`log/redis/appending/packing.py`) do, here and in the twin (`speedups/`).
SPOOL = 5

#: What became of an append: None where it is in the log.
Outcome = Appended | BaseException | None


class Spool(Tape):
    """The newest records of a log, of which the store has those up to the offset `landed`. Those
    before the first one here, and some that the store has, are empty."""

    __slots__ = (
        "_spools",
        "epoch",
        "given",
        "is_dirty",
        "landed",
        "log",
        "problem",
        "readers",
        "synced",
        "then",
        "then_at",
    )

    def __init__(self, spools: Spools, log: str, epoch: int, tail: int) -> None:
        super().__init__(spools.usage)
        self._spools, self.log, self.epoch = spools, log, epoch
        self.records = [b""] * tail
        #: The last offset that was given to the store, that it has, and that the cache of the
        #: log's tail has.
        self.given = self.landed = self.synced = tail
        #: Whether it is among those of the next group.
        self.is_dirty = False
        #: Why nothing more is appended here.
        self.problem: Appended | BaseException | None = None
        #: What is called when the store has the records up to the offset ``then_at``, or refuses
        #: them.
        self.then: Then | None = None
        self.then_at = 0
        #: Who hears of what has landed; None when it has to be looked up.
        self.readers: tuple[Taker, ...] | None = None
        self.writer = 0 if spools.is_stalled else epoch
        self.takers = ((self._grown, None, None),)

    @property
    def intake(self) -> Intake | None:
        """See `Tape`; only beside other processes, as one alone has its reads cheaper at once."""
        spools = self._spools
        return spools.intake if spools.beside and spools.intake.is_open else None

    @property
    def seconds(self) -> float:
        """How long the newest group took."""
        return self._spools.seconds

    def has_room_behind(self, then: Then) -> bool:
        """Whether `go_on` would append."""
        usage = self.usage
        is_last = self.then == then and self.then_at == len(self.records)
        return is_last and self.writer != 0 and usage.bytes <= usage.most

    def go_on(self, then: Then, records: list[bytes]) -> bool:
        """Append ``records`` behind those that ``then`` waits for, which it then waits for as well;
        whether that is done."""
        if not self.has_room_behind(then):
            return False
        size, usage = sum(map(len, records)), self.usage
        self.records += records
        self.bytes += size
        usage.bytes += size
        usage.records += len(records)
        self.then_at = len(self.records)
        self._grown()
        return True

    def _grown(self) -> None:
        """There are records that the store was not given."""
        if not self.is_dirty:
            self.is_dirty = True
            spools = self._spools
            spools.dirty.append(self)
            if not spools.is_due:
                spools.schedule()


#: Records of a spool: after the first offset, up to the second.
Item = tuple[Spool, int, int]


class Batch:
    """What goes to the store as one group."""

    __slots__ = ("bytes", "has_failed", "items", "since")

    def __init__(self, items: list[Item], size: int, since: float) -> None:
        self.items, self.bytes, self.since = items, size, since
        self.has_failed = False


def native() -> Any:
    """The twin in C of what is done with groups, unless it is not installed, of another release,
    or turned off; else None."""
    if os.environ.get("TOKENWIRE_SPEEDUPS", "1").strip().lower() in ("0", "false", "no", "off"):
        return None
    try:
        import tokenwire_speedups as module
    except ImportError:
        return None
    made_for = getattr(module, "__version__", None), getattr(module, "SPOOL", None)
    if made_for != (__version__, SPOOL):
        return None
    module.bind_spool({"Spool": Spool, "Tail": Tail, "Reader": Reader})
    return module


_native = native()


class Spools(Tails):
    """The tails of a store's logs, and the spools of those that are appended to by hand. ``carry``
    gives a group to the store, and raises `LogError` where it cannot; `land` or `fail` says what
    became of it."""

    #: Whether spools keep what the store has, which may lose it. Readers compare checks then.
    keeps = False
    paces = PACES

    def __init__(self, carry: Callable[[Batch], None]) -> None:
        super().__init__()
        self._carry = carry
        self._spools: dict[str, Spool] = {}
        self.dirty: list[Spool] = []
        self.usage = Usage(MOST_BYTES)
        #: Sockets that are read when a group leaves.
        self.intake = Intake()
        #: Whether the next group leaves without being asked to.
        self.is_due = False
        self.is_stalled = False
        self.seconds = 0.0
        self._batches = self._bytes = 0
        self._begun, self._last = 0.0, 0
        #: Records that others give the store for each group of this one.
        self.beside = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None

    # --- what is appended ------------------------------------------------------------------------

    def spool(self, log: str) -> Spool | None:
        """That of a log, where records may be appended to it by hand."""
        spool = self._spools.get(log)
        return spool if spool is not None and spool.writer else None

    def append(self, log: str, epoch: int, first: int, records: list[bytes], then: Then) -> bool:
        """See `Records.append_soon`."""
        spool = self._spools.get(log)
        if spool is None:
            if first > MOST_BEFORE:
                return False
            spool = self._spools[log] = Spool(self, log, epoch, first - 1)
            self._forget_readers(log)
        usage = self.usage
        if (
            spool.epoch != epoch
            or spool.then is not None
            or len(spool.records) + 1 != first
            or usage.bytes > usage.most
        ):
            self.retire(log)
            return False
        spool.records += records
        size = sum(map(len, records))
        spool.bytes += size
        usage.bytes += size
        usage.records += len(records)
        spool.then, spool.then_at = then, len(spool.records)
        spool._grown()
        return True

    def retire(self, log: str) -> None:
        """Nothing more is appended by hand to a log. What was goes to the store now, in front of
        what it is given next."""
        spool = self._spools.pop(log, None)
        if spool is not None:
            self._sync(spool)
            spool.writer, spool.takers = 0, None
            while spool.is_dirty and len(self.dirty) > MOST_ITEMS:
                self.hand_over()
        self.hand_over()

    def schedule(self) -> None:
        """Let the next group leave."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self.is_due = True
        pause = self._begun + self._pace() - loop.time()
        if pause > 0.0005:
            self.intake.rest()
            self._timer = loop.call_later(pause, self._turn, loop)
        else:
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """The next group is due."""
        self._timer, now = None, loop.time()
        self.intake.drain()
        self.hand_over()
        self._begun = min(self._begun, now)
        if not self._batches:
            self.intake.watch()

    def _pace(self) -> float:
        return pace_after(self._last, self.beside, self.paces)

    def hand_over(self) -> None:
        """Give the store what is here."""
        dirty = self.dirty
        if not dirty:
            self.is_due = self._batches > 0 or self._timer is not None
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self.dirty = dirty[MOST_ITEMS:]
        del dirty[MOST_ITEMS:]
        items: list[Item] = []
        for spool in dirty:
            spool.is_dirty = False
            start, end = spool.given, len(spool.records)
            if spool.problem is None:
                items.append((spool, start, end))
            spool.given = end
        size = self.usage.bytes - self._bytes
        self._bytes += size
        self._begun, self._last, self.is_due = loop.time(), len(items), True
        batch = Batch(items, size, self._begun)
        self._batches += 1
        if self._watch is None:
            self._watch = loop.call_later(STALL_SECONDS, self._stall)
        try:
            self._carry(batch)
        except LogError as error:
            self.fail(batch, error)

    def _stall(self) -> None:
        """The store takes its time."""
        self._watch, self.is_stalled = None, True
        self.intake.watch()  # who waits for the store sees what became of his provider
        for spool in self._spools.values():
            spool.writer = 0

    def close(self) -> None:
        """Give the store all that is here; nothing more is appended by hand."""
        for log in list(self._spools):
            self.retire(log)
        while self.dirty:
            self.hand_over()
        for timer in filter(None, (self._timer, self._watch)):
            timer.cancel()
        self.intake.close()

    # --- what has landed -------------------------------------------------------------------------

    def land(self, batch: Batch, outcomes: Sequence[Outcome] | None) -> None:
        """The store has ``batch``; ``outcomes`` are those of its items, where one was refused.
        Readers get what they wait for, whoever appends hears of it, and the next group leaves."""
        if batch.has_failed:  # the outcome was unknown, and whoever appended has been told
            for spool, _, _ in batch.items:
                self._look(spool.log)
            return
        self._end(batch)
        if outcomes is None and _native is not None:
            _native.land(
                *(batch.items, self._landed, self._fault, self._after, MOST_LANDED, self.keeps)
            )
        elif outcomes is None:
            for item in batch.items:
                self._landed(*item)
        else:
            for item, outcome in zip(batch.items, outcomes, strict=True):
                if outcome is None:
                    self._landed(*item)
                else:
                    self._refused(item[0], outcome)

    def _landed(self, spool: Spool, start: int, end: int) -> None:
        log, records = spool.log, spool.records
        if spool.problem is not None or spool.landed != start:  # others tell
            self._look(log)
            return
        spool.landed = end
        try:
            if spool.takers is None:  # retired meanwhile
                spool.synced = end
                self.came(log, records[start:end], end, None)
            else:
                readers = spool.readers
                if readers is None:
                    readers = spool.readers = self._readers(log)
                if end == start + 1:
                    self._offer(readers, end, records)
                elif end <= start + MOST_PIECES:
                    check = None
                    if self.keeps:
                        check = records[start - 1][:_CHECK] if start else b""
                    offer_several(readers, start, records[start:end], check)
                else:
                    self.grown(log)
        except Exception as error:
            self._fault(error)
        self._after(spool, end)

    def _offer(self, readers: tuple[Taker, ...], end: int, records: list[bytes]) -> None:
        offer_newest(readers, end, records[end - 1])

    def _look(self, log: str) -> None:
        """Readers look into the store: what is in it is not known here."""
        self.forget(log)
        try:
            self.grown(log)
        except Exception as error:
            self._fault(error)

    def _fault(self, error: BaseException) -> None:
        """A reader could not be woken; the records are in the log all the same."""
        _log.error("the wake-up of a reader failed", exc_info=error)

    def _after(self, spool: Spool, end: int) -> None:
        if end - spool.synced >= MOST_LANDED:
            self._sync(spool)
        if spool.then is not None and end >= spool.then_at:
            self._tell(spool, None)

    def _refused(self, spool: Spool, outcome: Appended | BaseException) -> None:
        if spool.problem is not None:
            return
        if isinstance(outcome, Appended) and outcome.status == "duplicate":
            spool.landed = max(spool.landed, min(outcome.tail, len(spool.records)))
        spool.problem, spool.writer, spool.takers = outcome, 0, None
        if self._spools.get(spool.log) is spool:
            del self._spools[spool.log]
        is_in = isinstance(outcome, Appended) and outcome.status == "duplicate"
        if is_in:  # readers heard nothing when it came there
            self._look(spool.log)
        else:
            self.forget(spool.log)
        if spool.then is not None:
            is_all = is_in and spool.landed >= spool.then_at
            self._tell(spool, None if is_all else outcome)

    def _tell(self, spool: Spool, problem: Outcome) -> None:
        then, spool.then = spool.then, None
        try:
            if then is not None:
                then(problem)
        except Exception:  # others' answers come after it
            _log.exception("the callback of an append failed")

    def fail(self, batch: Batch, error: BaseException) -> None:
        """The store does not have ``batch``, or it is unknown whether it has. What waited behind it
        has failed as well: whoever appended gives it to the store by itself."""
        batch.has_failed = True
        self._end(batch, is_over=True)
        for spool, _, _ in batch.items:
            self._refused(spool, error)
        dirty, self.dirty = self.dirty, []
        size = self.usage.bytes - self._bytes
        self.usage.bytes -= size
        for spool in dirty:
            self._refused(spool, error)

    def _end(self, batch: Batch, *, is_over: bool = False) -> None:
        self._batches -= 1
        self._bytes -= batch.bytes
        self.usage.bytes -= batch.bytes
        if self._loop is not None:
            self.seconds = self._loop.time() - batch.since
        if self._batches:
            return
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self.is_stalled:
            self.is_stalled = False
            for spool in self._spools.values():
                spool.writer = spool.epoch
        self.is_due = False
        if not is_over and (self.dirty or (self.intake.is_used and self._pace())):
            self.schedule()
        else:
            self.intake.watch()

    # --- readers, and the tails that they read ---------------------------------------------------

    def _readers(self, log: str) -> tuple[Taker, ...]:
        return tuple(
            (wake, take, take if isinstance(take, Reader) else None)
            for wake, take in self.growth(log)
        )

    def _forget_readers(self, log: str) -> None:
        super()._forget_readers(log)
        spool = self._spools.get(log)
        if spool is not None:
            spool.readers = None

    def _sync(self, spool: Spool) -> None:
        """The cache of a log's tail gets what has landed."""
        start, end = spool.synced, spool.landed
        if start < end:
            records = spool.records[start:end]
            spool.synced = end
            if not self.keeps:
                spool.records[start:end] = [b""] * len(records)
            self.accepted(spool.log, records, end, None)

    def page(self, log: str, after: int, most: int, most_bytes: int) -> Page | None:
        spool = self._spools.get(log)
        if spool is not None:
            self._sync(spool)
        return super().page(log, after, most, most_bytes)

    def hear(self, appends: list[Heard]) -> None:
        """See `Tails.hear`; where a reader cannot be woken, the others are."""
        if _native is not None:
            bounds = MOST_RECORDS, TAIL_BYTES, self.keeps
            _native.hear(appends, self._tails, self._hear, self._fault, *bounds)
            return
        for append in appends:
            try:
                self._hear(*append)
            except Exception as error:
                self._fault(error)

    def heard(self, log: str, start: int, records: list[bytes]) -> None:
        spool = self._spools.get(log)
        if spool is not None:
            self._sync(spool)
        super().heard(log, start, records)
        if spool is not None:  # which is to be looked at each time
            self._forget_readers(log)

    def forget(self, log: str) -> None:
        spool = self._spools.get(log)
        if spool is not None:
            self._sync(spool)
        super().forget(log)
