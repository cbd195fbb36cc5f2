"""Readers in another process than the writer: short records come with the wake-up."""

from __future__ import annotations

import asyncio

from support.redis import RedisServer
from support.redis_elsewhere import Reader, append, run
from tokenwire.log.redis.store import RedisStore


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
