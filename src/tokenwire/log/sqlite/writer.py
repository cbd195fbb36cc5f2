"""The writing half of the SQLite log: all jobs of one turn in one transaction.

Always true: a job's answer leaves this file only after the commit that holds it; what is known of
a log from earlier transactions is used only while no other process has touched it.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
import zlib
from array import array
from collections.abc import Callable, Sequence
from typing import Any, Literal

from tokenwire.errors import (
    ConflictError,
    KeyReusedError,
    LogError,
    StoreUnavailableError,
    TokenwireError,
)
from tokenwire.log.base import Appended, Claim, Due, LogInfo
from tokenwire.log.sqlite import expiry
from tokenwire.log.sqlite.heads import Head, Heads, name_hash
from tokenwire.log.sqlite.lock import FileLock
from tokenwire.log.sqlite.maintenance import empty_wal, vacuum
from tokenwire.log.sqlite.reader import describe
from tokenwire.log.sqlite.schema import checksum, explain
from tokenwire.log.sqlite.thread import Job
from tokenwire.log.sqlite.watch import Term

__all__ = ["AppendJob", "Maintenance", "Writer"]

_log = logging.getLogger("tokenwire.log")

#: Rows of one INSERT. Few, large statements: each one lets go of the interpreter lock once, and
#: getting it back from a busy event loop may take milliseconds.
INSERT_SIZES = (512, 64, 8, 1)

#: Seconds that one transaction erases logs: nothing is appended meanwhile.
ERASE_SECONDS = 0.1

#: Rows of the ``wake`` table: a reader that is further behind wakes everybody instead.
MOST_WAKES = 4096


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


class Writer:
    """Lives in the writer thread; the only connection of this process that writes."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: str,
        *,
        synchronous: Literal["full", "normal"],
        busy: float,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._busy = busy
        self._clock = clock
        self._default = synchronous
        self._synchronous = synchronous
        self.identity = secrets.token_hex(8)
        self._heads = Heads()
        #: Set before the first `Maintenance` is submitted; until then nobody looks for one.
        self.has_maintenance = False
        self._rows: list[Any] = []
        self._touched: set[int] = set()
        self._last_wake = 0
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
        """The results; None when something failed that is no fault of the disk."""
        try:
            self._check_file()
            connection = self._connection
            self._set_synchronous(jobs)
            connection.execute("BEGIN IMMEDIATE")
            self._catch_up()
            results = [self._one(job) for job in jobs]
            self._flush()
            self._leave_wake()
            connection.execute("COMMIT")
            return results
        except LogError:
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
        self._rows.clear()
        self._touched.clear()
        self._last_wake = 0  # another process's commit may get the number that was rolled back
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
        rows = self._connection.execute(
            "SELECT id, writer, hashes FROM wake WHERE id > ? ORDER BY id", (self._last_wake,)
        ).fetchall()
        if not rows:
            return
        expected = self._last_wake + 1
        self._last_wake = rows[-1][0]
        if rows[0][0] != expected:
            self._heads.clear()
            return
        changed: set[int] = set()
        for _, writer, hashes in rows:
            if writer != self.identity:
                changed.update(array("I", hashes))
        self._heads.forget_hashes(changed)

    def _leave_wake(self) -> None:
        if not self._touched:
            return
        hashes = array("I", sorted(self._touched)).tobytes()
        self._touched.clear()
        cursor = self._connection.execute(
            "INSERT INTO wake (writer, hashes) VALUES (?, ?)", (self.identity, hashes)
        )
        self._last_wake = cursor.lastrowid or 0
        if self._last_wake % 512 == 0:
            self._connection.execute(
                "DELETE FROM wake WHERE id <= ?", (self._last_wake - MOST_WAKES,)
            )

    def _one(self, job: Job) -> Any:
        try:
            if type(job) is AppendJob:
                return self._append(job)
            self._flush()
            return job.act(self)
        except TokenwireError as error:
            return error

    def _look_up(self, name: str) -> Head:
        self._flush()
        return self._heads.look_up(self._connection, name)

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
        sid, total, rows = head.sid, head.total, self._rows
        for record in records[tail + 1 - first :]:
            tail += 1
            total += len(record)
            rows += (sid, tail, total, checksum(record, sid, tail), record)
        head.tail, head.total = tail, total
        if job.close is not None:
            self._heads.forget(job.log)  # nothing more is appended to it
            self._connection.execute(
                "UPDATE stream SET closed = ?, closed_at = ? WHERE sid = ?",
                (job.close, self._clock(), sid),
            )
            self._count("ended_records", tail)
            self._count("ended_bytes", total)
        self._touched.add(name_hash(job.log))
        return Appended("ok", tail, head.epoch)

    def _differs(self, head: Head, first: int, records: list[bytes]) -> bool:
        """Whether the last record that the append and the log have in common is another one."""
        last = min(head.tail, first + len(records) - 1)
        if last < first:
            return False
        self._flush()
        row = self._connection.execute(
            "SELECT data FROM record WHERE sid = ? AND offset = ?", (head.sid, last)
        ).fetchone()
        return row is None or row[0] != records[last - first]

    def _flush(self) -> None:
        rows = self._rows
        if not rows:
            return
        start = 0
        for size in INSERT_SIZES:
            width = size * 5
            while len(rows) - start >= width:
                values = ",".join(["(?,?,?,?,?)"] * size)
                self._connection.execute(
                    f"INSERT INTO record VALUES {values}",  # noqa: S608 - question marks only
                    rows[start : start + width],
                )
                start += width
        rows.clear()

    def _count(self, name: str, change: int) -> None:
        self._connection.execute(
            "INSERT INTO counter VALUES (?1, ?2)"
            " ON CONFLICT (name) DO UPDATE SET value = value + ?2",
            (name, change),
        )

    # What the facade sends over as jobs.

    def probe(self) -> None:
        """Write something, so that a disk which does not take it is noticed."""
        self._connection.execute(
            "INSERT OR REPLACE INTO counter VALUES ('probe', ?)", (int(self._clock()),)
        )

    def create(
        self,
        log: str,
        owner: str,
        meta: bytes,
        thread: str | None,
        key: str | None,
        key_hash: str,
        lease: float,
    ) -> LogInfo:
        execute = self._connection.execute
        if key is not None:
            row = execute(
                "SELECT s.name, k.hash FROM request_key k JOIN stream s USING (sid)"
                " WHERE k.key = ?",
                (key,),
            ).fetchone()
            if row is not None:
                if row[1] != key_hash:
                    raise KeyReusedError("this idempotency key belongs to a different request")
                return describe(self._connection, row[0])
        conflict = execute(
            "SELECT 1 FROM stream WHERE name = ?1 UNION ALL SELECT 1 FROM gone WHERE name = ?1",
            (log,),
        ).fetchone()
        if conflict:
            raise ConflictError("a log of this name exists")
        now = self._clock()
        sid = execute(
            "INSERT INTO stream"
            " (name, epoch, owner, lease_until, created, thread, meta, meta_check)"
            " VALUES (?, 1, ?, ?, ?, ?, ?, ?)",
            (log, owner, now + lease, now, thread, meta, zlib.crc32(meta)),
        ).lastrowid
        if key is not None:
            execute("INSERT INTO request_key VALUES (?, ?, ?)", (key, sid, key_hash))
        self._count("logs", 1)
        self._touched.add(name_hash(log))
        return describe(self._connection, log)

    def claim(self, log: str, owner: str, lease: float, stale: Term | None) -> Claim | None:
        now, end = self._clock(), (0, 0.0) if stale is None else stale[1:]
        before = self._connection.execute(
            "SELECT owner FROM stream WHERE name = ?", (log,)
        ).fetchone()
        row = self._connection.execute(
            "UPDATE stream SET epoch = epoch + 1, owner = ?, lease_until = ?"
            " WHERE name = ? AND closed IS NULL AND (lease_until <= ?"
            " OR (epoch, lease_until) = (?, ?)) RETURNING epoch",
            (owner, now + lease, log, now, *end),
        ).fetchone()
        if row is None:
            return None
        self._heads.forget(log)
        self._touched.add(name_hash(log))
        return Claim(log, row[0], self._look_up(log).tail, handed_over=before == ("",))

    def renew(self, logs: dict[str, int], owner: str, lease: float) -> set[str]:
        until = self._clock() + lease
        losses = set()
        for name, epoch in logs.items():
            changed = self._connection.execute(
                "UPDATE stream SET lease_until = ?"
                " WHERE name = ? AND epoch = ? AND owner = ? AND closed IS NULL",
                (until, name, epoch, owner),
            ).rowcount
            if not changed:
                losses.add(name)
        return losses

    def release(self, log: str, epoch: int, handed_over: bool) -> None:
        # An owner's name is never empty, so an empty one says that it was handed over.
        self._connection.execute(
            "UPDATE stream SET lease_until = 0, owner = CASE WHEN ? THEN '' ELSE owner END"
            " WHERE name = ? AND epoch = ? AND closed IS NULL",
            (handed_over, log, epoch),
        )

    def command(self, log: str, data: bytes) -> None:
        sid = self._look_up(log).sid
        number = self._connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM command WHERE sid = ?", (sid,)
        ).fetchone()[0]
        self._connection.execute(
            "INSERT INTO command VALUES (?, ?, ?, ?)",
            (sid, number, checksum(data, sid, number), data),
        )
        self._touched.add(name_hash(log))

    def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        execute = self._connection.execute
        if data is None:
            execute("DELETE FROM document WHERE kind = ? AND name = ?", (kind, name))
            return
        execute(
            "INSERT OR REPLACE INTO document VALUES (?1, ?2,"
            " (SELECT coalesce(max(changed), 0) + 1 FROM document WHERE kind = ?1), ?3)",
            (kind, name, data),
        )

    def swap_document(self, kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        row = self._connection.execute(
            "SELECT data FROM document WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        current = row[0] if row is not None else None
        if current == old:
            self.set_document(kind, name, new)
        return current in (old, new)

    def _erase(self, name: str) -> bool:
        ending = expiry.erase(self._connection, name)
        if ending is None:
            return False
        closed, records, size = ending
        self._count("logs", -1)
        if closed is not None:
            self._count("ended_records", -records)
            self._count("ended_bytes", -size)
        self._heads.forget(name)
        self._touched.add(name_hash(name))
        return True

    def delete(self, log: str) -> None:
        self._erase(log)
        was = self._connection.execute("DELETE FROM gone WHERE name = ?", (log,)).rowcount
        self._count("tombstones", -was)

    def erase_due(self, due: list[Due], before: float) -> list[Due]:
        """Erase what is still due, for about `ERASE_SECONDS`; names stay in ``gone`` a while."""
        now, end = self._clock(), time.monotonic() + ERASE_SECONDS
        erased: list[Due] = []
        for one in due:
            if not expiry.is_due(self._connection, one, before):
                continue
            names: list[str] = []
            for name in one.logs:
                if names and time.monotonic() > end:
                    break
                if self._erase(name):
                    names.append(name)
                    self._connection.execute("INSERT INTO gone VALUES (?, ?)", (name, now))
            self._count("tombstones", len(names))
            is_left = expiry.is_left(self._connection, one.thread)
            erased.append(Due(names, one.thread, is_all=not is_left))
            if time.monotonic() > end:
                break
        return erased

    def postpone(self, due: list[Due], at: float) -> None:
        expiry.postpone(self._connection, due, at)

    def forget_names(self, before: float, most: int = 10_000) -> None:
        """Forget names of logs that were erased before the Unix time ``before``."""
        count = self._connection.execute(
            "DELETE FROM gone WHERE name IN (SELECT name FROM gone WHERE at < ? LIMIT ?)",
            (before, most),
        ).rowcount
        self._count("tombstones", -count)

    def vacuum(self, seconds: float) -> int:
        return vacuum(self._connection, seconds)

    def empty_wal(self) -> bool:
        return empty_wal(self._connection, self._busy)
