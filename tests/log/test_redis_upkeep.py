"""What clocks, volume, lost data and missing rights do to a Redis store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from support.redis import RedisServer, redis_server
from support.redis_cases import until
from support.spine import relay, request_of, run_async, simulator
from tokenwire.errors import ConfigError, NotFoundError, StoreFullError, StoreUnavailableError
from tokenwire.events import model as m
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.log.redis.store import RedisStore
from tokenwire.log.redis.upkeep import expiry, losses
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.tools.registry import tool

pytestmark = pytest.mark.redis


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


def run(url: str, case: Callable[[RedisStore], Awaitable[None]], *, retain: float = 0) -> None:
    async def main() -> None:
        store = open_store(url)
        if retain:
            store.retain(retain)
        await store.start()
        try:
            await asyncio.wait_for(case(store), 60)  # type: ignore[arg-type]
        finally:
            await store.close()

    asyncio.run(main())


async def ended(store: Store, log: str, key: str | None = None, thread: str | None = None) -> None:
    await store.create(log, owner="me", key=key, thread=thread)
    await store.append(log, epoch=1, first=1, records=[b"x"], close="complete")


# Clocks


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_the_clock_of_a_worker_decides_nothing(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, skew: float
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)

    async def case(store: RedisStore) -> None:
        await store.create("long", owner="me", lease=60)
        await store.create("renewed", owner="me", lease=60)
        await store.create("claimed", owner="me", lease=60)
        await store.release("claimed", epoch=1)
        assert await store.orphans() == ["claimed"]
        assert await store.claim("claimed", owner="you", lease=60) is not None
        assert await store.orphans() == []
        # From here on leases run out, however long the machine takes.
        await store.create("brief", owner="me", lease=0.2)
        assert await store.renew({"renewed": 1}, owner="me", lease=0.2) == set()
        assert await store.renew({"claimed": 2}, owner="you", lease=0.2) == set()
        await asyncio.sleep(0.3)
        assert set(await store.orphans()) == {"brief", "renewed", "claimed"}
        await ended(store, "ended")
        assert await store.expire(retention=600) == 0
        assert await store.expire(retention=0) == 1

    run(server.url, case)


# Volume and retention


def test_one_sweep_erases_more_than_a_thousand(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        for _ in range(25):
            start = (await store.stats())["streams"]
            await asyncio.gather(*(ended(store, f"s{start + n}") for n in range(60)))
        assert (await store.stats())["streams"] == 1500
        assert await store.expire(retention=0) == 1500
        assert (await store.stats())["streams"] == 0

    run(server.url, case)


@pytest.mark.parametrize("retention", [3600.0, 30 * 86_400.0])
def test_what_has_ended_lives_as_long_as_the_retention(
    server: RedisServer, retention: float
) -> None:
    async def case(store: RedisStore) -> None:
        await ended(store, "s", "k")
        keys = [store._key("s", "log"), store._index._key("k")]
        for key in keys:
            seconds = int(server.ask("PTTL", key)[1:]) / 1000
            assert retention < seconds <= retention + 600, key
        assert int(server.ask("PTTL", store._key("s", "meta"))[1:]) / 1000 > retention
        again = await store.create("t", owner="me", key="k")
        assert again.log == "s"

    run(server.url, case, retain=retention)


def seconds_left(server: RedisServer, key: str) -> float:
    return int(server.ask("PTTL", key)[1:]) / 1000


def test_a_new_turn_keeps_the_whole_conversation_alive(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        await ended(store, "old", "k", thread="t")
        keys = [store._key("old", "log"), store._index._key("k"), store._index._thread("t")]
        for key in keys:
            assert seconds_left(server, key) > 3600, key
            server.ask("PEXPIRE", key, "50000")
        server.ask("DEL", store._index._mark("t"))  # as after a quarter of the retention
        await store.create("new", owner="me", thread="t")
        async with asyncio.timeout(40):
            while any(seconds_left(server, key) < 7200 for key in keys):
                await asyncio.sleep(0.01)
        assert seconds_left(server, store._key("old", "meta")) > 7200
        server.ask("PEXPIRE", keys[0], "50000")
        await ended(store, "newer", thread="t")
        await asyncio.sleep(0.1)
        assert seconds_left(server, keys[0]) < 100, "not with every turn"

    run(server.url, case, retain=3600)


def test_an_open_run_keeps_its_conversation_alive(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        await ended(store, "old", thread="t")
        await store.create("waiting", owner="me", thread="t", lease=60)
        key = store._key("old", "log")
        server.ask("PEXPIRE", key, "50000")
        assert await store.expire(retention=0) == 0
        assert seconds_left(server, key) > 3600
        # As if nobody had looked for a retention: the run is still there.
        shard = store._index._of("threads", "t")
        assert float(server.ask("ZSCORE", shard, "t").splitlines()[-1]) > time.time() - 60

    run(server.url, case, retain=3600)


def test_what_an_open_log_has_elsewhere_lives_as_long(server: RedisServer) -> None:
    """Its idempotency key, and the documents of an agent that waits for weeks."""

    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me", key="k", lease=60)
        await store.set_document("of:s", "step", b"value")
        keys = [store._index._key("k"), *store._index._documents("of:s")]
        for key in keys:
            assert seconds_left(server, key) > 86_400 + 60, "it may run for longer than a day"
            server.ask("PEXPIRE", key, "50000")
        await store.renew({"s": 1}, owner="me")
        assert all(seconds_left(server, key) < 100 for key in keys), "not with every renewal"
        store._owned["s"].refreshed -= store._index.mark_ttl / 1000
        await store.renew({"s": 1}, owner="me")
        assert all(seconds_left(server, key) > 86_400 for key in keys)
        await store.release("s", epoch=1)
        assert await store.claim("s", owner="you") is not None
        await store.append("s", epoch=2, first=1, records=[], close="complete")
        assert seconds_left(server, keys[0]) <= 3600 + 600

    run(server.url, case, retain=3600)


def test_conversations_that_an_older_version_stored_are_kept(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        index = store._index
        for number in range(3):
            await ended(store, f"s{number}", "k0" if number == 0 else None, thread="t")
        await ended(store, "u0", thread="u")
        await store.create("new", owner="me", thread="new")
        # It noted the end of each log, and nothing of conversations.
        for thread in ("t", "u", "new"):
            server.ask("DEL", index._of("threads", thread), index._mark(thread))
        for number, log in enumerate(["s0", "s1", "s2", "u0"]):
            server.ask("ZREM", index._of("kept", log), log)
            at = str(int(time.time()) - 4000 + number * 1000)
            server.ask("ZADD", index._of("ended", log), at, log)
            server.ask("HSET", store._key(log, "meta"), "closed_at", at, "created", at + "000000")
            server.ask("PEXPIRE", store._key(log, "log"), "60000")
        assert await store.expire(retention=3600) == 0
        assert await store.thread("t") == ["s2", "s1", "s0"]
        assert seconds_left(server, store._key("s0", "log")) > 3600
        await store.create("s3", owner="me", thread="t")
        async with asyncio.timeout(40):
            while seconds_left(server, store._key("s2", "log")) < 3600:
                await asyncio.sleep(0.01)
        assert await store.expire(retention=500) == 1  # u0, which nobody used since
        stats = await store.stats()
        assert (stats["streams"], stats["open"]) == (5, 2)
        await store.append("s3", epoch=1, first=1, records=[], close="complete")
        assert await store.expire(retention=0) == 4
        assert await store.named("k0") is None

    run(server.url, case, retain=3600)


def test_names_of_erased_logs_are_counted_and_bounded(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "MOST_NAMES", 16)

    async def case(store: RedisStore) -> None:
        for number in range(60):
            await ended(store, f"s{number}")
        await store.create("deleted", owner="me")
        await store.delete("deleted")
        assert (await store.stats())["tombstones"] == 1
        assert await store.expire(retention=0) == 60
        left = (await store.stats())["tombstones"]
        assert 0 < left <= 16
        metas = server.ask("EVAL", "return #redis.call('KEYS', '*:meta')", "0")
        assert int(metas[1:]) == left

    run(server.url, case)


# Lost data


async def waiting_run(runs: Any) -> tuple[str, str]:
    """A run that waits for a person, and a cursor of its last event."""
    info = await runs.start(request_of("scenario:approval"), model="m0")
    follower = await runs.follow(info.id)
    while True:
        batch = await follower.next()
        assert batch is not None
        cursor, event = batch.events()[-1]
        if isinstance(event, m.RunWait):
            follower.close()
            return info.id, cursor


@tool(needs_approval=True)
def delete_file(path: str) -> str:
    """Delete."""
    return "gone"


def test_after_flushall_a_waiting_run_is_written_again(server: RedisServer) -> None:
    async def main() -> None:
        store = open_store(server.url + "?timeout=1.5")
        async with (
            simulator() as model,
            relay(model, log=store, tools=[delete_file], lease=60.0) as runs,
        ):
            run, cursor = await waiting_run(runs)
            follower = await runs.follow(run, after=cursor)
            key = f"tw:{{{run}}}:log"
            records = server.answer("LRANGE", key, "0", "-1")
            server.ask("FLUSHALL")
            await until(lambda: server.answer("LRANGE", key, "0", "-1") == records)
            await runs.cancel(run)
            events = []
            while (batch := await follower.next()) is not None:
                events += batch.events()
            assert isinstance(events[-1][1], m.RunEnd)
            assert server.answer("LRANGE", key, "0", str(len(records) - 1)) == records

    run_async(main())


def test_a_reader_elsewhere_is_never_told_that_a_lost_run_does_not_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """redis-server restarts and keeps nothing; the run's owner has a moment to write it again."""
    monkeypatch.setattr(losses, "TIMEOUTS", 100)

    async def main(server: RedisServer) -> None:
        url = server.url + "?timeout=1.5"
        async with (
            simulator() as model,
            relay(model, log=open_store(url), tools=[delete_file], lease=60.0) as runs,
            relay(model, log=open_store(url)) as elsewhere,
        ):
            run, cursor = await waiting_run(runs)
            (await elsewhere.follow(run, after=cursor)).close()
            await asyncio.to_thread(server.restart)
            assert server.answer("KEYS", "*:log") == []
            waits: list[StoreUnavailableError] = []

            async def again() -> Any:
                try:
                    return await elsewhere.follow(run, after=cursor)
                except StoreUnavailableError as error:
                    waits.append(error)
                    return None

            follower = await until(again)
            assert waits
            assert any(error.details.get("retry_after") for error in waits)
            await runs.cancel(run)
            events = []
            while (batch := await follower.next()) is not None:
                events += batch.events()
            assert isinstance(events[-1][1], m.RunEnd)
            with pytest.raises(StoreUnavailableError):  # it may be another worker's
                await elsewhere.info("x" * 20)
            store: Any = elsewhere.store
            store._losses._lives.clear()  # a moment later
            with pytest.raises(NotFoundError):
                await elsewhere.info("x" * 20)

    with redis_server("--appendonly", "no") as server:
        asyncio.run(main(server))


