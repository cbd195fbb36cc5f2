"""The journal of a SQLite log and the pages behind it: nothing is lost or repeated on the way."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from array import array
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from support.log_machine import NAMES, LogMachine, check
from tokenwire.errors import GoneError, NotFoundError, StoreDamagedError, StoreUnavailableError
from tokenwire.log.base import Store
from tokenwire.log.sqlite import heads, journal, maintenance, pages, writer
from tokenwire.log.sqlite.store import SQLiteStore

Case = Callable[[SQLiteStore], Awaitable[None]]


def run(store: SQLiteStore, case: Case) -> None:
    async def main() -> None:
        await store.start()
        try:
            await asyncio.wait_for(case(store), 60)
        finally:
            await store.close()

    asyncio.run(main())


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages, and what is left of the journal, so small that each is met all the time."""
    for module in (pages, maintenance, heads, writer):
        monkeypatch.setattr(module, "PAGE_RECORDS", 4)
    monkeypatch.setattr(heads, "MOST_HEADS", 3)
    for name, value in (
        ("MOST_LOGS", 1),
        ("MOST_ROWS", 8),
        ("LEAST_ROWS", 2),
        ("LEAST_BYTES", 1),
        ("ROWS_TOGETHER", 2),
    ):
        monkeypatch.setattr(maintenance, name, value)


async def everything(store: Store, log: str, most: int = 512) -> list[bytes]:
    records: list[bytes] = []
    while True:
        page = await store.read(log, after=len(records), most=most, fresh=True)
        records += page.records
        if len(records) == page.tail:
            return records


