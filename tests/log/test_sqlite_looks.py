"""A process that commits all the time, and readers there of what other processes append."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.log.sqlite.journal import Hearing, Journal
from tokenwire.log.sqlite.reader import LOOK_SECONDS, NEW_SECONDS, STEADY_SECONDS, Reader
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.tail import Heard


class Busy:
    """A store that appends by itself, one record after the other, until it is told to stop."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store, self.count, self.goes_on = store, 0, True

    def go_on(self, problem: object | None = None) -> None:
        assert problem is None
        if self.goes_on:
            self.count += 1
            done = self.store.append_soon(
                "mine", epoch=1, first=self.count, records=[b"x"], then=self.go_on
            )
            assert done


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_another_process_appends_is_heard_beside_many_commits(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        busy = Busy(here)
        try:
            await here.create("mine", owner="me")
            await there.create("theirs", owner="you")
            offsets: list[int] = []

            def take(offset: int, record: bytes) -> bool:
                offsets.append(offset)
                return True

            def wake() -> None:  # several at once
                page = here.read_now("theirs", after=offsets[-1] if offsets else 0)
                assert page is not None
                offsets.extend(range(page.first, page.tail + 1))

            here.subscribe("theirs", wake, take=take)
            busy.go_on()
            await until(lambda: busy.count > 20)
            for number in range(1, 21):
                await there.append("theirs", epoch=1, first=number, records=[b"%d" % number])
                if number % 2:
                    await until(lambda n=number: offsets and offsets[-1] >= n)
            await until(lambda: offsets and offsets[-1] == 20)
            assert (await here.read("theirs", fresh=True)).tail == 20
        finally:
            busy.goes_on = False
            await asyncio.sleep(0.01)
            await here.close()
            await there.close()

    asyncio.run(main())


def test_a_command_of_another_process_wakes_beside_many_commits(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        busy = Busy(here)
        try:
            await here.create("mine", owner="me")
            woken = asyncio.Event()
            here.subscribe("mine", woken.set, appends=False)
            busy.go_on()
            await until(lambda: busy.count > 20)
            for number in range(5):
                woken.clear()
                await there.command("mine", b"%d" % number)
                await asyncio.wait_for(woken.wait(), 30)
            assert len(await here.commands("mine")) == 5
        finally:
            busy.goes_on = False
            await asyncio.sleep(0.01)
            await here.close()
            await there.close()

    asyncio.run(main())


def test_groups_know_what_other_processes_append_meanwhile(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        busy = Busy(here)
        tails, beside = here._tails, [0.0]
        try:
            await here.create("mine", owner="me")
            await there.create("theirs", owner="you")
            here.subscribe("mine", lambda: beside.append(tails.beside))
            busy.go_on()
            await until(lambda: busy.count > 20 and not beside[-1])
            del beside[:-1]
            for number in range(20):
                records = [b"%d" % number] * 50
                await there.append("theirs", epoch=1, first=number * 50 + 1, records=records)
            await until(lambda: max(beside) > 1)
            await until(lambda: not beside[-1])
        finally:
            busy.goes_on = False
            await asyncio.sleep(0.01)
            await here.close()
            await there.close()

    asyncio.run(main())


class Looks:
    """When a writer looked."""

    def __init__(self) -> None:
        self.looked = 0.0


def test_a_poll_does_not_look_where_the_writer_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = SQLiteStore(f"{tmp_path}/log.db")
        await store.start()
        looks, now = Looks(), 100.0
        reader = Reader(
            lambda: store._connect(False),
            store.path,
            hearing=Hearing({}.keys(), lambda touched, appends: None),
            writer=looks,
        )
        with monkeypatch.context() as patch:
            patch.setattr(
                "tokenwire.log.sqlite.reader.time", SimpleNamespace(monotonic=lambda: now)
            )
            assert not reader._seen_to()  # nobody has looked
            looks.looked = now
            now += NEW_SECONDS / 4
            assert reader.poll() == pytest.approx(NEW_SECONDS * 3 / 4)
            now += NEW_SECONDS
            assert not reader._seen_to()  # it was too long ago
            now += LOOK_SECONDS - NEW_SECONDS / 4
            looks.looked = now
            assert reader._seen_to() == pytest.approx(NEW_SECONDS / 4)
            now += NEW_SECONDS / 4
            looks.looked = now
            assert not reader._seen_to()  # once in a while all the same
            assert reader._seen_to()
            now += NEW_SECONDS / 2
            looks.looked = now
            assert reader._seen_to() == pytest.approx(STEADY_SECONDS)  # it looks again and again
            now += STEADY_SECONDS
            assert not reader._seen_to()  # and then no more
        reader.close()
        await store.close()

    asyncio.run(main())


class Announcer:
    """What the threads of a process tell."""

    def __init__(self, *awaited: str) -> None:
        self.touched: list[set[int] | None] = []
        #: Records by log, each with its offset.
        self.heard: dict[str, list[tuple[int, bytes]]] = {}
        self.hearing = Hearing(dict.fromkeys(awaited).keys(), self.changed)

    def changed(self, touched: set[int] | None, appends: list[Heard]) -> None:
        if touched is None or touched:
            self.touched.append(touched)
        for log, start, records in appends:
            assert records is not None
            self.heard.setdefault(log, []).extend(enumerate(records, start + 1))


async def file_with(folder: Path, *logs: str) -> SQLiteStore:
    store = SQLiteStore(f"{folder}/log.db")
    await store.start()
    for log in logs:
        await store.create(log, owner="you")
    return store


def journals(store: SQLiteStore, telling: Announcer) -> list[tuple[Any, Journal]]:
    """Two threads' views, of which nothing that is in the file has to be told."""
    views = [(store._connect(False), Journal()) for _ in range(2)]
    for connection, journal in views:
        journal.catch_up(connection)
        telling.hearing.begin(journal.last)
    return views


@given(st.lists(st.sampled_from(["a", "b", "c", "look 0", "look 1"]), max_size=30))
@settings(max_examples=30, deadline=None)
def test_what_others_append_is_told_once_in_order_whichever_thread_looks(steps: list[str]) -> None:
    async def main(folder: Path) -> None:
        store = await file_with(folder, "a", "b", "c")
        telling = Announcer("a", "b")
        views = journals(store, telling)
        tails = dict.fromkeys("abc", 0)
        expected: dict[str, list[tuple[int, bytes]]] = {}
        for step in [*steps, "look 1", "look 0"]:
            if step in tails:
                tails[step] += 1
                record = b"%s %d" % (step.encode(), tails[step])
                await store.append(step, epoch=1, first=tails[step], records=[record])
                if step != "c":
                    expected.setdefault(step, []).append((tails[step], record))
                continue
            connection, journal = views[int(step[-1])]
            telling.hearing.hear(connection, journal, *journal.catch_up(connection))
            assert telling.heard == expected
        assert telling.touched == []
        for connection, _ in views:
            connection.close()
        await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))


def test_rows_that_nobody_saw_are_told_as_anything_and_those_of_another_thread_are_not(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        store = await file_with(tmp_path, "a")
        telling = Announcer("a")
        (first, quick), (second, slow) = journals(store, telling)

        async def append(number: int) -> None:
            await store.append("a", epoch=1, first=number, records=[b"%d" % number])

        def rows_go() -> None:
            writer = store._connect(True)
            writer.execute("DELETE FROM journal WHERE id < (SELECT max(id) FROM journal)")
            writer.close()

        for number in (1, 2):
            await append(number)
            telling.hearing.hear(first, quick, *quick.catch_up(first))
        rows_go()
        commits, is_whole = slow.catch_up(second)
        assert not is_whole
        telling.hearing.hear(second, slow, commits, is_whole)
        assert telling.touched == []  # the other thread has told what this one missed
        assert telling.heard == {"a": [(1, b"1"), (2, b"2")]}
        await append(3)
        await append(4)
        rows_go()
        telling.hearing.hear(second, slow, *slow.catch_up(second))
        assert telling.touched == [None]
        await append(5)
        telling.hearing.hear(first, quick, *quick.catch_up(first))
        assert telling.heard["a"][2:] == [(5, b"5")]
        first.close()
        second.close()
        await store.close()

    asyncio.run(main())


def test_a_process_that_commits_tells_what_it_sees_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reading thread looks for nothing here."""

    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        monkeypatch.setattr(Reader, "poll", lambda self: 0.01)
        await here.start()
        await there.start()
        try:
            for log in ("mine", "theirs", "alone"):
                await there.create(log, owner="you")
            for number in (1, 2):  # the first one sees the logs begin, and tells it afterwards
                await here.append("mine", epoch=1, first=number, records=[b"x"])
            records: list[bytes] = []
            woken = asyncio.Event()

            def wake() -> None:  # several at once
                page = here.read_now("theirs", after=len(records))
                assert page is not None
                records.extend(page.records)

            here.subscribe("theirs", wake, take=lambda _, record: not records.append(record))
            here.subscribe("alone", woken.set, appends=False)
            await there.append("theirs", epoch=1, first=1, records=[b"one"])
            await there.append("theirs", epoch=1, first=2, records=[b"two"])
            assert records == []
            await here.append("mine", epoch=1, first=3, records=[b"x"])
            await until(lambda: records == [b"one", b"two"])
            await there.command("alone", b"stop")
            await here.append("mine", epoch=1, first=4, records=[b"x"])
            await asyncio.wait_for(woken.wait(), 30)
        finally:
            await here.close()
            await there.close()

    asyncio.run(main())


def test_what_cannot_be_told_fails_no_append(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        monkeypatch.setattr(Reader, "poll", lambda self: 0.01)
        await here.start()
        await there.start()

        def row_data(*_: Any) -> bytes:
            raise sqlite3.OperationalError("disk I/O error")

        try:
            for log in ("mine", "theirs"):
                await there.create(log, owner="you")
            woken = asyncio.Event()
            here.subscribe("theirs", woken.set)
            await there.append("theirs", epoch=1, first=1, records=[b"one"])
            monkeypatch.setattr(Journal, "row_data", row_data)
            assert (await here.append("mine", epoch=1, first=1, records=[b"x"])).status == "ok"
            await asyncio.wait_for(woken.wait(), 30)
            assert (await here.read("theirs")).records == [b"one"]
        finally:
            await here.close()
            await there.close()

    asyncio.run(main())
    assert "what other processes committed could not be read" in caplog.text


def test_what_is_known_of_pages_outlasts_appends_of_others_and_not_their_pages(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        try:
            for log in ("mine", "theirs"):
                await there.create(log, owner="you")
            assert here._writer is not None
            pager = here._writer._pager
            await there.append("theirs", epoch=1, first=1, records=[b"one"])
            await here.append("mine", epoch=1, first=1, records=[b"x"])
            sid = next(iter(pager._paged))  # of the oldest row
            assert pager._paged == {sid: 0}
            await there.append("theirs", epoch=1, first=2, records=[b"two"])
            await here.append("mine", epoch=1, first=2, records=[b"x"])
            assert pager._paged == {sid: 0}
            await there.append("theirs", epoch=1, first=3, records=[], close="complete")
            await there.append("mine", epoch=1, first=3, records=[b"y"])  # writes the pages
            assert (await here.append("mine", epoch=1, first=4, records=[b"x"])).status == "ok"
            assert pager._paged[sid] == 2
        finally:
            await here.close()
            await there.close()

    asyncio.run(main())
