"""Pages: up to 64 records of one log in one row, where records stay for good.

Always true: the pages of a log follow each other without gap, from its first record on; each record
has a checksum that covers its place, and lengths that fail are failed by it, too.
"""

from __future__ import annotations

import sqlite3
import sys
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate

__all__ = [
    "PAGE_RECORDS",
    "Page",
    "cut",
    "insert",
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

#: ``(key, bytes of the log up to its end, lengths and checksums, records)``.
Page = tuple[int, int, bytes, bytes]

#: Pages of one INSERT. Few, large statements: each one lets go of the interpreter lock once, and
#: getting it back from a busy event loop may take milliseconds.
INSERT_SIZES = (16, 4, 1)

#: One row for many pages, for the same reason. From the page of the first record on: those that
#: begin before the last one, and within so many bytes of the end of the first page.
READ = f"""
SELECT coalesce(sum(length(entries) / 8), 0), max(id), CAST(group_concat(entries, '') AS BLOB),
       CAST(group_concat(data, '') AS BLOB)
FROM (SELECT id, entries, data FROM page
      WHERE id > ?1 AND id < ?2 + {PAGE_RECORDS} AND id <= ?3
        AND id - length(entries) / 8 < ?2
        AND total - length(data) <= ?4 + (
            SELECT total FROM page WHERE id > ?1 AND id <= ?3 ORDER BY id LIMIT 1)
      ORDER BY id)
"""  # noqa: S608 - a constant


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
    sid: int, first: int, total: int, records: Sequence[bytes], checks: Sequence[int]
) -> Iterable[Page]:
    """Pages of ``records``, whose first has the offset ``first`` and ``total`` bytes before it."""
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
        yield place(sid, first + end - 1), total, pack(entries), data
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


def read_pages(
    connection: sqlite3.Connection, sid: int, after: int, most: int, most_bytes: int
) -> tuple[list[bytes], array[int]] | None:
    """Up to ``most`` records that are in pages, after the offset ``after``, with their checksums,
    within both bounds as far as those go by pages. None where a page is missing."""
    end = place(sid, min(after + most, MOST_OFFSET))
    bounds = place(sid, after), end, place(sid, MOST_OFFSET), most_bytes
    count, last, entries, data = connection.execute(READ, bounds).fetchone()
    if not count:
        return None
    skipped = after + count - (last & MOST_OFFSET)  # records of the first page that are before
    numbers = unpack(entries)
    if skipped < 0 or len(numbers) != 2 * count:
        return None
    # All steps over the records are loops in C, or nearly.
    ends = list(accumulate(numbers[::2], initial=0))
    cuts = zip(ends[skipped : skipped + most], ends[skipped + 1 :], strict=False)
    data = data or b""  # nothing but empty records
    records = [data[start:end] for start, end in cuts]
    return records, numbers[2 * skipped + 1 : 2 * (skipped + most) : 2]
