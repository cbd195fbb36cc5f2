"""The journal: a row for each commit, with all records of that commit, of all logs.

Always true: numbers of rows grow by one, and the newest row stays; so whoever has read up to one
knows what it missed, or that it missed something. A record is in the journal, or in a page, or in
both; the page counts then. What is known of the rows here is what the transaction sees that
`Journal.catch_up` ran in.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from array import array
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from tokenwire.errors import StoreDamagedError
from tokenwire.log.sqlite.pages import pack, page_tail, unpack
from tokenwire.log.sqlite.schema import damaged

__all__ = ["WIDTH", "Commit", "Entry", "Journal", "Row"]

#: Numbers of one entry: the log's number, offset, length, checksum. Offset 0: no record, but
#: something else happened to the log (pages were written, it was erased). Log 0: erased bytes.
WIDTH = 4

ROWS = """
SELECT id, writer, checksum, hashes, entries, length(data) FROM journal WHERE id > ? ORDER BY id
"""

#: ``?``: JSON, a list of ``[row, position, length]``. One row, see `pages.READ`.
DATA = """
SELECT CAST(group_concat((
    SELECT substr(data, json_extract(value, '$[1]') + 1, json_extract(value, '$[2]'))
    FROM journal WHERE id = json_extract(value, '$[0]')), '') AS BLOB)
FROM json_each(?)
"""


def _checksum(number: int, hashes: bytes, entries: bytes) -> int:
    """Of what a row says of its data, in its place."""
    return zlib.crc32(entries, zlib.crc32(hashes, number & 0xFFFFFFFF))


def _is_whole(number: int, check: object, hashes: object, entries: object) -> bool:
    """A damaged page of the file can hold anything."""
    if not isinstance(hashes, bytes) or not isinstance(entries, bytes):
        return False
    if len(hashes) % 4 or len(entries) % (4 * WIDTH):
        return False
    return _checksum(number, hashes, entries) == check


class Entry(NamedTuple):
    """One record in the journal."""

    row: int
    #: First byte in the row's data.
    position: int
    length: int
    check: int
    offset: int


def _lasts(numbers: array[int]) -> dict[int, int]:
    """The last offset of each log in a row."""
    lasts = dict(zip(numbers[::WIDTH], numbers[1::WIDTH], strict=True))
    if 0 in lasts.values():
        for sid, offset in zip(numbers[::WIDTH], numbers[1::WIDTH], strict=True):
            lasts[sid] = max(lasts[sid], offset)
    return lasts


class Row:
    """What is known of one row of the journal."""

    __slots__ = ("checked", "lasts", "numbers", "size")

    def __init__(self, numbers: array[int], size: int) -> None:
        self.numbers = numbers
        #: The last offset of each log that is here; 0: no record of it.
        self.lasts = _lasts(numbers)
        self.size = size
        #: Numbers before this one are of records that are in pages, as the pager knows.
        self.checked = 0

    def entries(self, number: int, sid: int, after: int) -> list[Entry]:
        """The records of one log with offsets after ``after``; ``number`` is the row's own."""
        entries: list[Entry] = []
        if self.lasts.get(sid, 0) <= after:
            return entries
        numbers = self.numbers
        sids, offsets, lengths = numbers[::WIDTH], numbers[1::WIDTH], numbers[2::WIDTH]
        at = start = position = 0
        remaining = sids.count(sid)
        while remaining:
            at = sids.index(sid, at)
            # Records of one append are next to each other: those up to ``after`` are one step.
            skipped = after - offsets[at]
            far = at + skipped
            if 0 < skipped < remaining and (sids[far], offsets[far]) == (sid, after):
                at, remaining = far, remaining - skipped
            position += sum(lengths[start:at])
            start = at
            if offsets[at] > after:
                check = numbers[at * WIDTH + 3]
                entries.append(Entry(number, position, lengths[at], check, offsets[at]))
            at, remaining = at + 1, remaining - 1
        return entries

    def forget(self, sid: int) -> None:
        """The records of this log were erased; the places of the others stay."""
        for at in range(0, len(self.numbers), WIDTH):
            if self.numbers[at] == sid:
                self.numbers[at] = self.numbers[at + 1] = self.numbers[at + 3] = 0
        self.lasts.pop(sid, None)


class Commit(NamedTuple):
    """A row as `Journal.catch_up` found it."""

    number: int
    writer: str
    #: Hashes of the names of logs to which something else happened than an append.
    hashes: bytes
    row: Row