def rows(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def words(log: str, count: int) -> list[bytes]:
    return [f"{log} {number} ".encode() + b"x" * (number % 40) for number in range(1, count + 1)]


#: Logs of which the pages hold more, or fewer, records than their last offset says.
REPEATED = """
SELECT id >> 32 FROM page GROUP BY 1 HAVING sum(length(entries) / 8) != max(id & 0xffffffff)
"""


class JournalMachine(LogMachine):
    """Two stores on one file, one of which follows every log; either is opened again at times."""

    shared = True

    def follow(self) -> None:
        async def subscribe() -> None:
            for name in ["a", "b", "c", "d{x}%"]:
                self.logs[0].subscribe(name, lambda: None)

        self.call(subscribe())

    def __init__(self) -> None:
        super().__init__()
        self.follow()

    @rule(which=st.integers(0, 1))
    def reopen(self, which: int) -> None:
        url = self.url.format(folder=self.folder, number=self.count)
        self.call(self.logs[which].close())
        self.logs[which] = SQLiteStore(url.removeprefix("sqlite://"))
        self.call(self.logs[which].start())
        if which == 0:
            self.follow()

    @rule(name=NAMES, count=st.integers(1, 30))
    @precondition(lambda self: self.streams)
    def write(self, name: str, count: int) -> None:
        """One record a commit, as tokens come."""
        model = self.streams.get(name)
        if model is None or model.closed:
            return
        for _ in range(count):
            first = len(model.records) + 1
            record = b"%d" % first
            done = self.call(
                self.log.append(name, epoch=model.epoch, first=first, records=[record])
            )
            assert done.status == model.append(model.epoch, first, [record], None) == "ok"

    @rule(name=NAMES)
    def followed(self, name: str) -> None:
        """What was appended in either process is at hand in the one that follows, soon."""
        model = self.streams.get(name)
        if model is None:
            return

        async def wait() -> None:
            while True:
                page = await self.logs[0].read(name)
                if page.records == model.records and page.closed == model.closed:
                    return
                assert page.records == model.records[: len(page.records)]
                await asyncio.sleep(0.002)

        self.call(wait())

    @rule()
    def nothing_is_left_of_what_was_erased(self) -> None:
        path = Path(self.folder) / "log.db"
        query = "SELECT count(*) FROM page WHERE id >> 32 NOT IN (SELECT sid FROM stream)"
        assert rows(path, query) == [(0,)]
        assert rows(path, REPEATED) == []

    @rule(name=NAMES, after=st.integers(0, 60), most=st.integers(1, 70))
    def read_far(self, name: str, after: int, most: int) -> None:
        model = self.streams.get(name)
        if model is None or after > len(model.records):
            return
        page = self.call(self.log.read(name, after=after, most=most, fresh=True))
        assert page.records == model.records[after : after + most]


# `read` of the other machine may be one wake-up late where its log is followed.
JournalMachine.read = None  # type: ignore[assignment]


def test_any_order_of_calls_is_like_the_model(
    small_bounds: None, caplog: pytest.LogCaptureFixture
) -> None:
    check("sqlite://{folder}/log.db", shared=True, examples=40, base=JournalMachine)
    assert "no pages can be written" not in caplog.text, "two processes wrote the same one"


def test_a_kill_at_any_statement_loses_and_repeats_nothing(
    tmp_path: Path, small_bounds: None
) -> None:
    """The file and its write-ahead log are copied at each statement of the writer: what a process
    leaves that is killed there. Each copy is opened, read and gone on with."""
    chance = random.Random(5)
    path = tmp_path / "log.db"
    moments: list[tuple[Path, dict[str, int]]] = []
    accepted: dict[str, int] = {}
    seen: set[str] = set()

    def copy(statement: str) -> None:
        kind = " ".join(statement.split()[:3])
        if kind in seen and chance.random() > 0.07:
            return
        seen.add(kind)
        folder = tmp_path / f"at-{len(moments)}"
        folder.mkdir()
        for file in (path, Path(f"{path}-wal")):
            shutil.copy(file, folder)
        moments.append((folder / "log.db", dict(accepted)))

    async def write(store: SQLiteStore) -> None:
        for name in "abc":
            await store.create(name, owner="me", lease=0)
            accepted[name] = 0
        half = store._writer
        assert half is not None
        half._connection.set_trace_callback(copy)
        for _ in range(120):
            some = [name for name in "abc" if chance.random() < 0.5]
            count = chance.choice([1, 1, 1, 3])
            firsts = {name: accepted[name] + 1 for name in some}
            done = await asyncio.gather(
                *(
                    store.append(
                        name,
                        epoch=1,
                        first=first,
                        records=words(name, first + count - 1)[first - 1 :],
                    )
                    for name, first in firsts.items()
                )
            )
            for name, result in zip(some, done, strict=True):
                assert result.status == "ok"
                accepted[name] = result.tail
        half._connection.set_trace_callback(None)

    async def check(store: SQLiteStore, least: dict[str, int]) -> None:
        for name in "abc":
            records = await everything(store, name)
            assert len(records) >= least[name], "an accepted record is lost"
            assert records == words(name, len(records))
            claim = await store.claim(name, owner="you")
            assert claim is not None
            assert claim.tail == len(records)
            late = await store.append(name, epoch=1, first=claim.tail + 1, records=[b"late"])
            assert late.status == "fenced"
            more = words(name, claim.tail + 9)[claim.tail :]
            for number, record in enumerate(more, claim.tail + 1):
                await store.append(name, epoch=2, first=number, records=[record])
            assert await everything(store, name) == words(name, claim.tail + 9)

    run(SQLiteStore(str(path)), write)
    assert {"INSERT INTO page", "DELETE FROM journal", "INSERT INTO journal", "COMMIT"} <= seen
    for file, least in moments:
        run(SQLiteStore(str(file)), lambda store, least=least: check(store, least))
    assert len(moments) > 30


@pytest.mark.parametrize("where", ["insert", "_trim"])
def test_pages_that_cannot_be_written_are_in_no_append_s_way(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    holder = {"insert": maintenance, "_trim": maintenance.Pager}[where]
    real = getattr(holder, where)

    def fail(*arguments: Any) -> None:
        real(*arguments)
        raise sqlite3.DatabaseError("the disk failed")

    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        monkeypatch.setattr(holder, where, fail)
        for number in range(1, 31):
            done = await store.append("s", epoch=1, first=number, records=[b"%d" % number])
            assert (done.status, done.tail) == ("ok", number)
        assert rows(Path(store.path), "SELECT count(*) FROM page") == [(0,)]
        assert await everything(store, "s", most=7) == [b"%d" % n for n in range(1, 31)]
        monkeypatch.setattr(holder, where, real)
        half = store._writer
        assert half is not None
        half._pager._paused_until = 0.0
        for number in range(31, 61):
            await store.append("s", epoch=1, first=number, records=[b"%d" % number])
        assert rows(Path(store.path), "SELECT count(*) FROM journal")[0][0] <= 9
        assert await everything(store, "s", most=7) == [b"%d" % n for n in range(1, 61)]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_pages_of_a_commit_that_failed_are_not_counted_on(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case(store: SQLiteStore) -> None:
        monkeypatch.setattr(maintenance, "LEAST_ROWS", 100)  # none go before the failure
        monkeypatch.setattr(maintenance, "LEAST_BYTES", 1 << 20)
        for name in "ab":
            await store.create(name, owner="me")
        writer: Any = store._writer
        real = writer._leave_wake

        def fail() -> None:
            real()
            raise sqlite3.OperationalError("the disk failed at the commit")

        for number in range(1, 5):
            monkeypatch.setattr(writer, "_leave_wake", fail if number == 4 else real)
            try:
                await store.append("a", epoch=1, first=number, records=[b"%d" % number])
            except StoreUnavailableError:
                assert number == 4
        monkeypatch.setattr(writer, "_leave_wake", real)
        monkeypatch.setattr(maintenance, "LEAST_ROWS", 2)
        monkeypatch.setattr(maintenance, "LEAST_BYTES", 1)
        for number in range(1, 40):  # the rows of the other log go meanwhile
            await store.append("b", epoch=1, first=number, records=[b"x"])
        assert await everything(store, "a") == [b"1", b"2", b"3"]
        again = await store.append("a", epoch=1, first=4, records=[b"4"])
        assert (again.status, again.tail) == ("ok", 4)
        assert await everything(store, "b") == [b"x"] * 39

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_the_newest_row_stays_whatever_is_deleted(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number is what the next one's is counted from, also by a process that starts later."""
    for name, value in (("LEAST_ROWS", 0), ("LEAST_BYTES", -1), ("ROWS_TOGETHER", 1)):
        monkeypatch.setattr(maintenance, name, value)
    path = tmp_path / "log.db"

    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        await store.append("s", epoch=1, first=1, records=[b"x"] * 8, close="complete")
        for _ in range(9):
            await store.renew({"s": 1}, owner="me")
        assert rows(path, "SELECT id, data FROM journal") == [(2, b"x" * 8)]

    run(SQLiteStore(str(path)), case)

    async def again(store: SQLiteStore) -> None:
        await store.create("t", owner="me")
        assert rows(path, "SELECT max(id) FROM journal") == [(3,)]

    run(SQLiteStore(str(path)), again)


def test_the_journal_becomes_empty_of_a_damaged_log(tmp_path: Path, small_bounds: None) -> None:
    """It holds up neither the rows of others nor their appends."""
    path = tmp_path / "log.db"

    async def write(store: SQLiteStore) -> None:
        for name in "ab":
            await store.create(name, owner="me", lease=0)
        for number in range(1, 8):
            await store.append("a", epoch=1, first=number, records=[b"%d" % number])

    run(SQLiteStore(str(path)), write)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM page")
    connection.commit()
    connection.close()

    async def check(store: SQLiteStore) -> None:
        for number in range(1, 60):
            await store.append("b", epoch=1, first=number, records=[b"x"])
        assert rows(path, "SELECT count(*) FROM journal")[0][0] <= 9
        with pytest.raises(StoreDamagedError, match="of log a"):
            await store.read("a")
        assert await everything(store, "b") == [b"x"] * 59

    run(SQLiteStore(str(path)), check)


def test_a_record_that_was_damaged_in_the_journal_is_refused_from_its_page(
    tmp_path: Path, small_bounds: None
) -> None:
    path = tmp_path / "log.db"

    async def write(store: SQLiteStore) -> None:
        for name in "ab":
            await store.create(name, owner="me", lease=0)
        for number in range(1, 4):
            await store.append("a", epoch=1, first=number, records=[b"record %d" % number])

    run(SQLiteStore(str(path)), write)
    connection = sqlite3.connect(path)
    connection.execute(
        "UPDATE journal SET data = CAST('recorD 2' AS BLOB) WHERE data = CAST('record 2' AS BLOB)"
    )
    connection.commit()
    connection.close()

    async def check(store: SQLiteStore) -> None:
        assert rows(path, "SELECT count(*) FROM page WHERE id >> 32 = 1") == [(0,)]
        for number in range(1, 60):
            await store.append("b", epoch=1, first=number, records=[b"x"])
        assert rows(path, "SELECT count(*) > 0 FROM page WHERE id >> 32 = 1") == [(1,)]
        with pytest.raises(StoreDamagedError, match="record 2 of log a"):
            await store.read("a")
        assert (await store.read("a", most=1)).records == [b"record 1"]
        assert (await store.read("a", after=2)).records == [b"record 3"]

    run(SQLiteStore(str(path)), check)


def test_pages_cost_no_commit(tmp_path: Path, small_bounds: None) -> None:
    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        await store.create("t", owner="me")
        commits: list[str] = []
        half = store._writer
        assert half is not None
        half._connection.set_trace_callback(
            lambda statement: commits.append(statement) if statement == "COMMIT" else None
        )
        for number in range(1, 41):
            for name in "st":
                await store.append(name, epoch=1, first=number, records=[b"x"])
        await store.probe()
        assert len(commits) == 81
        assert rows(Path(store.path), "SELECT count(*) FROM page")[0][0] > 15

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_the_journal_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also beside a run that stands still, whose record is in an old row."""
    monkeypatch.setattr(maintenance, "MOST_ROWS", 300)

    async def case(store: SQLiteStore) -> None:
        for name in ("still", "s", "short"):
            await store.create(name, owner="me")
        await store.append("still", epoch=1, first=1, records=[b"waits"])
        await store.append("short", epoch=1, first=1, records=[b"x"], close="complete")
        for number in range(1, 800):
            await store.append("s", epoch=1, first=number, records=[b"x"])
        assert rows(Path(store.path), "SELECT count(*) FROM journal")[0][0] <= 301
        assert await everything(store, "still") == [b"waits"]
        assert await everything(store, "short") == [b"x"]
        assert await everything(store, "s") == [b"x"] * 799
        await store.append("still", epoch=1, first=2, records=[b"and goes on"])
        assert await everything(store, "still") == [b"waits", b"and goes on"]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_the_write_ahead_log_is_moved_between_commits(tmp_path: Path) -> None:
    """Readers wait for a commit, so SQLite has nothing to move into the file within one."""

    async def case(store: SQLiteStore) -> None:
        half = store._writer
        assert half is not None
        half._connection.execute("PRAGMA wal_autocheckpoint=0")
        await store.create("s", owner="me")
        for number in range(1, 400):
            await store.append("s", epoch=1, first=number, records=[b"x" * 20_000])
        assert Path(f"{store.path}-wal").stat().st_size < 5 << 20
        assert len(await everything(store, "s")) == 399

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_the_write_ahead_log_waits_where_it_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case(store: SQLiteStore) -> None:
        half = store._writer
        assert half is not None
        await store.create("s", owner="me")
        failures: list[Exception] = [
            sqlite3.OperationalError("disk I/O error"),
            StoreUnavailableError("another process holds the lock of the store"),
        ]
        steps: list[None] = []

        def step(connection: sqlite3.Connection) -> None:
            steps.append(None)
            if failures:
                raise failures.pop()

        monkeypatch.setattr(half._checkpoints, "step", step)
        monkeypatch.setattr(half._checkpoints, "is_due", lambda idle: True)
        for number in range(1, 5):
            done = await store.append("s", epoch=1, first=number, records=[b"x"])
            assert done.status == "ok"
        assert len(steps) >= 3
        assert not failures

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_pages_and_rows_that_are_due_at_once_are_spread_over_commits(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit takes a share of them, so they neither hold one up nor pile up."""
    logs, size = 40, 100
    for name, value in (("SHARE_OF_LOGS", 8), ("BYTES_TOGETHER", 1000), ("MOST_ROWS", 1000)):
        monkeypatch.setattr(maintenance, name, value)
    monkeypatch.setattr(heads, "MOST_HEADS", 100)

    async def case(store: SQLiteStore) -> None:
        half = store._writer
        assert half is not None
        names = [f"s{number}" for number in range(logs)]
        await asyncio.gather(*(store.create(name, owner="me") for name in names))
        journal, pager = half._journal, half._pager
        cuts: list[tuple[int, int]] = []
        drops: list[tuple[int, int]] = []
        cut, deletable, drop = pager._cut, pager._deletable, journal.drop
        due: list[int] = []

        def counted(*arguments: Any) -> Any:
            due.append(len(pager.due) + 1)
            return cut(*arguments)

        def dropped(last: int) -> None:
            total, before = sum(deletable()), journal.size
            drop(last)
            drops.append((total, before - journal.size))

        monkeypatch.setattr(pager, "_cut", counted)
        monkeypatch.setattr(journal, "drop", dropped)
        for number in range(1, 13):
            await asyncio.gather(
                *(
                    store.append(name, epoch=1, first=number, records=[b"x" * size])
                    for name in names
                )
            )
            cuts.append((max(due, default=0), len(due)))
            due.clear()
        while pager.due or deletable():
            await store.append("s0", epoch=1, first=number + 1, records=[b"x"])
            cuts.append((max(due, default=0), len(due)))
            due.clear()
            number += 1
        assert max(count for _, count in cuts) > 1
        assert all(count <= max(1, most // 8) for most, count in cuts)
        row = logs * (size + 16)
        assert all(piece <= max(1000, total // 4) + row for total, piece in drops)
        assert sum(piece for _, piece in drops) > 10 * row

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_a_full_page_of_each_log_is_one_row(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        names = [f"s{number}" for number in range(20)]
        for name in names:
            await store.create(name, owner="me")
        for number in range(1, 200):
            await asyncio.gather(
                *(store.append(name, epoch=1, first=number, records=[b"x"]) for name in names)
            )
        sizes = rows(Path(store.path), "SELECT length(entries) / 8, count(*) FROM page GROUP BY 1")
        assert sizes == [(64, 60)]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_records_of_another_process_come_with_the_wake_up(tmp_path: Path) -> None:
    """A follower of a run of another process need not read the store for each record."""

    async def main() -> None:
        mine, other = SQLiteStore(f"{tmp_path}/log.db"), SQLiteStore(f"{tmp_path}/log.db")
        await mine.start()
        await other.start()
        await other.create("s", owner="other")
        await other.create("t", owner="other")
        taken: list[tuple[int, bytes]] = []
        arrived = asyncio.Event()
        owners: list[None] = []

        def take(offset: int, record: bytes) -> bool:
            taken.append((offset, record))
            if offset == 50:
                owners.clear()  # what woke it before may have been the log's beginning
            if offset == 100:
                arrived.set()
            return True

        def wake() -> None:  # several at once
            page = mine.read_now("s", after=len(taken))
            for record in page.records if page is not None else ():
                take(len(taken) + 1, record)

        mine.subscribe("s", wake, take=take)
        mine.subscribe("s", lambda: owners.append(None), appends=False)
        reader = mine._reader
        assert reader is not None
        reader.read = None  # type: ignore[assignment,method-assign]
        for number in range(1, 101):
            await asyncio.gather(
                other.append("s", epoch=1, first=number, records=[b"s%d" % number]),
                other.append("t", epoch=1, first=number, records=[b"t%d" % number]),
            )
        await asyncio.wait_for(arrived.wait(), 30)
        assert taken == [(number, b"s%d" % number) for number in range(1, 101)]
        async with asyncio.timeout(30):
            while not owners:  # it hears of appends that it did not make
                await asyncio.sleep(0.002)
        assert (await mine.read("s", after=90)).records == [b"s%d" % n for n in range(91, 101)]
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_who_is_far_behind_reads_all_anew(tmp_path: Path, small_bounds: None) -> None:
    async def main() -> None:
        mine, other = SQLiteStore(f"{tmp_path}/log.db"), SQLiteStore(f"{tmp_path}/log.db")
        await mine.start()
        await other.start()
        for name in "st":
            await mine.create(name, owner="me", lease=0)
            await mine.append(name, epoch=1, first=1, records=[b"1"])
        claim = await other.claim("s", owner="you")
        assert claim is not None
        for number in range(2, 80):
            await other.append("s", epoch=2, first=number, records=[b"%d" % number])
        late = await mine.append("s", epoch=1, first=2, records=[b"late"])
        assert (late.status, late.epoch, late.tail) == ("fenced", 2, 79)
        assert (await mine.append("t", epoch=1, first=2, records=[b"2"])).status == "ok"
        assert await everything(mine, "s") == [b"%d" % n for n in range(1, 80)]
        assert await everything(other, "t") == [b"1", b"2"]
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_a_claim_in_rows_that_are_gone_counts(tmp_path: Path, small_bounds: None) -> None:
    """What came after it in the journal is of another log."""

    async def main() -> None:
        mine, other = SQLiteStore(f"{tmp_path}/log.db"), SQLiteStore(f"{tmp_path}/log.db")
        await mine.start()
        await other.start()
        for name in "st":
            await mine.create(name, owner="me", lease=0)
            await mine.append(name, epoch=1, first=1, records=[b"1"])
        claim = await other.claim("s", owner="you")
        assert claim is not None
        for number in range(2, 80):
            await other.append("t", epoch=1, first=number, records=[b"x"])
        late = await mine.append("s", epoch=1, first=2, records=[b"late"])
        assert (late.status, late.epoch, late.tail) == ("fenced", 2, 1)
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_pages_that_another_process_wrote_are_not_written_again(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LEAST_ROWS", 1000)  # nothing is missed
    monkeypatch.setattr(maintenance, "LEAST_BYTES", 1 << 20)
    path = tmp_path / "log.db"

    async def main() -> None:
        mine, other = SQLiteStore(str(path)), SQLiteStore(str(path))
        await mine.start()
        await other.start()
        for name in "st":
            await mine.create(name, owner="me")
        for number in range(1, 4):
            await mine.append("s", epoch=1, first=number, records=[b"%d" % number])
        for number in range(1, 20):  # the journal is too long: the oldest records have to go
            await other.append("t", epoch=1, first=number, records=[b"x"])
        assert rows(path, "SELECT id & 0xffffffff FROM page WHERE id >> 32 = 1") == [(3,)]
        for number in range(4, 12):
            await mine.append("s", epoch=1, first=number, records=[b"%d" % number])
        assert rows(path, REPEATED) == []
        for store in (mine, other):
            assert await everything(store, "s") == [b"%d" % n for n in range(1, 12)]
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_a_follower_that_missed_rows_is_woken(tmp_path: Path, small_bounds: None) -> None:
    async def main() -> None:
        mine, other = SQLiteStore(f"{tmp_path}/log.db"), SQLiteStore(f"{tmp_path}/log.db")
        await mine.start()
        await other.start()
        for name in "st":
            await other.create(name, owner="other")
        assert (await mine.read("s")).tail == 0
        reads, reader = mine._reads, mine._reader
        assert reads is not None
        assert reader is not None
        reads._poll = None  # it has no time to look, and then the rows are gone
        woken = asyncio.Event()
        mine.subscribe("s", woken.set)
        await other.append("s", epoch=1, first=1, records=[b"1"])
        for number in range(1, 80):
            await other.append("t", epoch=1, first=number, records=[b"x"])
        assert not woken.is_set()
        reads._poll = reader.poll
        await asyncio.wait_for(woken.wait(), 30)
        assert (await mine.read("s")).records == [b"1"]
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_the_number_of_a_deleted_log_is_not_used_again(tmp_path: Path) -> None:
    """Rows of the journal that another process has read name it."""

    async def main() -> None:
        mine, other = SQLiteStore(f"{tmp_path}/log.db"), SQLiteStore(f"{tmp_path}/log.db")
        await mine.start()
        await other.start()
        await mine.create("s", owner="me")
        for number in range(1, 10):
            await mine.append("s", epoch=1, first=number, records=[b"old"])
        assert await everything(other, "s") == [b"old"] * 9
        await other.delete("s")
        with pytest.raises(NotFoundError):
            await mine.append("s", epoch=1, first=10, records=[b"old"])
        await other.create("s", owner="you")
        await mine.append("s", epoch=1, first=1, records=[b"new"])
        assert await everything(mine, "s") == await everything(other, "s") == [b"new"]
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_what_is_erased_before_its_page_is_written_gets_none(
    tmp_path: Path, small_bounds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def case(store: SQLiteStore) -> None:
        for name in "abc":
            await store.create(name, owner="me")
        monkeypatch.setattr(maintenance, "MOST_LOGS", 0)  # a backlog
        for name in "ab":
            await store.append(name, epoch=1, first=1, records=[b"x"] * 9)
        await store.append("b", epoch=1, first=10, records=[b"y"], close="complete")
        monkeypatch.setattr(maintenance, "MOST_LOGS", 9)
        await asyncio.gather(
            store.append("c", epoch=1, first=1, records=[b"z"], close="complete"),
            *(store.delete(name) for name in "abc"),
        )
        await store.create("d", owner="me")
        assert rows(Path(store.path), "SELECT count(*) FROM page") == [(0,)]
        data = rows(Path(store.path), "SELECT data FROM journal")
        assert b"".join(part for (part,) in data).strip(b"\0") == b""
        # And by another process:
        await store.create("e", owner="me")
        monkeypatch.setattr(maintenance, "MOST_LOGS", 0)
        await store.append("e", epoch=1, first=1, records=[b"x"] * 9)
        other = SQLiteStore(store.path)
        await other.start()
        await other.delete("e")
        await other.close()
        monkeypatch.setattr(maintenance, "MOST_LOGS", 9)
        await store.create("f", owner="me")
        assert rows(Path(store.path), "SELECT count(*) FROM page") == [(0,)]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


SECRET = b"what nobody may read again"


@pytest.mark.parametrize("how", ["delete", "expire"])
@pytest.mark.parametrize("count", [1, 70, 300])
def test_what_is_erased_is_in_no_page_and_no_row(tmp_path: Path, how: str, count: int) -> None:
    """The other log's records are in the same rows, and stay."""
    path = tmp_path / "log.db"

    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        await store.create("other", owner="me")
        for number in range(1, count + 1):
            await asyncio.gather(
                store.append("s", epoch=1, first=number, records=[SECRET]),
                store.append("other", epoch=1, first=number, records=[b"stays"]),
            )
        await store.append("s", epoch=1, first=count + 1, records=[], close="complete")
        await (store.delete("s") if how == "delete" else store.expire(retention=-1))
        assert await store._maintain(lambda writer: writer.empty_wal())
        on_disk = b"".join(file.read_bytes() for file in tmp_path.iterdir())
        assert SECRET not in on_disk
        with pytest.raises(NotFoundError if how == "delete" else GoneError):
            await store.read("s")
        assert await everything(store, "other") == [b"stays"] * count
        await store.append("other", epoch=1, first=count + 1, records=[b"more"])
        assert (await everything(store, "other"))[-1] == b"more"

    run(SQLiteStore(str(path)), case)
    again = SQLiteStore(str(path))

    async def look(store: SQLiteStore) -> None:
        assert await everything(store, "other") == [*[b"stays"] * count, b"more"]

    run(again, look)


@pytest.mark.parametrize("looks", [0.0, 0.05, 1.0])
def test_a_log_is_looked_up_in_its_own_rows_alone(looks: float) -> None:
    """However many rows the journal has, and whenever somebody looks one up; and rows that went
    leave nothing behind."""
    rows_of: dict[int, list[int]] = {}
    book = journal.Journal()
    chance = random.Random(7)
    tails: dict[int, int] = {}
    for number in range(1, 1001):
        numbers = array("I")
        for sid in chance.sample(range(1, 300), chance.randint(1, 5)):
            if chance.random() < 0.2:
                numbers.extend((sid, 0, 0, 0))  # something else happened to it
            else:
                tails[sid] = tails.get(sid, 0) + 1
                numbers.extend((sid, tails[sid], 1, 0))
                rows_of.setdefault(sid, []).append(number)
        book.add(number, numbers, len(numbers) // 4)
        if chance.random() < looks:
            sid = chance.randint(1, 310)
            assert [entry.row for entry in book.entries(sid, 0)] == rows_of.get(sid, [])
    for last in (0, 400, 1000):
        book.drop(last)
        for sid in range(1, 310):
            expected = [number for number in rows_of.get(sid, []) if number > last]
            assert [entry.row for entry in book.entries(sid, 0)] == expected
            assert list(book._places.get(sid, ())) == expected
            assert book.end(sid, 5) == (max(tails[sid], 5) if expected else 5)
    assert not book._places
    assert not book.rows
    assert book.size == 0


def test_rows_that_go_before_anybody_looks_are_never_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    book, apart = journal.Journal(), []
    lasts = journal._lasts
    monkeypatch.setattr(journal, "_lasts", lambda numbers: apart.append(1) or lasts(numbers))
    for number in range(1, 101):
        book.add(number, array("I", (number % 7 + 1, number, 1, 0)), 1)
        book.drop(number - 10)
    assert apart == []
    assert [entry.row for entry in book.entries(3, 0)] == [93, 100]
    assert len(apart) == 10


def test_large_commits_are_several_rows(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        names = [f"s{number}" for number in range(30)]
        for name in names:
            await store.create(name, owner="me")
        large = [name.encode() * 40_000 for name in names]
        await asyncio.gather(
            *(
                store.append(name, epoch=1, first=1, records=[record, record])
                for name, record in zip(names, large, strict=True)
            )
        )
        for name, record in zip(names, large, strict=True):
            assert await everything(store, name) == [record, record]
        assert rows(Path(store.path), "SELECT count(*) FROM journal")[0][0] > 31

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


@pytest.mark.parametrize(
    "change",
    [
        "entries = x'01'",
        "entries = 'text'",
        "entries = x''",
        "hashes = x'01020304'",
        "checksum = 1",
    ],
)
def test_a_damaged_row_is_refused_by_name(tmp_path: Path, change: str) -> None:
    """A row says whose records are in it; without that nothing may be appended behind it."""
    path = tmp_path / "log.db"

    async def write(store: SQLiteStore) -> None:
        await store.create("s", owner="me", lease=0)
        await store.append("s", epoch=1, first=1, records=[b"x", b"y"])

    run(SQLiteStore(str(path)), write)
    connection = sqlite3.connect(path)
    connection.execute(f"UPDATE journal SET {change} WHERE id = 2")
    connection.commit()
    connection.close()

    async def main() -> None:
        store = SQLiteStore(str(path))
        with pytest.raises(StoreDamagedError, match="row 2 of the journal"):
            await store.start()

    asyncio.run(main())


def test_a_hole_in_the_pages_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def write(store: SQLiteStore) -> None:
        await store.create("s", owner="me", lease=0)
        for number in range(0, 300, 50):
            await store.append("s", epoch=1, first=number + 1, records=[b"x"] * 50)

    run(SQLiteStore(str(path)), write)
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM page WHERE id & 0xffffffff = 128")
    connection.commit()
    connection.close()

    async def check(store: SQLiteStore) -> None:
        assert len((await store.read("s", most=64)).records) == 64
        for after in (0, 64, 100, 127):
            with pytest.raises(StoreDamagedError):
                await store.read("s", after=after, most=200)
        assert len((await store.read("s", after=128, most=500)).records) == 172

    run(SQLiteStore(str(path)), check)
