"""Care for the file of the SQLite store: records go from the journal to pages, rows of the journal
that hold nothing else are deleted, free space is given back.

Always true: each step holds the file for a bounded time. Pages are written in the transaction of a
later append, so they cost no commit of their own, and are there with it or not at all; a row of the
journal goes only after every record in it is in a page or was erased.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from tokenwire.log.sqlite.heads import Head, Heads, load_head
from tokenwire.log.sqlite.journal import Journal, Row
from tokenwire.log.sqlite.pages import (
    MOST_OFFSET,
    PAGE_RECORDS,
    Page,
    cut,
    insert,
    page_tail,
)

__all__ = ["Pager", "empty_wal", "vacuum"]

#: Logs whose records go into pages in one transaction.
MOST_LOGS = 16

#: Rows and bytes of the journal from which on the oldest records go into pages that are not full.
MOST_ROWS = 4096
MOST_BYTES = 8 << 20

#: Rows and bytes that are left for other processes, which hear of records by them; and what is
#: deleted together.
LEAST_ROWS = 128
LEAST_BYTES = 2 << 20
ROWS_TOGETHER = 32
BYTES_TOGETHER = 1 << 20


class Pager:
    """Lives in the writer thread; `step` is called in its transactions."""

    def __init__(self, journal: Journal, heads: Heads) -> None:
        self._journal = journal
        self._heads = heads
        #: Logs that have a whole page of records in the journal, or have ended, by number.
        self.due: dict[int, Head] = {}
        #: Last offsets in pages, where known.
        self._paged: dict[int, int] = {}
        #: Up to this row, all records are in pages.
        self._done = 0

    def clear(self) -> None:
        """What is known is in doubt: a transaction failed, or rows were missed."""
        self.due.clear()
        self._paged.clear()
        self._done = 0

    def forget(self, sid: int) -> None:
        """Something happened to the log, here or in another process."""
        self.due.pop(sid, None)
        self._paged.pop(sid, None)

    def step(self, connection: sqlite3.Connection, flush: Callable[[], None]) -> list[int]:
        """Write what is due, a bounded amount; the logs that got pages. ``flush`` writes the
        records of this transaction into the journal."""
        self._done = max(self._done, self._journal.first - 1)
        written: list[int] = []
        pages: list[Page] = []
        most = max(MOST_LOGS, len(self.due) // 8)  # however many end at once, they do not pile up
        while self.due and len(written) < most:
            sid = next(iter(self.due))
            self._take(connection, self.due.pop(sid), pages, flush)
            written.append(sid)
        journal = self._journal
        if journal.size > MOST_BYTES or len(journal.rows) > MOST_ROWS:
            self._take_oldest(connection, pages, written, flush)
        if pages:
            insert(connection, pages)
        self._trim(connection)
        return written

    def _take(
        self,
        connection: sqlite3.Connection,
        head: Head,
        pages: list[Page],
        flush: Callable[[], None],
        *,
        is_all: bool = False,
    ) -> None:
        """Cut the log's records into pages: whole ones, or all."""
        if head.records is None:
            flush()
            entries = self._journal.unpaged(connection, head.sid, head.name)
            head.records = self._journal.read(connection, entries)
            head.checks = [entry.check for entry in entries]
        records, checks = head.records, head.checks
        count = len(records)
        if not is_all and head.closed is None:
            count -= count % PAGE_RECORDS
        before = head.total - sum(map(len, records))
        first = head.tail - len(records) + 1
        pages += cut(head.sid, first, before, records[:count], checks[:count])
        del records[:count], checks[:count]
        self._paged[head.sid] = head.paged = first + count - 1

    def _take_oldest(
        self,
        connection: sqlite3.Connection,
        pages: list[Page],
        written: list[int],
        flush: Callable[[], None],
    ) -> None:
        """Cut the records of the oldest rows into pages, though they are not whole ones."""
        flush()  # so that what is read of a log is all of it
        taken = 0
        while taken < MOST_LOGS:
            row = self._journal.rows.get(self._done + 1)
            if row is None or self._done + 1 == self._journal.last:
                return
            sid = self._undone(connection, row)
            if sid is None:
                self._done += 1
                continue
            taken += 1
            head = self.due.pop(sid, None) or self._heads.numbered(sid)
            head = head or self._cold(connection, sid)
            if head is None:
                self._paged[sid] = MOST_OFFSET  # it was erased
                continue
            self._take(connection, head, pages, flush, is_all=True)
            written.append(sid)

    def _cold(self, connection: sqlite3.Connection, sid: int) -> Head | None:
        """The head of a log that this process does not write."""
        row = connection.execute("SELECT name FROM stream WHERE sid = ?", (sid,)).fetchone()
        if row is None:
            return None
        return load_head(connection, self._journal, row[0], lambda _: None)  # it was flushed

    def _undone(self, connection: sqlite3.Connection, row: Row) -> int | None:
        """The first log of which the row holds a record that is in no page."""
        numbers = row.numbers
        for at in range(row.checked, len(numbers), 4):
            sid, offset = numbers[at], numbers[at + 1]
            if sid and offset and offset > self._paged_tail(connection, sid):
                row.checked = at
                return sid
        row.checked = len(numbers)
        return None

    def _paged_tail(self, connection: sqlite3.Connection, sid: int) -> int:
        tail = self._paged.get(sid)
        if tail is None:
            exists = connection.execute("SELECT 1 FROM stream WHERE sid = ?", (sid,)).fetchone()
            tail = page_tail(connection, sid)[0] if exists else MOST_OFFSET
            if len(self._paged) >= 100_000:
                self._paged.clear()
            self._paged[sid] = tail
        return tail

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Delete rows of which everything is in pages; the newest ones stay a while."""
        journal = self._journal
        while (row := journal.rows.get(self._done + 1)) is not None:
            if self._undone(connection, row) is not None:
                break
            self._done += 1
        count, size = len(journal.rows), journal.size
        if self._done - journal.first + 1 < ROWS_TOGETHER and size < LEAST_BYTES:
            return
        last = journal.first - 1
        while last < min(self._done, journal.last - 1):
            if count <= LEAST_ROWS and size <= LEAST_BYTES:
                break
            last += 1
            count -= 1
            size -= journal.rows[last].size
        if last - journal.first + 1 >= ROWS_TOGETHER or journal.size - size >= BYTES_TOGETHER:
            connection.execute("DELETE FROM journal WHERE id <= ?", (last,))
            journal.drop(last)


def vacuum(connection: sqlite3.Connection, seconds: float) -> int:
    """Give free pages back to the file system for about ``seconds``; how many are left."""
    execute = connection.execute
    end = time.monotonic() + seconds
    execute("BEGIN IMMEDIATE")
    # One statement frees one page, whatever number it names.
    while execute("PRAGMA freelist_count").fetchone()[0] and time.monotonic() < end:
        execute("PRAGMA incremental_vacuum(1)")
    execute("COMMIT")
    return execute("PRAGMA freelist_count").fetchone()[0]


def empty_wal(connection: sqlite3.Connection, busy: float) -> bool:
    """Move everything into the file and empty the write-ahead log, which holds what was erased
    from the file. False while somebody reads an older state. ``busy``: the connection's own
    seconds of waiting for locks; this waits less."""
    connection.execute("PRAGMA busy_timeout=200")
    try:
        is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(busy * 1000)}")
    return not is_busy
