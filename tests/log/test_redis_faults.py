"""What breaks around a Redis log: kills, stops, failovers, lost answers, full memory, expiry."""

from __future__ import annotations

import asyncio
import random
import signal

import pytest
import uvloop

from support.redis import RedisServer, redis_server
from support.redis_cases import Proxy, append_all, follow, opened, run, until, wait_for_replica
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
from tokenwire.log.open import open_store
from tokenwire.log.redis.upkeep import losses
from tokenwire.relay.follow import open_follower
from tokenwire.relay.record import Chain, cursor_of, verify

pytestmark = pytest.mark.redis


@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_kill_9_and_restart_with_an_append_only_file(server: RedisServer, fsync: str) -> None:
    """With ``everysec`` and a disk that is slow to flush, Redis holds its writes back for up to
    two seconds; a kill then takes accepted records, and the writer that lives sends them again."""

    async def case(log: Store) -> None:
        server.ask("CONFIG", "SET", "appendfsync", "always")
        await log.create("s", owner="me", lease=600)  # the log itself is on the disk
        server.ask("CONFIG", "SET", "appendfsync", fsync)
        server.options += ("--appendfsync", fsync)
        records = [b"%d" % number for number in range(1, 401)]
        seen: list[bytes] = []
        reader = asyncio.create_task(follow(log, "s", len(records), seen))
        writer = asyncio.create_task(append_all(log, "s", records))
        for stop in (60, 150, 290):
            await until(lambda stop=stop: len(seen) >= stop or writer.done())
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        gaps = await writer
        if fsync == "always":
            assert gaps == 0
        await reader
        assert seen == (await log.read("s")).records == records

    run(server.url + "?timeout=60", case)


def test_a_stopped_server_is_waited_for_and_then_named(server: RedisServer) -> None:
    async def case(patient: Store) -> None:
        await patient.create("s", owner="me", lease=60)
        async with opened(server.url + "?timeout=2") as log:
            server.signal(signal.SIGSTOP)
            try:
                with pytest.raises(StoreUnavailableError):
                    await log.append("s", epoch=1, first=1, records=[b"1"])
                waiting = asyncio.create_task(patient.append("s", epoch=1, first=1, records=[b"1"]))
                await asyncio.sleep(0.1)
            finally:
                server.signal(signal.SIGCONT)
            done = await waiting
            assert (done.status in ("ok", "duplicate"), done.tail) == (True, 1)
            assert (await log.read("s")).records == [b"1"]

    run(server.url + "?timeout=60", case)


@pytest.mark.parametrize("lost", ["tail", "stream", "claim"])
def test_a_failover_that_loses_what_was_accepted_is_noticed(lost: str) -> None:
    with redis_server() as primary, redis_server() as replica:

        async def main() -> None:
            replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
            await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
            async with Proxy(primary.port) as proxy, opened(proxy.url) as log:
                await log.create("early", owner="me", lease=0)
                records = [b"%d" % number for number in range(1, 10)]
                await log.append("early", epoch=1, first=1, records=records[:5])
                size = primary.ask("STRLEN", "x")
                assert size
                await until(lambda: b":5" in replica.ask("LLEN", "tw:{early}:log"))
                replica.ask("REPLICAOF", "NO", "ONE")
                stream, epoch, kept = "early", 1, 5
                if lost == "stream":
                    stream, kept = "late", 0
                    await log.create("late", owner="me", meta=b"m", lease=60)
                    await log.append("late", epoch=1, first=1, records=records[:5])
                if lost == "claim":
                    claim = await log.claim("early", owner="me", lease=60)
                    assert claim is not None
                    epoch = claim.epoch
                done = await log.append(stream, epoch=epoch, first=6, records=records[5:8])
                assert (done.status, done.tail) == ("ok", 8)
                proxy.target = replica.port
                proxy.cut()
                done = await log.append(stream, epoch=epoch, first=9, records=records[8:])
                assert (done.status, done.tail) == ("gap", kept)
                first = done.tail + 1
                done = await log.append(
                    stream, epoch=epoch, first=first, records=records[done.tail :]
                )
                assert (done.status, done.tail) == ("ok", 9)
                assert (await log.read(stream)).records == records
                info = await log.describe(stream)
                assert (info.epoch, info.owner) == (epoch, "me")

        asyncio.run(main())


