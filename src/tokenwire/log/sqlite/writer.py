"""The writing half of the SQLite log: all jobs of one turn in one transaction.

Always true: a job's answer leaves this file only after the commit that holds it; what is known of
a stream from earlier transactions is used only while no other process has touched it.
"""

from __future__ import annotations

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
    GoneError,
    KeyReusedError,
    LogError,
    NotFoundError,
    StoreUnavailableError,
    TokenwireError,
)
from tokenwire.log.base import Appended, Claim, StreamInfo
from tokenwire.log.sqlite.reader import describe
from tokenwire.log.sqlite.schema import checksum, explain
from tokenwire.log.sqlite.thread import Job

try:
    import fcntl
except ImportError:  # not on Windows: there SQLite's own lock has to do
    fcntl = None

__all__ = ["AppendJob", "Writer", "name_hash"]

#: Rows of one INSERT. Few, large statements: each one lets go of the interpreter lock once, and
#: getting it back from a busy event loop may take milliseconds.
INSERT_SIZES = (512, 64, 8, 1)

#: What is known of streams, before it is thrown away and read again.
MOST_KNOWN = 50_000

#: Rows of the ``wake`` table: a reader that is further behind wakes everybody instead.
MOST_WAKES = 4096


def name_hash(stream: str) -> int:
    return zlib.crc32(stream.encode())


class AppendJob(Job):
    """An append, kept apart from other jobs so that many become one INSERT."""

    __slots__ = ("close", "durable", "epoch", "first", "records", "stream")

    def __init__(
        self,
        stream: str,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None,
        durable: bool,
    ) -> None:
        self.stream = stream
        self.epoch = epoch
        self.first = first
        self.records = records
        self.close = close
        self.durable = durable


