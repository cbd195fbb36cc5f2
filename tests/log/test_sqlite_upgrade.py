"""A SQLite file of an older version: upgraded once, a copy stays, and nothing ends between."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from tokenwire.cli.doctor import run_doctor
from tokenwire.cli.tail import run_tail
from tokenwire.errors import (
    ConfigError,
    GoneError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
    TokenwireError,
)
from tokenwire.log.open import open_store
from tokenwire.log.sqlite import upgrade
from tokenwire.log.sqlite.schema import checksum
from tokenwire.log.sqlite.store import SQLiteStore

SCHEMA_3 = Path(__file__).with_name("data") / "schema_3.sql"

#: Records of the log ``open``, whose first one is in the file of the test data.
LONG = 200


def long_records() -> list[bytes]:
    return [b"first", *(b"record %d" % number for number in range(2, LONG + 1))]


def write_old(path: Path) -> None:
    """A file as the version before wrote it."""
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA_3.read_text())
    total = 5
    for number, record in enumerate(long_records()[1:], 2):
        total += len(record)
        connection.execute(
            "INSERT INTO record VALUES (2, ?, ?, ?, ?)",
            (number, total, checksum(record, 2, number), record),
        )
    connection.commit()
    connection.close()


def look(path: Path) -> tuple[int, int]:
    """The schema of a file, and how many records its old table holds."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 3:
            return 3, connection.execute("SELECT count(*) FROM record").fetchone()[0]
        return version, 0
    finally:
        connection.close()


async def check(store: SQLiteStore) -> None:
    """All that was in the old file is there, and the store goes on."""
    assert (await store.read("ended")).records == [b"one", b"", b"three"]
    assert (await store.read("ended", after=2)).closed == "complete"
    assert (await store.describe("ended")).meta == b"meta"
    assert (await store.describe("ended")).bytes == 8
    assert (await store.describe("empty")).tail == 0
    records: list[bytes] = []
    while len(records) < LONG:
        records += (await store.read("open", after=len(records), most=70)).records
    assert records == long_records()
    stats = await store.stats()
    size = 8 + sum(map(len, long_records()))
    assert (stats["streams"], stats["open"], stats["tombstones"]) == (3, 2, 1)
    assert (stats["records"], stats["bytes"]) == (3 + LONG, size)
    assert await store.thread("t") == ["open", "ended"]
    assert await store.commands("open") == [(1, b"command")]
    assert await store.document("kind", "name") == b"data"
    assert await store.named("k") == "ended"
    with pytest.raises(GoneError):
        await store.read("old")
    claim = await store.claim("open", owner="you")
    assert claim is not None
    assert (claim.epoch, claim.tail) == (2, LONG)
    assert (await store.append("open", epoch=1, first=LONG + 1, records=[b"x"])).status == "fenced"
    for number in range(LONG + 1, LONG + 71):
        done = await store.append("open", epoch=2, first=number, records=[b"new"])
        assert done.status == "ok"
    page = await store.read("open", after=LONG - 1, most=200)
    assert page.records == [long_records()[-1], *[b"new"] * 70]


def open_and(path: Path, case: Any) -> None:
    async def main() -> None:
        store = SQLiteStore(str(path))
        await store.start()
        try:
            await asyncio.wait_for(case(store), 60)
        finally:
            await store.close()

    asyncio.run(main())


def copies(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.glob("*.schema-*"))


def test_an_upgrade_keeps_a_copy_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.db"
    write_old(path)
    with caplog.at_level(logging.WARNING, "tokenwire.log"):
        open_and(path, check)
    assert "log.db was upgraded from schema 3 to 4" in caplog.text
    assert "log.db.schema-3" in caplog.text
    assert copies(path) == ["log.db.schema-3"]
    copy = tmp_path / "log.db.schema-3"
    assert copy.stat().st_mode & 0o777 == 0o600
    assert look(copy) == (3, LONG + 3)
    caplog.clear()

    async def again(store: SQLiteStore) -> None:
        assert len((await store.read("open", most=1000)).records) == LONG + 70

    open_and(path, again)
    assert not caplog.text
    assert copies(path) == ["log.db.schema-3"]
    shutil.copy(copy, tmp_path / "other.db")  # the way back is a way forth as well
    open_and(tmp_path / "other.db", check)


def test_a_file_that_is_only_looked_at_is_not_upgraded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.db"
    url = f"sqlite:{path}"
    write_old(path)
    refusal = r"log\.db is of an older tokenwire \(schema 3, this one writes 4\)"
    with pytest.raises(ConfigError, match=refusal):
        asyncio.run(open_store(url, upgrade=False).start())
    with pytest.raises(ConfigError, match=refusal):
        run_tail("A" * 22, url="", store=url, after=None, as_json=True, raw=True)
    assert run_doctor(store=url, as_json=True) == 1
    assert "is of an older tokenwire" in capsys.readouterr().out
    assert (look(path), copies(path)) == ((3, LONG + 3), [])
    open_and(path, check)
    assert run_doctor(store=url, as_json=True) == 0
    assert "opens; accepted records survive" in capsys.readouterr().out


def test_a_copy_of_before_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    write_old(path)
    (tmp_path / "log.db.schema-3").write_bytes(b"mine")
    open_and(path, check)
    assert copies(path) == ["log.db.schema-3", "log.db.schema-3-2"]
    assert (tmp_path / "log.db.schema-3").read_bytes() == b"mine"
    assert look(tmp_path / "log.db.schema-3-2") == (3, LONG + 3)


