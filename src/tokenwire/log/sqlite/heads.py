"""The newest state of the logs that this process writes, so that an append need not look it up.

Always true: an entry is forgotten as soon as another process is known to have touched its log, and
what that costs does not depend on how many entries there are.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable

from tokenwire.errors import GoneError, NotFoundError, TokenwireError

__all__ = ["Head", "Heads", "missing", "name_hash"]

#: Entries before all are thrown away and read again.
MOST_HEADS = 50_000

HEAD = """
SELECT s.sid, s.epoch, coalesce(r.offset, 0), coalesce(r.total, 0), s.closed
FROM stream s LEFT JOIN record r
  ON r.sid = s.sid AND r.offset = (SELECT max(offset) FROM record WHERE sid = s.sid)
WHERE s.name = ?
"""


def name_hash(log: str) -> int:
    """By what processes tell each other which logs they touched."""
    return zlib.crc32(log.encode())


def missing(connection: sqlite3.Connection, name: str) -> TokenwireError:
    """The error for a log that is not there."""
    if connection.execute("SELECT 1 FROM gone WHERE name = ?", (name,)).fetchone():
        return GoneError("the log has expired; its records are no longer stored")
    return NotFoundError("no log has this name")


class Head:
    """A log's row number, epoch, last offset, bytes, and close reason."""

    __slots__ = ("closed", "epoch", "sid", "tail", "total")

    def __init__(self, sid: int, epoch: int, tail: int, total: int, closed: str | None) -> None:
        self.sid = sid
        self.epoch = epoch
        self.tail = tail
        self.total = total
        self.closed = closed


class Heads:
    """`Head` by name. By hash as well, once another process has touched the file."""

    def __init__(self) -> None:
        self._heads: dict[str, Head] = {}
        self._names: dict[int, set[str]] | None = None
        self.get = self._heads.get

    def look_up(self, connection: sqlite3.Connection, name: str) -> Head:
        """The head of a log as the file has it. Raises `NotFoundError`, `GoneError`."""
        row = connection.execute(HEAD, (name,)).fetchone()
        if row is None:
            raise missing(connection, name)
        if len(self._heads) >= MOST_HEADS:
            self.clear()
        head = self._heads[name] = Head(*row)
        if self._names is not None:
            self._names.setdefault(name_hash(name), set()).add(name)
        return head

    def forget(self, name: str) -> None:
        """The log has ended, or its state is in doubt."""
        if self._heads.pop(name, None) is not None and self._names is not None:
            number = name_hash(name)
            names = self._names[number]
            names.discard(name)
            if not names:
                del self._names[number]

    def forget_hashes(self, hashes: Iterable[int]) -> None:
        """Another process touched the logs of these hashes."""
        if self._names is None:
            self._names = {}
            for name in self._heads:
                self._names.setdefault(name_hash(name), set()).add(name)
        for number in hashes:
            for name in self._names.pop(number, ()):
                del self._heads[name]

    def clear(self) -> None:
        self._heads.clear()
        if self._names is not None:
            self._names.clear()
