"""The writing half of the SQLite log: all jobs of one turn in one transaction.

Always true: a job's answer leaves this file only after the commit that holds it; what is known of
a log from earlier transactions is used only while no other process has touched it.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Literal
from zlib import crc32

from tokenwire.errors import LogError, StoreUnavailableError, TokenwireError
from tokenwire.log.base import Appended
from tokenwire.log.spool import Item, Outcome, Spool
from tokenwire.log.sqlite.acts import Acts
from tokenwire.log.sqlite.heads import Head, Heads, name_hash, native_append
from tokenwire.log.sqlite.journal import WIDTH, Commit, Hearing, Journal
from tokenwire.log.sqlite.lock import FileLock
from tokenwire.log.sqlite.maintenance import (
    COMMIT_BYTES,
    Checkpoints,
    Pager,
    PagingError,
)
from tokenwire.log.sqlite.pages import PAGE_RECORDS, pack, unpack
from tokenwire.log.sqlite.reader import read_one
from tokenwire.log.sqlite.schema import (
    OFFSET_STEP,
    STREAM_STEP,
    VERSION,
    checksum,
    explain,
)
from tokenwire.log.sqlite.thread import Job

__all__ = ["AppendJob", "BatchJob", "Maintenance", "Writer"]

_log = logging.getLogger("tokenwire.log")

_native = native_append()

#: Bytes of records in one row of the journal, about; a larger commit writes several.
ROW_BYTES = 1 << 20


class Maintenance(Job):
    """Work on the file that goes after a transaction, not in one; ``act`` gets the writer."""

    __slots__ = ()


class AppendJob(Job):
    """An append, kept apart from other jobs so that many become one INSERT."""

    __slots__ = ("close", "durable", "epoch", "first", "log", "records")

    def __init__(
        self,
        log: str,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None,
        durable: bool,
    ) -> None:
        self.log = log
        self.epoch = epoch
        self.first = first
        self.records = records
        self.close = close
        self.durable = durable


class BatchJob(Job):
    """Appends of many logs that nobody waits for; its result: None where all are in, else what
    became of each."""

    __slots__ = ("items",)

    def __init__(self, items: list[Item]) -> None:
        self.items = items


class Writer(Acts):
    """Lives in the writer thread; the only connection of this process that writes."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: str,
        *,
        synchronous: Literal["full", "normal"],
        busy: float,
        clock: Callable[[], float],
        hearing: Hearing,
    ) -> None:
        self._path = path
        self._hearing = hearing
        self._busy = busy
        self._clock = clock
        self._default = synchronous
        self._synchronous = synchronous
        self.identity = hearing.identity
        self._journal = Journal()
        self._heads = Heads(self._journal)
        self._checkpoints = Checkpoints()
        self._pager = Pager(self._journal, self._heads, self._checkpoints)
        #: When this looked for commits of other processes (`time.monotonic`), and how many records
        #: it has seen in them.
        self.looked, self.foreign = 0.0, 0
        #: What it found then, and has to be told.
        self._untold: list[tuple[list[Commit], bool]] = []
        #: Set before the first `Maintenance` is submitted; until then nobody looks for one.
        self.has_maintenance = False
        #: The records of this transaction that are in no row yet, and their entries.
        self._records: list[bytes] = []
        self._numbers = array("I")
        self._size = 0
        self._touched = set()
        self._connect = connect
        self._connection = connect()
        status = os.stat(path)
        self._file = (status.st_dev, status.st_ino)
        #: What a transaction failed of, when that was unforeseen.
        self._failure: Exception | None = None
        self._lock = FileLock(path, busy)

    def close(self) -> None:
        self._lock.take()
        try:
            self._connection.close()
        finally:
            self._lock.close()

    def work(self, jobs: list[Job]) -> Sequence[Any]:
        """Run ``jobs`` in one transaction; one result or exception for each. When something
        unforeseen fails, each runs alone, so that only the one that failed is refused."""
        try:
            self._lock.take()
            try:
                if self.has_maintenance and any(type(job) is Maintenance for job in jobs):
                    return [self._one_by_one(job) for job in jobs]
                results = self._transaction(jobs)
                if results is None:
                    results = [self._alone(job) for job in jobs]
                return results
            finally:
                self._lock.release()
        except LogError as error:
            return [error] * len(jobs)

    def rest(self, is_idle: bool) -> None:
        """Do what no job waits for, after jobs were answered. ``is_idle``: no others wait."""
        if self._untold:
            self._tell()
        if not self._checkpoints.is_due(is_idle):
            return
        try:
            self._lock.take()
            try:
                self._checkpoints.step(self._connection)
            finally:
                self._lock.release()
        except (LogError, sqlite3.Error) as error:  # the next commits, or a later step, meet it
            _log.debug("the write-ahead log stays as it is: %s", error)

    def _one_by_one(self, job: Job) -> Any:
        if type(job) is not Maintenance:
            return self._alone(job)
        try:
            return job.act(self)
        except sqlite3.Error as error:
            self._undo()
            return explain(error, self._path)

    def _alone(self, job: Job) -> Any:
        results = self._transaction([job])
        if results is not None:
            return results[0]
        name = type(self._failure).__name__
        error = StoreUnavailableError(f"the store failed inside ({name}); see the server's log")
        error.__cause__ = self._failure
        return error

    def _transaction(self, jobs: list[Job]) -> Sequence[Any] | None:
        """The results; None when something failed that is no fault of the disk. What stands in the
        way of pages is in the way of no job: those are done again without."""
        try:
            return self._attempt(jobs)
        except PagingError as error:
            self._pager.pause(error)
            return self._attempt(jobs)

    def _attempt(self, jobs: list[Job]) -> Sequence[Any] | None:
        try:
            self._check_file()
            connection = self._connection
            self._set_synchronous(jobs)
            connection.execute("BEGIN IMMEDIATE")
            self._catch_up()
            results = [self._one(job) for job in jobs]
            for sid in self._pager.step(connection, self._flush):
                self._mark(sid, self._pager.paged(sid))
            self._leave_wake()
            connection.execute("COMMIT")
            self._checkpoints.bytes += COMMIT_BYTES
            return results
        except (LogError, PagingError):
            self._undo()
            raise
        except sqlite3.OperationalError as error:
            self._undo()
            return [explain(error, self._path)] * len(jobs)
        except Exception as error:
            self._undo()
            if type(error) is sqlite3.DatabaseError:  # the file is damaged
                return [explain(error, self._path)] * len(jobs)
            if len(jobs) == 1:
                _log.exception("a job of the store failed inside")
            self._failure = error
            return None

    def _check_file(self) -> None:
        """What is appended to a file that has no name any more would be lost unnoticed."""
        try:
            status = os.stat(self._path)
            file = (status.st_dev, status.st_ino)
        except FileNotFoundError:
            file = None
        if file != self._file:
            name = os.path.basename(self._path)
            raise StoreUnavailableError(
                f"the store file {name} was deleted or replaced while it was open; "
                "restart the server"
            )

    def _undo(self) -> None:
        self._heads.clear()
        self._pager.clear()
        self._journal.clear()  # another process's row may get the number that was rolled back
        self._records.clear()
        self._numbers = array("I")
        self._size = 0
        self._touched.clear()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection.close()
            self._connection = self._connect()
            self._synchronous = self._default

    def _set_synchronous(self, jobs: list[Job]) -> None:
        level = self._default
        if level == "normal" and any(type(j) is AppendJob and j.durable for j in jobs):
            level = "full"
        if level != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous={level}")
            self._synchronous = level

    def _catch_up(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version != VERSION:
            raise StoreUnavailableError(
                f"the store file {os.path.basename(self._path)} was upgraded by a newer tokenwire"
                f" (schema {version}) while it was open; upgrade tokenwire and restart the server"
            )
        commits, is_whole = self._journal.catch_up(self._connection)
        if commits:
            self._see(commits, is_whole)
        self.looked = time.monotonic()

    def _see(self, commits: list[Commit], is_whole: bool) -> None:
        """Other processes committed."""
        if not is_whole:
            self._heads.clear()
            self._pager.clear()
        else:
            changed: set[int] = set()
            for commit in commits:
                if commit.writer != self.identity:
                    if commit.hashes:
                        changed.update(unpack(commit.hashes))
                    self._heads.forget_numbers(commit.sids)
                    self._pager.appended(commit)
                    self.foreign += len(commit.row.numbers) // WIDTH
            if changed:
                self._heads.forget_hashes(changed)
        self._untold.append((commits, is_whole))

    def _tell(self) -> None:
        """Tell readers what other processes committed. Not in the transaction that saw it: what
        goes wrong here is no fault of the jobs."""
        untold, self._untold = self._untold, []
        try:
            for commits, is_whole in untold:
                self._hearing.hear(self._connection, self._journal, commits, is_whole)
        except Exception:
            _log.exception("what other processes committed could not be read")

    def _leave_wake(self) -> None:
        """Write the row of this transaction."""
        hashes = pack(array("I", sorted(self._touched)))
        self._touched.clear()
        if self._numbers or hashes:
            self._write_row(hashes)

    def _flush(self) -> None:
        if self._numbers:
            self._write_row(b"")

    def _flush_of(self, sid: int) -> None:
        if sid in self._numbers[::WIDTH]:
            self._flush()

    def _write_row(self, hashes: bytes) -> None:
        connection, journal = self._connection, self._journal
        self._checkpoints.bytes += self._size
        journal.write(connection, self.identity, self._numbers, self._records, hashes)
        self._records.clear()
        self._numbers = array("I")
        self._size = 0

    def _mark(self, sid: int, paged: int = 0) -> None:
        """Tell other processes that something happened to the log of this number, whose last offset
        in a page is ``paged`` then; 0: they have to look."""
        self._numbers.extend((sid, 0, 0, paged))

    def _mark_erased(self, sid: int) -> None:
        self._pager.forget(sid)
        self._mark(sid)

    def _one(self, job: Job) -> Any:
        try:
            if type(job) is AppendJob:
                return self._append(job)
            if type(job) is BatchJob:
                return self._append_all(job.items)
            return job.act(self)
        except TokenwireError as error:
            return error

    def _look_up(self, name: str) -> Head:
        head = self._heads.look_up(self._connection, name, self._flush_of)
        due = self._pager.due
        due.pop(head.sid, None)
        if head.tail > head.paged and (head.closed is not None or head.is_long):
            due[head.sid] = head
        return head

    def _append_all(self, items: list[Item]) -> list[Outcome] | None:
        """Append the records of ``items``."""
        if _native is None:
            return self._append_in_python(items)
        outcomes: list[Outcome] | None = None
        at, due = 0, self._pager.due
        heads, records = self._heads.by_name, self._records
        while True:
            room = ROW_BYTES - self._size
            at, size = _native(items, at, heads, due, self._numbers, records, PAGE_RECORDS, room)
            self._size += size
            if self._size > ROW_BYTES:
                self._flush()
                continue
            if at == len(items):
                return outcomes
            outcome = self._append_item(*items[at])
            if outcome is not None:
                if outcomes is None:
                    outcomes = [None for _ in items]
                outcomes[at] = outcome
            at += 1

    def _append_in_python(self, items: list[Item]) -> list[Outcome] | None:
        """The same by hand, as it happens at every token."""
        outcomes: list[Outcome] | None = None
        get, due = self._heads.get, self._pager.due
        numbers: list[int] = []
        records = self._records
        for number, (spool, start, end) in enumerate(items):
            head = get(spool.log)
            if (
                head is None
                or head.tail != start
                or head.epoch != spool.epoch
                or head.closed is not None
            ):
                self._numbers.extend(numbers)
                numbers.clear()
                outcome = self._append_item(spool, start, end)
                if outcome is not None:
                    if outcomes is None:
                        outcomes = [None for _ in items]
                    outcomes[number] = outcome
                continue
            sid, total = head.sid, head.total
            for tail in range(start + 1, end + 1):
                record = spool.records[tail - 1]
                size = len(record)
                total += size
                check = crc32(record, (sid * STREAM_STEP + tail * OFFSET_STEP) & 0xFFFFFFFF)
                numbers += (sid, tail, size, check)
                records.append(record)
                if head.records is not None:
                    head.records.append(record)
                    head.checks.append(check)
            self._size += total - head.total
            head.tail, head.total = end, total
            if end - head.paged >= PAGE_RECORDS:
                due[sid] = head
            if self._size > ROW_BYTES:
                self._numbers.extend(numbers)
                numbers.clear()
                self._flush()
        self._numbers.extend(numbers)
        return outcomes

    def _append_item(self, spool: Spool, start: int, end: int) -> Outcome:
        """The same, where the log has to be looked up."""
        records = spool.records[start:end]
        try:
            done = self._append(AppendJob(spool.log, spool.epoch, start + 1, records, None, False))
        except TokenwireError as error:
            return error
        return None if done.status == "ok" else done

    def _append(self, job: AppendJob) -> Appended:
        head = self._heads.get(job.log) or self._look_up(job.log)
        tail = head.tail
        if job.epoch != head.epoch:
            return Appended("fenced", tail, head.epoch)
        first, records = job.first, job.records
        last = first + len(records) - 1
        if head.closed is not None:
            if last > tail or job.close not in (None, head.closed):
                return Appended("closed", tail, head.epoch)
            other = self._differs(head, first, records)
            return Appended("conflict" if other else "duplicate", tail, head.epoch)
        if first > tail + 1:
            return Appended("gap", tail, head.epoch)
        if first <= tail and self._differs(head, first, records):
            return Appended("conflict", tail, head.epoch)
        if last <= tail and job.close is None:
            return Appended("duplicate", tail, head.epoch)
        sid, total, numbers = head.sid, head.total, self._numbers
        new = records[tail + 1 - first :]
        for record in new:
            tail += 1
            size = len(record)
            total += size
            check = checksum(record, sid, tail)
            numbers.extend((sid, tail, size, check))
            if head.records is not None:
                head.records.append(record)
                head.checks.append(check)
        self._records += new
        self._size += total - head.total
        head.tail, head.total = tail, total
        if job.close is not None:
            head.closed = job.close
            self._heads.forget(job.log)  # nothing more is appended to it
            self._connection.execute(
                "UPDATE stream SET closed = ?, closed_at = ? WHERE sid = ?",
                (job.close, self._clock(), sid),
            )
            self._count("ended_records", tail)
            self._count("ended_bytes", total)
            self._touched.add(name_hash(job.log))
        if tail - head.paged >= PAGE_RECORDS or (job.close is not None and tail > head.paged):
            self._pager.due[sid] = head
        if self._size > ROW_BYTES:
            self._flush()
        return Appended("ok", tail, head.epoch)

    def _differs(self, head: Head, first: int, records: list[bytes]) -> bool:
        """Whether the last record that the append and the log have in common is another one."""
        last = min(head.tail, first + len(records) - 1)
        if last < first:
            return False
        self._flush()
        record = read_one(self._connection, self._journal, head, last)
        return record != records[last - first]
