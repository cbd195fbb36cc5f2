"""Sentinel: the primary is found through it, and found again after a failover that it decides."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.redis import RedisServer, redis_server
from support.redis_cases import append_all, follow, opened, until, wait_for_replica
from tokenwire.errors import ConfigError, StoreUnavailableError
from tokenwire.log.open import open_store

pytestmark = pytest.mark.redis


class Watched:
    """A primary, its replica, and a Sentinel that watches them under the name ``tokens``."""

    def __init__(self, primary: RedisServer, replica: RedisServer, sentinel: RedisServer) -> None:
        self.primary, self.replica, self.sentinel = primary, replica, sentinel
        # Nobody answers at the first address: the next Sentinel is asked.
        self.url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{sentinel.port}/tokens"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with redis_server() as primary, redis_server() as replica:
        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        asyncio.run(wait_for_replica(replica, primary))
        settings = tmp_path / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor tokens 127.0.0.1 {primary.port} 1\n"
            "sentinel down-after-milliseconds tokens 500\n"
            "sentinel failover-timeout tokens 3000\n"
        )
        sentinel = RedisServer(folder=str(tmp_path))
        sentinel.start_sentinel(str(settings))
        try:
            name = str(replica.port).encode()
            asyncio.run(
                until(lambda: name in sentinel.ask("SENTINEL", "REPLICAS", "tokens"), seconds=60)
            )
            yield Watched(primary, replica, sentinel)
        finally:
            sentinel.stop()


def test_a_failover_under_a_live_run(watched: Watched) -> None:
    primary, replica = watched.primary, watched.replica
    records = [b"%d" % number for number in range(1, 41)]

    async def main() -> None:
        url = watched.url + "?timeout=60"
        async with opened(url) as writer, opened(url) as reader:
            await writer.create("s", owner="me", lease=600)
            seen: list[bytes] = []
            reading = asyncio.create_task(follow(reader, "s", 40, seen))
            await append_all(writer, "s", records[:20])
            await until(lambda: replica.answer("LLEN", "tw:{s}:log") == 20)
            await asyncio.to_thread(primary.kill)
            assert await append_all(writer, "s", records[:39], first=21) == 0
            assert b"role:master" in replica.ask("INFO", "replication")
            await until(lambda: replica.answer("PUBSUB", "SHARDCHANNELS") == [b"tw:{s}:live"])
            await append_all(writer, "s", records, first=40)
            await reading
            assert seen == records

    asyncio.run(main())


def test_a_primary_that_was_stood_down_is_left(watched: Watched) -> None:
    """Nobody dies: the old primary answers READONLY and stays there, as the replica of the new."""

    async def main() -> None:
        async with opened(watched.url + "?timeout=60") as log:
            await log.create("s", owner="me", lease=600)
            await append_all(log, "s", [b"1"])
            await until(lambda: watched.replica.answer("LLEN", "tw:{s}:log") == 1)
            sentinel, port = watched.sentinel, str(watched.replica.port)
            await until(lambda: sentinel.answer("SENTINEL", "FAILOVER", "tokens") == b"OK")
            found = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "tokens")
            await until(lambda: sentinel.answer(*found) == [b"127.0.0.1", port.encode()])
            watched.primary.ask("REPLICAOF", "127.0.0.1", port)  # Sentinel does it 10 s later
            done = await log.append("s", epoch=1, first=2, records=[b"2"])
            assert (done.status, done.tail) == ("ok", 2)
            assert watched.replica.answer("LRANGE", "tw:{s}:log", "0", "-1") == [b"1", b"2"]

    asyncio.run(main())


def test_an_unknown_service_is_a_setting(watched: Watched) -> None:
    url = f"redis+sentinel://127.0.0.1:{watched.sentinel.port}/other?timeout=2"
    with pytest.raises(ConfigError, match="'other'"):
        asyncio.run(open_store(url).start())


def test_no_sentinel_is_a_store_that_does_not_answer() -> None:
    with pytest.raises(StoreUnavailableError):
        asyncio.run(open_store("redis+sentinel://127.0.0.1:1/tokens?timeout=0.5").start())
