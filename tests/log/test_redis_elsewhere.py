"""Readers in another process than the writer: short records come with the wake-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from support.redis import RedisServer, need_redis, redis_server
from tokenwire.log.open import open_store
from tokenwire.log.redis.store import RedisStore


class Reader:
    """Takes records as they come, as a reader with nothing else to do does; reads when woken."""

    def __init__(self, store: RedisStore, log: str) -> None:
        self.store, self.log = store, log
        self.records: list[bytes] = []
        self.taken: list[int] = []
        self._woken = asyncio.Event()
        self._woken.set()
        self.stop = store.subscribe(log, self._woken.set, take=self._take)

    def _take(self, offset: int, record: bytes) -> bool:
        if offset != len(self.records) + 1:
            return False
        self.records.append(record)
        self.taken.append(offset)
        return True

    async def until(self, ready: Callable[[], bool]) -> None:
        """Read whatever wakes it, until ``ready``."""
        async with asyncio.timeout(60):
            while not ready():
                try:
                    await asyncio.wait_for(self._woken.wait(), 0.05)
                except TimeoutError:
                    continue
                self._woken.clear()
                await self.catch_up()

    async def catch_up(self) -> None:
        while True:
            after = len(self.records)
            page = await self.store.read(self.log, after=after)
            if not page.records:
                return
            # While it read, some of them may have come with a wake-up.
            self.records += page.records[len(self.records) - after :]


def run(case: Callable[[RedisStore, RedisStore, RedisServer], object]) -> None:
    need_redis()

    async def main(server: RedisServer) -> None:
        writer, reader = open_store(server.url), open_store(server.url)
        assert isinstance(writer, RedisStore)
        assert isinstance(reader, RedisStore)
        await writer.start()
        await reader.start()
        try:
            await case(writer, reader, server)  # type: ignore[misc]
        finally:
            await writer.close()
            await reader.close()

    with redis_server() as server:
        asyncio.run(main(server))


async def append(store: RedisStore, first: int, *records: bytes, close: str | None = None) -> None:
    outcome = await store.append("s", epoch=1, first=first, records=list(records), close=close)
    assert outcome.status == "ok"


def reads(server: RedisServer) -> int:
    """Commands that read records, so far."""
    text = server.ask("INFO", "commandstats").decode()
    lines = [line for line in text.splitlines() if line.startswith("cmdstat_lrange:")]
    return int(lines[0].partition("calls=")[2].partition(",")[0]) if lines else 0


def test_readers_elsewhere_get_short_records_without_reading() -> None:
    async def case(writer: RedisStore, store: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w")
        await append(writer, 1, b"first")
        readers = [Reader(store, "s") for _ in range(3)]
        for reader in readers:
            await reader.until(lambda r=reader: r.records == [b"first"])
            await reader.until(lambda: "s" in writer._owned)
        # The confirmation of the subscription wakes them once more.
        await append(writer, 2, b"second \xc3\xa9 \x00")
        for reader in readers:
            await reader.until(lambda r=reader: len(r.records) == 2)
        before = reads(server)
        for offset in range(3, 9):
            await append(writer, offset, b"record %d" % offset)
            for reader in readers:
                await reader.until(lambda r=reader, n=offset: len(r.records) == n)
        assert reads(server) == before
        for reader in readers:
            assert reader.taken[-6:] == [3, 4, 5, 6, 7, 8]
            assert reader.records[1] == b"second \xc3\xa9 \x00"

    run(case)


def test_what_does_not_come_with_the_wake_up_is_read() -> None:
    async def case(writer: RedisStore, store: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w")
        reader = Reader(store, "s")
        await append(writer, 1, b"one")
        await append(writer, 2, b"two", b"three")  # several in one append
        await append(writer, 4, b"x" * 4000)  # long
        await asyncio.gather(  # of one call: the last one's message is the only one
            append(writer, 5, b"five"), append(writer, 6, b"six"), append(writer, 7, b"seven")
        )
        await append(writer, 8, b"last", close="complete")
        expected = [b"one", b"two", b"three", b"x" * 4000, b"five", b"six", b"seven", b"last"]
        await reader.until(lambda: len(reader.records) == 8)
        assert reader.records == expected
        page = await store.read("s", after=7)
        assert (page.records, page.closed) == ([b"last"], "complete")

    run(case)


def test_a_message_that_is_behind_what_is_known_makes_readers_ask_the_store() -> None:
    """A failover lost records that were told, and others take their place."""

    async def case(writer: RedisStore, store: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w")
        reader = Reader(store, "s")
        await append(writer, 1, b"one")
        await append(writer, 2, b"two")
        await reader.until(lambda: len(reader.records) == 2)
        store._touched("s", b"3 lost")
        assert reader.records[2:] == [b"lost"]
        store._touched("s", b"3 other")
        page = await store.read("s", after=1)
        assert page.records == [b"two"]  # the store's, not what was told

    run(case)


def test_messages_of_servers_of_the_release_before_are_understood() -> None:
    async def case(writer: RedisStore, store: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w")
        reader = Reader(store, "s")
        await append(writer, 1, b"one")
        await reader.until(lambda: len(reader.records) == 1)
        await append(writer, 2, b"two")
        store._touched("s", b"2")
        await reader.until(lambda: len(reader.records) == 2)
        assert reader.records == [b"one", b"two"]

    run(case)