class _Known:
    __slots__ = ("closed", "epoch", "sid", "tail", "total")

    def __init__(self, sid: int, epoch: int, tail: int, total: int, closed: str | None) -> None:
        self.sid = sid
        self.epoch = epoch
        self.tail = tail
        self.total = total
        self.closed = closed


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
        self._known: dict[str, _Known] = {}
        self._rows: list[Any] = []
        self._touched: set[int] = set()
        self._last_wake = 0
        self._connection = connect()
        self._lock = -1
        if fcntl is not None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._lock = os.open(path + "-lock", flags, 0o600)

    def close(self) -> None:
        self._take_lock()
        try:
            self._connection.close()
        finally:
            if self._lock >= 0:
                os.close(self._lock)

    def work(self, jobs: list[Job]) -> Sequence[Any]:
        """Run ``jobs`` in one transaction; one result or exception for each."""
        try:
            self._take_lock()
            try:
                return self._transaction(jobs)
            finally:
                if self._lock >= 0 and fcntl is not None:
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
        except LogError as error:
            return [error] * len(jobs)

    def _take_lock(self) -> None:
        # Older SQLite can damage a file when two connections write and checkpoint in the same
        # instant. All our writers, of all processes, pass this lock, so that cannot happen.
        if self._lock < 0 or fcntl is None:
            return
        waited = 0.0
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if waited >= self._busy:
                    raise StoreUnavailableError("Another process keeps the store locked.") from None
            pause = min(0.002, 0.0002 + waited / 10)
            time.sleep(pause)
            waited += pause

    def _transaction(self, jobs: list[Job]) -> Sequence[Any]:
        connection = self._connection
        try:
            self._set_synchronous(jobs)
            connection.execute("BEGIN IMMEDIATE")
            self._catch_up()
            results = [self._one(job) for job in jobs]
            self._flush()
            self._leave_wake()
            connection.execute("COMMIT")
            return results
        except BaseException as error:
            self._undo()
            if isinstance(error, sqlite3.Error):
                return [explain(error, self._path)] * len(jobs)
            if isinstance(error, Exception):
                return [error] * len(jobs)
            raise

    def _undo(self) -> None:
        self._known.clear()
        self._rows.clear()
        self._touched.clear()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _set_synchronous(self, jobs: list[Job]) -> None:
        wanted = self._default
        if wanted == "normal" and any(type(j) is AppendJob and j.durable for j in jobs):
            wanted = "full"
        if wanted != self._synchronous:
            self._connection.execute(f"PRAGMA synchronous={wanted}")
            self._synchronous = wanted

    def _catch_up(self) -> None:
        rows = self._connection.execute(
            "SELECT id, writer, hashes FROM wake WHERE id > ? ORDER BY id", (self._last_wake,)
        ).fetchall()
        if not rows:
            return
        expected = self._last_wake + 1
        self._last_wake = rows[-1][0]
        if rows[0][0] != expected:
            self._known.clear()
            return
        changed: set[int] = set()
        for _, writer, hashes in rows:
            if writer != self.identity:
                changed.update(array("I", hashes))
        if changed:
            for name in [name for name in self._known if name_hash(name) in changed]:
                del self._known[name]

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
        if len(self._known) > MOST_KNOWN:
            self._known.clear()

    def _one(self, job: Job) -> Any:
        try:
            if type(job) is AppendJob:
                return self._append(job)
            self._flush()
            return job.act(self)
        except TokenwireError as error:
            return error

    def _look_up(self, name: str) -> _Known:
        known = self._known.get(name)
        if known is None:
            row = self._connection.execute(
                "SELECT s.sid, s.epoch, coalesce(r.offset, 0), coalesce(r.total, 0), s.closed"
                " FROM stream s LEFT JOIN record r ON r.sid = s.sid AND r.offset ="
                " (SELECT max(offset) FROM record WHERE sid = s.sid) WHERE s.name = ?",
                (name,),
            ).fetchone()
            if row is None:
                raise self._missing(name)
            known = self._known[name] = _Known(*row)
        return known

    def _missing(self, name: str) -> TokenwireError:
        gone = self._connection.execute("SELECT 1 FROM gone WHERE name = ?", (name,)).fetchone()
        if gone:
            return GoneError("The stream has expired; its records are no longer kept.")
        return NotFoundError("There is no such stream.")

    def _append(self, job: AppendJob) -> Appended:
        known = self._known.get(job.stream) or self._look_up(job.stream)
        tail = known.tail
        if job.epoch != known.epoch:
            return Appended("fenced", tail, known.epoch)
        first, records = job.first, job.records
        last = first + len(records) - 1
        if known.closed is not None:
            if last > tail or job.close not in (None, known.closed):
                return Appended("closed", tail, known.epoch)
            other = self._differs(known, first, records)
            return Appended("conflict" if other else "duplicate", tail, known.epoch)
        if first > tail + 1:
            return Appended("gap", tail, known.epoch)
        if first <= tail and self._differs(known, first, records):
            return Appended("conflict", tail, known.epoch)
        if last <= tail and job.close is None:
            return Appended("duplicate", tail, known.epoch)
        sid, total, rows = known.sid, known.total, self._rows
        for record in records[tail + 1 - first :]:
            tail += 1
            total += len(record)
            rows += (sid, tail, total, checksum(record, sid, tail), record)
        known.tail, known.total = tail, total
        if job.close is not None:
            known.closed = job.close
            self._connection.execute(
                "UPDATE stream SET closed = ?, closed_at = ? WHERE sid = ?",
                (job.close, self._clock(), sid),
            )
        self._touched.add(name_hash(job.stream))
        return Appended("ok", tail, known.epoch)

    def _differs(self, known: _Known, first: int, records: list[bytes]) -> bool:
        """Whether the last record that the append and the stream have in common is another one."""
        last = min(known.tail, first + len(records) - 1)
        if last < first:
            return False
        self._flush()
        row = self._connection.execute(
            "SELECT data FROM record WHERE sid = ? AND offset = ?", (known.sid, last)
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

    # What the facade sends over as jobs.

    def create(
        self,
        stream: str,
        owner: str,
        meta: bytes,
        thread: str | None,
        key: str | None,
        key_hash: str,
        lease: float,
    ) -> StreamInfo:
        execute = self._connection.execute
        if key is not None:
            row = execute(
                "SELECT s.name, k.hash FROM request_key k JOIN stream s USING (sid)"
                " WHERE k.key = ?",
                (key,),
            ).fetchone()
            if row is not None:
                if row[1] != key_hash:
                    raise KeyReusedError("This idempotency key was used for another request.")
                return describe(self._connection, row[0])
        taken = execute(
            "SELECT 1 FROM stream WHERE name = ?1 UNION ALL SELECT 1 FROM gone WHERE name = ?1",
            (stream,),
        ).fetchone()
        if taken:
            raise ConflictError("A stream of this name exists.")
        now = self._clock()
        sid = execute(
            "INSERT INTO stream"
            " (name, epoch, owner, lease_until, created, thread, meta, meta_check)"
            " VALUES (?, 1, ?, ?, ?, ?, ?, ?)",
            (stream, owner, now + lease, now, thread, meta, zlib.crc32(meta)),
        ).lastrowid
        if key is not None:
            execute("INSERT INTO request_key VALUES (?, ?, ?)", (key, sid, key_hash))
        self._touched.add(name_hash(stream))
        return describe(self._connection, stream)

    def claim(self, stream: str, owner: str, lease: float) -> Claim | None:
        now = self._clock()
        row = self._connection.execute(
            "UPDATE stream SET epoch = epoch + 1, owner = ?, lease_until = ?"
            " WHERE name = ? AND closed IS NULL AND lease_until <= ? RETURNING epoch",
            (owner, now + lease, stream, now),
        ).fetchone()
        if row is None:
            return None
        self._known.pop(stream, None)
        self._touched.add(name_hash(stream))
        return Claim(stream, row[0], self._look_up(stream).tail)

    def renew(self, streams: dict[str, int], owner: str, lease: float) -> set[str]:
        until = self._clock() + lease
        lost = set()
        for name, epoch in streams.items():
            changed = self._connection.execute(
                "UPDATE stream SET lease_until = ?"
                " WHERE name = ? AND epoch = ? AND owner = ? AND closed IS NULL",
                (until, name, epoch, owner),
            ).rowcount
            if not changed:
                lost.add(name)
        return lost

    def release(self, stream: str, epoch: int) -> None:
        self._connection.execute(
            "UPDATE stream SET lease_until = 0 WHERE name = ? AND epoch = ? AND closed IS NULL",
            (stream, epoch),
        )

    def command(self, stream: str, data: bytes) -> None:
        sid = self._look_up(stream).sid
        number = self._connection.execute(
            "SELECT coalesce(max(number), 0) + 1 FROM command WHERE sid = ?", (sid,)
        ).fetchone()[0]
        self._connection.execute(
            "INSERT INTO command VALUES (?, ?, ?, ?)",
            (sid, number, checksum(data, sid, number), data),
        )
        self._touched.add(name_hash(stream))

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

    def _erase(self, name: str, sid: int) -> None:
        for table in ("record", "command", "request_key", "stream"):
            self._connection.execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))  # noqa: S608
        self._known.pop(name, None)
        self._touched.add(name_hash(name))

    def delete(self, stream: str) -> None:
        row = self._connection.execute(
            "SELECT sid FROM stream WHERE name = ?", (stream,)
        ).fetchone()
        if row is not None:
            self._erase(stream, row[0])
        self._connection.execute("DELETE FROM gone WHERE name = ?", (stream,))

    def expire(self, retention: float, most: int, keep_names: float) -> list[str]:
        """Erase up to ``most`` old streams; their names stay in ``gone`` for a while."""
        execute = self._connection.execute
        now = self._clock()
        old = execute(
            "SELECT name, sid FROM stream WHERE closed IS NOT NULL AND closed_at < ?"
            " ORDER BY closed_at LIMIT ?",
            (now - retention, most),
        ).fetchall()
        for name, sid in old:
            self._erase(name, sid)
            execute("INSERT OR REPLACE INTO gone VALUES (?, ?)", (name, now))
        if not old:
            execute("DELETE FROM gone WHERE at < ?", (now - keep_names,))
            execute("PRAGMA incremental_vacuum(1000)").fetchall()
        return [name for name, _ in old]
