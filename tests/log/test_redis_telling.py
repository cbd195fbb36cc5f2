"""Owners tell readers in other processes of appends where somebody listens; a log's bytes are noted
now and then; servers of the release before work beside these."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.redis import RedisServer, need_redis, redis_server
from support.redis_before import Before
from support.redis_elsewhere import Reader, append, run
from tokenwire.log.open import open_store
from tokenwire.log.redis.appending import packing as appends
from tokenwire.log.redis.appending.packing import NOTED_BYTES
from tokenwire.log.redis.store import RedisStore

pytestmark = pytest.mark.redis


def messages(server: RedisServer) -> int:
    """Messages that were published, so far."""
    text = server.ask("INFO", "commandstats").decode()
    found = re.search(r"cmdstat_spublish:calls=(\d+)", text)
    return int(found[1]) if found else 0


async def soon(store: RedisStore, first: int, record: bytes, epoch: int = 1) -> Any:
    """Append as deltas are, and wait for the outcome: None when it is in the log."""
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    assert store.append_soon("s", epoch=epoch, first=first, records=[record], then=told.set_result)
    return await asyncio.wait_for(told, 60)


def listen(store: RedisStore, wake: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """Listen as whoever owns a run does."""
    return store.subscribe("s", wake, appends=False)


async def until(ready: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not ready():
            await asyncio.sleep(0.01)


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appends, "PUBLISH_SECONDS", 60.0)

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w")
        listen(writer)
        number = 0
        async with asyncio.timeout(60):
            while writer._owned["s"].has_readers or number < 5:  # its own subscription is due
                number += 1
                assert await soon(writer, number, b"%d" % number) is None
        before = messages(server)
        for _ in range(20):
            number += 1
            assert await soon(writer, number, b"%d" % number) is None
        assert messages(server) == before
        # A reader comes, gets what was there, and from then on each record with its message.
        reader = Reader(other, "s")
        await reader.until(lambda: len(reader.records) == number)
        await until(lambda: writer._owned["s"].has_readers)
        for _ in range(5):
            number += 1
            assert await soon(writer, number, b"%d" % number) is None
            await until(lambda n=number: len(reader.records) == n)
        assert reader.taken[-5:] == list(range(number - 4, number + 1))
        assert reader.records == [b"%d" % n for n in range(1, number + 1)]
        reader.stop()

    run(case)


def test_what_came_before_the_owner_heard_of_a_reader_is_not_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(appends, "PUBLISH_SECONDS", 60.0)

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w")
        listen(writer)
        assert await soon(writer, 1, b"1") is None
        heard: list[str] = []
        real = writer._presence.add_reader
        monkeypatch.setattr(writer._presence, "add_reader", heard.append)
        reader = Reader(other, "s")
        await until(lambda: "s" in heard)
        await reader.until(lambda: len(reader.records) == 1)
        writer._owned["s"].has_readers = False  # as if the word of it were under way
        assert await soon(writer, 2, b"2") is None
        real("s")
        await reader.until(lambda: len(reader.records) == 2)

    run(case)


def test_a_reader_that_does_not_say_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the release before."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        monkeypatch.setattr(other._presence, "begin", lambda log: None)
        await writer.create("s", owner="w", lease=60)
        listen(writer)
        number = 0
        async with asyncio.timeout(60):
            while writer._owned["s"].has_readers or number < 3:
                number += 1
                assert await soon(writer, number, b"%d" % number) is None
        monkeypatch.setattr(appends, "PUBLISH_SECONDS", 60.0)
        reader = Reader(other, "s")
        await reader.until(lambda: len(reader.records) == number)
        await asyncio.sleep(0.3)
        number += 1
        assert await soon(writer, number, b"%d" % number) is None
        assert await writer.renew({"s": 1}, owner="w", lease=60) == set()
        await reader.until(lambda: len(reader.records) == number)
        monkeypatch.setattr(appends, "PUBLISH_SECONDS", 0.0)
        number += 1
        assert await soon(writer, number, b"%d" % number) is None
        await reader.until(lambda: len(reader.records) == number)
        assert writer._owned["s"].has_readers
        reader.stop()

    run(case)


def test_the_bytes_of_a_log_are_noted_often_enough() -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w", lease=60)
        listen(writer)
        generator, size = random.Random(1), 0
        for number in range(1, 120):
            record = b"x" * generator.choice([1, 100, 100, 700, 5000])
            outcome = await soon(writer, number, record)
            assert outcome is None
            size += len(record)
            noted = int(server.answer("HGET", "tw:{s}:meta", "bytes"))
            assert size - NOTED_BYTES <= noted <= size
            assert (await writer.describe("s")).bytes == size
            page = await other.read("s", after=number - 1, most_bytes=1, fresh=True)
            assert len(page.records) == 1
        pages, after = [], 0
        while after < 119:
            page = await other.read("s", after=after, most_bytes=6000, fresh=True)
            assert len(page.records) == 1 or sum(map(len, page.records)) <= 6000
            pages.append(page)
            after += len(page.records)
        assert sum(len(r) for page in pages for r in page.records) == size
        await append(writer, 120, b"end", close="complete")
        assert int(server.answer("HGET", "tw:{s}:meta", "bytes")) == size + 3

    run(case)


def test_a_takeover_goes_on_with_what_was_noted() -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w", lease=60)
        listen(writer)
        for number in range(1, 30):
            assert await soon(writer, number, b"x" * 100) is None
        await writer.release("s", epoch=1)
        claim = await other.claim("s", owner="o", lease=60)
        assert claim is not None
        assert claim.tail == 29
        # The one before finds out at its next append, whichever form that has.
        assert (await soon(writer, 30, b"late")).status == "fenced"
        assert await soon(other, 30, b"y" * 100, epoch=2) is None
        assert (await soon(writer, 31, b"later")).status == "fenced"
        assert 100 <= (await other.describe("s")).bytes <= 3000
        page = await other.read("s", fresh=True)
        assert page.records == [*[b"x" * 100] * 29, b"y" * 100]

    run(case)


# --- the release before ---------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["take", "take back", "word", "two words"]), max_size=12))
@settings(max_examples=15, deadline=None)
def test_servers_of_the_release_before_take_runs_and_give_them_back(steps: list[str]) -> None:
    need_redis()

    async def case(store: RedisStore, before: Before) -> None:
        await store.create("s", owner="new", lease=60)
        listen(store)
        expected: list[bytes] = []
        epoch, is_new = 1, True
        for step in steps:
            first = len(expected) + 1
            if step == "take" and is_new:
                await store.release("s", epoch=epoch)
                answer = before.own("claim", "before", before.nonce, 60_000)
                epoch, is_new = epoch + 1, False
                assert answer[:3] == [b"ok", str(epoch).encode(), len(expected)] or answer[:3] == [
                    b"ok",
                    epoch,
                    len(expected),
                ]
                assert (await soon(store, first, b"late", epoch - 1)).status == "fenced"
            elif step == "take back" and not is_new:
                before.own("release", epoch, 0)
                claim = await store.claim("s", owner="new", lease=60)
                assert claim is not None
                epoch, is_new = epoch + 1, True
                assert (claim.epoch, claim.tail) == (epoch, len(expected))
                assert before.append(epoch - 1, first, b"late")[0] == b"fenced"
            elif step in ("word", "two words"):
                words = [b"%d" % n for n in range(first, first + 1 + (step == "two words"))]
                if not is_new:
                    assert before.append(epoch, first, *words) == first + len(words) - 1
                elif len(words) == 1:
                    assert await soon(store, first, words[0], epoch) is None
                else:
                    done = await store.append("s", epoch=epoch, first=first, records=words)
                    assert done.status == "ok"
                expected += words
            page = await store.read("s", fresh=True)
            assert page.records == expected
            noted = before.own("describe")
            assert noted[3] == len(expected)
            assert int(noted[7]) <= sum(map(len, expected))

    async def main(server: RedisServer) -> None:
        store = open_store(server.url)
        assert isinstance(store, RedisStore)
        await store.start()
        try:
            await case(store, Before(server))
        finally:
            await store.close()

    with redis_server() as server:
        asyncio.run(main(server))
