"""What breaks around a PostgreSQL log: kills, stops, cut connections, lost answers, a full disk, a
failover that loses a tail. Real servers."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from support.postgres import PostgresServer, own, postgres_server
from support.postgres_cases import opened, run, through
from support.redis_cases import Proxy, append_all, follow, until
from tokenwire.errors import (
    ConfigError,
    CursorError,
    GoneError,
    NotFoundError,
    StoreFullError,
    StoreUnavailableError,
)
from tokenwire.events.model import TextDelta
from tokenwire.log.base import Store
from tokenwire.relay.follow import open_follower
from tokenwire.relay.record import Chain, cursor_of, verify

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that is killed and stopped, and whose commits are written before they return."""
    with postgres_server(synchronous_commit="on") as made:
        yield made


@pytest.fixture
def url(server: PostgresServer) -> str:
    return f"{server.url}?schema=t{secrets.token_hex(4)}"


def test_kill_9_and_restart_lose_nothing(server: PostgresServer, url: str) -> None:
    records = [b"%d" % number for number in range(1, 301)]

    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=600)
        seen: list[bytes] = []
        reader = asyncio.create_task(follow(log, "s", len(records), seen))
        writer = asyncio.create_task(append_all(log, "s", records))
        for stop in (60, 190):
            await until(lambda stop=stop: len(seen) >= stop or writer.done(), seconds=60)
            await asyncio.to_thread(server.restart)
        assert await writer == 0, "what was accepted was lost"
        await reader
        assert seen == (await log.read("s")).records == records

    run(url + "&timeout=60", case)


def test_a_stopped_server_is_waited_for_and_then_named(server: PostgresServer, url: str) -> None:
    async def main() -> None:
        async with opened(url) as patient, opened(url + "&timeout=2") as log:
            await patient.create("s", owner="me", lease=60)
            server.signal_all(signal.SIGSTOP)
            try:
                with pytest.raises(StoreUnavailableError):
                    await log.append("s", epoch=1, first=1, records=[b"1"])
                waiting = asyncio.create_task(patient.append("s", epoch=1, first=1, records=[b"1"]))
                await asyncio.sleep(0.1)
            finally:
                server.signal_all(signal.SIGCONT)
            done = await waiting
            assert (done.status in ("ok", "duplicate"), done.tail) == (True, 1)
            assert (await patient.read("s")).records == [b"1"]

    asyncio.run(main())


def test_terminated_backends_are_replaced(server: PostgresServer, url: str) -> None:
    """On uvloop, as in the server: every connection of the two is ended, again and again."""
    records = [b"%d" % number for number in range(1, 201)]
    kill = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'tokenwire'"
    )

    async def main() -> None:
        async with opened(url) as writer, opened(url) as reader:
            await writer.create("s", owner="me", lease=60)
            seen: list[bytes] = []
            reading = asyncio.create_task(follow(reader, "s", len(records), seen))
            for start in range(0, 200, 50):
                await append_all(writer, "s", records[: start + 50], first=start + 1)
                await asyncio.to_thread(server.sql, kill)
            await asyncio.wait_for(reading, 60)
            assert seen == (await reader.read("s")).records == records

    uvloop.run(main())


def test_a_lost_answer_is_settled_by_sending_again(server: PostgresServer, url: str) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy, opened(through(proxy.port, url)) as log:
            await log.create("s", owner="me", lease=0)
            for number in range(1, 11):
                proxy.swallow = 1
                record = b"%d" % number
                done = await log.append("s", epoch=1, first=number, records=[record])
                assert (done.status, done.tail) == ("ok", number)
            for number in range(1, 6):
                proxy.swallow = 1
                await log.command("s", b"%d" % number)
            assert await log.commands("s") == [(n, b"%d" % n) for n in range(1, 6)]
            for epoch in range(2, 7):
                proxy.swallow = 1
                claim = await log.claim("s", owner="me", lease=0)
                assert claim is not None
                assert claim.epoch == epoch
            for number in range(5):
                proxy.swallow = 1
                name = f"t{number}"
                assert (await log.create(name, owner="me", key=name, key_hash="h")).log == name
                assert (await log.create(f"u{number}", owner="me")).log == f"u{number}"
            proxy.swallow = 1
            done = await log.append("s", epoch=6, first=11, records=[], close="end")
            assert (done.status, done.tail) == ("ok", 10)
            page = await log.read("s")
            assert page.records == [b"%d" % number for number in range(1, 11)]
            assert page.closed == "end"

    asyncio.run(main())


