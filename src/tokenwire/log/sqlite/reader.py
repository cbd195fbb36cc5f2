"""The reading half of the SQLite log: connections that cannot write, in a thread of their own.

Always true: every record, command and description is checked against its checksum before it is
handed out; one that fails is an error with a name, never altered text.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence, Set
from itertools import accumulate
from typing import Any, Protocol

from tokenwire.errors import (
    CursorError,
    LogError,
    StoreDamagedError,
    StoreUnavailableError,
    TokenwireError,
)
from tokenwire.log.base import FOR_GOOD, Due, LogInfo, Page
from tokenwire.log.sqlite.expiry import due
from tokenwire.log.sqlite.heads import Head, missing
from tokenwire.log.sqlite.journal import WIDTH, Hearing, Journal
from tokenwire.log.sqlite.pages import MOST_OFFSET, matching, page_tail, read_pages
from tokenwire.log.sqlite.schema import checksum, damaged, explain
from tokenwire.log.sqlite.thread import Job
from tokenwire.log.sqlite.watch import Term

__all__ = ["Reader", "describe", "read_one"]

_log = logging.getLogger("tokenwire.log")

STREAM = """
SELECT sid, epoch, owner, closed, meta, meta_check, created, lease_until, thread
FROM stream WHERE name = ?
"""


def read_one(
    connection: sqlite3.Connection, journal: Journal, head: Head, offset: int
) -> bytes | None:
    """One record of a log. Raises `StoreDamagedError`."""
    if offset <= head.paged:
        return read_pages(connection, head.sid, head.name, offset - 1, 1, 0)[0]
    entries = [one for one in journal.entries(head.sid, offset - 1) if one.offset == offset]
    records = journal.read(connection, entries[:1])
    if not records:
        raise damaged("record", head.name, offset)
    return matching(head.name, head.sid, offset, records, [entries[0].check])[0]


def describe(connection: sqlite3.Connection, journal: Journal, name: str) -> LogInfo:
    row = connection.execute(STREAM, (name,)).fetchone()
    if row is None:
        raise missing(connection, name)
    sid, epoch, owner, closed, meta, check, created, lease_until, thread = row
    if zlib.crc32(meta) != check:
        raise damaged("description", name, 0)
    tail, total = journal.tail(connection, sid, name)
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


#: Seconds for which a look of this process's writer for commits of others is new enough; until the
#: next poll, while each finds a newer one; and after which this looks all the same.
NEW_SECONDS = 0.030
STEADY_SECONDS = 0.100
LOOK_SECONDS = 0.5


class Looks(Protocol):
    """When this process's writer looked for commits of others, and told what it saw."""

    looked: float


