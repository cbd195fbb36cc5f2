"""The reading half of the SQLite log: connections that cannot write, in a thread of their own.

Always true: every record, command and description is checked against its checksum before it is
handed out; one that fails is an error with a name, never altered text.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any

import msgspec

from tokenwire.errors import (
    CursorError,
    StoreDamagedError,
    StoreUnavailableError,
    TokenwireError,
)
from tokenwire.log.base import FOR_GOOD, Due, LogInfo, Page
from tokenwire.log.sqlite.expiry import due
from tokenwire.log.sqlite.heads import missing
from tokenwire.log.sqlite.schema import checksum, explain, seeds
from tokenwire.log.sqlite.thread import Job
from tokenwire.log.sqlite.watch import Term

__all__ = ["Reader", "describe"]

_log = logging.getLogger("tokenwire.log")

_INTEGERS = msgspec.json.Decoder(list[int])

#: One row for a whole page: fetching row by row would give up and fight for the interpreter lock
#: once per record. The lengths cut the joined bytes apart again; the checksums prove the cut and
#: the order. As no offset is there twice, their number and the last one say that none is missing.
PAGE = """
SELECT count(*), max(offset), '[' || group_concat(checksum) || ']',
       '[' || group_concat(length(data)) || ']', CAST(group_concat(data, '') AS BLOB)
FROM {rows}
"""
ROWS = """record
WHERE sid = ?1 AND offset > ?2 AND offset <= ?2 + ?3
  AND (offset = ?2 + 1 OR total <= ?4 + coalesce(
       (SELECT total FROM record WHERE sid = ?1 AND offset = ?2), 0))
"""
#: SQLite goes along the key without being told, which takes half the time; that it must, it says
#: only of the second.
FAST_PAGE = PAGE.format(rows=ROWS)
ORDERED_PAGE = PAGE.format(rows=f"(SELECT offset, checksum, data FROM {ROWS} ORDER BY offset)")  # noqa: S608

STREAM = """
SELECT s.sid, s.epoch, s.owner, s.closed, s.meta, s.meta_check, s.created, s.lease_until,
       s.thread, coalesce(r.offset, 0), coalesce(r.total, 0)
FROM stream s LEFT JOIN record r
  ON r.sid = s.sid AND r.offset = (SELECT max(offset) FROM record WHERE sid = s.sid)
WHERE s.name = ?
"""


def _damaged(what: str, log: str, number: int) -> StoreDamagedError:
    return StoreDamagedError(
        f"{what} {number} of log {log} fails its checksum; the store is damaged",
        stream=log,
        offset=number,
    )


def _cut(sid: int, after: int, joined: Sequence[Any]) -> list[bytes] | None:
    """The records of a page; None when one is missing, altered, or in another's place."""
    count, last, checks, lengths, data = joined
    if not count or last != after + count:
        return None
    if data is None:
        data = b""  # nothing but empty records
    # All steps over the records are loops in C, or nearly.
    ends = list(accumulate(_INTEGERS.decode(lengths)))
    records = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    actual = list(map(zlib.crc32, records, seeds(sid, after + 1)))
    return records if actual == _INTEGERS.decode(checks) else None


def describe(connection: sqlite3.Connection, name: str) -> LogInfo:
    row = connection.execute(STREAM, (name,)).fetchone()
    if row is None:
        raise missing(connection, name)
    _, epoch, owner, closed, meta, check, created, lease_until, thread, tail, total = row
    if zlib.crc32(meta) != check:
        raise _damaged("description", name, 0)
    return LogInfo(
        log=name,
        epoch=epoch,
        owner=owner,
        tail=tail,
        closed=closed,
        meta=meta,
        created=created,
        bytes=total,
        lease_until=lease_until,
        thread=thread,
    )


