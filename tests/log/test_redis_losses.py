"""Logs that Redis has lost: whose they were, and what is put back of them, and what is not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from support.redis import RedisServer, redis_server
from tokenwire.log.open import open_store
from tokenwire.log.redis import claims, create
from tokenwire.log.redis.appending import owned as owned_module
from tokenwire.log.redis.store import RedisStore
from tokenwire.log.redis.upkeep import losses, renewal

pytestmark = pytest.mark.redis

HOUR = 3600.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server("--appendonly", "no") as server:
        yield server


class Clock:
    """The clock by which this process counts the time of leases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.skipped = 0.0
        real = owned_module.clock
        for module in (owned_module, claims, create, losses, renewal):
            monkeypatch.setattr(module, "clock", lambda: real() + self.skipped)

    def skip(self, seconds: float) -> None:
        """This process stood still for so long."""
        self.skipped += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(url: str, case: Callable[..., Awaitable[None]], stores: int) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            opened: list[RedisStore] = []
            for _ in range(stores):
                store = open_store(url)
                assert isinstance(store, RedisStore)
                await store.start()
                stack.push_async_callback(store.close)
                opened.append(store)
            await asyncio.wait_for(case(*opened), 60)

    asyncio.run(main())


async def lapse(store: RedisStore, log: str, lease: float) -> None:
    """Wait until the lease of ``log`` is over by the server's clock."""
    while log not in await store.orphans():
        await asyncio.sleep(lease / 4)


@pytest.mark.parametrize("meanwhile", ["nothing", "taken over", "ended", "erased"])
def test_who_stood_still_past_its_lease_puts_nothing_back(
    server: RedisServer, meanwhile: str
) -> None:
    """It has heard nothing of what became of its log, and now Redis has lost that."""

    async def case(paused: RedisStore, other: RedisStore) -> None:
        lease = 0.1
        await paused.create("s", owner="paused", lease=lease, thread="t", key="k")
        await paused.append("s", epoch=1, first=1, records=[b"x"])
        await lapse(other, "s", lease)
        if meanwhile in ("taken over", "ended"):
            assert await other.claim("s", owner="other", lease=60) is not None
        if meanwhile == "ended":
            await other.append("s", epoch=2, first=2, records=[b"end"], close="complete")
        if meanwhile == "erased":
            await other.delete("s")
        server.ask("FLUSHALL")
        assert not await paused._losses.put_back("s")
        outcome = await paused.append("s", epoch=1, first=2, records=[b"y"])
        assert outcome.status == "fenced"
        assert await paused.renew({"s": 1}, owner="paused", lease=lease) == {"s"}
        assert server.answer("KEYS", "*{s}*") == []
        if meanwhile == "taken over":
            assert await other._losses.put_back("s")
            assert (await paused.describe("s")).epoch == 2

    run(server.url, case, 2)


def test_who_stood_still_within_its_lease_puts_its_log_back(
    server: RedisServer, clock: Clock
) -> None:
    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me", lease=HOUR)
        server.ask("FLUSHALL")
        clock.skip(HOUR / 2)
        assert await store._losses.put_back("s")
        clock.skip(HOUR * 0.75)  # since it was put back
        assert await store.renew({"s": 1}, owner="me", lease=HOUR) == set()
        clock.skip(HOUR * 0.75)  # since it was renewed
        server.ask("FLUSHALL")
        assert await store.renew({"s": 1}, owner="me", lease=HOUR) == set()
        await store.release("s", epoch=1)
        server.ask("FLUSHALL")
        assert not await store._losses.put_back("s"), "whoever wants it may have it"

    run(server.url, case, 1)


def test_a_log_that_went_with_its_server_is_put_back_after_its_lease(
    server: RedisServer, clock: Clock
) -> None:
    """Nobody could take it over: from before the end of the lease on there was none to take."""

    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me", lease=HOUR)
        clock.skip(5)  # a server says only the second in which it was started
        server.restart()
        await store.document("any", "name")
        await store._losses.seconds(store._key("s", "meta"))
        clock.skip(2 * HOUR)
        assert await store._losses.put_back("s")
        clock.skip(2 * HOUR)
        server.ask("FLUSHALL")  # whenever that was
        assert not await store._losses.put_back("s")

    run(server.url, case, 1)


