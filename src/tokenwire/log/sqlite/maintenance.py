"""Care for the file of the SQLite store: records go from the journal to pages, rows of the journal
that hold nothing else are deleted, free space is given back.

Always true: each step holds the file for a bounded time. Pages are written in the transaction of a
later append, so they cost no commit of their own, and are there with it or not at all; a row of the
journal goes only after every record in it is in a page or was erased. What would be much at once
is spread over transactions, as readers wait for what is appended in each.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from operator import gt

from tokenwire.log.sqlite.heads import Head, Heads
from tokenwire.log.sqlite.journal import WIDTH, Commit, Journal, Row
from tokenwire.log.sqlite.pages import (
    MOST_OFFSET,
    PAGE_RECORDS,
    Page,
    cut,
    insert,
    page_tail,
)

__all__ = ["COMMIT_BYTES", "Checkpoints", "Pager", "PagingError", "empty_wal", "vacuum"]

_log = logging.getLogger("tokenwire.log")

EXISTS = "SELECT 1 FROM stream WHERE sid = ?"

#: Logs whose records go into pages in one transaction, or the share of all that are due.
MOST_LOGS = 16
SHARE_OF_LOGS = 32

#: Logs of which is remembered up to where they are in pages.
MOST_PAGED = 100_000

#: Records of a row that are compared with what is in pages at a time.
COMPARED = 128

#: Rows and bytes of the journal from which on the oldest records go into pages that are not full.
MOST_ROWS = 4096
MOST_BYTES = 8 << 20

#: Rows and bytes that are left for other processes, which hear of records by them; and what is
#: deleted together: so many bytes at least, or the share of all that may go.
LEAST_ROWS = 128
LEAST_BYTES = 2 << 20
ROWS_TOGETHER = 32
BYTES_TOGETHER = 256 << 10
SHARE_OF_BYTES = 4

#: Bytes that were written, from which on the write-ahead log is moved into the file between two
#: groups; and though the next one waits. At 1,000 pages SQLite does it inside of a commit.
CHECKPOINT_BYTES = 1 << 20
MOST_UNMOVED = 2 << 20
#: Bytes that a commit writes beside what it is given, about.
COMMIT_BYTES = 8 << 10

#: Seconds without pages after a failure.
PAUSE_SECONDS = 10.0


class PagingError(Exception):
    """Pages could not be written, or rows not be deleted."""


class Checkpoints:
    """When the write-ahead log is moved into the file: after commits were answered, and in small
    steps, so that no reader waits for it. Lives in the writer thread."""

    def __init__(self) -> None:
        #: What was written since the last one, about.
        self.bytes = 0

    def is_due(self, is_idle: bool) -> bool:
        """``is_idle``: whether no job waits."""
        return self.bytes >= (CHECKPOINT_BYTES if is_idle else MOST_UNMOVED)

    def step(self, connection: sqlite3.Connection) -> None:
        """Move what no reader of an older state needs, without waiting for any."""
        self.bytes = 0
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()


class Pager:
    """Lives in the writer thread; `step` is called in its transactions. ``checkpoints`` counts what
    it writes."""

    def __init__(self, journal: Journal, heads: Heads, checkpoints: Checkpoints) -> None:
        self._journal = journal
        self._heads = heads
        self._checkpoints = checkpoints
        #: Logs that have a whole page of records in the journal, or have ended, by number.
        self.due: dict[int, Head] = {}
        #: Last offsets in pages, where known.
        self._paged: dict[int, int] = {}
        #: Up to this row, all records are in pages.
        self._paged_until = 0
        self._paused_until = 0.0

    def clear(self) -> None:
        """What is known is in doubt: a transaction failed, or rows were missed."""
        self.due.clear()
        self._paged.clear()
        self._paged_until = 0

    def forget(self, sid: int) -> None:
        """The log was erased, here or in another process, or that wrote pages of it."""
        self.due.pop(sid, None)
        self._paged.pop(sid, None)

    def appended(self, commit: Commit) -> None:
        """Of another process: what it says of logs that are due here may be all that is known of
        them, and appends change nothing about pages."""
        due = self.due
        if not due.keys().isdisjoint(commit.sids):
            for sid in commit.sids & due.keys():
                del due[sid]
        for sid, paged in commit.row.marks():
            self.forget(sid)
            if paged:
                self._paged[sid] = paged

    def paged(self, sid: int) -> int:
        """The last offset of a log that got pages; 0: not known."""
        paged = self._paged.get(sid, 0)
        return paged if paged < MOST_OFFSET else 0

    def pause(self, error: PagingError) -> None:
        """Let the records be in the journal for `PAUSE_SECONDS`."""
        _log.warning("records stay in the journal, as no pages can be written: %s", error)
        self._paused_until = time.monotonic() + PAUSE_SECONDS

    def step(self, connection: sqlite3.Connection, flush: Callable[[], None]) -> list[int]:
        """Write what is due, a bounded amount; the logs that got pages. ``flush`` writes the
        records of this transaction into the journal. Raises `PagingError`."""
        if self._paused_until:
            if time.monotonic() < self._paused_until:
                return []
            self._paused_until = 0.0
        try:
            return self._step(connection, flush)
        except Exception as error:
            raise PagingError(f"{type(error).__name__}: {error}") from error

    def _step(self, connection: sqlite3.Connection, flush: Callable[[], None]) -> list[int]:
        self._paged_until = max(self._paged_until, self._journal.first - 1)
        if len(self._paged) >= MOST_PAGED:
            self._paged.clear()
        sids: list[int] = []
        pages: list[Page] = []
        # However many are due at once, they do not pile up.
        most = max(MOST_LOGS, len(self.due) // SHARE_OF_LOGS)
        while self.due and len(sids) < most:
            sid = next(iter(self.due))
            pages += self._cut(connection, self.due.pop(sid), flush)
            sids.append(sid)
        journal = self._journal
        if journal.size > MOST_BYTES or len(journal.rows) > MOST_ROWS:
            flush()  # so that what is read of a log is all of it, and its pages are there
            self._insert(connection, pages)
            pages += self._cut_oldest(connection, sids)
        self._insert(connection, pages)
        self._trim(connection)
        return sids

    def _insert(self, connection: sqlite3.Connection, pages: list[Page]) -> None:
        """Store ``pages``, and empty the list."""
        self._checkpoints.bytes += sum(len(data) for _, _, _, data in pages)
        insert(connection, pages)

    def _cut(
        self, connection: sqlite3.Connection, head: Head, flush: Callable[[], None]
    ) -> list[Page]:
        """Pages of what is due of a log: whole ones, or all where it has ended."""
        records, checks = head.records, head.checks
        if records is None:
            flush()
            return self._cut_all(connection, head.sid, head)
        count = len(records)
        if head.closed is None:
            count -= count % PAGE_RECORDS
        before = head.total - sum(map(len, records))
        pages = list(cut(head.sid, head.paged + 1, before, records[:count], checks[:count]))
        del records[:count], checks[:count]
        head.paged += count
        self._paged[head.sid] = head.paged
        return pages

    def _cut_all(self, connection: sqlite3.Connection, sid: int, head: Head | None) -> list[Page]:
        """Pages of all records of a log that are in the journal, as they are there: it has to
        become empty, also of logs that are damaged."""
        paged, total = page_tail(connection, sid)
        entries = self._journal.entries(sid, paged)
        records = self._journal.read(connection, entries)
        pages: list[Page] = []
        start = 0
        for end, entry in enumerate(entries, 1):
            if end < len(entries) and entries[end].offset == entry.offset + 1:
                continue
            checks = [one.check for one in entries[start:end]]
            some = records[start:end]
            pages += cut(sid, entries[start].offset, total, some, checks, unchecked=True)
            total = pages[-1][1]
            start = end
        self._paged[sid] = entries[-1].offset if entries else MOST_OFFSET
        if head is not None:
            head.records, head.checks, head.paged = [], [], head.tail
        return pages

    def _cut_oldest(self, connection: sqlite3.Connection, sids: list[int]) -> list[Page]:
        """Pages of logs with records in the oldest rows, though they are not whole ones."""
        pages: list[Page] = []
        count = 0
        while count < MOST_LOGS and self._paged_until + 1 < self._journal.last:
            row = self._journal.rows.get(self._paged_until + 1)
            sid = self._undone(connection, row) if row is not None else None
            if sid is None:
                self._paged_until += 1
                continue
            head = self.due.pop(sid, None) or self._heads.numbered(sid)
            pages += self._cut_all(connection, sid, head)
            sids.append(sid)
            count += 1
        return pages

    def _undone(self, connection: sqlite3.Connection, row: Row) -> int | None:
        """The first log of which the row holds a record that is in no page. Every record comes by
        here once in each process, so many are compared at a time."""
        numbers, paged = row.numbers, self._paged
        while row.checked < len(numbers):
            start, end = row.checked, row.checked + COMPARED * WIDTH
            sid, offset = numbers[start], numbers[start + 1]
            if offset > self._paged_tail(connection, sid):  # as before, most often
                return sid
            sids, offsets = numbers[start:end:WIDTH], numbers[start + 1 : end : WIDTH]
            for unknown in set(sids).difference(paged):
                self._paged_tail(connection, unknown)
            above = list(map(gt, offsets, map(paged.__getitem__, sids)))
            if True in above:
                first = above.index(True)
                row.checked += first * WIDTH
                return sids[first]
            row.checked = min(end, len(numbers))
        return None

    def _paged_tail(self, connection: sqlite3.Connection, sid: int) -> int:
        tail = self._paged.get(sid)
        if tail is None:
            tail = page_tail(connection, sid)[0]
            if not tail and not connection.execute(EXISTS, (sid,)).fetchone():
                tail = MOST_OFFSET
            self._paged[sid] = tail
        return tail

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Delete rows of which everything is in pages; the newest ones stay a while."""
        journal = self._journal
        while (row := journal.rows.get(self._paged_until + 1)) is not None:
            if self._undone(connection, row) is not None:
                break
            self._paged_until += 1
        sizes = self._deletable()
        total = sum(sizes)
        if len(sizes) < ROWS_TOGETHER and total < BYTES_TOGETHER:
            return
        most, size, last = max(BYTES_TOGETHER, total // SHARE_OF_BYTES), 0, journal.first - 1
        for row_size in sizes:
            if size >= most:
                break
            size += row_size
            last += 1
        self._checkpoints.bytes += size
        connection.execute("DELETE FROM journal WHERE id <= ?", (last,))
        journal.drop(last)

    def _deletable(self) -> list[int]:
        """The sizes of the oldest rows that may go."""
        journal = self._journal
        sizes: list[int] = []
        count, size = len(journal.rows), journal.size
        for number in range(journal.first, min(self._paged_until + 1, journal.last)):
            if count <= LEAST_ROWS and size <= LEAST_BYTES:
                break
            sizes.append(journal.rows[number].size)
            count -= 1
            size -= sizes[-1]
        return sizes


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