def test_cancelled_calls_never_mix_up_answers(server: PostgresServer, url: str) -> None:
    async def case(log: Store) -> None:
        for number in range(20):
            name = f"s{number}"
            await log.create(name, owner="me", meta=name.encode(), lease=60)
            await log.append(name, epoch=1, first=1, records=[name.encode()])
        chance = random.Random(3)

        async def ask(name: str) -> None:
            if chance.random() < 0.5:
                assert (await log.read(name)).records == [name.encode()]
            else:
                assert (await log.describe(name)).meta == name.encode()

        for _ in range(25):
            tasks = [asyncio.create_task(ask(f"s{chance.randrange(20)}")) for _ in range(20)]
            for task in tasks:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result

    run(url, case)


def test_a_deleted_log_is_not_brought_back_by_its_writer(url: str) -> None:
    async def main() -> None:
        async with opened(url) as writer, opened(url) as other:
            for name in ("s", "quiet"):
                await writer.create(name, owner="me", thread="t", lease=60)
                await other.delete(name)
            with pytest.raises(NotFoundError):
                await writer.append("s", epoch=1, first=1, records=[b"1"])
            assert await writer.renew({"quiet": 1}, owner="me") == {"quiet"}
            assert await other.thread("t") == []
            # Nor by the owner of a log whose name somebody else has by now.
            await writer.create("again", owner="me", lease=60)
            await other.delete("again")
            await other.create("again", owner="you", lease=60)
            done = await writer.append("again", epoch=1, first=1, records=[b"1"])
            assert done.status == "fenced"
            assert (await other.read("again")).records == []
            await writer.create("old", owner="me", lease=60)
            await other.append("old", epoch=1, first=1, records=[], close="end")
            await other.expire(retention=-1)
            with pytest.raises(GoneError):
                await writer.append("old", epoch=1, first=1, records=[b"1"])

    asyncio.run(main())


@pytest.fixture
def small_disk(server: PostgresServer, tmp_path: Path) -> Iterator[Path]:
    folder = Path(server.folder) / "small"
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs is not allowed here")
    own(str(folder))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk_is_named_and_recovers(
    server: PostgresServer, url: str, small_disk: Path
) -> None:
    async def case(log: Store) -> None:
        schema = url.rpartition("=")[2]
        await log.create("s", owner="me", lease=60)
        server.sql(f"CREATE TABLESPACE small LOCATION '{small_disk}'")
        server.sql(f"ALTER TABLE {schema}.record SET TABLESPACE small")
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * 2_000_000)
        kept: list[bytes] = []
        with pytest.raises(StoreFullError):
            for number in range(1, 2000):
                record = os.urandom(1500)
                done = await log.append("s", epoch=1, first=number, records=[record])
                assert done.status == "ok"
                kept.append(record)
        assert kept
        seen: list[bytes] = []
        while len(seen) < len(kept):
            seen += (await log.read("s", after=len(seen), fresh=True)).records
        assert seen == kept
        filler.unlink()
        done = await log.append("s", epoch=1, first=len(kept) + 1, records=[b"more"])
        assert (done.status, done.tail) == ("ok", len(kept) + 1)
        server.sql(f"DROP SCHEMA {schema} CASCADE")
        server.sql("DROP TABLESPACE small")

    run(url, case)