def test_a_log_that_was_erased_while_it_is_put_back_stays_so(server: RedisServer) -> None:
    async def case(store: RedisStore) -> None:
        await store.create("s", owner="me", lease=60)
        server.ask("FLUSHALL")
        real = store._owner

        async def reclaim(log: str, operation: str, *values: object, wait: bool = False) -> object:
            answer = await real(log, operation, *values, wait=wait)
            if operation == "reclaim":
                store._touched("s", b"erase")
            return answer

        store._losses._owner = reclaim  # type: ignore[assignment]
        assert not await store._losses.put_back("s")
        assert server.answer("KEYS", "*{s}*") == []

    run(server.url, case, 1)


def test_who_claimed_a_log_puts_back_its_idempotency_key(server: RedisServer) -> None:
    async def case(store: RedisStore, other: RedisStore) -> None:
        await store.create("s", owner="me", lease=0.0, key="k", key_hash="h")
        assert await other.claim("s", owner="other", lease=60) is not None
        server.ask("FLUSHALL")
        assert await other._losses.put_back("s")
        assert (await store.create("again", owner="me", key="k", key_hash="h")).log == "s"
        assert await store.named("k") == "s"

    run(server.url, case, 2)


def test_a_key_that_names_another_log_is_not_put_back_as_ours(server: RedisServer) -> None:
    async def case(store: RedisStore, other: RedisStore) -> None:
        await store.create("s", owner="me", lease=0.0, key="k", key_hash="h")
        server.ask("SET", store._index._key("k"), "t\nnonce\nh")
        assert await other.claim("s", owner="other", lease=60) is not None
        server.ask("FLUSHALL")
        assert await other._losses.put_back("s")
        assert await store.named("k") is None

    run(server.url, case, 2)


@pytest.mark.parametrize("is_read_at_once", [False, True])
def test_commands_of_a_new_mailbox_are_others_than_those_that_were_lost(
    server: RedisServer, is_read_at_once: bool
) -> None:
    """Who has read two of the old one is given the first of the new one, and so is everybody."""

    async def commands(store: RedisStore, after: int) -> list[tuple[int, bytes]]:
        if is_read_at_once:
            return (await store.mailboxes({"s": after})).get("s", [])
        return await store.commands("s", after=after)

    async def case(store: RedisStore, other: RedisStore) -> None:
        await store.create("s", owner="me", lease=60)
        for data in (b"one", b"two"):
            await other.command("s", data)
        assert await commands(store, 0) == [(1, b"one"), (2, b"two")]
        assert await commands(store, 2) == []
        server.ask("FLUSHALL")
        assert await store._losses.put_back("s")
        assert await commands(store, 2) == []
        await other.command("s", b"three")
        assert await store._losses.put_back("s"), "again, by another way"
        for reader in (store, other):
            assert await commands(reader, 2) == [(3, b"three")]
            assert await commands(reader, 0) == [(3, b"three")]
            assert await commands(reader, 3) == []
        await other.command("s", b"four")
        assert await commands(store, 3) == [(4, b"four")]
        server.ask("FLUSHALL")
        assert await store._losses.put_back("s")
        await other.command("s", b"five")
        assert await commands(store, 4) == [(5, b"five")]

    run(server.url, case, 2)


@pytest.mark.parametrize("new", [1, 2, 3, 5])
@pytest.mark.parametrize("kept", [0, 1, 2])
def test_commands_behind_those_that_a_mailbox_lost_are_new(
    server: RedisServer, kept: int, new: int
) -> None:
    async def case(owner: RedisStore, other: RedisStore) -> None:
        await owner.create("run-1", owner="a", meta=b"{}")
        for number in range(3):
            await other.command("run-1", b"old %d" % number)
        assert [number for number, _ in await owner.commands("run-1")] == [1, 2, 3]
        server.ask("RPOP", "tw:{run-1}:commands", str(3 - kept))
        for number in range(new):
            await other.command("run-1", b"new %d" % number)
        found = [(4 + number, b"new %d" % number) for number in range(new)]
        assert await owner.mailboxes({"run-1": 3}) == {"run-1": found}
        assert await owner.commands("run-1", after=3) == found, "also once they were read"
        assert await owner.mailboxes({"run-1": 3 + new}) == {}
        old = [(4 - kept + number, b"old %d" % number) for number in range(kept)]
        assert await owner.commands("run-1") == await other.commands("run-1") == [*old, *found]
        # And once more.
        server.ask("RPOP", "tw:{run-1}:commands", str(new))
        assert await owner.commands("run-1", after=3 + new) == []
        await other.command("run-1", b"last")
        assert await owner.commands("run-1", after=3 + new) == [(4 + new, b"last")]

    run(server.url, case, 2)