def test_a_log_that_its_owner_puts_back_is_not_reported(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me", lease=60)
        woken: list[None] = []
        end = store.subscribe("s", lambda: woken.append(None))
        assert store._quiet is not None
        await asyncio.sleep(0.1)  # the confirmation of the subscription wakes as well
        server.ask("FLUSHALL")
        assert await store._quiet._missing(["s"]) == {"s"}
        result = await store.append("s", epoch=1, first=1, records=[b"x"])
        assert result.status == "gap", "it was put back, empty"
        assert await store._quiet._missing(["s"]) == set()
        end()

    run(server.url, case)


def test_what_is_put_back_is_found_as_before(server: RedisServer) -> None:
    """In its conversation and under its idempotency key, as of when it was created."""

    async def case(store: RedisStore) -> None:
        how: dict[str, Any] = {"owner": "me", "lease": 60, "key": "k", "key_hash": "h"}
        made = await store.create("s", thread="t", **how)
        await store.append("s", epoch=1, first=1, records=[b"x"])
        server.ask("FLUSHALL")
        assert await store._losses.put_back("s")
        assert (await store.describe("s")).created == made.created
        assert await store._index.members("t") == ["s"]
        assert (await store.create("other", thread="t", **how)).log == "s"
        assert await store._index.members("t") == ["s"]

    run(server.url, case)


@pytest.mark.parametrize("is_claimed", [False, True])
def test_a_lost_log_that_was_erased_since_is_not_put_back(
    server: RedisServer, is_claimed: bool
) -> None:
    """By another process, of which the owner has not heard when it does."""

    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me", lease=0.0 if is_claimed else 60, thread="t", key="k")
        if is_claimed:
            assert await store.claim("s", owner="me", lease=60) is not None
        owned = store._owned["s"]
        server.ask("FLUSHALL")
        assert await store._losses.put_back("s")
        await store.delete("s")
        store._owned["s"] = owned  # as where it has not heard of it
        assert not await store._losses.put_back("s")
        with pytest.raises(NotFoundError):
            await store.describe("s")
        assert await store._index.members("t") == []
        assert server.answer("EXISTS", store._index._key("k")) == 0

    run(server.url, case)


# No memory left


def fill(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "1")


def test_a_full_redis_takes_the_end_of_a_log(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me")
        await store.append("s", epoch=1, first=1, records=[b"a"])
        fill(server)
        with pytest.raises(StoreFullError):
            await store.append("s", epoch=1, first=2, records=[b"b"])
        with pytest.raises(StoreFullError):
            await store.append("s", epoch=1, first=2, records=[bytes(70_000)], close="error")
        with pytest.raises(StoreFullError):
            await store.probe()
        done = await store.append("s", epoch=1, first=2, records=[b"end"], close="error")
        assert (done.status, done.tail) == ("ok", 2)
        page = await store.read("s", fresh=True)
        assert (page.records, page.closed) == ([b"a", b"end"], "error")

    run(server.url, case)


def test_a_reader_hears_that_redis_is_full(server: RedisServer) -> None:
    """In mid-run, and within the time that the store has for an append."""

    async def main() -> None:
        async with (
            simulator(rate=100.0) as model,
            relay(
                model,
                log=open_store(server.url),
                bounds=ProducerLimits(store_timeout=0.3),
            ) as runs,
        ):
            info = await runs.start(request_of("scenario:text"), model="m0")
            follower = await runs.follow(info.id)
            events: list[m.Event] = []
            while not any(isinstance(e, m.TextDelta) for e in events):
                batch = await follower.next()
                assert batch is not None
                events += [e for _, e in batch.events()]
            fill(server)
            while (batch := await asyncio.wait_for(follower.next(), 60)) is not None:
                events += [e for _, e in batch.events()]
            follower.close()
            assert isinstance(events[-1], m.RunEnd)
            assert events[-1].outcome == "error"
            assert [e.code for e in events if isinstance(e, m.Error)] == ["store_full"]
            server.ask("CONFIG", "SET", "maxmemory", "0")

    run_async(main())


# Rights


@pytest.mark.parametrize("right", ["-rpush", "-zadd", "-zrangebyscore", "-hset", "-del", "-time"])
def test_a_missing_right_is_told_at_the_start(server: RedisServer, right: str) -> None:
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", right)

    async def case(_: RedisStore) -> None:
        raise AssertionError("it started")

    with pytest.raises(ConfigError, match="lacks a right"):
        run(server.url.replace("redis://", "redis://app:secret@"), case)


def test_nothing_stays_of_what_is_tried_at_the_start(server: RedisServer) -> None:
    async def case(_: RedisStore) -> None:
        assert server.answer("KEYS", "*") == [b"tw:{fence}:index"]

    run(server.url, case)


def test_a_right_that_is_taken_later_is_the_store_s_failure(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")

    async def case(store: RedisStore) -> None:
        await store.probe()
        server.ask("ACL", "SETUSER", "app", "-set", "-rpush", "-hset")
        store._probe._since = -100.0
        with pytest.raises(StoreUnavailableError, match="lacks a right"):
            await store.probe()
        with pytest.raises(StoreUnavailableError, match="lacks a right"):
            await store.create("s", owner="me")

    run(server.url.replace("redis://", "redis://app:secret@"), case)


def test_a_full_store_starts_so_that_it_can_be_read(server: RedisServer) -> None:
    fill(server)

    async def case(store: RedisStore) -> None:
        with pytest.raises(StoreFullError):
            await store.probe()
        with pytest.raises(NotFoundError):
            await store.read("s")

    run(server.url, case)
