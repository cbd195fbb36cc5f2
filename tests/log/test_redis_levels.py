"""What a Redis store says that a record survives, held against what the live servers do."""

from __future__ import annotations

import asyncio

import pytest

from support.redis import RedisServer, redis_server
from support.redis_cases import append_all, opened, run, until, wait_for_replica
from tokenwire.errors import ConfigError, StoreUnavailableError
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.log.redis.store import RedisStore

pytestmark = pytest.mark.redis


def level(url: str) -> tuple[str, str]:
    """The level that the store at ``url`` reports, and its notes."""

    async def main() -> tuple[str, str]:
        async with opened(url) as log:
            return log.durability, " ".join((await log.stats())["notes"])

    return asyncio.run(main())


def can_confirm_files(server: RedisServer) -> bool:
    version = server.ask("INFO", "server").split(b"redis_version:")[1].split(b".")
    return (int(version[0]), int(version[1])) >= (7, 2)


def test_what_the_store_promises_is_checked_at_start(server: RedisServer) -> None:
    name, notes = level(server.url + "?durability=process")
    assert (name, "appendfsync" in notes) == ("process", True)
    server.ask("CONFIG", "SET", "appendfsync", "always")
    assert level(server.url + "?durability=disk") == ("disk", "")
    with pytest.raises(ConfigError, match="durability=replica"):
        level(server.url + "?durability=replica")
    server.ask("CONFIG", "SET", "maxmemory", "1gb")
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    with pytest.raises(ConfigError, match="noeviction"):
        level(server.url)
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "appendonly", "no")
    name, notes = level(server.url)
    assert (name, "appendonly is off" in notes) == ("memory", True)
    for stronger in ("process", "disk"):
        with pytest.raises(ConfigError, match=f"durability={stronger}.*provides 'memory'"):
            level(server.url + f"?durability={stronger}")


def test_what_cannot_be_asked_is_not_claimed(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-config")
    url = server.url.replace("redis://", "redis://app:secret@")
    name, notes = level(url)
    assert (name, "CONFIG is not allowed" in notes) == ("memory", True)
    with pytest.raises(ConfigError, match="provides 'memory'"):
        level(url + "?durability=process")


def test_a_user_who_may_not_run_scripts_is_told(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-@scripting")
    with pytest.raises(ConfigError, match="lacks a right that a store needs"):
        level(server.url.replace("redis://", "redis://app:secret@"))


def test_disk_by_confirmation(server: RedisServer) -> None:
    """``appendfsync everysec`` is a disk level where the server can say when it has flushed."""
    url = server.url + "?durability=disk"
    if not can_confirm_files(server):
        with pytest.raises(ConfigError, match=r"durability=disk.*provides 'process'.*7\.2"):
            level(url)
        return
    assert level(url) == ("disk", "")

    async def case(log: Store) -> None:
        await log.create("s", owner="me", lease=600)
        records = [b"%d" % number for number in range(1, 501)]
        appends = (
            log.append("s", epoch=1, first=number, records=[record])
            for number, record in enumerate(records, 1)
        )
        # All of them wait for the same one or two flushes.
        done = await asyncio.gather(*appends)
        assert {one.status for one in done} == {"ok"}
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert (await log.read("s")).records == records
        # Nobody flushes any more: nothing is accepted that is not on the disk.
        server.ask("CONFIG", "SET", "appendonly", "no")
        with pytest.raises(StoreUnavailableError):
            await log.append("s", epoch=1, first=501, records=[b"501"])

    run(url + "&timeout=20", case)


def test_disk_by_confirmation_wants_a_file(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "appendonly", "no")
    with pytest.raises(ConfigError, match="appendonly is off"):
        level(server.url + "?durability=disk")


def test_replicas_confirm_every_append() -> None:
    with redis_server() as primary, redis_server() as replica:
        url = primary.url + "?replicas=1&timeout=2"
        with pytest.raises(ConfigError, match="0 of 1 replicas confirmed"):
            level(url)

        async def case(log: RedisStore) -> None:
            assert log.durability == "replica"
            await log.create("s", owner="me", lease=60)
            done = await log.append("s", epoch=1, first=1, records=[b"1"])
            assert done.status == "ok"
            assert replica.answer("LLEN", "tw:{s}:log") == 1
            replica.kill()
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                await log.append("s", epoch=1, first=2, records=[b"2"])
            replica.start()
            replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
            await wait_for_replica(replica, primary)
            done = await log.append("s", epoch=1, first=2, records=[b"2"])
            assert (done.status in ("ok", "duplicate"), done.tail) == (True, 2)
            assert replica.answer("LRANGE", "tw:{s}:log", "0", "-1") == [b"1", b"2"]

        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        asyncio.run(wait_for_replica(replica, primary))
        run(url, case)
        with pytest.raises(ConfigError, match="1 of 2 replicas confirmed"):
            level(primary.url + "?replicas=2&timeout=2")


def test_reading_does_not_wait_for_confirmations() -> None:
    with redis_server() as primary, redis_server() as replica:
        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        asyncio.run(wait_for_replica(replica, primary))

        async def case(log: Store) -> None:
            await log.create("s", owner="me", lease=60)
            await append_all(log, "s", [b"1"])
            replica.kill()
            waiting = asyncio.create_task(log.append("s", epoch=1, first=2, records=[b"2"]))
            await until(lambda: primary.answer("LLEN", "tw:{s}:log") == 2)
            assert (await log.read("s", most=1)).records == [b"1"]
            assert not waiting.done()
            waiting.cancel()

        run(primary.url + "?replicas=1&timeout=3", case)


def test_disk_of_the_replicas_as_well() -> None:
    with redis_server(name="valkey") as primary, redis_server(name="valkey") as replica:
        if not can_confirm_files(primary):
            pytest.skip("this server has no WAITAOF")
        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        asyncio.run(wait_for_replica(replica, primary))

        async def case(log: RedisStore) -> None:
            assert log.durability == "replica"
            await log.create("s", owner="me", lease=60)
            done = await log.append("s", epoch=1, first=1, records=[b"1"])
            assert done.status == "ok"
            await asyncio.to_thread(replica.restart)
            assert replica.answer("LRANGE", "tw:{s}:log", "0", "-1") == [b"1"]

        run(primary.url + "?replicas=1&durability=disk&timeout=20", case)


def test_an_older_store_with_replicas_is_no_disk() -> None:
    with redis_server() as primary:
        if can_confirm_files(primary):
            pytest.skip("this server has WAITAOF")
        with pytest.raises(ConfigError, match="durability=disk"):
            asyncio.run(open_store(primary.url + "?replicas=1&durability=disk").start())
