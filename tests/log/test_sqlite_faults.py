"""What breaks under a SQLite log, and what it says then: kills, full disks, damage, locks."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tokenwire.errors import (
    ConfigError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
)
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.log.sqlite.store import SQLiteStore

WRITER = Path(__file__).with_name("sqlite_writer_process.py")
SOURCE = Path(__file__).parents[2] / "src"


def run(log: Store, case: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        await log.start()
        try:
            await case(log)
        finally:
            await log.close()

    asyncio.run(main())


def writer_process(url: str, stream: str, count: int) -> subprocess.Popen[str]:
    environment = dict(os.environ, PYTHONPATH=str(SOURCE))
    return subprocess.Popen(
        [sys.executable, str(WRITER), url, stream, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def expected(stream: str, tail: int) -> list[bytes]:
    return [f"{stream}:{n}:".encode() + b"x" * (n % 200) for n in range(1, tail + 1)]


async def everything(log: Store, stream: str) -> list[bytes]:
    records: list[bytes] = []
    while True:
        page = await log.read(stream, after=len(records))
        records += page.records
        if len(records) == page.tail:
            return records


def test_kill_9_loses_no_accepted_record(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/log.db"
    chance = random.Random(7)
    accepted = 0
    for _ in range(5):
        process = writer_process(url, "s", 1_000_000)
        assert process.stdout is not None
        for _ in range(chance.randint(1, 120)):
            accepted = int(process.stdout.readline().split()[1])
        process.kill()
        rest = process.stdout.read().split("\n")
        accepted = max([accepted, *(int(line.split()[1]) for line in rest[:-1])])
        process.wait()
        process.stdout.close()

    async def case(log: Store) -> None:
        records = await everything(log, "s")
        assert len(records) >= accepted
        assert records == expected("s", len(records))
        assert (await log.describe("s")).epoch == 5

    run(open_store(url), case)
    with sqlite3.connect(tmp_path / "log.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_processes_on_one_file_write_at_once_and_are_followed(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/log.db"

    async def case(log: Store) -> None:
        processes = [writer_process(url, name, 150) for name in ("a", "b")]
        try:
            seen = await asyncio.gather(follow(log, "a"), follow(log, "b"))
            for process in processes:
                assert await asyncio.to_thread(process.wait, 60) == 0
        finally:
            for process in processes:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()
        for name, records in zip(("a", "b"), seen, strict=True):
            assert records == expected(name, len(records))

    async def follow(log: Store, stream: str) -> list[bytes]:
        woken = asyncio.Event()
        end = log.subscribe(stream, woken.set)
        records: list[bytes] = []
        while len(records) < 225:  # 150 appends of 1, 2, 1, 2 ... records
            try:
                page = await log.read(stream, after=len(records))
            except Exception as error:
                assert type(error).__name__ == "NotFoundError"  # not made yet
                page = None
            if page is None or not page.records:
                await asyncio.wait_for(woken.wait(), 30)
                woken.clear()
            else:
                records += page.records
        end()
        return records

    run(open_store(url), case)


def test_two_processes_never_own_a_stream_together(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/log.db"

    async def prepare(log: Store) -> None:
        await log.create("s", owner="nobody", lease=0)

    run(open_store(url), prepare)
    processes = [writer_process(url, "s", 200) for _ in range(3)]
    accepted: dict[int, int] = {}
    for process in processes:
        text, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        for line in text.splitlines():
            epoch, offset = map(int, line.split())
            assert offset not in accepted, "one offset was accepted twice"
            accepted[offset] = epoch
    epochs = [accepted[offset] for offset in sorted(accepted)]
    assert epochs == sorted(epochs)

    async def check(log: Store) -> None:
        records = await everything(log, "s")
        assert records == expected("s", len(records))
        assert len(records) >= max(accepted)

    run(open_store(url), check)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_is_named_and_recovers(small_disk: Path) -> None:
    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=60)
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * 1_000_000)
        kept = await fill(log)
        assert await everything(log, "s") == kept
        filler.unlink()
        await go_on(log, kept)

    run(open_store(f"sqlite://{small_disk}/log.db"), case)


def test_a_full_file_is_named_and_recovers(tmp_path: Path) -> None:
    async def case(log: SQLiteStore) -> None:
        await log.create("s", owner="me", lease=60)
        writer: Any = log._writer
        writer._connection.execute("PRAGMA max_page_count=60")
        kept = await fill(log)
        assert await everything(log, "s") == kept
        writer._connection.execute("PRAGMA max_page_count=100000")
        await go_on(log, kept)

    run(open_store(f"sqlite://{tmp_path}/log.db"), case)


async def fill(log: Store) -> list[bytes]:
    kept: list[bytes] = []
    for number in range(10_000):
        record = b"%06d" % number * 100
        try:
            await log.append("s", epoch=1, first=len(kept) + 1, records=[record])
        except StoreFullError:
            return kept
        kept.append(record)
    raise AssertionError("the store never became full")


async def go_on(log: Store, kept: list[bytes]) -> None:
    done = await log.append("s", epoch=1, first=len(kept) + 1, records=[b"after"], close="end")
    assert done.status == "ok"
    assert await everything(log, "s") == [*kept, b"after"]


def write_some(path: Path, count: int = 200) -> None:
    async def case(log: Store) -> None:
        await log.create("s", owner="me", meta=b"a description to find", lease=60)
        records = [b"record number %04d " % number * 4 for number in range(1, count + 1)]
        await log.append("s", epoch=1, first=1, records=records)
        await log.command("s", b"a command to find")

    run(open_store(f"sqlite://{path}"), case)


def flip(path: Path, needle: bytes) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(needle)
    data[at + 3] ^= 0x20
    path.write_bytes(bytes(data))


def test_an_altered_record_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    write_some(path)
    flip(path, b"record number 0123")

    async def case(log: Store) -> None:
        assert (await log.read("s", most=122)).tail == 200
        with pytest.raises(StoreDamagedError, match="record 123 of log s"):
            await log.read("s")
        with pytest.raises(StoreDamagedError):
            await log.read("s", after=122)
        assert len((await log.read("s", after=123)).records) == 77

    run(open_store(f"sqlite://{path}"), case)


@pytest.mark.parametrize("needle", [b"a description to find", b"a command to find"])
def test_other_altered_bytes_are_refused(tmp_path: Path, needle: bytes) -> None:
    path = tmp_path / "log.db"
    write_some(path, 2)
    flip(path, needle)

    async def case(log: Store) -> None:
        with pytest.raises(StoreDamagedError):
            await log.describe("s")
            await log.commands("s")

    run(open_store(f"sqlite://{path}"), case)


@pytest.mark.parametrize("seed", range(12))
def test_random_damage_never_gives_altered_text(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "log.db"
    write_some(path)
    chance = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 5, 200])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(bytes(data))
    good = [b"record number %04d " % number * 4 for number in range(1, 201)]

    async def main() -> None:
        log = open_store(f"sqlite://{path}")
        try:
            await log.start()
            records = await everything(log, "s")
        except Exception as error:
            # Refused by name, or (the name itself was hit) not found; never different text.
            codes = ("store_damaged", "unknown_run", "bad_config", "store_unavailable")
            assert getattr(error, "code", repr(error)) in codes
        else:
            assert records == good[: len(records)]
        finally:
            await log.close()

    asyncio.run(main())


def test_a_torn_wal_loses_its_tail_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    process = writer_process(f"sqlite://{path}", "s", 1_000_000)
    assert process.stdout is not None
    for _ in range(100):
        process.stdout.readline()
    process.kill()
    process.wait()
    process.stdout.close()
    wal = Path(f"{path}-wal")
    data = wal.read_bytes()
    wal.write_bytes(data[: len(data) * 2 // 3 + 17])

    async def case(log: Store) -> None:
        records = await everything(log, "s")
        assert len(records) > 0
        assert records == expected("s", len(records))

    run(open_store(f"sqlite://{path}"), case)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_bytes(b"these are my notes, please do not touch them " * 100)
    before = text.read_bytes()
    with pytest.raises(StoreDamagedError):
        asyncio.run(open_store(f"sqlite://{text}").start())
    assert text.read_bytes() == before
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        asyncio.run(open_store(f"sqlite://{other}").start())


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    write_some(path, 1)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(ConfigError, match="newer tokenwire"):
        asyncio.run(open_store(f"sqlite://{path}").start())


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.db"

    async def case(log: Store) -> None:
        await log.create("s", owner="me")
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
        assert set(modes) == {"log.db", "log.db-wal", "log.db-shm", "log.db-lock"}
        assert set(modes.values()) == {0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700

    run(open_store(f"sqlite://{path}"), case)


@pytest.mark.parametrize("lock", ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"])
def test_a_locked_store_is_waited_for_and_then_named(tmp_path: Path, lock: str) -> None:
    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=60)
        other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
        other.execute(lock)
        with pytest.raises(StoreUnavailableError, match="locked"):
            await log.append("s", epoch=1, first=1, records=[b"1"])
        other.execute("ROLLBACK")
        other.close()
        assert (await log.append("s", epoch=1, first=1, records=[b"1"])).status == "ok"

    run(SQLiteStore(str(tmp_path / "log.db"), busy=0.2), case)


def test_a_stopped_writer_process_holds_others_up_only_so_long(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")

    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=60)
        with open(tmp_path / "log.db-lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(StoreUnavailableError):
                await log.append("s", epoch=1, first=1, records=[b"1"])
        assert (await log.append("s", epoch=1, first=1, records=[b"1"])).status == "ok"

    run(SQLiteStore(str(tmp_path / "log.db"), busy=0.2), case)


def test_normal_mode_is_named_and_durable_appends_are_stronger(tmp_path: Path) -> None:
    async def case(log: SQLiteStore) -> None:
        assert log.durability == "process"
        assert (await log.stats())["notes"]
        await log.create("s", owner="me", lease=60)
        writer: Any = log._writer
        await log.append("s", epoch=1, first=1, records=[b"1"])
        assert writer._connection.execute("PRAGMA synchronous").fetchone()[0] == 1
        await log.append("s", epoch=1, first=2, records=[b"2"], durable=True)
        assert writer._connection.execute("PRAGMA synchronous").fetchone()[0] == 2

    run(open_store(f"sqlite://{tmp_path}/log.db?synchronous=normal"), case)


def test_after_close_calls_say_so(tmp_path: Path) -> None:
    async def main() -> None:
        log = open_store(f"sqlite://{tmp_path}/log.db")
        with pytest.raises(StoreUnavailableError):
            await log.read("s")
        await log.start()
        await log.close()
        with pytest.raises(StoreUnavailableError):
            await log.append("s", epoch=1, first=1, records=[b"1"])
        await log.close()

    asyncio.run(main())
