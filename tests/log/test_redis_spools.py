"""What is appended to Redis by hand, as the lane does it: nobody has it before Redis, and whatever
breaks in between, the log is what its owner wrote."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.redis import RedisServer, need_redis, redis_server
from support.redis_cases import Proxy, append_all, opened, until, wait_for_replica
from tokenwire.errors import FencedError, NotFoundError
from tokenwire.events.model import TextDelta
from tokenwire.express import Loan, Port, Reader, form_of
from tokenwire.log.base import Appended
from tokenwire.log.redis.appending import append as appends
from tokenwire.log.redis.appending.spools import Group, RedisSpools
from tokenwire.log.redis.store import RedisStore
from tokenwire.log.spool import Batch, Spool
from tokenwire.relay.produce.producer import Producer
from tokenwire.relay.record import Chain, verify

pytestmark = pytest.mark.redis


class Hand:
    """Appends to a log as the lane does, and goes the ordinary way where it has to."""

    def __init__(self, producer: Producer) -> None:
        self.producer, self.records = producer, list[bytes]()
        self.loan: Loan | None = None
        self.by_hand = 0
        self._chain = Chain(producer.run)

    def repay(self) -> None:
        loan, self.loan = self.loan, None
        if loan is not None:
            size = sum(map(len, self.records[self._begin :]))
            self.producer.repay(self.records[-1][:16], len(self.records), size)

    async def add(self) -> None:
        """One more delta."""
        text = f"word {len(self.records)}"
        event = TextDelta(part=0, text=text, seq=len(self.records) + 1, t=1)
        record = self._chain.seal(event)
        self.records.append(record)
        if self.loan is None and (loan := self.producer.lend()) is not None:
            self.loan, self._begin = loan, len(self.records) - 1
        loan = self.loan
        if loan is not None:
            tape = loan.tape
            if tape.writer and tape.takers and len(tape.records) == len(self.records) - 1:
                tape.records.append(record)
                tape.bytes += len(record)
                tape.usage.bytes += len(record)
                tape.usage.records += 1
                self.by_hand += 1
                for wake, _, _ in tape.takers:
                    wake()
                return
            self.records.pop()
            self.repay()
            self.records.append(record)
        if self.producer.ready:
            self.producer.take([event])
        else:
            await self.producer.write([event])

    async def settle(self) -> None:
        self.repay()
        await self.producer.settle()


async def producing(store: RedisStore, log: str = "s", *, lease: float = 60) -> Hand:
    await store.create(log, owner="me", lease=lease)
    return Hand(Producer(store, log, 1))


def run(case: Callable[[RedisStore, RedisStore, RedisServer, Proxy], Awaitable[None]]) -> None:
    async def main(server: RedisServer) -> None:
        async with (
            Proxy(server.port) as proxy,
            opened(proxy.url) as writer,
            opened(server.url) as other,
        ):
            await case(writer, other, server, proxy)

    need_redis()
    with redis_server() as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("fewest", [1, 10_000])
def test_readers_have_what_redis_has(monkeypatch: pytest.MonkeyPatch, fewest: int) -> None:
    monkeypatch.setattr(appends, "FEWEST_FENCED", fewest)

    async def case(
        writer: RedisStore, other: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        hand = await producing(writer)
        seen: list[bytes] = []

        def take(offset: int, record: bytes) -> bool:
            assert server.answer("LINDEX", "tw:{s}:log", str(offset - 1)) == record
            if offset != len(seen) + 1:
                return False
            seen.append(record)
            return True

        def wake() -> None:
            page = writer.read_now("s", after=len(seen), most=10_000)
            if page is not None:
                seen.extend(page.records)

        end = writer.subscribe("s", wake, take=take)
        for number in range(300):
            await hand.add()
            for _ in range(number % 3):
                await asyncio.sleep(0)
        await hand.settle()
        await until(lambda: len(seen) == 300)
        assert hand.by_hand > 200
        assert seen == hand.records == (await other.read("s", fresh=True)).records
        assert (await writer.describe("s")).bytes == sum(map(len, seen))
        end()

    run(case)


class Kept(Reader):
    """A reader whose task is asleep; what it is called with it does not take."""

    def __init__(self, after: int, check: bytes, port: Port) -> None:
        self.after, self.check, self.port = after, check, port
        self.calls: list[int] = []

    def __call__(self, offset: int, record: bytes) -> bool:
        self.calls.append(offset)
        return False

    def fail(self, error: Exception) -> None:
        raise error


def test_a_reader_of_another_branch_is_not_written_to() -> None:
    """After a failover that lost what it has, the log may be as long again, with other records."""

    async def case(
        writer: RedisStore, other: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        hand = await producing(writer)
        for _ in range(3):
            await hand.add()
        await hand.settle()
        sent: dict[str, list[bytes]] = {"same": [], "other": []}
        readers = {}
        for name, check in (("same", hand.records[-1][:16]), ("other", b"0" * 16)):
            port = Port(sent[name].append)
            port.is_open, port.form = True, form_of(b"%b %b%b")
            reader = readers[name] = Kept(3, check, port)
            writer.subscribe("s", lambda: None, take=reader)
        for _ in range(5):
            await hand.add()
            await asyncio.sleep(0.02)
        await hand.settle()
        assert hand.by_hand >= 3
        assert (len(sent["same"]), readers["same"].calls) == (5, [])
        assert readers["same"].check == hand.records[-1][:16]
        assert (sent["other"], readers["other"].calls) == ([], [4, 5, 6, 7, 8])

    run(case)


@pytest.mark.parametrize("kept", [0, 3, 40])
def test_a_failover_loses_what_was_appended_by_hand(kept: int) -> None:
    """It is written again, the same bytes."""

    async def main(primary: RedisServer, replica: RedisServer) -> None:
        replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
        await wait_for_replica(replica, primary)
        async with Proxy(primary.port) as proxy, opened(proxy.url) as log:
            hand = await producing(log)
            for number in range(90):
                if number == kept:
                    await hand.settle()
                    await until(lambda: replica.answer("LLEN", "tw:{s}:log") == kept)
                    replica.ask("REPLICAOF", "NO", "ONE")
                if number == 60:
                    proxy.target = replica.port
                    proxy.cut()
                await hand.add()
                await asyncio.sleep(0.001)
            await hand.settle()
            assert (await log.read("s", fresh=True)).records == hand.records
            assert replica.answer("LRANGE", "tw:{s}:log", "0", "-1") == hand.records
            assert hand.by_hand > 40
            verify("s", hand.records)

    need_redis()
    with redis_server() as primary, redis_server() as replica:
        asyncio.run(main(primary, replica))


@pytest.mark.parametrize("by", ["takeover", "delete"])
def test_what_is_appended_by_hand_after_the_log_is_lost(by: str) -> None:
    async def case(
        writer: RedisStore, other: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        hand = await producing(writer, lease=0)
        for _ in range(20):
            await hand.add()
            await asyncio.sleep(0.001)
        await until(lambda: server.answer("LLEN", "tw:{s}:log") == 20)
        writer._router._touched = lambda log, message: None  # type: ignore[attr-defined]
        new: list[bytes] = []
        if by == "takeover":
            claim = await other.claim("s", owner="other", lease=60)
            assert claim is not None
            chain = verify("s", hand.records)
            new.append(chain.seal(TextDelta(part=0, text="new", seq=21, t=1)))
            await append_all(other, "s", [*hand.records, *new], first=21, epoch=2)
        else:
            await other.delete("s")
        with pytest.raises(FencedError if by == "takeover" else NotFoundError):
            for _ in range(20):
                await hand.add()
                await asyncio.sleep(0.001)
            await hand.settle()
        if by == "takeover":
            page = await other.read("s", fresh=True)
            assert page.records == [*hand.records[:20], *new]
        else:
            assert server.answer("EXISTS", "tw:{s}:log") == 0

    run(case)


async def taken_from(store: RedisStore, log: str = "s") -> None:
    await store.release(log, epoch=1)
    assert await store.claim(log, owner="another") is not None
    assert await store.renew({log: 1}, owner="me") == {log}


@pytest.mark.parametrize(
    "act",
    [lambda store: store.release("s", epoch=1), lambda store: store.delete("s"), taken_from],
    ids=["release", "delete", "renew"],
)
def test_a_log_that_is_given_up_has_no_spool(act: Callable[..., Awaitable[None]]) -> None:
    async def case(
        writer: RedisStore, other: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        hand = await producing(writer)
        await hand.add()
        assert writer.tape("s") is not None
        await act(writer)
        assert writer.tape("s") is None

    run(case)


def test_a_group_of_many_logs_of_which_some_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' records are in the log, each once, whatever the call that was refused carried."""
    monkeypatch.setattr(appends, "MOST_APPENDS", 16)  # so that a group takes several calls

    async def case(
        writer: RedisStore, other: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        hands = [await producing(writer, f"r{number}") for number in range(40)]
        for hand in hands:
            writer.subscribe(hand.producer.run, lambda: None, appends=False)

        async def turn() -> None:
            for hand in hands:
                await hand.add()
            await until(lambda: all(h.loan is None or not is_behind(h) for h in hands))

        for _ in range(4):
            await turn()
        writer._router._touched = lambda log, message: None  # type: ignore[attr-defined]
        lost = [hand.producer.run for hand in hands[::7]]
        assert all(owned.permit_end for owned in writer._owned.values())
        for log in lost:
            server.ask("HSET", f"tw:{{{log}}}:meta", "lease", "0")
            assert await other.claim(log, owner="other", lease=60) is not None
        length = {log: server.answer("LLEN", f"tw:{{{log}}}:log") for log in lost}
        proxy.swallow = 1
        for number in range(3):
            for hand in hands:
                if hand.producer.run not in lost or not number:
                    await hand.add()
            await asyncio.sleep(0.02)
        for hand in hands:
            log = hand.producer.run
            if log in lost:
                with pytest.raises(FencedError):
                    await hand.settle()
                assert server.answer("LLEN", f"tw:{{{log}}}:log") == length[log]
                continue
            await hand.settle()
            assert server.answer("LRANGE", f"tw:{{{log}}}:log", "0", "-1") == hand.records
            assert writer._owned[log].bytes == sum(map(len, hand.records))
        assert sum(hand.by_hand for hand in hands) > 160

    run(case)


def is_behind(hand: Hand) -> bool:
    assert hand.loan is not None
    tape = hand.loan.tape
    assert isinstance(tape, Spool)
    return tape.landed < len(tape.records)


class Counted(list[Any]):
    """A list that counts how often it is gone through."""

    loops = 0

    def __iter__(self) -> Any:
        self.loops += 1
        return super().__iter__()


def test_a_group_that_is_refused_is_gone_through_a_few_times() -> None:
    tails, told = RedisSpools(), list[Any]()
    items = Counted((Spool(tails, f"r{number}", 1, 5), 5, 6) for number in range(200))
    tails.land = lambda batch, outcomes: told.extend(outcomes)  # type: ignore[method-assign]
    group = Group(tails, Batch(items, 0, 0.0))
    refusals = {number: Appended("fenced", number, 2) for number in range(0, 200, 2)}
    for number in refusals:
        group.refuse(f"r{number}", 6, refusals[number])
    assert told == []
    group.accept(100)
    assert told == [refusals.get(number) for number in range(200)]
    assert items.loops < 5


STEPS = ("add", "add", "add", "turn", "wait", "swallow", "cut", "repay", "settle", "stop", "full")


@given(st.lists(st.sampled_from(STEPS), max_size=40))
@settings(max_examples=20, deadline=None)
def test_each_record_is_there_once_and_in_order(steps: list[str]) -> None:
    async def case(
        writer: RedisStore, other: RedisStore, server: RedisServer, proxy: Proxy
    ) -> None:
        hand = await producing(writer, lease=600)
        writer.subscribe("s", lambda: None, appends=False)
        for step in steps:
            if step == "turn":
                await asyncio.sleep(0)
            elif step == "wait":
                await asyncio.sleep(0.01)
            elif step == "swallow":
                proxy.swallow = 1
            elif step == "cut":
                proxy.cut()
            elif step == "repay":
                hand.repay()
            elif step == "settle":
                await hand.settle()
            elif step == "stop":
                server.ask("CLIENT", "KILL", "TYPE", "normal")
            elif step == "full":
                server.ask("CONFIG", "SET", "maxmemory", "1")
                asyncio.get_running_loop().call_later(0.05, give_memory, server)
            await hand.add()
        await asyncio.sleep(0.06)
        await hand.settle()
        records = server.answer("LRANGE", "tw:{s}:log", "0", "-1")
        assert records == hand.records
        assert (await other.read("s", fresh=True)).records == hand.records
        assert (await writer.read("s", after=0)).records == hand.records
        assert writer._owned["s"].bytes == sum(map(len, hand.records))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(appends, "FEWEST_FENCED", 1)
        run(case)


def give_memory(server: RedisServer) -> Any:
    return server.ask("CONFIG", "SET", "maxmemory", "0")