def test_several_that_open_it_at_once_upgrade_it_once(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    write_old(path)

    async def main() -> None:
        stores = [SQLiteStore(str(path)) for _ in range(4)]
        await asyncio.gather(*(store.start() for store in stores))
        for store in stores:
            assert (await store.read("ended")).records == [b"one", b"", b"three"]
        await check(stores[2])
        for store in stores:
            assert (await store.describe("open")).tail == LONG + 70
            await store.close()

    asyncio.run(main())
    assert copies(path) == ["log.db.schema-3"]


def test_a_kill_at_any_statement_leaves_one_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are copied at each statement: what a process leaves that is killed there."""
    home = tmp_path / "home"
    home.mkdir()
    path = home / "log.db"
    write_old(path)
    moments: list[Path] = []
    chance, seen = random.Random(3), set()

    def copy(statement: str) -> None:
        kind = " ".join(statement.split()[:3])
        if kind in seen and chance.random() > 0.05:
            return
        seen.add(kind)
        moments.append(tmp_path / f"at-{len(moments)}")
        shutil.copytree(home, moments[-1], ignore=shutil.ignore_patterns("*-shm", "*-lock"))

    real = upgrade._to_present

    def watched(connection: sqlite3.Connection, *arguments: str) -> None:
        connection.set_trace_callback(copy)
        real(connection, *arguments)
        connection.set_trace_callback(None)
        copy("after the end")

    monkeypatch.setattr(upgrade, "_to_present", watched)
    open_and(path, check)
    monkeypatch.setattr(upgrade, "_to_present", real)
    assert {"BEGIN IMMEDIATE", "INSERT INTO page", "DROP TABLE record", "COMMIT"} <= seen
    states = []
    for folder in moments:
        shutil.copytree(folder, folder / "looked-at")
        states.append(look(folder / "looked-at" / "log.db"))
        open_and(folder / "log.db", check)
        assert copies(folder / "log.db")
    assert set(states) == {(3, LONG + 3), (4, 0)}
    assert states[-1] == (4, 0)


@pytest.mark.parametrize("where", ["copy", "name", "pages"])
def test_an_upgrade_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "log.db"
    write_old(path)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: Any) -> Any:
        raise full if where != "pages" else sqlite3.OperationalError("the disk failed")

    with monkeypatch.context() as patch:
        name = {"copy": "_copy", "name": "_place", "pages": "insert"}[where]
        patch.setattr(upgrade, name, fail)
        expected: type[TokenwireError] = StoreFullError
        if where == "pages":
            expected = StoreUnavailableError
        with pytest.raises(expected):
            open_and(path, check)
    assert look(path) == (3, LONG + 3)
    assert copies(path) == []
    open_and(path, check)


def test_an_older_process_that_has_the_file_open_is_refused(tmp_path: Path) -> None:
    """With each transaction it looked for commits of others first."""
    path = tmp_path / "log.db"
    write_old(path)
    old = sqlite3.connect(path, isolation_level=None)
    old.execute("SELECT name FROM stream").fetchall()
    open_and(path, check)
    old.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        old.execute("SELECT id, writer, hashes FROM wake WHERE id > 0 ORDER BY id")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        old.execute("INSERT INTO record VALUES (2, 300, 1, 1, x'00')")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        old.execute("SELECT max(offset) FROM record")
    old.execute("ROLLBACK")
    assert old.execute("PRAGMA user_version").fetchone() == (4,), "and it refuses a newer one"
    old.close()


def test_a_process_that_has_the_file_open_is_refused_by_name(tmp_path: Path) -> None:
    """From this version on, by the number of the schema."""
    path = tmp_path / "log.db"

    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        newer = sqlite3.connect(path, isolation_level=None)
        newer.execute("PRAGMA user_version=5")
        with pytest.raises(StoreUnavailableError, match=r"upgraded by a newer tokenwire"):
            await store.append("s", epoch=1, first=1, records=[b"x"])
        with pytest.raises(StoreUnavailableError, match=r"upgraded by a newer tokenwire"):
            await store.renew({"s": 1}, owner="me")
        assert newer.execute("SELECT max(id) FROM journal").fetchone() == (1,)
        newer.execute("PRAGMA user_version=4")
        newer.close()
        assert (await store.append("s", epoch=1, first=1, records=[b"x"])).status == "ok"

    open_and(path, case)


def test_damage_of_before_is_still_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    write_old(path)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE record SET data = 'altered' WHERE sid = 2 AND offset = 100")
    connection.execute("DELETE FROM record WHERE sid = 1 AND offset = 2")
    connection.commit()
    connection.close()

    async def case(store: SQLiteStore) -> None:
        assert (await store.read("open", most=99)).records == long_records()[:99]
        with pytest.raises(StoreDamagedError, match="record 100 of log open"):
            await store.read("open", after=50)
        assert (await store.read("open", after=100)).records == long_records()[100:]
        with pytest.raises(StoreDamagedError):
            await store.read("ended")
        assert (await store.read("ended", after=2)).records == [b"three"]

    open_and(path, case)


def test_a_folder_that_takes_no_copy_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    write_old(path)
    os.mkdir(f"{path}.schema-3.part")
    with pytest.raises(StoreUnavailableError, match=r"cannot copy the store log\.db"):
        open_and(path, check)
    os.rmdir(f"{path}.schema-3.part")
    open_and(path, check)
