"""What time and volume do to a SQLite file: upgrades, figures, free pages, and what is erased."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tokenwire.errors import GoneError, NotFoundError, StoreUnavailableError
from tokenwire.log.base import Due
from tokenwire.log.sqlite import heads
from tokenwire.log.sqlite import store as store_module
from tokenwire.log.sqlite.store import SQLiteStore

SCHEMA_1 = Path(__file__).with_name("data") / "schema_1.sql"
SCHEMA_2 = SCHEMA_1.with_name("schema_2.sql")
Case = Callable[[SQLiteStore], Awaitable[None]]


def run(store: SQLiteStore, case: Case) -> None:
    async def main() -> None:
        await store.start()
        try:
            await asyncio.wait_for(case(store), 60)
        finally:
            await store.close()

    asyncio.run(main())


async def ended(store: SQLiteStore, log: str, *records: bytes, thread: str | None = None) -> None:
    await store.create(log, owner="me", thread=thread)
    await store.append(log, epoch=1, first=1, records=[*records], close="complete")


async def counts(store: SQLiteStore) -> tuple[int, int, int, int]:
    stats = await store.stats()
    return stats["streams"], stats["open"], stats["records"], stats["bytes"]


def test_a_file_of_the_first_schema_opens(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.executescript(SCHEMA_1.read_text())
    connection.close()

    async def case(store: SQLiteStore) -> None:
        assert await counts(store) == (3, 1, 4, 21)
        assert (await store.read("ended")).records == [b"one", b"two"]
        assert (await store.create("x", owner="me", key="k", key_hash="h")).log == "ended"
        assert await store.commands("open") == [(1, b"command")]
        assert await store.document("kind", "name") == b"data"
        claim = await store.claim("open", owner="you")
        assert claim is not None
        assert (claim.epoch, claim.tail, claim.handed_over) == (2, 1, False)
        await store.append("open", epoch=2, first=2, records=[b"more"], close="complete")
        assert await counts(store) == (3, 0, 5, 25)
        with pytest.raises(GoneError):
            await store.read("long-ago")
        assert await store.expire(retention=-1) == 3
        assert await counts(store) == (0, 0, 0, 0)

    run(SQLiteStore(f"{tmp_path}/log.db"), case)
    again = SQLiteStore(f"{tmp_path}/log.db")
    run(again, lambda store: store.create("new", owner="me"))  # type: ignore[arg-type,return-value]


def test_a_file_of_the_second_schema_keeps_its_conversations(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "log.db")
    connection.executescript(SCHEMA_2.read_text())
    connection.close()

    async def case(store: SQLiteStore) -> None:
        assert await counts(store) == (7, 1, 13, 68)
        assert (await store.stats())["tombstones"] == 1
        await store.create("v-new", owner="me", thread="v")  # in a conversation from before
        # Those of the file ended at the Unix times 1015 (old-alone) to 1105 (v-ended).
        retention = time.time() - 1020.0
        assert await store.expire(retention=retention) == 1
        assert await store.expire(retention=retention - 35) == 1  # gone-1; t was used since
        assert await store.thread("t") == ["t-second", "t-first"]
        assert (await store.create("x", owner="me", key="k", key_hash="h")).log == "t-first"
        assert await store.expire(retention=retention - 45) == 2
        assert await store.thread("t") == []
        assert await store.expire(retention=1.0) == 0
        assert await store.thread("u") == ["u-open", "u-ended"]
        assert await store.thread("v") == ["v-new", "v-ended"]
        assert (await store.stats())["tombstones"] == 4  # long-ago is forgotten after a month
        with pytest.raises(GoneError):
            await store.read("t-first")
        with pytest.raises(NotFoundError):
            await store.read("long-ago")

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_what_an_older_version_writes_into_the_new_file_counts(tmp_path: Path) -> None:
    """One that had the file open before it was brought up to date."""

    async def case(store: SQLiteStore) -> None:
        await ended(store, "first", b"x", thread="t")
        other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        now = time.time()
        other.execute(
            "INSERT INTO stream"
            " (name, epoch, owner, lease_until, created, thread, meta, meta_check)"
            " VALUES ('second', 1, 'old', ?, ?, 't', x'', 0)",
            (now + 60, now),
        )
        assert await store.expire(retention=-1) == 0
        other.execute(
            "UPDATE stream SET closed = 'end', closed_at = ? WHERE name = 'second'", (now,)
        )
        assert await store.expire(retention=3600) == 0
        other.execute("DELETE FROM stream WHERE name = 'second'")
        assert await store.expire(retention=-1) == 1
        assert other.execute("SELECT count(*) FROM thread").fetchone() == (0,)
        other.close()

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_a_sweep_looks_at_nothing_that_is_kept(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        async def grow(start: int, end: int) -> None:
            for number in range(start, end):
                await ended(store, f"s{number}", b"x", thread=f"t{number % 7}")
                await ended(store, f"a{number}", b"x")

        steps: list[int] = []

        async def work() -> int:
            await store.stats()  # the reader sees the commits since it last read
            steps.clear()
            assert await store.due(3600, 200) == []
            return len(steps)

        await grow(0, 20)
        assert store._reader is not None
        store._reader._connection.set_progress_handler(lambda: steps.append(1), 1)
        few = await work()
        await grow(20, 300)
        assert few > 0
        assert await work() < 1.5 * few

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_figures_are_right_after_everything_that_changes_them(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        assert await counts(store) == (0, 0, 0, 0)
        await ended(store, "a", b"12", b"345")
        await store.create("b", owner="me")
        await store.append("b", epoch=1, first=1, records=[b"6"])
        assert await counts(store) == (2, 1, 3, 6)
        await store.append("a", epoch=1, first=2, records=[b"345"], close="complete")  # again
        assert await counts(store) == (2, 1, 3, 6)
        await store.delete("b")
        await store.delete("b")
        assert await counts(store) == (1, 0, 2, 5)
        await store.expire(retention=-1)
        assert await counts(store) == (0, 0, 0, 0)

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_figures_and_probes_look_at_no_ended_log(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        for number in range(30):
            await ended(store, f"s{number}", b"x")
        steps: list[int] = []

        async def work_of(act: Callable[[], Awaitable[object]]) -> int:
            await store.describe("s0")  # the reader sees the commits since it last read
            steps.clear()
            await act()
            return len(steps)

        for half in (store._reader, store._writer):
            assert half is not None
            half._connection.set_progress_handler(lambda: steps.append(1), 1)
        few = [await work_of(act) for act in (store.stats, store._try_to_write)]
        for number in range(300):
            await ended(store, f"t{number}", b"x")
        many = [await work_of(act) for act in (store.stats, store._try_to_write)]
        assert few[0] > 10
        # Instructions of SQLite: a tree may be a level deeper, but nothing is done for each log.
        assert all(most < 1.5 * least for most, least in zip(many, few, strict=True))

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_a_commit_of_another_process_costs_the_same_however_many_logs_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    async def main() -> None:
        mine, other = SQLiteStore(f"{tmp_path}/log.db"), SQLiteStore(f"{tmp_path}/log.db")
        await mine.start()
        await other.start()
        for number in range(200):
            await mine.create(f"s{number}", owner="me")
            await mine.append(f"s{number}", epoch=1, first=1, records=[b"x"])
        await other.append("s9", epoch=1, first=2, records=[b"y"])
        await mine.append("s8", epoch=1, first=2, records=[b"y"])
        await other.append("s7", epoch=1, first=2, records=[b"y"])
        real = heads.name_hash
        monkeypatch.setattr(heads, "name_hash", lambda name: hashed.append(name) or real(name))
        result = await mine.append("s8", epoch=1, first=3, records=[b"z"])
        assert result.status == "ok"
        assert len(hashed) < 5
        result = await mine.append("s7", epoch=1, first=2, records=[b"z"])
        assert (result.status, result.tail) == ("conflict", 2), "it has seen the other's record"
        await mine.close()
        await other.close()

    asyncio.run(main())


def test_logs_that_have_ended_are_not_remembered(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        for number in range(20):
            await ended(store, f"s{number}", b"x")
        writer = store._writer
        assert writer is not None
        assert not writer._heads._heads
        again = await store.append("s3", epoch=1, first=1, records=[b"x"], close="complete")
        assert again.status == "duplicate"

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_an_end_and_what_follows_it_in_one_turn_agree(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        first, again, more = await asyncio.gather(
            store.append("s", epoch=1, first=1, records=[b"a", b"b"], close="complete"),
            store.append("s", epoch=1, first=1, records=[b"a", b"b"], close="complete"),
            store.append("s", epoch=1, first=3, records=[b"c"]),
        )
        assert [first.status, again.status, more.status] == ["ok", "duplicate", "closed"]
        assert [first.tail, again.tail, more.tail] == [2, 2, 2]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_a_sweep_gives_thousands_of_pages_back(tmp_path: Path) -> None:
    path = tmp_path / "log.db"

    async def case(store: SQLiteStore) -> None:
        await ended(store, "large", *(bytes(20_000) for _ in range(800)))
        await store._maintain(lambda writer: writer.empty_wal())
        assert path.stat().st_size > 16_000_000
        await store.expire(retention=-1)
        await store._maintain(lambda writer: writer.empty_wal())
        assert path.stat().st_size < 8_000_000
        await store.expire(retention=-1)
        await store._maintain(lambda writer: writer.empty_wal())
        assert path.stat().st_size < 1_000_000

    run(SQLiteStore(str(path)), case)


SECRET = b"what nobody may read again"


@pytest.mark.parametrize("how", ["delete", "expire", "document", "swap"])
def test_what_is_erased_leaves_the_file_and_its_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(store_module, "WAL_SECONDS", 0.05)
    monkeypatch.setattr(store_module, "WAL_PAUSE", 0.05)
    path = tmp_path / "log.db"

    def on_disk() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    async def case(store: SQLiteStore) -> None:
        await store.create("other", owner="me")
        await ended(store, "s", SECRET)
        await store.set_document("kind", "name", SECRET)
        assert SECRET in on_disk()
        if how in ("document", "swap"):
            await store.delete("s")
        else:
            await store.set_document("kind", "name", None)
        reader = sqlite3.connect(path)  # another process, in the middle of a transaction
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM stream").fetchall()
        if how == "delete":
            await store.delete("s")
        elif how == "expire":
            await store.expire(retention=-1)
        elif how == "document":
            await store.set_document("kind", "name", None)
        else:
            await store.swap_document("kind", "name", SECRET, b"short")
        assert (await store.stats())["erased_in_wal_seconds"] >= 0
        assert store._wal_since is not None
        await asyncio.sleep(0.5)
        assert store._wal_since is not None, "the other process may still read it"
        reader.close()
        while store._wal_since is not None:
            await asyncio.sleep(0.02)
        assert SECRET not in on_disk()
        assert (await store.stats())["erased_in_wal_seconds"] == 0
        assert (await store.describe("other")).log == "other"

    run(SQLiteStore(str(path)), case)


class _FailingSweeper:
    """One whose own store fails after the logs were erased."""

    async def before(self, due: list[Due]) -> list[Due]:
        return due

    async def after(self, erased: list[Due]) -> None:
        raise StoreUnavailableError("not now")


def test_what_a_sweep_erased_before_it_failed_leaves_the_write_ahead_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WAL_SECONDS", 0.05)

    async def case(store: SQLiteStore) -> None:
        await ended(store, "s", SECRET)
        with pytest.raises(StoreUnavailableError):
            await store.expire(retention=-1, sweeper=_FailingSweeper())
        assert store._wal_since is not None
        while store._wal_since is not None:
            await asyncio.sleep(0.02)
        assert SECRET not in b"".join(file.read_bytes() for file in tmp_path.iterdir())

    run(SQLiteStore(str(tmp_path / "log.db")), case)


_DELETE_AND_DIE = """
import asyncio, os, sys
from tokenwire.log.sqlite.store import SQLiteStore

async def main():
    store = SQLiteStore(sys.argv[1])
    await store.start()
    await store.delete("s")
    os._exit(0)

asyncio.run(main())
"""


def test_who_starts_beside_others_empties_what_a_killed_process_had_erased(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "WAL_SECONDS", 0.05)
    monkeypatch.setattr(store_module, "WAL_PAUSE", 0.05)
    path = str(tmp_path / "log.db")

    async def case(other: SQLiteStore) -> None:
        await ended(other, "s", SECRET)
        command = [sys.executable, "-c", _DELETE_AND_DIE, path]
        await asyncio.to_thread(subprocess.run, command, check=True, timeout=60)
        assert SECRET in Path(f"{path}-wal").read_bytes()
        assert other._wal_since is None, "it has erased nothing"
        store = SQLiteStore(path)
        await store.start()
        while store._wal_since is not None:
            await asyncio.sleep(0.02)
        assert SECRET not in b"".join(file.read_bytes() for file in tmp_path.iterdir())
        await store.close()

    run(SQLiteStore(path), case)
