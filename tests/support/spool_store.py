"""A store that takes groups of appends, whose groups a test carries out."""

from __future__ import annotations

import asyncio
from typing import Any

from tokenwire.errors import StoreUnavailableError
from tokenwire.log.base import Appended
from tokenwire.log.spool import Batch, Outcome, Spool, Spools


class Store:
    """A store whose groups a test carries out. Its one log is ``r``."""

    shared, rewinds = True, False

    def __init__(self) -> None:
        self.records: list[bytes] = []
        self.epoch = 1
        self.groups: list[Batch] = []
        self.tails = Spools(self.groups.append)
        self.seen: list[bytes] = []
        self.tails.subscribe("r", self._wake, take=self._take)
        self.append_soon = self._append_soon

    def _take(self, offset: int, record: bytes) -> bool:
        assert record == self.records[offset - 1], "a reader has what is not stored"
        if offset != len(self.seen) + 1:
            return False
        self.seen.append(record)
        return True

    def _wake(self) -> None:
        page = self.tails.page("r", len(self.seen), 10_000, 1 << 30)
        records = self.records[len(self.seen) :] if page is None else page.records
        assert records == self.records[len(self.seen) : len(self.seen) + len(records)]
        self.seen += records

    def _append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Any
    ) -> bool:
        return self.tails.append(log, epoch, first, records, then)

    def tape(self, log: str) -> Spool | None:
        return self.tails.spool(log)

    def judge(self, epoch: int, first: int, records: list[bytes]) -> Appended:
        tail = len(self.records)
        if epoch != self.epoch:
            return Appended("fenced", tail, self.epoch)
        if first > tail + 1:
            return Appended("gap", tail, self.epoch)
        last = first + len(records) - 1
        common = self.records[first - 1 : last]
        if common != records[: len(common)]:
            return Appended("conflict", tail, self.epoch)
        if last <= tail:
            return Appended("duplicate", tail, self.epoch)
        self.records += records[len(common) :]
        return Appended("ok", len(self.records), self.epoch)

    async def append(
        self, log: str, *, epoch: int, first: int, records: list[bytes], **_: Any
    ) -> Appended:
        self.tails.retire(log)
        while self.groups:  # in front of this one
            self.commit()
        done = self.judge(epoch, first, records)
        if done.status == "ok":
            self.tails.came(log, records, done.tail, None)
        return done

    # What becomes of a group.

    def work(self, batch: Batch) -> list[Outcome] | None:
        outcomes: list[Outcome] = []
        for spool, start, end in batch.items:
            done = self.judge(spool.epoch, start + 1, spool.records[start:end])
            outcomes.append(None if done.status == "ok" else done)
        return outcomes if any(outcomes) else None

    def commit(self) -> None:
        batch = self.groups.pop(0)
        self.tails.land(batch, self.work(batch))

    def lose(self, *, late: bool = False) -> None:
        """It fails; ``late``: though it is in the store, as is told after that."""
        batch = self.groups.pop(0)
        if late:
            self.work(batch)
        self.tails.fail(batch, StoreUnavailableError("no answer"))
        if late:
            self.tails.land(batch, None)


def give(store: Store, first: int, *records: bytes, epoch: int = 1) -> list[Any]:
    told: list[Any] = []
    assert store.tails.append("r", epoch, first, list(records), told.append)
    return told


def by_hand(spool: Spool, record: bytes) -> None:
    """As the lane does it."""
    assert spool.writer
    assert spool.takers is not None
    spool.records.append(record)
    spool.bytes += len(record)
    spool.usage.bytes += len(record)
    spool.usage.records += 1
    for wake, _, _ in spool.takers:
        wake()


async def turns(count: int = 2) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