class Reader:
    """Lives in the read thread, and tells ``hearing`` what it sees; so does ``writer``, if it looks
    as well."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        path: str,
        *,
        hearing: Hearing,
        writer: Looks | None = None,
    ) -> None:
        self._path = path
        self._hearing = hearing
        self._connection = connect()
        self._version = -1
        self._writer = writer
        #: When a poll looked itself, and when the writer had, as the poll before saw it.
        self._looked = self._writers_look = 0.0
        self._journal = Journal()
        self._journal.catch_up(self._connection)
        hearing.begin(self._journal.last)

    def close(self) -> None:
        self._connection.close()

    def work(self, jobs: list[Job]) -> Sequence[Any]:
        """Run ``jobs`` in one snapshot, at least as new as the newest commit before the call."""
        try:
            self._begin()
            try:
                self._look()
                return [self._one(job) for job in jobs]
            finally:
                self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            return [explain(error, self._path)] * len(jobs)
        except LogError as error:
            return [error] * len(jobs)

    def _one(self, job: Job) -> Any:
        try:
            return job.act(self)
        except TokenwireError as error:
            return error
        except sqlite3.Error as error:
            return explain(error, self._path)
        except (TypeError, ValueError, UnicodeError) as error:
            # A damaged page can hold values of the wrong kind where the schema says otherwise.
            return StoreDamagedError(f"the store holds unreadable values ({type(error).__name__})")
        except Exception as error:
            _log.exception("a job of the store failed inside")
            name = type(error).__name__
            return StoreUnavailableError(f"the store failed inside ({name}); see the server's log")

    def poll(self) -> float | None:
        """Look for commits of other processes; costs microseconds when there were none. After how
        many seconds to look again, where that is known."""
        pause = self._seen_to()
        if pause:
            return pause
        hearing, connection, journal = self._hearing, self._connection, self._journal
        try:
            if hearing.is_followed and not connection.in_transaction:  # one statement for all
                commits, is_whole = journal.catch_up(connection, hearing)
                hearing.hear(connection, journal, commits, is_whole)
                return None
            version = connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:
                return None
            self._version = version
            self._begin()
            try:
                self._look()
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, LogError):
            hearing.doubt()
        return None

    def _seen_to(self) -> float:
        """Seconds until a look is due, as the writer has just looked; 0: it is."""
        writer, now = self._writer, time.monotonic()
        if writer is None:
            return 0.0
        time_of_look, before, self._writers_look = writer.looked, self._writers_look, writer.looked
        pause = time_of_look + NEW_SECONDS - now
        if pause > 0 and before + 2 * STEADY_SECONDS > time_of_look > before:
            pause = STEADY_SECONDS  # a wake-up of this thread for each of its looks is felt
        pause = min(pause, self._looked + LOOK_SECONDS - now)
        if pause > 0:
            return pause
        self._looked = now
        return 0.0

    def _begin(self) -> None:
        if self._connection.in_transaction:  # an earlier COMMIT failed
            self._connection.execute("ROLLBACK")
        self._connection.execute("BEGIN")

    def _look(self) -> None:
        """See what was committed, in the transaction that is open; tell what others did."""
        commits, is_whole = self._journal.catch_up(self._connection)
        self._hearing.hear(self._connection, self._journal, commits, is_whole)

    # What the facade sends over as jobs.

    def describe(self, log: str) -> LogInfo:
        return describe(self._connection, self._journal, log)

    def read(self, log: str, after: int, most: int, most_bytes: int) -> Page:
        connection, journal = self._connection, self._journal
        row = connection.execute("SELECT sid, closed FROM stream WHERE name = ?", (log,)).fetchone()
        if row is None:
            raise missing(connection, log)
        sid, closed = row
        paged, _ = page_tail(connection, sid)
        tail = journal.end(sid, paged)
        if not 0 <= after <= tail:
            raise CursorError("the offset is beyond the tail of this log", tail=tail)
        if after == tail:
            return Page([], after + 1, tail, closed)
        records: list[bytes] = []
        if after < paged:
            # Behind the last page there is nothing to ask for.
            records = read_pages(connection, sid, log, after, min(most, paged - after), most_bytes)
        end = after + len(records)
        if paged <= end < tail and len(records) < most:  # it goes on in the journal
            entries = journal.entries(sid, end)[: most - len(records)]
            for number, entry in enumerate(entries, end + 1):
                if entry.offset != number:
                    raise damaged("record", log, number)
            sizes = (entry.length for entry in entries)
            ends = list(accumulate(sizes, initial=sum(map(len, records))))[1:]
            del entries[max(0 if records else 1, bisect_right(ends, most_bytes)) :]
            checks = [entry.check for entry in entries]
            records += matching(log, sid, end + 1, journal.read(connection, entries), checks)
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, closed if reached else None)

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
                raise damaged("command", log, number)
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
        logs = execute(
            "SELECT sid, (SELECT id FROM page WHERE id > s.sid << 32 AND id < (s.sid + 1) << 32"
            " ORDER BY id DESC LIMIT 1),"
            " (SELECT total FROM page WHERE id > s.sid << 32 AND id < (s.sid + 1) << 32"
            " ORDER BY id DESC LIMIT 1)"
            " FROM stream s WHERE closed IS NULL"
        ).fetchall()
        paged = {sid: (page or 0) & MOST_OFFSET for sid, page, _ in logs}
        records = sum(paged.values())
        size = sum(total or 0 for _, _, total in logs)
        for row in self._journal.rows.values():
            numbers = row.numbers
            for at in range(0, len(numbers), WIDTH):
                if numbers[at + 1] > paged.get(numbers[at], MOST_OFFSET):
                    records += 1
                    size += numbers[at + 2]
        return {
            "streams": counters.get("logs", 0),
            "open": len(logs),
            "records": records + counters.get("ended_records", 0),
            "bytes": size + counters.get("ended_bytes", 0),
            "tombstones": counters.get("tombstones", 0),
        }
