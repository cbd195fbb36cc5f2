"""A reader in another process than the run gets each record once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tokenwire.errors import GoneError, NotFoundError
from tokenwire.log.sqlite.journal import Hearing, Journal
from tokenwire.log.sqlite.reader import Reader
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.tail import Heard
from tokenwire.relay.follow import Follower


def run(folder: Path | str, case: Callable[[SQLiteStore, SQLiteStore], Awaitable[None]]) -> None:
    """``case`` with the store of a reader, and that of the process that has the log ``s``."""

    async def main() -> None:
        here, there = (SQLiteStore(f"{folder}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        try:
            await there.create("s", owner="there", lease=0)
            async with asyncio.timeout(60):
                await case(here, there)
        finally:
            await here.close()
            await there.close()

    asyncio.run(main())


class Following:
    """A reader whose task runs, and what it has read behind the offset ``after``."""

    def __init__(self, store: SQLiteStore, after: int = 0) -> None:
        self.follower = Follower(store, "s", after=after)
        self.after = after
        self.records: list[bytes] = []
        self.news = asyncio.Event()
        self.task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            while (batch := await self.follower.next()) is not None:
                assert batch.first == self.after + len(self.records) + 1
                self.records += batch.records
                self.news.set()
        finally:
            self.news.set()

    async def reaches(self, offset: int) -> None:
        while self.after + len(self.records) < offset and not self.task.done():
            await self.news.wait()
            self.news.clear()
        if self.task.done():
            self.task.result()


class Unsteady:
    """`Journal.catch_up`, which fails in a poll when it is told to."""

    def __init__(self) -> None:
        self.failures = 0
        self._catch_up = Journal.catch_up

    def __call__(self, journal: Journal, *arguments: Any) -> Any:
        if self.failures and len(arguments) > 1:
            self.failures -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return self._catch_up(journal, *arguments)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 12)),
        st.tuples(st.sampled_from(["fail", "doubt", "join", "take over", "wait"]), st.just(0)),
    ),
    max_size=15,
)


@given(STEPS)
@example([("wait", 0), ("fail", 0), ("append", 2), ("append", 1)])
@example([("wait", 0), ("take over", 0), ("append", 3), ("take over", 0), ("append", 9)])
@example([("wait", 0), ("doubt", 0), ("append", 3), ("join", 0), ("append", 1)])
@settings(max_examples=25, deadline=None)
def test_each_reader_gets_each_record_once(steps: list[tuple[str, int]]) -> None:
    """``fail``: the next look for news fails; ``take over``: by the reader's process, or back."""

    async def case(here: SQLiteStore, there: SQLiteStore) -> None:
        owner, epoch = there, 1
        written: list[bytes] = []
        readers = [Following(here)]
        for name, count in [("append", 1), *steps, ("append", 2)]:
            if name == "append":
                new = [b"%016d a record" % number for number in range(count)]
                done = await owner.append("s", epoch=epoch, first=len(written) + 1, records=new)
                assert done.status == "ok"
                written += new
            elif name == "fail":
                unsteady.failures += 1
            elif name == "doubt":
                assert here._reader is not None
                here._reader._hearing.doubt()
            elif name == "join":
                readers.append(Following(here, after=len(written)))
            elif name == "take over":
                owner = here if owner is there else there
                claim = await owner.claim("s", owner="next", lease=0)
                assert claim is not None
                epoch = claim.epoch
            else:
                await readers[0].reaches(len(written))
        for reader in readers:
            await reader.reaches(len(written))
            assert reader.records == written[reader.after :]
            reader.follower.close()
            await reader.task

    unsteady = Unsteady()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(Journal, "catch_up", lambda *arguments: unsteady(*arguments)),
    ):
        run(folder, case)


def test_a_run_that_is_erased_elsewhere_ends_its_readers(tmp_path: Path) -> None:
    async def case(here: SQLiteStore, there: SQLiteStore) -> None:
        reader = Following(here)
        for number in range(1, 4):
            await there.append("s", epoch=1, first=number, records=[b"%016d x" % number])
            await reader.reaches(number)
        await there.delete("s")
        with pytest.raises((NotFoundError, GoneError)):
            await reader.reaches(4)
        assert here._tails.page("s", 0, 9, 999) is None

    run(tmp_path, case)


def test_news_that_somebody_waits_for_comes_with_one_statement(tmp_path: Path) -> None:
    async def case(here: SQLiteStore, there: SQLiteStore) -> None:
        heard: list[Heard] = []
        awaited = {"s": None}
        hearing = Hearing(awaited.keys(), lambda touched, appends: heard.extend(appends))
        reader = Reader(lambda: here._connect(False), here.path, hearing=hearing)
        statements: list[str] = []
        reader._connection.set_trace_callback(statements.append)

        async def poll(number: int) -> int:
            await there.append("s", epoch=1, first=number, records=[b"%d" % number])
            await there.append("s", epoch=1, first=number + 1, records=[b"%d" % (number + 1)])
            statements.clear()
            reader.poll()
            return len(statements)

        await poll(1)
        assert await poll(3) == 1
        assert heard == [("s", 0, [b"1", b"2"]), ("s", 2, [b"3", b"4"])]
        awaited.clear()
        await poll(5)
        assert not hearing.is_followed
        await poll(7)
        assert not any("CASE WHEN writer <> '" in one for one in statements)  # nor any data
        assert len(heard) == 2
        reader.poll()  # nothing happened since
        statements.clear()
        reader.poll()
        assert [one.strip() for one in statements] == ["PRAGMA data_version"]
        reader.close()

    run(tmp_path, case)


def test_data_that_another_thread_has_told_is_not_read_again(tmp_path: Path) -> None:
    async def case(here: SQLiteStore, there: SQLiteStore) -> None:
        hearing = Hearing({"s": None}.keys(), lambda touched, appends: None)
        connections = [here._connect(False) for _ in range(2)]
        journals = Journal(), Journal()
        for connection, journal in zip(connections, journals, strict=True):
            journal.catch_up(connection)
        hearing.begin(journals[0].last)
        for number in (1, 2):
            await there.append("s", epoch=1, first=number, records=[b"%d" % number])
            if number == 1:
                found = journals[0].catch_up(connections[0])
                hearing.hear(connections[0], journals[0], *found)
        commits, _ = journals[1].catch_up(connections[1], hearing)
        assert [commit.data for commit in commits] == [None, b"2"]
        for connection in connections:
            connection.close()

    run(tmp_path, case)


def test_a_look_that_fails_is_told_as_anything_and_the_next_one_only_after_another_commit(
    tmp_path: Path,
) -> None:
    async def case(here: SQLiteStore, there: SQLiteStore) -> None:
        told: list[Any] = []
        hearing = Hearing(
            {"s": None}.keys(), lambda touched, appends: told.append((touched, appends))
        )
        reader = Reader(lambda: here._connect(False), here.path, hearing=hearing)
        await there.append("s", epoch=1, first=1, records=[b"1"])
        reader.poll()
        assert hearing.is_followed
        await there.append("s", epoch=1, first=2, records=[b"2"])
        with patch.object(Journal, "catch_up", side_effect=sqlite3.OperationalError("gone")):
            for _ in range(4):
                reader.poll()
        assert 2 <= len(told) <= 3  # each wakes every reader
        assert told[1:] == [(None, [])] * (len(told) - 1)
        await there.append("s", epoch=1, first=3, records=[b"3"])
        reader.poll()
        assert told[-1] == (set(), [("s", 1, [b"2", b"3"])])
        reader.close()

    run(tmp_path, case)