def test_a_failover_that_loses_what_was_accepted_is_noticed(server: PostgresServer) -> None:
    """A standby that was behind is promoted: a tail, a log, a claim and a lease are lost. Who lives
    puts them back; a reader of a branch that nobody puts back hears of it, never a splice."""
    url = f"{server.url}?schema=t{secrets.token_hex(4)}"
    standby = server.standby()
    records = [b"%d" % number for number in range(1, 10)]
    old = Chain("read")
    shown = [old.seal(TextDelta(part=0, text=f"old {number}")) for number in range(8)]

    async def main() -> None:
        async with (
            Proxy(server.port) as proxy,
            opened(through(proxy.port, url)) as log,
            opened(through(proxy.port, url)) as reader,
        ):
            for name in ("tail", "claimed"):
                await log.create(name, owner="me", lease=0)
                await log.append(name, epoch=1, first=1, records=records[:5])
            async with opened(url) as writer:
                await writer.create("read", owner="they", lease=0)
                await append_all(writer, "read", shown[:5])
                await until(lambda: asyncio.to_thread(server.caught_up, standby), seconds=60)
                standby.sql("ALTER SYSTEM SET primary_conninfo = ''")
                standby.sql("SELECT pg_reload_conf()")
                ask = "SELECT count(*) FROM pg_stat_wal_receiver"
                await until(lambda: standby.sql(ask) == "0", seconds=60)
                # From here on, all is lost.
                await append_all(writer, "read", shown, first=6)
            for name in ("late", "quiet"):
                await log.create(name, owner="me", meta=b"m", thread="t", key=name, lease=60)
            await log.append("late", epoch=1, first=1, records=records[:5])
            claim = await log.claim("claimed", owner="me", lease=60)
            assert claim is not None
            logs = {"tail": (1, 5), "late": (1, 0), "claimed": (claim.epoch, 5)}
            for name, (epoch, _) in logs.items():
                done = await log.append(name, epoch=epoch, first=6, records=records[5:8])
                assert (done.status, done.tail) == ("ok", 8)
            follower = await open_follower(reader, "read", None)
            seen: list[bytes] = []
            while len(seen) < 8:
                batch = await follower.next()
                assert batch is not None
                seen += batch.records
            assert seen == shown

            standby.sql("SELECT pg_promote()")
            proxy.target = standby.port
            proxy.cut()
            # Numbers of lost logs are given out again: nothing of one may get into another.
            async with opened(through(standby.port, url)) as other:
                await other.create("stranger", owner="you", lease=60)
                await other.create("another", owner="you", lease=60)
            for name, (epoch, kept) in logs.items():
                done = await log.append(name, epoch=epoch, first=9, records=records[8:])
                assert (done.status, done.tail) == ("gap", kept), name
                done = await log.append(name, epoch=epoch, first=kept + 1, records=records[kept:])
                assert (done.status, done.tail) == ("ok", 9)
                assert (await log.read(name, fresh=True)).records == records
                info = await log.describe(name)
                assert (info.epoch, info.owner) == (epoch, "me")
            assert await log.renew({"quiet": 1}, owner="me") == set()
            assert (await log.describe("quiet")).meta == b"m"
            assert await log.thread("t") == ["quiet", "late"]
            assert await log.named("quiet") == "quiet"
            async with opened(through(standby.port, url)) as other:
                assert (await other.read("stranger")).records == []
                assert (await other.read("another")).records == []
                claim = await other.claim("read", owner="other", lease=60)
                assert claim is not None
                assert (claim.epoch, claim.tail) == (2, 5)
                new = verify("read", shown[:5])
                branch = [new.seal(TextDelta(part=0, text=f"new {number}")) for number in range(5)]
                done = await other.append("read", epoch=2, first=6, records=branch)
                assert done.status == "ok"
                with pytest.raises(CursorError):
                    while not (await follower.next()).records:  # type: ignore[union-attr]
                        pass
            follower.close()
            with pytest.raises(CursorError):
                await open_follower(reader, "read", cursor_of(8, shown[7]))

    try:
        asyncio.run(main())
    finally:
        standby.stop()


def test_a_server_that_became_a_standby_is_left(server: PostgresServer) -> None:
    """Of several hosts in the URL, the one that takes writes; a standby alone is refused by name,
    at the start, and by an error later."""
    standby = server.standby()
    schema = f"t{secrets.token_hex(4)}"
    both = f"postgresql://tokenwire@127.0.0.1:{standby.port},127.0.0.1:{server.port}/postgres"

    async def main() -> None:
        with pytest.raises(ConfigError, match="standby"):
            async with opened(standby.url + f"?schema={schema}"):
                pass
        async with opened(f"{both}?schema={schema}&timeout=60") as log:
            await log.create("s", owner="me", lease=600)
            await log.append("s", epoch=1, first=1, records=[b"1"])
            await until(lambda: asyncio.to_thread(server.caught_up, standby), seconds=60)
            standby.sql("SELECT pg_promote()")
            # What was the primary is a standby of nobody now: it reads, and takes no write.
            await asyncio.to_thread(server.kill)
            signal_file = Path(server.data) / "standby.signal"
            signal_file.touch()
            await asyncio.to_thread(server.start)
            done = await log.append("s", epoch=1, first=2, records=[b"2"])
            assert (done.status, done.tail) == ("ok", 2)
            assert standby.sql(f"SELECT tail FROM {schema}.head") == "2"
            await asyncio.to_thread(server.kill)
            signal_file.unlink()
            await asyncio.to_thread(server.start)

    try:
        asyncio.run(main())
    finally:
        standby.stop()


def test_nobody_there_is_named() -> None:
    async def main() -> None:
        with pytest.raises(StoreUnavailableError):
            async with opened("postgresql://tokenwire@127.0.0.1:1/postgres?timeout=0.5"):
                pass

    asyncio.run(main())