@pytest.mark.parametrize("more", [1, 5])
def test_a_reader_of_a_lost_tail_is_told_when_its_writer_is_gone(
    more: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the new owner's branch is still shorter than what the reader has or already longer:
    never a record of it behind one of the old."""
    monkeypatch.setattr(losses, "TIMEOUTS", 0)  # the time in which its writer could put it back
    with redis_server() as primary, redis_server() as replica:

        async def main() -> None:
            replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
            await wait_for_replica(replica, primary)
            async with Proxy(primary.port) as proxy, opened(proxy.url) as reader:
                old = Chain("s")
                records = [old.seal(TextDelta(part=0, text=f"old {n}")) for n in range(8)]
                async with opened(proxy.url) as writer:
                    await writer.create("s", owner="me", lease=0)
                    await append_all(writer, "s", records[:5])
                    await until(lambda: replica.answer("LLEN", "tw:{s}:log") == 5)
                    replica.ask("REPLICAOF", "NO", "ONE")
                    await append_all(writer, "s", records, first=6)
                follower = await open_follower(reader, "s", None)
                seen: list[bytes] = []
                while len(seen) < 8:
                    batch = await follower.next()
                    assert batch is not None
                    seen += batch.records
                assert seen == records
                proxy.target = replica.port
                proxy.cut()
                async with opened(replica.url) as other:
                    claim = await other.claim("s", owner="other", lease=60)
                    assert claim is not None
                    assert (claim.epoch, claim.tail) == (2, 5)
                    new = verify("s", records[:5])
                    branch = [new.seal(TextDelta(part=0, text=f"new {n}")) for n in range(more)]
                    done = await other.append("s", epoch=2, first=6, records=branch)
                    assert done.status == "ok"
                    with pytest.raises(CursorError):
                        while not (await follower.next()).records:  # type: ignore[union-attr]
                            pass
                follower.close()
                with pytest.raises(CursorError):
                    await open_follower(reader, "s", cursor_of(8, records[7]))
                assert (await reader.read("s")).records == [*records[:5], *branch]

        asyncio.run(main())


def test_a_deleted_stream_is_not_brought_back_by_its_writer(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as writer, opened(server.url) as other:
            await writer.create("s", owner="me", lease=60)
            await writer.append("s", epoch=1, first=1, records=[b"secret"])
            await other.delete("s")
            with pytest.raises(NotFoundError):
                await writer.append("s", epoch=1, first=2, records=[b"more"])
            with pytest.raises(NotFoundError):
                await other.read("s")

    asyncio.run(main())


def test_an_equal_epoch_of_another_owner_is_fenced(server: RedisServer) -> None:
    """After a failover two processes can hold claims with the same number; one must lose."""

    async def main() -> None:
        async with opened(server.url) as one, opened(server.url) as two:
            await one.create("s", owner="nobody", lease=0)
            first = await one.claim("s", owner="one", lease=0)
            assert first is not None
            server.ask("HSET", "tw:{s}:meta", "epoch", "1")  # what a failover would lose
            second = await two.claim("s", owner="two", lease=60)
            assert second is not None
            assert first.epoch == second.epoch == 2
            assert (await two.append("s", epoch=2, first=1, records=[b"2"])).status == "ok"
            assert (await one.append("s", epoch=2, first=2, records=[b"1"])).status == "fenced"

    asyncio.run(main())


def test_a_lost_answer_is_settled_by_sending_again(server: RedisServer) -> None:
    async def main() -> None:
        async with Proxy(server.port) as proxy, opened(proxy.url) as log:
            await log.create("s", owner="me", lease=0)
            for number in range(1, 11):
                proxy.swallow = 1
                record = b"%d" % number
                done = await log.append("s", epoch=1, first=number, records=[record])
                assert (done.status, done.tail) == ("ok", number)
            proxy.swallow = 1
            await log.command("s", b"stop")
            assert await log.commands("s") == [(1, b"stop")]
            proxy.swallow = 1
            claim = await log.claim("s", owner="me", lease=60)
            assert claim is not None
            assert claim.epoch == 2
            proxy.swallow = 1
            assert (await log.create("t", owner="me", key="k", key_hash="h")).log == "t"
            proxy.swallow = 1
            done = await log.append("s", epoch=2, first=11, records=[], close="end")
            assert done.status in ("ok", "duplicate")
            page = await log.read("s")
            assert page.records == [b"%d" % number for number in range(1, 11)]
            assert page.closed == "end"
            assert proxy.swallow == 0

    asyncio.run(main())


def test_full_memory_is_named_and_recovers(server: RedisServer) -> None:
    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=60)
        await log.append("s", epoch=1, first=1, records=[b"1"])
        server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFullError):
            await log.append("s", epoch=1, first=2, records=[b"2"])
        assert (await log.read("s")).records == [b"1"]
        server.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await log.append("s", epoch=1, first=2, records=[b"2"])).status == "ok"

    run(server.url, case)


def test_streams_expire_and_are_gone_then(server: RedisServer) -> None:
    async def case(log: Store) -> None:
        await log.create("ended", owner="me", lease=0)
        await log.append("ended", epoch=1, first=1, records=[b"1"], close="complete")

        async def gone() -> bool:
            try:
                await log.read("ended")
            except GoneError:
                return True
            return False

        await until(gone)

    run(server.url + "?ttl=1", case)


def test_every_key_has_a_time_to_live(server: RedisServer) -> None:
    async def case(log: Store) -> None:
        await log.create("s", owner="me", thread="t", key="k", key_hash="h", lease=60)
        await log.append("s", epoch=1, first=1, records=[b"1"])
        await log.command("s", b"stop")
        names = ["tw:{s}:meta", "tw:{s}:log", "tw:{s}:commands"]
        names += ["tw:{thread:t}:streams", "tw:{key:k}:stream"]
        for name in names:
            assert int(server.ask("PTTL", name)[1:]) > 0, name

    run(server.url, case)


def test_cancelled_calls_never_mix_up_answers(server: RedisServer) -> None:
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

        for _ in range(40):
            tasks = [asyncio.create_task(ask(f"s{chance.randrange(20)}")) for _ in range(25)]
            for task in tasks:
                for _ in range(chance.randrange(3)):
                    await asyncio.sleep(0)
                if chance.random() < 0.5:
                    task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                assert result is None or isinstance(result, asyncio.CancelledError), result

    run(server.url, case)


def test_followers_survive_the_loss_of_their_connection(server: RedisServer) -> None:
    async def main() -> None:
        async with opened(server.url) as writer, opened(server.url) as reader:
            await writer.create("s", owner="me", lease=60)
            woken = asyncio.Event()
            reader.subscribe("s", woken.set)
            seen: list[bytes] = []
            for number in range(1, 31):
                if number % 10 == 0:
                    server.ask("CLIENT", "KILL", "TYPE", "pubsub")
                await writer.append("s", epoch=1, first=number, records=[b"%d" % number])
                while len(seen) < number:
                    page = await reader.read("s", after=len(seen))
                    seen += page.records
                    if not page.records:
                        await asyncio.wait_for(woken.wait(), 60)
                        woken.clear()
            assert seen == [b"%d" % number for number in range(1, 31)]

    asyncio.run(main())


def test_the_loop_that_the_server_runs_on(server: RedisServer) -> None:
    """uvloop's transports are of no asyncio class, and close in an order of their own."""
    records = [b"%d" % number for number in range(1, 201)]

    async def main() -> None:
        async with opened(server.url) as writer, opened(server.url) as reader:
            await writer.create("s", owner="me", lease=60)
            seen: list[bytes] = []
            reading = asyncio.create_task(follow(reader, "s", 200, seen))
            await append_all(writer, "s", records[:100])
            for kind in ("normal", "pubsub"):
                server.ask("CLIENT", "KILL", "TYPE", kind)
            await append_all(writer, "s", records, first=101)
            await asyncio.to_thread(server.restart)
            await reading
            assert seen == (await reader.read("s")).records == records

    uvloop.run(main())


def test_readers_that_come_and_go_keep_one_connection(server: RedisServer) -> None:
    def connection() -> list[bytes]:
        found = server.ask("CLIENT", "LIST", "TYPE", "pubsub")
        return [word for word in found.split() if word.startswith(b"id=")]

    async def main() -> None:
        async with opened(server.url) as writer, opened(server.url) as reader:
            await writer.create("s", owner="me", lease=60)
            woken = asyncio.Event()
            end = reader.subscribe("s", woken.set)
            await asyncio.wait_for(woken.wait(), 60)
            first = connection()
            assert len(first) == 1
            for number in range(1, 61):
                end()
                for _ in range(number % 4):
                    await asyncio.sleep(0)
                woken.clear()
                end = reader.subscribe("s", woken.set)
                page = await reader.read("s", after=number - 1)
                assert page.records == []
                await writer.append("s", epoch=1, first=number, records=[b"%d" % number])
                while not (await reader.read("s", after=number - 1)).records:
                    await asyncio.wait_for(woken.wait(), 60)
                    woken.clear()
            assert connection() == first

    asyncio.run(main())


def test_nobody_there_is_named() -> None:
    with pytest.raises(StoreUnavailableError):
        asyncio.run(open_store("redis://127.0.0.1:1/0?timeout=0.5").start())


def test_a_wrong_password_is_a_setting() -> None:
    with redis_server("--requirepass", "right") as server:
        url = server.url.replace("redis://", "redis://:wrong@")
        with pytest.raises(ConfigError, match="password"):
            asyncio.run(open_store(url).start())
        run(server.url.replace("redis://", "redis://:right@"), lambda log: log.stats())


def test_an_append_that_does_not_fit_leaves_nothing_behind(server: RedisServer) -> None:
    """The owner's append is pushed first and taken back where the log does not go on there."""

    async def main() -> None:
        async with opened(server.url) as log:
            for name in ("s", "empty"):
                await log.create(name, owner="me", lease=60)
            await append_all(log, "s", [b"one", b"two"])
            life = server.answer("PTTL", "tw:{s}:log")
            refused = {
                (4, b"four"): "gap",
                (9, b"nine", b"ten"): "gap",
                (2, b"two"): "duplicate",
                (1, b"one", b"two"): "duplicate",
                (2, b"other"): "conflict",
                (1, b"one", b"other"): "conflict",
            }
            for (first, *records), status in refused.items():
                outcome = await log.append("s", epoch=1, first=first, records=records)
                assert (outcome.status, outcome.tail) == (status, 2)
            outcome = await log.append("empty", epoch=1, first=2, records=[b"two"])
            assert (outcome.status, outcome.tail) == ("gap", 0)
            assert server.answer("EXISTS", "tw:{empty}:log") == 0
            assert server.answer("LRANGE", "tw:{s}:log", "0", "-1") == [b"one", b"two"]
            assert (await log.describe("s")).bytes == len(b"onetwo")
            assert 0 < server.answer("PTTL", "tw:{s}:log") <= life
            outcome = await log.append("s", epoch=1, first=2, records=[b"two", b"three"])
            assert (outcome.status, outcome.tail) == ("ok", 3)
            assert (await log.describe("s")).bytes == len(b"onetwothree")
            outcome = await log.append("empty", epoch=1, first=1, records=[b"one"])
            assert outcome.status == "ok"
            assert server.answer("PTTL", "tw:{empty}:log") > 0

    asyncio.run(main())
