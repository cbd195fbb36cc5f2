"""The journal: a row for each commit, with all records of that commit, of all logs.

Always true: numbers of rows grow by one, and the newest row stays; so whoever has read up to one
knows what it missed, or that it missed something. A record is in the journal, or in a page, or in
both; the page counts then. What is known of the rows here is what the transaction sees that
`Journal.catch_up` ran in.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import zlib
from array import array
from collections import deque
from collections.abc import Callable, KeysView, Sequence
from typing import NamedTuple

from tokenwire.errors import StoreDamagedError
from tokenwire.log.sqlite.pages import native_module, pack, page_tail, unpack
from tokenwire.log.sqlite.schema import OFFSET_STEP, STREAM_STEP, damaged
from tokenwire.log.tail import Heard

__all__ = ["WIDTH", "Commit", "Entry", "Hearing", "Journal", "Row", "records_of"]

#: Numbers of one entry: the log's number, offset, length, checksum. Offset 0: no record, but
#: something else happened to the log (pages were written, it was erased), and the last number is
#: its last offset in a page, where that is known. Log 0: erased bytes.
WIDTH = 4

#: The rows behind ``?``, each with the number of the first row that is there.
ROWS = """
SELECT id, writer, checksum, hashes, entries, length(data), (SELECT min(id) FROM journal),
       CASE WHEN writer <> ? AND id > ? THEN data END
FROM journal WHERE id > ? ORDER BY id
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

    __slots__ = ("_lasts", "checked", "numbers", "size")

    def __init__(self, numbers: array[int], size: int) -> None:
        self.numbers = numbers
        self._lasts: dict[int, int] | None = None
        self.size = size
        #: Numbers before this one are of records that are in pages, as the pager knows.
        self.checked = 0

    @property
    def lasts(self) -> dict[int, int]:
        """The last offset of each log that is here; 0: no record of it. Found out when it is first
        asked for, which for most rows is never."""
        lasts = self._lasts
        if lasts is None:
            lasts = self._lasts = _lasts(self.numbers)
        return lasts

    @property
    def sids(self) -> array[int]:
        """The number of each record's log."""
        return self.numbers[::WIDTH]

    def marks(self) -> list[tuple[int, int]]:
        """Numbers of the logs to which something else happened than appends, each with its last
        offset in a page; 0: not known."""
        numbers = self.numbers
        offsets = numbers[1::WIDTH]
        if 0 not in offsets:
            return []
        places = range(0, len(numbers), WIDTH)
        return [(numbers[at], numbers[at + 3]) for at in places if not numbers[at + 1]]

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
    #: The numbers of all logs that it says something of.
    sids: frozenset[int]
    #: The records of the row, joined; None where they were not asked for.
    data: bytes | None = None


class Journal:
    """The rows that are there, without their data."""

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}
        #: The rows that hold records of a log, by its number: what a log costs to look up depends
        #: on its own rows alone. Of the rows up to `_placed`: the others wait for a log to be
        #: looked up, and most of them go before.
        self._places: dict[int, deque[int]] = {}
        self._placed = 0
        self.first = 1
        self.last = 0
        self.size = 0

    def clear(self) -> None:
        """Know nothing: the next `catch_up` reads all."""
        self.rows.clear()
        self._places.clear()
        self.first, self.last, self.size, self._placed = 1, 0, 0, 0

    def catch_up(
        self, connection: sqlite3.Connection, hearing: Hearing | None = None
    ) -> tuple[list[Commit], bool]:
        """The rows that are new, and whether none was missed; else they are all that are there.
        ``hearing``: what of them it has not told comes with its data. Raises
        `StoreDamagedError`."""
        own = (None, 0) if hearing is None else (hearing.identity, hearing.newest)
        rows = connection.execute(ROWS, (*own, self.last)).fetchall()
        if not rows:
            return [], True
        is_whole = rows[0][0] == self.last + 1
        if not is_whole:
            self.clear()
            rows = connection.execute(ROWS, (None, 0, 0)).fetchall()
            self.first = rows[0][0]
        commits: list[Commit] = []
        for number, writer, check, hashes, entries, size, _, data in rows:
            if not _is_whole(number, check, hashes, entries):
                self.clear()
                raise StoreDamagedError(
                    f"row {number} of the journal fails its checksum; the store is damaged"
                )
            row = self.add(number, unpack(entries), size)
            commits.append(Commit(number, writer, hashes, row, frozenset(row.sids), data))
        self.drop(rows[0][6] - 1)
        return commits, is_whole

    def add(self, number: int, numbers: array[int], size: int) -> Row:
        """A row that is in the file now."""
        row = self.rows[number] = Row(numbers, size + 4 * len(numbers))
        self.last = number
        self.size += row.size
        return row

    def _place(self) -> dict[int, deque[int]]:
        """`_places` of all rows."""
        places = self._places
        for number in range(max(self._placed + 1, self.first), self.last + 1):
            row = self.rows.get(number)
            for sid, last in row.lasts.items() if row is not None else ():
                if last:
                    if sid in places:
                        places[sid].append(number)
                    else:
                        places[sid] = deque((number,))
        self._placed = self.last
        return places

    def drop(self, last: int) -> None:
        """The rows up to ``last`` are gone."""
        while self.first <= last:
            row = self.rows.pop(self.first, None)
            if row is not None:
                self.size -= row.size
                if self.first <= self._placed:
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
        for number in self._place().get(sid, ()):
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
        numbers = self._place().get(sid)
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
        for number in self._place().pop(sid, ()):
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


