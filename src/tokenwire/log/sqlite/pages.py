"""Pages: up to 64 records of one log in one row, where records stay for good.

Always true: the pages of a log follow each other without gap, from its first record on; each page
has a checksum that covers its place and all of it, and so does each record, which then says what of
a damaged page is whole. Nothing is returned that neither of them covers.
"""

from __future__ import annotations

import io
import os
import sqlite3
import sys
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from tokenwire import __version__
from tokenwire.log.sqlite.schema import OFFSET_STEP, STREAM_STEP, damaged, seeds

__all__ = [
    "PAGES",
    "PAGE_RECORDS",
    "Page",
    "cut",
    "insert",
    "matching",
    "native_module",
    "native_reader",
    "pack",
    "page_tail",
    "place",
    "read_pages",
    "unpack",
]

#: Records and, but for one large record, bytes of a page.
PAGE_RECORDS = 64
PAGE_BYTES = 128 * 1024

#: A page's key is its log's number, then its last offset: the pages of a log are together.
OFFSET_BITS = 32
MOST_OFFSET = (1 << OFFSET_BITS) - 1

#: ``(key, bytes of the log up to its end, entries, records)``. Entries: length and checksum of each
#: record, and the checksum of the page, which the first pages had not.
Page = tuple[int, int, bytes, bytes]

#: Pages of one INSERT. Few, large statements: each one lets go of the interpreter lock once, and
#: getting it back from a busy event loop may take milliseconds.
INSERT_SIZES = (16, 4, 1)

#: One row for many pages, for the same reason. From the page of the first record on: those that
#: begin before the last one, and within so many bytes of the end of the first page.
READ = f"""
SELECT group_concat(id), group_concat(length(entries)), group_concat(length(data)),
       CAST(group_concat(entries, '') AS BLOB), CAST(group_concat(data, '') AS BLOB)
FROM (SELECT id, entries, data FROM page
      WHERE id > ?1 AND id < ?2 + {PAGE_RECORDS} AND id <= ?3
        AND id - length(entries) / 8 < ?2
        AND total - length(data) <= ?4 + (
            SELECT total FROM page WHERE id > ?1 AND id <= ?3 ORDER BY id LIMIT 1)
      ORDER BY id)
"""  # noqa: S608 - a constant

#: Bytes of records that one statement reads. Blocks of memory that are not much larger are kept by
#: the C library; others are given back and asked for again, which costs as much as all the rest.
READ_BYTES = 112 << 10


#: Raised with every change of what is done with records here, in `Writer._append_all` and in
#: `journal.records_of`, and in the twin of all (`speedups/`).
PAGES = 4

#: Columns of `READ`, the key before the first record, the most records; None: see Python.
ReadPages = Callable[[str, str, str, bytes, bytes, int, int], "list[bytes] | None"]


def native_module() -> Any | None:
    """What handles records in C, unless it is not installed, of another release, or turned off."""
    if os.environ.get("TOKENWIRE_SPEEDUPS", "1").strip().lower() in ("0", "false", "no", "off"):
        return None
    try:
        import tokenwire_pages as module
    except ImportError:
        return None
    made_for = getattr(module, "__version__", None), getattr(module, "PAGES", None)
    return module if made_for == (__version__, PAGES) else None


def native_reader() -> ReadPages | None:
    """What reads pages in C, if it is there. It returns what the Python would, or leaves the pages
    to that."""
    module = native_module()
    return None if module is None else module.read


_native = native_reader()
_module = native_module()
_native_cut = None if _module is None else _module.cut


def pack(numbers: array[int]) -> bytes:
    """Numbers of 32 bits as they are stored on every machine."""
    if sys.byteorder == "big":  # pragma: no cover
        numbers = array("I", numbers)
        numbers.byteswap()
    return numbers.tobytes()


def unpack(data: bytes) -> array[int]:
    """What `pack` packed. Raises `ValueError` for a length that is none of theirs."""
    numbers = array("I", data)
    if sys.byteorder == "big":  # pragma: no cover
        numbers.byteswap()
    return numbers


def place(sid: int, offset: int) -> int:
    """The key of a page of the log number ``sid`` that ends at ``offset``."""
    return (sid << OFFSET_BITS) + offset


def page_tail(connection: sqlite3.Connection, sid: int) -> tuple[int, int]:
    """The last offset in a page of the log, and the bytes up to it; 0 for no page."""
    row = connection.execute(
        "SELECT id, total FROM page WHERE id > ? AND id <= ? ORDER BY id DESC LIMIT 1",
        (place(sid, 0), place(sid, MOST_OFFSET)),
    ).fetchone()
    return (row[0] & MOST_OFFSET, row[1]) if row is not None else (0, 0)


def cut(
    sid: int,
    first: int,
    total: int,
    records: Sequence[bytes],
    checks: Sequence[int],
    *,
    unchecked: bool = False,
) -> Iterable[Page]:
    """Pages of ``records``, whose first has the offset ``first`` and ``total`` bytes before it.
    ``unchecked``: whether these may be other bytes than those of the checksums. A page where they
    are gets no checksum of its own, so that the record is refused from there, too."""
    if _native_cut is not None and not unchecked:
        pages = _native_cut(sid, first, total, records, checks, PAGE_RECORDS, PAGE_BYTES)
        if pages is not None:
            yield from pages
            return
    start = 0
    while start < len(records):
        end, size = start, 0
        while end < len(records) and end - start < PAGE_RECORDS:
            size += len(records[end])
            if size > PAGE_BYTES and end > start:
                break
            end += 1
        entries = array("I")
        for record, check in zip(records[start:end], checks[start:end], strict=True):
            entries.append(len(record))
            entries.append(check)
        data = b"".join(records[start:end])
        total += len(data)
        key, packed = place(sid, first + end - 1), pack(entries)
        if not unchecked or _are_whole(sid, first + start, records[start:end], checks[start:end]):
            packed += pack(array("I", [_checksum(key, packed, data)]))
        yield key, total, packed, data
        start = end


