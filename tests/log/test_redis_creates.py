"""Several processes that create the very same log, by one key, at once and slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from support.redis import need_redis, redis_server
from tokenwire.errors import ConflictError
from tokenwire.log.base import LogInfo
from tokenwire.log.open import open_store
from tokenwire.log.redis.store import RedisStore

pytestmark = pytest.mark.redis

LOG = "the-very-same-log"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_redis()
    with redis_server() as server:
        yield server.url


class Gates:
    """Holds a creator before it makes the log, and before it confirms its key."""

    def __init__(self, store: RedisStore) -> None:
        self.put, self.confirm = asyncio.Event(), asyncio.Event()
        self.is_at_put, self.is_at_confirm = asyncio.Event(), asyncio.Event()
        creations, index = store._creations, store._index
        put, take_key = creations.put, index.take_key

        async def held_put(*values: Any) -> Any:
            self.is_at_put.set()
            await self.put.wait()
            return await put(*values)

        async def held_take(key: str, value: bytes, expected: bytes) -> bytes | None:
            if value == expected:
                self.is_at_confirm.set()
                await self.confirm.wait()
            return await take_key(key, value, expected)

        creations.put, index.take_key = held_put, held_take  # type: ignore[method-assign]


async def outcome(work: asyncio.Task[LogInfo]) -> str:
    try:
        return (await work).owner
    except ConflictError:
        return "conflict"


@pytest.mark.parametrize("confirms_first", [True, False])
def test_who_comes_second_takes_nothing_from_who_made_the_log(
    url: str, confirms_first: bool
) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            stores = []
            for _ in range(2):
                store = open_store(f"{url}?prefix=c{confirms_first:d}")
                await store.start()
                stack.push_async_callback(store.close)
                assert isinstance(store, RedisStore)
                stores.append(store)
            gates = [Gates(store) for store in stores]

            def create(number: int) -> asyncio.Task[LogInfo]:
                work = stores[number].create(
                    LOG, owner=f"w{number}", meta=b"m", thread="t", key="k", key_hash="h"
                )
                return asyncio.create_task(work)

            first = create(0)
            await gates[0].is_at_put.wait()
            second = create(1)  # the first one seems dead, so its key is taken
            await gates[1].is_at_put.wait()
            gates[0].put.set()
            await gates[0].is_at_confirm.wait()
            if confirms_first:
                gates[0].confirm.set()
                assert await outcome(first) == "w0"
            gates[1].put.set()
            gates[1].confirm.set()
            assert await outcome(second) == "conflict"
            gates[0].confirm.set()
            assert await outcome(first) == "w0"
            # The log is there, under its key, and who asks again is given it.
            for store in stores:
                assert (await store.describe(LOG)).owner == "w0"
                assert await store.named("k") == LOG
                assert await store.thread("t", most=5) == [LOG]
            again = await stores[1].create("other", owner="w1", key="k", key_hash="h")
            assert again.log == LOG

    asyncio.run(asyncio.wait_for(main(), 60))


def test_many_at_once_make_one_log(url: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            stores = []
            for _ in range(4):
                store = open_store(f"{url}?prefix=many")
                await store.start()
                stack.push_async_callback(store.close)
                stores.append(store)
            for number in range(20):
                log, key = f"log-{number}-{LOG}", f"key-{number}"
                tasks = [
                    asyncio.create_task(
                        store.create(log, owner=f"w{n}", meta=b"m", key=key, key_hash="h")
                    )
                    for n, store in enumerate(stores)
                ]
                owners = {await outcome(task) for task in tasks} - {"conflict"}
                assert len(owners) == 1
                assert {(await store.describe(log)).owner for store in stores} == owners
                assert {await store.named(key) for store in stores} == {log}

    asyncio.run(asyncio.wait_for(main(), 60))