#: Numbers and names of logs that are remembered.
MOST_NAMES = 50_000


class Hearing:
    """Tells this process's readers what other processes did to the file: each row once, in the
    order of the rows, by the first of its two threads that looks. ``changed`` gets the name hashes
    that they touched, and what they appended to logs that are ``awaited``; None in place of the
    hashes means "any", where rows were missed: then every reader has to look."""

    def __init__(
        self,
        awaited: KeysView[str],
        changed: Callable[[set[int] | None, list[Heard]], None],
    ) -> None:
        #: What this process calls itself in its rows.
        self.identity = secrets.token_hex(8)
        self._awaited = awaited
        self._changed = changed
        self._lock = threading.Lock()
        #: Whether somebody here waited for what another process appended last.
        self.is_followed = False
        #: The newest row of which readers know.
        self.newest = 0
        self._names: dict[int, str] = {}

    def begin(self, last: int) -> None:
        """Nobody waits for what the rows up to ``last`` say."""
        self.newest = last

    def hear(
        self,
        connection: sqlite3.Connection,
        journal: Journal,
        commits: list[Commit],
        is_whole: bool,
    ) -> None:
        """Tell what ``journal`` found (`Journal.catch_up`)."""
        if not commits:
            return
        with self._lock:
            before, self.newest = self.newest, max(self.newest, commits[-1].number)
            if not is_whole and before + 1 < commits[0].number:
                self._names.clear()
                self._changed(None, [])
                return
            touched: set[int] = set()
            appends: list[Heard] = []
            newest: dict[str, Heard] = {}
            try:
                for commit in commits:
                    if commit.number > before and commit.writer != self.identity:
                        if commit.hashes:
                            touched.update(unpack(commit.hashes))
                        self._hear(connection, journal, commit, appends, newest)
            except BaseException:
                self._changed(None, [])  # these rows are not told again
                raise
            if touched or appends:
                self._changed(touched, appends)

    def doubt(self) -> None:
        """The file could not be read: let the readers find out what is wrong, by name."""
        self.is_followed = False
        self._changed(None, [])

    def _hear(
        self,
        connection: sqlite3.Connection,
        journal: Journal,
        commit: Commit,
        appends: list[Heard],
        newest: dict[str, Heard],
    ) -> None:
        """The records of another process's commit that somebody here waits for, behind those that
        are in ``appends``. ``newest``: the last of those, by its log."""
        names, awaited, sids = self._names, self._awaited, commit.sids
        if len(names) > MOST_NAMES:
            names.clear()
        for sid in sids.difference(names):
            row = connection.execute("SELECT name FROM stream WHERE sid = ?", (sid,)).fetchone()
            names[sid] = row[0] if row is not None else ""
        if awaited.isdisjoint(map(names.__getitem__, sids)):
            if sids:
                self.is_followed = False
            return  # most often: readers are where their runs are
        self.is_followed = True
        readers = {sid: name for sid in sids if (name := names[sid]) in awaited}
        data = commit.data
        if data is None:
            data = journal.row_data(connection, commit.number)
        records_of(commit.row.numbers, data, readers, appends, newest)


def _in_python(
    numbers: array[int],
    data: bytes,
    readers: dict[int, str],
    appends: list[Heard],
    newest: dict[str, Heard],
) -> None:
    """Add to ``appends`` what a row (its ``numbers`` and ``data``) has for the logs of ``readers``,
    by their numbers: what follows what is there already, with it."""
    position = 0
    for sid, offset, size, check in zip(*(numbers[at::WIDTH] for at in range(WIDTH)), strict=True):
        name = readers.get(sid)
        if name is not None and offset:
            record = data[position : position + size]
            seed = (sid * STREAM_STEP + offset * OFFSET_STEP) & 0xFFFFFFFF
            last = newest.get(name)
            if zlib.crc32(record, seed) != check:
                appends.append((name, offset - 1, None))
                newest.pop(name, None)
            elif last is not None and last[2] is not None and last[1] + len(last[2]) == offset - 1:
                last[2].append(record)
            else:
                one = newest[name] = name, offset - 1, [record]
                appends.append(one)
        position += size


_native = native_module()
#: In C, where that is installed.
records_of = _in_python if _native is None else _native.records_of
