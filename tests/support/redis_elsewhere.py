"""Two processes' stores of one Redis, and a reader in the one of what the other one writes."""

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
