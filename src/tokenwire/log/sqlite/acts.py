"""What the writer thread does to logs, leases and documents, beside appends.

Always true: each runs inside of a transaction of the writer; what it touches is told to the other
processes in the same one.
"""

from __future__ import annotations

import sqlite3
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable

from tokenwire.errors import ConflictError, KeyReusedError
from tokenwire.log.base import Claim, Due, LogInfo
from tokenwire.log.sqlite import expiry
from tokenwire.log.sqlite.heads import Head, Heads, name_hash
from tokenwire.log.sqlite.journal import Journal
from tokenwire.log.sqlite.maintenance import empty_wal, vacuum
from tokenwire.log.sqlite.reader import describe
from tokenwire.log.sqlite.schema import checksum
from tokenwire.log.sqlite.watch import Term

__all__ = ["Acts"]

#: Seconds that one transaction erases logs: nothing is appended meanwhile.
ERASE_SECONDS = 0.1

NEXT_NUMBER = """
INSERT INTO counter VALUES ('numbers', (SELECT coalesce(max(sid), 0) + 1 FROM stream))
ON CONFLICT (name) DO UPDATE SET value = max(value + 1, excluded.value) RETURNING value
"""


class Acts(ABC):
    """The part of `Writer` that the facade's jobs call."""

    _connection: sqlite3.Connection
    _clock: Callable[[], float]
    _busy: float
    _journal: Journal
    _heads: Heads
    #: Hashes of the names of logs that were touched in this transaction, but for plain appends.
    _touched: set[int]

    @abstractmethod
    def _look_up(self, name: str) -> Head: ...

    @abstractmethod
    def _flush(self) -> None:
        """Write the records of this transaction into the journal."""

    @abstractmethod
    def _mark_erased(self, sid: int) -> None:
        """The log of this number is gone, for whoever knows something of it."""

    def _count(self, name: str, change: int) -> None:
        self._connection.execute(
            "INSERT INTO counter VALUES (?1, ?2)"
            " ON CONFLICT (name) DO UPDATE SET value = value + ?2",
            (name, change),
        )

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
                self._flush()
                return describe(self._connection, self._journal, row[0])
        conflict = execute(
            "SELECT 1 FROM stream WHERE name = ?1 UNION ALL SELECT 1 FROM gone WHERE name = ?1",
            (log,),
        ).fetchone()
        if conflict:
            raise ConflictError("a log of this name exists")
        now = self._clock()
        # A number is never used again: rows of the journal may name it in other processes.
        sid = execute(NEXT_NUMBER).fetchone()[0]
        execute(
            "INSERT INTO stream"
            " (sid, name, epoch, owner, lease_until, created, thread, meta, meta_check)"
            " VALUES (?, ?, 1, ?, ?, ?, ?, ?, ?)",
            (sid, log, owner, now + lease, now, thread, meta, zlib.crc32(meta)),
        )
        if key is not None:
            execute("INSERT INTO request_key VALUES (?, ?, ?)", (key, sid, key_hash))
        self._count("logs", 1)
        self._touched.add(name_hash(log))
        return describe(self._connection, self._journal, log)

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
        self._flush()
        ending = expiry.erase(self._connection, self._journal, name)
        if ending is None:
            return False
        sid, closed, records, size = ending
        self._mark_erased(sid)
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
