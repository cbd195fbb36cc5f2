"""What processes tell each other of pages, and how rows of the journal are found that may go."""

from __future__ import annotations

import asyncio
import sqlite3
from array import array
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.log.sqlite import maintenance
from tokenwire.log.sqlite.journal import Journal, Row
from tokenwire.log.sqlite.maintenance import Checkpoints, Pager
from tokenwire.log.sqlite.pages import MOST_OFFSET, PAGE_RECORDS
from tokenwire.log.sqlite.store import SQLiteStore


def new_pager() -> Pager:
    return Pager(Journal(), cast(Any, None), Checkpoints())


def row_of(entries: list[tuple[int, int]]) -> Row:
    """Of logs and offsets; log 0 is of bytes that were erased."""
    numbers = array("I")
    for sid, offset in entries:
        numbers.extend((sid, offset if sid else 0, 9, 7))
    return Row(numbers, 0)


@pytest.mark.parametrize("compared", [1, 3, 128])
@given(
    entries=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), max_size=20),
    steps=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 3)), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_a_row_is_done_when_each_of_its_records_is_in_a_page(
    compared: int, entries: list[tuple[int, int]], steps: list[tuple[int, int]]
) -> None:
    """In each state of the pages the same log holds it up as is found record by record."""
    paged = dict.fromkeys(range(1, 5), 0)
    pager, row = new_pager(), row_of(entries)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maintenance, "COMPARED", compared)
        patch.setattr(maintenance, "page_tail", lambda _, sid: (paged.get(sid, 0), 0))
        connection = sqlite3.connect(":memory:")
        connection.execute("CREATE TABLE stream (sid INTEGER PRIMARY KEY)")
        connection.executemany("INSERT INTO stream VALUES (?)", [(sid,) for sid in paged])
        for sid, more in [(1, 0), *steps]:
            paged[sid] += more
            pager.forget(sid)  # as where another process has written them
            waiting = [sid for sid, offset in entries if sid and offset > paged[sid]]
            assert pager._undone(connection, row) == (waiting[0] if waiting else None)
        connection.close()


def test_others_need_not_look_up_to_where_a_log_is_in_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who wrote the pages says so; who erased a log cannot."""

    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        try:
            for log in ("mine", "theirs"):
                await there.create(log, owner="you")
            assert here._writer is not None
            pager = here._writer._pager
            records = [b"%d" % number for number in range(PAGE_RECORDS + 3)]
            await there.append("theirs", epoch=1, first=1, records=records)
            await there.append("mine", epoch=1, first=1, records=[b"x"])
            monkeypatch.setattr(maintenance, "page_tail", lambda *_: pytest.fail("it looks"))
            await here._write(lambda _: None)
            assert list(pager._paged.values()) == [PAGE_RECORDS]
            monkeypatch.undo()
            await there.delete("theirs")
            await here._write(lambda _: None)
            # It is looked for, and nothing of it is in the journal for long; then comes the other.
            assert list(pager._paged.values()) == [MOST_OFFSET, 0]
        finally:
            await here.close()
            await there.close()

    asyncio.run(main())


def test_a_log_whose_pages_are_in_doubt_is_looked_up_by_others() -> None:
    """A damaged log counts as one that is in pages, so that its rows can go: that is no offset."""
    pager = new_pager()
    pager._paged.update({1: 64, 2: MOST_OFFSET})
    assert [pager.paged(sid) for sid in (1, 2, 3)] == [64, 0, 0]