class Journal:
    """The rows that are there, without their data."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        #: The rows that hold records of a log, by its number: what a log costs to look up depends
        #: on its own rows alone.
        self._places: dict[int, deque[int]] = {}
        self.first = 1
        self.last = 0
        self.size = 0

    def clear(self) -> None:
        """Know nothing: the next `catch_up` reads all."""
        self.rows.clear()
        self._places.clear()
        self.first, self.last, self.size = 1, 0, 0

    def catch_up(self, connection: sqlite3.Connection) -> list[Commit] | None:
        """The rows that are new; None when rows were missed, and all were read anew. Raises
        `StoreDamagedError`."""
        rows = connection.execute(ROWS, (self.last,)).fetchall()
        if not rows:
            return []
        is_whole = rows[0][0] == self.last + 1
        if not is_whole:
            self.clear()
            rows = connection.execute(ROWS, (0,)).fetchall()
            self.first = rows[0][0]
        commits: list[Commit] = []
        for number, writer, check, hashes, entries, size in rows:
            if not _is_whole(number, check, hashes, entries):
                self.clear()
                raise StoreDamagedError(
                    f"row {number} of the journal fails its checksum; the store is damaged"
                )
            row = self.add(number, unpack(entries), size)
            commits.append(Commit(number, writer, hashes, row))
        first = connection.execute("SELECT min(id) FROM journal").fetchone()[0]
        self.drop(first - 1)
        return commits if is_whole else None

    def add(self, number: int, numbers: array[int], size: int) -> Row:
        """A row that is in the file now."""
        row = self.rows[number] = Row(numbers, size + 4 * len(numbers))
        self.last = number
        self.size += row.size
        places = self._places
        for sid, last in row.lasts.items():
            if last:
                if sid in places:
                    places[sid].append(number)
                else:
                    places[sid] = deque((number,))
        return row

    def drop(self, last: int) -> None:
        """The rows up to ``last`` are gone."""
        while self.first <= last:
            row = self.rows.pop(self.first, None)
            if row is not None:
                self.size -= row.size
                self._forget_places(row)
            self.first += 1

    def _forget_places(self, row: Row) -> None:
        """The oldest row goes."""
        for sid, offset in row.lasts.items():
            if offset:
                numbers = self._places[sid]
                numbers.popleft()
                if not numbers:
                    del self._places[sid]

    def write(
        self,
        connection: sqlite3.Connection,
        writer: str,
        numbers: array[int],
        records: Sequence[bytes],
        hashes: bytes,
    ) -> None:
        """Write the next row."""
        number, entries, data = self.last + 1, pack(numbers), b"".join(records)
        check = _checksum(number, hashes, entries)
        connection.execute(
            "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)",
            (number, writer, check, hashes, entries, data),
        )
        self.add(number, numbers, len(data))

    def entries(self, sid: int, after: int) -> list[Entry]:
        """The records of a log that are here, after the offset ``after``."""
        entries: list[Entry] = []
        for number in self._places.get(sid, ()):
            entries += self.rows[number].entries(number, sid, after)
        return entries

    def unpaged(
        self, connection: sqlite3.Connection, sid: int, log: str
    ) -> tuple[int, int, list[Entry]]:
        """`page_tail`, and the records of the log that are in no page. Raises
        `StoreDamagedError`."""
        paged, total = page_tail(connection, sid)
        entries = self.entries(sid, paged)
        for offset, entry in enumerate(entries, paged + 1):
            if entry.offset != offset:
                raise damaged("record", log, offset)
        return paged, total, entries

    def tail(self, connection: sqlite3.Connection, sid: int, log: str) -> tuple[int, int]:
        """The last offset of a log, and its bytes. Raises `StoreDamagedError`."""
        tail, total, entries = self.unpaged(connection, sid, log)
        return tail + len(entries), total + sum(entry.length for entry in entries)

    def end(self, sid: int, paged: int) -> int:
        """The last offset of a log whose last one in a page is ``paged``."""
        numbers = self._places.get(sid)
        return max(self.rows[numbers[-1]].lasts[sid], paged) if numbers else paged

    def read(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[bytes]:
        """The records of these entries, unchecked."""
        if not entries:
            return []
        places: list[list[int]] = []
        for entry in entries:
            last = places[-1] if places else None
            if last is not None and last[0] == entry.row and sum(last[1:]) == entry.position:
                last[2] += entry.length  # records of one append are next to each other
            else:
                places.append([entry.row, entry.position, entry.length])
        data = connection.execute(DATA, (json.dumps(places),)).fetchone()[0] or b""
        records: list[bytes] = []
        position = 0
        for entry in entries:
            records.append(data[position : position + entry.length])
            position += entry.length
        return records

    def erase(self, connection: sqlite3.Connection, sid: int) -> None:
        """Overwrite the records of a log, wherever they are here."""
        for number in self._places.pop(sid, ()):
            row = self.rows[number]
            hashes = connection.execute(
                "SELECT hashes FROM journal WHERE id = ?", (number,)
            ).fetchone()[0]
            data = bytearray(self.row_data(connection, number))
            for entry in row.entries(number, sid, 0):
                data[entry.position : entry.position + entry.length] = bytes(entry.length)
            row.forget(sid)
            if not any(row.lasts):  # nothing else was in it; the row itself stays
                del row.numbers[:], data[:]
                self.size -= row.size
                row.size = row.checked = 0
            entries = pack(row.numbers)
            check = _checksum(number, hashes, entries)
            connection.execute(
                "UPDATE journal SET checksum = ?, entries = ?, data = ? WHERE id = ?",
                (check, entries, bytes(data), number),
            )

    def row_data(self, connection: sqlite3.Connection, number: int) -> bytes:
        """The records of a row, joined."""
        row = connection.execute("SELECT data FROM journal WHERE id = ?", (number,)).fetchone()
        return row[0] if row is not None else b""
