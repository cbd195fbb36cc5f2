"""The newest state of the logs that this process writes, so that an append need not look it up.

Always true: an entry is forgotten as soon as another process is known to have touched its log, and
what that costs does not depend on how many entries there are.
"""

from __future__ import annotations

import sqlite3
import zlib
from array import array
from collections.abc import Callable, Iterable, Set

from tokenwire.errors import GoneError, NotFoundError, TokenwireError
from tokenwire.log.spool import Item, Spool
from tokenwire.log.sqlite.journal import Journal
from tokenwire.log.sqlite.pages import PAGE_RECORDS, native_module

__all__ = ["Head", "Heads", "load_head", "missing", "name_hash", "native_append"]

#: Entries before all are thrown away and read again.
MOST_HEADS = 50_000


def name_hash(log: str) -> int:
    """By what processes tell each other which logs they touched."""
    return zlib.crc32(log.encode())


def missing(connection: sqlite3.Connection, name: str) -> TokenwireError:
    """The error for a log that is not there."""
    if connection.execute("SELECT 1 FROM gone WHERE name = ?", (name,)).fetchone():
        return GoneError("the log has expired; its records are no longer stored")
    return NotFoundError("no log has this name", what="log")


class Head:
    """A log's number, epoch, last offset, bytes, and close reason; and what is in no page yet."""

    __slots__ = ("checks", "closed", "epoch", "name", "paged", "records", "sid", "tail", "total")

    def __init__(
        self, name: str, sid: int, epoch: int, closed: str | None, tail: int, total: int
    ) -> None:
        self.name = name
        self.sid = sid
        self.epoch = epoch
        self.tail = tail
        self.total = total
        self.closed = closed
        #: The last offset in a page.
        self.paged = tail
        #: The records after it, with their checksums; None: the journal has to be asked.
        self.records: list[bytes] | None = []
        self.checks: list[int] = []

    @property
    def is_long(self) -> bool:
        """Whether the records that are in no page make one."""
        return self.tail - self.paged >= PAGE_RECORDS


def load_head(
    connection: sqlite3.Connection, journal: Journal, name: str, flush_of: Callable[[int], None]
) -> Head | None:
    """The head of a log as the file has it; None where there is no such log. ``flush_of`` writes
    what is not in the journal yet of a log, by its number."""
    row = connection.execute(
        "SELECT sid, epoch, closed FROM stream WHERE name = ?", (name,)
    ).fetchone()
    if row is None:
        return None
    flush_of(row[0])
    paged, total, entries = journal.unpaged(connection, row[0], name)
    total += sum(entry.length for entry in entries)
    sid, epoch, closed = row
    head = Head(name, sid, epoch, closed, paged + len(entries), total)
    head.paged = paged
    if entries:
        head.records = None
    return head


class Heads:
    """`Head` by name. By number, and by hash as well once another process has touched the file."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._heads: dict[str, Head] = {}
        self._numbered: dict[int, Head] = {}
        self._names: dict[int, set[str]] | None = None
        #: All of them, for whoever looks up many.
        self.by_name = self._heads
        self.get = self._heads.get
        self.numbered = self._numbered.get

    def look_up(
        self, connection: sqlite3.Connection, name: str, flush_of: Callable[[int], None]
    ) -> Head:
        """`load_head`, remembered. Raises `NotFoundError`, `GoneError`."""
        head = load_head(connection, self._journal, name, flush_of)
        if head is None:
            raise missing(connection, name)
        if len(self._heads) >= MOST_HEADS:
            self.clear()
        self.forget(name)
        self._heads[name] = self._numbered[head.sid] = head
        if self._names is not None:
            self._names.setdefault(name_hash(name), set()).add(name)
        return head

    def forget(self, name: str) -> None:
        """The log has ended, or its state is in doubt."""
        head = self._heads.pop(name, None)
        if head is None:
            return
        self._numbered.pop(head.sid, None)
        if self._names is not None:
            number = name_hash(name)
            names = self._names[number]
            names.discard(name)
            if not names:
                del self._names[number]

    def forget_numbers(self, sids: Set[int]) -> None:
        """Another process appended to these logs, wrote pages of them, or erased them."""
        numbered = self._numbered
        if not numbered.keys().isdisjoint(sids):
            for sid in sids & numbered.keys():
                self.forget(numbered[sid].name)

    def forget_hashes(self, hashes: Iterable[int]) -> None:
        """Another process touched the logs of these hashes."""
        if self._names is None:
            self._names = {}
            for name in self._heads:
                self._names.setdefault(name_hash(name), set()).add(name)
        for number in hashes:
            for name in self._names.pop(number, ()):
                del self._numbered[self._heads.pop(name).sid]

    def clear(self) -> None:
        self._heads.clear()
        self._numbered.clear()
        if self._names is not None:
            self._names.clear()


#: Items, the first of them, `Heads.by_name`, `Pager.due`, numbers and records of the row,
#: `PAGE_RECORDS`, and room in the row: how many items are done, and their bytes.
Append = Callable[
    [list[Item], int, dict[str, Head], dict[int, Head], "array[int]", list[bytes], int, int],
    tuple[int, int],
]


def native_append() -> Append | None:
    """What appends a group in C, if it is there."""
    module = native_module()
    if module is None:
        return None
    module.bind(Head, Spool)
    return module.append