def insert(connection: sqlite3.Connection, pages: list[Page]) -> None:
    """Store ``pages``, and empty the list."""
    start = 0
    for size in INSERT_SIZES:
        while len(pages) - start >= size:
            values = ",".join(["(?,?,?,?)"] * size)
            connection.execute(
                f"INSERT INTO page VALUES {values}",  # noqa: S608 - question marks only
                [value for page in pages[start : start + size] for value in page],
            )
            start += size
    pages.clear()


def _checksum(key: int, entries: bytes | memoryview, data: bytes | memoryview) -> int:
    """Of a page in its place; ``entries``: without this checksum."""
    seed = (key >> OFFSET_BITS) * STREAM_STEP + (key & MOST_OFFSET) * OFFSET_STEP
    return zlib.crc32(data, zlib.crc32(entries, seed & 0xFFFFFFFF))


def _are_whole(sid: int, first: int, records: Sequence[bytes], checks: Sequence[int]) -> bool:
    return list(map(zlib.crc32, records, seeds(sid, first))) == list(checks)


def matching(
    log: str, sid: int, first: int, records: list[bytes], checks: Sequence[int]
) -> list[bytes]:
    """The records, if each is what it was, and in its place. Raises `StoreDamagedError`."""
    actual = list(map(zlib.crc32, records, seeds(sid, first)))
    for number, (one, two) in enumerate(zip(actual, checks, strict=True), first):
        if one != two:
            raise damaged("record", log, number)
    return records


def read_pages(
    connection: sqlite3.Connection, sid: int, log: str, after: int, most: int, most_bytes: int
) -> list[bytes]:
    """Up to ``most`` records that are in pages, after the offset ``after``, of up to ``most_bytes``
    together, or one. Raises `StoreDamagedError`, also where a page is missing."""
    records = _read(connection, sid, log, after, most, most_bytes)
    if not records:
        raise damaged("record", log, after + 1)
    size = sum(map(len, records))
    # A page that is missing, or too large, is for another read.
    while size < most_bytes and len(records) < most:
        here = after + len(records)
        more = _read(connection, sid, log, here, most - len(records), most_bytes - size)
        if not more or size + len(more[0]) > most_bytes:
            break
        records += more
        size += sum(map(len, more))
    return records


def _read(
    connection: sqlite3.Connection, sid: int, log: str, after: int, most: int, most_bytes: int
) -> list[bytes]:
    """The same by one statement, which reads little more than `READ_BYTES`; none where the
    first page is missing."""
    end = place(sid, min(after + most, MOST_OFFSET))
    bounds = place(sid, after), end, place(sid, MOST_OFFSET), min(most_bytes, READ_BYTES)
    ids, entry_sizes, data_sizes, entries, data = connection.execute(READ, bounds).fetchone()
    if not ids:
        return []
    data = data or b""  # nothing but empty records
    records = None
    if _native is not None:
        records = _native(ids, entry_sizes, data_sizes, entries, data, bounds[0], most)
    if records is None:
        sizes = entry_sizes, data_sizes
        records = _in_python(log, ids, sizes, entries, data, bounds[0], most)
    if len(data) > most_bytes:
        del records[max(1, bisect_right(list(accumulate(map(len, records))), most_bytes)) :]
    return records


def _in_python(
    log: str,
    ids: str,
    sizes: Sequence[str | None],
    entries: bytes,
    data: bytes,
    start: int,
    most: int,
) -> list[bytes]:
    """The records of pages, up to ``most`` after the one with the key ``start``; ``ids`` and
    ``sizes``: keys of the pages, lengths of their entries and of their records, with commas."""
    keys, entry_sizes, data_sizes = (
        list(map(int, (text or "").split(","))) for text in (ids, *sizes)
    )
    firsts = [key - size // 8 for key, size in zip(keys, entry_sizes, strict=True)]
    if firsts[0] > start or firsts[1:] != keys[:-1]:
        raise damaged("record", log, (start & MOST_OFFSET) + 1)
    numbers, stream = unpack(entries), io.BytesIO(data)
    all_entries, all_data = memoryview(entries), memoryview(data)
    records: list[bytes] = []
    at = position = 0
    for key, size, length in zip(keys, entry_sizes, data_sizes, strict=True):
        count = size // 8
        here = numbers[at // 4 : (at + size) // 4]
        stream.seek(position)
        page = list(map(stream.read, here[: 2 * count : 2]))
        check = _checksum(
            key, all_entries[at : at + 8 * count], all_data[position : position + length]
        )
        if here[2 * count :].tolist() != [check]:
            low, high = (max(0, one - key + count) for one in (start, start + most))
            first = (key & MOST_OFFSET) - count + 1
            checks = here[1 : 2 * count : 2]
            matching(log, key >> OFFSET_BITS, first + low, page[low:high], checks[low:high])
        records += page
        at += size
        position += length
    del records[: start - firsts[0]], records[most:]
    return records