class Reader:
    """Lives in the read thread. ``changed`` hears which name hashes other processes touched;
    None means "any": then every reader has to look."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: str,
        *,
        identity: str,
        changed: Callable[[set[int] | None], None],
    ) -> None:
        self._path = path
        self._identity = identity
        self._changed = changed
        self._connection = connect()
        self._version = -1
        row = self._connection.execute("SELECT coalesce(max(id), 0) FROM wake").fetchone()
        self._last_wake: int = row[0]

    def close(self) -> None:
        self._connection.close()

    def work(self, jobs: list[Job]) -> Sequence[Any]:
        """Run ``jobs`` in one snapshot, at least as new as the newest commit before the call."""
        try:
            if self._connection.in_transaction:  # an earlier COMMIT failed
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN")
            try:
                return [self._one(job) for job in jobs]
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            return [explain(error, self._path)] * len(jobs)

    def _one(self, job: Job) -> Any:
        try:
            return job.act(self)
        except TokenwireError as error:
            return error
        except sqlite3.Error as error:
            return explain(error, self._path)
        except (TypeError, ValueError, UnicodeError, msgspec.DecodeError) as error:
            # A damaged page can hold values of the wrong kind where the schema says otherwise.
            return StoreDamagedError(f"the store holds unreadable values ({type(error).__name__})")
        except Exception as error:
            _log.exception("a job of the store failed inside")
            name = type(error).__name__
            return StoreUnavailableError(f"the store failed inside ({name}); see the server's log")

    def poll(self) -> None:
        """Look for commits of other processes; costs microseconds when there were none."""
        try:
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return
            self._version = version
            rows = self._connection.execute(
                "SELECT id, writer, hashes FROM wake WHERE id > ? ORDER BY id", (self._last_wake,)
            ).fetchall()
        except sqlite3.Error:
            self._changed(None)  # let the readers find out what is wrong, by name
            return
        if not rows:
            return
        holed = rows[0][0] != self._last_wake + 1
        self._last_wake = rows[-1][0]
        if holed:
            self._changed(None)
            return
        touched: set[int] = set()
        for _, writer, hashes in rows:
            if writer != self._identity:
                touched.update(array("I", hashes))
        if touched:
            self._changed(touched)

    # What the facade sends over as jobs.

    def describe(self, log: str) -> LogInfo:
        return describe(self._connection, log)

    def read(self, log: str, after: int, most: int, most_bytes: int) -> Page:
        row = self._connection.execute(STREAM, (log,)).fetchone()
        if row is None:
            raise missing(self._connection, log)
        sid, closed, tail = row[0], row[3], row[9]
        if not 0 <= after <= tail:
            raise CursorError("the offset is beyond the tail of this log", tail=tail)
        if after == tail:
            return Page([], after + 1, tail, closed)
        bounds = (sid, after, most, most_bytes)
        records = _cut(sid, after, self._connection.execute(FAST_PAGE, bounds).fetchone())
        if records is None:
            ordered = self._connection.execute(ORDERED_PAGE, bounds).fetchone()
            records = _cut(sid, after, ordered)
        if records is None:
            raise self._damage(log, sid, after, most)
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, closed if reached else None)

    def _damage(self, log: str, sid: int, after: int, most: int) -> StoreDamagedError:
        """The first record of a page that is not what it was, or not there."""
        number = after
        for offset, check, data in self._connection.execute(
            "SELECT offset, checksum, data FROM record"
            " WHERE sid = ? AND offset > ? ORDER BY offset LIMIT ?",
            (sid, after, most),
        ).fetchall():
            number += 1
            if offset != number or checksum(data, sid, number) != check:
                return _damaged("record", log, number)
        return _damaged("record", log, number + 1)

    def commands(self, log: str, after: int) -> list[tuple[int, bytes]]:
        commands = self._commands(log, after)
        if commands is None:
            raise missing(self._connection, log)
        return commands

    def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        many = ((log, self._commands(log, after)) for log, after in places.items())
        return {log: commands for log, commands in many if commands}

    def _commands(self, log: str, after: int) -> list[tuple[int, bytes]] | None:
        """None for an unknown log."""
        row = self._connection.execute("SELECT sid FROM stream WHERE name = ?", (log,)).fetchone()
        if row is None:
            return None
        commands = []
        for number, check, data in self._connection.execute(
            "SELECT number, checksum, data FROM command WHERE sid = ? AND number > ?"
            " ORDER BY number",
            (row[0], after),
        ):
            if checksum(data, row[0], number) != check:
                raise _damaged("command", log, number)
            commands.append((number, data))
        return commands

    def orphans(self, now: float, most: int) -> list[str]:
        rows = self._connection.execute(
            "SELECT name FROM stream WHERE closed IS NULL AND lease_until <= ?"
            " ORDER BY lease_until LIMIT ?",
            (now, most),
        )
        return [name for (name,) in rows.fetchall()]

    def leases_beyond(self, end: float, most: int) -> list[Term]:
        """Leases that end later than any that is to be renewed; without those for good."""
        rows = self._connection.execute(
            "SELECT name, epoch, lease_until FROM stream"
            " WHERE closed IS NULL AND lease_until > ? AND lease_until < ?"
            " ORDER BY lease_until LIMIT ?",
            (end, end + FOR_GOOD, most),
        )
        return [Term(*row) for row in rows.fetchall()]

    def owners(self, now: float) -> set[str]:
        rows = self._connection.execute(
            "SELECT DISTINCT owner FROM stream WHERE closed IS NULL AND lease_until > ?", (now,)
        )
        return {owner for (owner,) in rows.fetchall()}

    def leases(self, owners: Set[str], now: float, most: int) -> list[tuple[str, int]]:
        rows = self._connection.execute(
            "SELECT name, epoch FROM stream WHERE closed IS NULL AND lease_until > ?"
            " AND owner IN (SELECT value FROM json_each(?)) LIMIT ?",
            (now, json.dumps(sorted(owners)), most),
        )
        return rows.fetchall()

    def due(self, before: float, most: int) -> list[Due]:
        return due(self._connection, before, most)

    def named(self, key: str) -> str | None:
        row = self._connection.execute(
            "SELECT s.name FROM request_key k JOIN stream s USING (sid) WHERE k.key = ?", (key,)
        ).fetchone()
        return row[0] if row is not None else None

    def thread(self, thread: str, most: int, before: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT name FROM stream WHERE thread = ? AND (? = '' OR"
            " sid < (SELECT sid FROM stream WHERE name = ?)) ORDER BY sid DESC LIMIT ?",
            (thread, before, before, most),
        )
        return [name for (name,) in rows.fetchall()]

    def document(self, kind: str, name: str) -> bytes | None:
        row = self._connection.execute(
            "SELECT data FROM document WHERE kind = ? AND name = ?", (kind, name)
        ).fetchone()
        return row[0] if row is not None else None

    def count_documents(self, kind: str, prefix: str) -> int:
        row = self._connection.execute(
            "SELECT count(*) FROM document WHERE kind = ? AND name >= ?"
            " AND name < ? || char(0x10ffff) AND substr(name, 1, ?) = ?",
            (kind, prefix, prefix, len(prefix), prefix),
        ).fetchone()
        return row[0]

    def documents(
        self, kind: str, prefix: str, most: int, after: str | None = None
    ) -> dict[str, bytes]:
        # The bounds let the key find the names; the comparison of the beginnings is what counts.
        if after is not None:
            rows = self._connection.execute(
                "SELECT name, data FROM document WHERE kind = ? AND name > ? AND name >= ?"
                " AND name < ? || char(0x10ffff) AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
                (kind, after, prefix, prefix, len(prefix), prefix, most),
            )
            return dict(rows.fetchall())
        if not prefix:
            rows = self._connection.execute(
                "SELECT name, data FROM document WHERE kind = ? ORDER BY changed DESC LIMIT ?",
                (kind, most),
            )
            return dict(rows.fetchall())
        rows = self._connection.execute(
            "SELECT name, data FROM document WHERE kind = ? AND name >= ?"
            " AND name < ? || char(0x10ffff) AND substr(name, 1, ?) = ?"
            " ORDER BY changed DESC LIMIT ?",
            (kind, prefix, prefix, len(prefix), prefix, most),
        )
        return dict(rows.fetchall())

    def stats(self) -> dict[str, int]:
        execute = self._connection.execute
        counters = dict(execute("SELECT name, value FROM counter").fetchall())
        still_open, records, size = execute(
            "SELECT count(*),"
            " coalesce(sum((SELECT max(offset) FROM record WHERE sid = s.sid)), 0),"
            " coalesce(sum((SELECT total FROM record WHERE sid = s.sid"
            " ORDER BY offset DESC LIMIT 1)), 0)"
            " FROM stream s WHERE closed IS NULL"
        ).fetchone()
        return {
            "streams": counters.get("logs", 0),
            "open": still_open,
            "records": records + counters.get("ended_records", 0),
            "bytes": size + counters.get("ended_bytes", 0),
            "tombstones": counters.get("tombstones", 0),
        }
