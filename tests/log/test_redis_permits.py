"""Appends under a permit are pushed without a look at the owner: whatever takes the log from it in
between, nothing of them is in the log."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable
from hashlib import sha1
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.redis import RedisServer, need_redis, redis_server
from support.redis_before import Before
from support.redis_cases import Proxy, opened, until, wait_for_replica
from tokenwire.errors import NotFoundError, StoreFullError
from tokenwire.log.redis.appending import append as appends
from tokenwire.log.redis.appending import calls, packing, watch
from tokenwire.log.redis.store import RedisStore

pytestmark = pytest.mark.redis

Records = list[bytes]


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permits are used for a single append, and for as long as Redis allows it."""
    use_permits(monkeypatch)


def use_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appends, "FEWEST_FENCED", 1)
    monkeypatch.setattr(packing, "PUBLISH_SECONDS", 600.0)
    monkeypatch.setattr(calls, "PERMIT_SECONDS", 600.0)


async def soon(store: RedisStore, log: str, first: int, record: bytes, epoch: int = 1) -> Any:
    """Append as deltas are, and wait for the outcome: None when it is in the log."""
    told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    store.append_soon(log, epoch=epoch, first=first, records=[record], then=told.set_result)
    return await asyncio.wait_for(told, 60)


def has_permit(store: RedisStore, log: str) -> bool:
    owned = store._owned.get(log)
    if owned is None or owned.permit_end < time.monotonic():
        return False
    return owned.permit_round == store._appends._calls.round and not owned.has_readers


async def permitted(store: RedisStore, log: str, epoch: int = 1, *, lease: float = 60) -> Records:
    """Append to ``log`` until the next append is one under a permit; all of its records."""
    if epoch == 1:
        await store.create(log, owner="w", lease=lease)
    if log not in store._tails:
        store.subscribe(log, lambda: None, appends=False)
    return await regained(store, log, epoch)


async def regained(store: RedisStore, log: str, epoch: int = 1) -> Records:
    """The same of a log that is there, and that may have a permit."""
    records: Records = (await store.read(log, fresh=True)).records
    async with asyncio.timeout(60):
        while not has_permit(store, log):
            records.append(b"%d" % (len(records) + 1))
            assert await soon(store, log, len(records), records[-1], epoch) is None
    return records


def milliseconds_of(server: RedisServer) -> int:
    """What the server's clock says."""
    seconds, microseconds = server.answer("TIME")
    return int(seconds) * 1000 + int(microseconds) // 1000


def calls_of(server: RedisServer, command: str) -> int:
    text = server.ask("INFO", "commandstats").decode()
    found = re.search(rf"cmdstat_{command}:calls=(\d+)", text)
    return int(found[1]) if found else 0


def run_two(
    case: Callable[[RedisStore, RedisStore, RedisServer], Awaitable[None]],
) -> None:
    async def main(server: RedisServer) -> None:
        async with opened(server.url) as writer, opened(server.url) as other:
            await case(writer, other, server)

    need_redis()
    with redis_server() as server:
        asyncio.run(main(server))


def test_an_owner_with_a_permit_is_not_looked_at() -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        before = calls_of(server, "hmget")
        for _ in range(20):
            records.append(b"%d" % (len(records) + 1))
            assert await soon(writer, "s", len(records), records[-1]) is None
        assert calls_of(server, "hmget") == before
        assert (await other.read("s")).records == records
        assert (await writer.describe("s")).bytes == sum(map(len, records))

    run_two(case)


def test_it_is_looked_at_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the clocks of both: whichever says so first."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        before = calls_of(server, "hmget")
        writer._owned["s"].permit_end = time.monotonic() - 1
        assert await soon(writer, "s", len(records) + 1, b"a") is None
        assert calls_of(server, "hmget") == before + 1
        assert has_permit(writer, "s")
        writer._owned["s"].permit = 1  # of the server's clock
        assert await soon(writer, "s", len(records) + 2, b"b") is None
        assert calls_of(server, "hmget") == before + 2
        assert (await other.read("s")).records == [*records, b"a", b"b"]

    run_two(case)


def test_no_permit_where_the_lease_ends_before_it() -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        await writer.create("s", owner="w", lease=4.9)
        writer.subscribe("s", lambda: None, appends=False)
        for number in range(1, 20):
            assert await soon(writer, "s", number, b"%d" % number) is None
            assert not has_permit(writer, "s")

    run_two(case)


def test_a_renewal_with_a_shorter_lease_ends_permits() -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        fence = server.answer("GET", "tw:{fence}:index")
        assert await writer.renew({"s": 1}, owner="w", lease=70) == set()
        assert server.answer("GET", "tw:{fence}:index") == fence
        assert await writer.renew({"s": 1}, owner="w", lease=1) == set()
        assert server.answer("GET", "tw:{fence}:index") != fence
        assert await soon(writer, "s", len(records) + 1, b"a") is None
        assert (await other.read("s")).records == [*records, b"a"]

    run_two(case)


def lapse_keys(server: RedisServer) -> list[str]:
    """The keys whose end ends what connections watch."""
    return [key.decode() for key in server.answer("KEYS", "tw:{fence}:index:*")]


def shorten_permits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Permits of a fifth of a second, by the server's clock."""
    text = calls.APPEND.text
    assert text.count(b"PERMIT = 5000") == 1
    short = text.replace(b"PERMIT = 5000", b"PERMIT = 200")
    monkeypatch.setattr(watch, "HELD_MS", 100)
    monkeypatch.setattr(calls.APPEND, "text", short)
    sha = sha1(short, usedforsecurity=False).hexdigest().encode()
    monkeypatch.setattr(calls.APPEND, "sha", sha)


@pytest.mark.parametrize("by", ["now", "before"])
def test_a_takeover_in_between(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``before``: by a worker of the release before, after the lease."""
    shorten_permits(monkeypatch)

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        also = await permitted(writer, "t")
        writer._touched = lambda log, message: None  # type: ignore[method-assign]  # it is late
        writer._router._touched = writer._touched  # type: ignore[attr-defined]
        # The shortest lease with which Redis gives such a permit.
        end = writer._owned["s"].permit
        assert end > 0
        server.ask("HSET", "tw:{s}:meta", "lease", str(end))
        await until(lambda: milliseconds_of(server) > end)
        before = Before(server)
        if by == "now":
            claim = await other.claim("s", owner="o", lease=60)
            assert claim is not None
            tail = claim.tail
        else:
            tail = before.own("claim", "before", before.nonce, 60_000)[2]
        assert tail == len(records)
        assert (await soon(writer, "s", tail + 1, b"late")).status == "fenced"
        assert server.answer("LLEN", "tw:{s}:log") == tail
        if by == "now":
            assert await soon(other, "s", tail + 1, b"new", 2) is None
        else:
            assert before.append(2, tail + 1, b"new") == tail + 1
        assert (await soon(writer, "s", tail + 2, b"later")).status == "fenced"
        assert (await other.read("s", fresh=True)).records == [*records, b"new"]
        # Other logs of the same owner go on.
        assert await soon(writer, "t", len(also) + 1, b"on") is None
        assert (await other.read("t", fresh=True)).records == [*also, b"on"]

    run_two(case)


def test_a_log_that_is_deleted_and_made_anew() -> None:
    """With as many records as the one before, by another owner; the word of it is late."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        writer._router._touched = lambda log, message: None  # type: ignore[attr-defined]
        await other.delete("s")
        with pytest.raises(NotFoundError):
            await writer.append("s", epoch=1, first=len(records) + 1, records=[b"late"])
        assert server.answer("EXISTS", "tw:{s}:log") == 0
        await other.create("s", owner="o", lease=60)
        new = [b"new %d" % number for number in range(len(records))]
        assert (await other.append("s", epoch=1, first=1, records=new)).status == "ok"
        outcome = await soon(writer, "s", len(records) + 1, b"late")
        assert outcome is not None
        assert (await other.read("s", fresh=True)).records == new

    run_two(case)


@pytest.mark.parametrize("command", [("DEL", "tw:{fence}:index"), ("FLUSHALL",)])
def test_a_fence_that_is_lost(command: tuple[str, ...]) -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        server.ask(*command)
        if command[0] == "FLUSHALL":
            await other.create("s", owner="o", lease=60)
            new = [b"new %d" % number for number in range(len(records))]
            assert (await other.append("s", epoch=1, first=1, records=new)).status == "ok"
            outcome = await soon(writer, "s", len(records) + 1, b"late")
            assert outcome.status == "fenced"
            assert (await other.read("s", fresh=True)).records == new
        else:
            fences = {server.answer("GET", "tw:{fence}:index")}
            for _ in range(3):
                server.ask(*command)
                records.append(b"%d" % (len(records) + 1))
                assert await soon(writer, "s", len(records), records[-1]) is None
                records = await regained(writer, "s")
                fences.add(server.answer("GET", "tw:{fence}:index"))
            assert len(fences) == 4
            assert (await other.read("s", fresh=True)).records == records
        assert server.answer("PTTL", "tw:{fence}:index") > 0

    run_two(case)


def test_a_lost_answer_is_settled_by_the_long_form() -> None:
    async def main(server: RedisServer) -> None:
        async with Proxy(server.port) as proxy, opened(proxy.url) as log:
            records = await permitted(log, "s")
            for _ in range(5):
                assert has_permit(log, "s")
                proxy.swallow = 1
                records.append(b"%d" % (len(records) + 1))
                done = await log.append("s", epoch=1, first=len(records), records=[records[-1]])
                assert (done.status, done.tail) == ("ok", len(records))
                assert proxy.swallow == 0
                # The connection is another one: whatever its server is, it has seen no owner.
                before = calls_of(server, "hmget")
                records.append(b"%d" % (len(records) + 1))
                assert await soon(log, "s", len(records), records[-1]) is None
                assert calls_of(server, "hmget") > before
                records = await regained(log, "s")
            assert (await log.read("s", fresh=True)).records == records

    need_redis()
    with redis_server() as server:
        asyncio.run(main(server))


def test_a_failover_that_loses_a_log_and_its_fence() -> None:
    """Another owner makes it anew on the new primary, as long as it was on the old one."""

    async def main(primary: RedisServer, replica: RedisServer) -> None:
        async with Proxy(primary.port) as proxy, opened(proxy.url) as writer:
            replica.ask("REPLICAOF", "127.0.0.1", str(primary.port))
            await wait_for_replica(replica, primary)
            replica.ask("REPLICAOF", "NO", "ONE")
            records = await permitted(writer, "s")
            fence = primary.answer("GET", "tw:{fence}:index")
            async with opened(replica.url) as other:
                await other.create("s", owner="o", lease=60)
                new = [b"new %d" % number for number in range(len(records))]
                assert (await other.append("s", epoch=1, first=1, records=new)).status == "ok"
                replica.ask("SET", "tw:{fence}:index", fence)  # even so
                proxy.target = replica.port
                proxy.cut()
                assert (await soon(writer, "s", len(records) + 1, b"late")).status == "fenced"
                assert (await other.read("s", fresh=True)).records == new

    need_redis()
    with redis_server() as primary, redis_server() as replica:
        asyncio.run(main(primary, replica))


def test_a_primary_that_is_none_any_more_and_a_full_one() -> None:
    async def main(server: RedisServer) -> None:
        async with opened(server.url + "?timeout=1") as log:
            records = await permitted(log, "s")
            server.ask("CONFIG", "SET", "maxmemory", "1")
            assert isinstance(await soon(log, "s", len(records) + 1, b"a"), StoreFullError)
            server.ask("CONFIG", "SET", "maxmemory", "0")
            assert await soon(log, "s", len(records) + 1, b"a") is None
            records.append(b"a")
            server.ask("REPLICAOF", "127.0.0.1", "1")
            assert isinstance(await soon(log, "s", len(records) + 1, b"b"), Exception)
            server.ask("REPLICAOF", "NO", "ONE")
            assert await soon(log, "s", len(records) + 1, b"b") is None
            assert (await log.read("s", fresh=True)).records == [*records, b"b"]

    need_redis()
    with redis_server() as server:
        asyncio.run(main(server))


def test_appends_of_one_turn_to_one_log_keep_their_order() -> None:
    """An append that needs no look at the owner never passes one to the same log that does."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        also = await permitted(writer, "t")
        n = len(records)
        outcomes = await asyncio.gather(
            writer.append("s", epoch=1, first=n + 1, records=[b"a"]),
            writer.append("t", epoch=1, first=len(also) + 1, records=[b"other"]),
            writer.append("s", epoch=1, first=n + 2, records=[b"b", b"c"]),
            writer.append("s", epoch=1, first=n + 4, records=[b"d"]),
            writer.append("s", epoch=1, first=n + 9, records=[b"gap"]),
            writer.append("s", epoch=1, first=n + 4, records=[b"not d"]),
        )
        states = [outcome.status for outcome in outcomes]
        assert states == ["ok", "ok", "ok", "ok", "gap", "conflict"]
        outcomes = await asyncio.gather(
            writer.append("s", epoch=1, first=n + 5, records=[], close="complete"),
            writer.append("s", epoch=1, first=n + 5, records=[b"late"]),
        )
        assert outcomes[0].status in ("ok", "duplicate")
        assert outcomes[1].status == "closed"
        page = await other.read("s", fresh=True)
        assert page.records == [*records, b"a", b"b", b"c", b"d"]
        assert page.closed == "complete"
        assert (await other.read("t", fresh=True)).records == [*also, b"other"]

    run_two(case)


def test_an_append_while_the_end_is_under_way() -> None:
    """It is given when the end's answer is still due: the owner is known, its log is not ended."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        for log in ("s", "t"):
            records = await permitted(writer, log)
            n = len(records)
            append = writer.append(log, epoch=1, first=n + 1, records=[b"end"], close="complete")
            end = asyncio.create_task(append)
            for _ in range(3):  # it is sent
                await asyncio.sleep(0)
            assert not end.done()
            outcome = await soon(writer, log, n + 2, b"late")
            assert (await end).status == "ok"
            assert outcome.status == "closed"
            assert (await other.read(log, fresh=True)).records == [*records, b"end"]

    run_two(case)


def listen_as_owner(store: RedisStore) -> None:
    """Whoever follows a log in another process keeps its owner from permits: nobody does here."""
    listen = store._router.listen
    store._presence._is_off = True
    store._router.listen = lambda log, _: listen(log, "control")  # type: ignore[method-assign]


STEPS = (
    *("word", "word", "word", "turn", "take", "by before", "back", "wire", "fence", "cut"),
    *("held", "late", "lapse", "foreign"),
)


@given(st.lists(st.sampled_from(STEPS), max_size=25))
@settings(max_examples=60, deadline=None)
def test_one_owner_writes_whatever_happens(steps: list[str]) -> None:
    """Two stores and one of the release before take a log from one another, connections break and
    the fence is lost: each record is the one whose append was accepted, and of one who has lost
    the log none is."""
    need_redis()

    async def main(server: RedisServer) -> None:
        async with (
            Proxy(server.port) as proxy,
            opened(proxy.url) as one,
            opened(server.url) as two,
        ):
            before = Before(server)
            await one.create("s", owner="one", lease=600)
            for store in (one, two):
                listen_as_owner(store)
                store.subscribe("s", lambda: None, appends=False)
                await store.create(f"t-{id(store)}", owner="o", lease=600)
            expected: Records = []
            epoch, owner, numbers = 1, 0, itertools.count(1)
            epochs = [1, 0]
            for step in steps:
                if step in ("take", "by before", "back"):
                    # Whoever has it stops, or seems to: its lease is over.
                    server.ask("HSET", "tw:{s}:meta", "lease", "0")
                    server.ask("SET", "tw:{fence}:index", f"as a release {next(numbers)}")
                    if step == "by before":
                        nonce = before.nonce = f"{next(numbers):016d}"
                        answer = before.own("claim", "before", nonce, 600_000)
                        assert answer[2] == len(expected)
                        owner = 2
                    else:
                        owner = step == "take"
                        claim = await (one, two)[owner].claim("s", owner="x", lease=600)
                        assert claim is not None
                        assert claim.tail == len(expected)
                        epochs[owner] = epoch + 1
                    epoch += 1
                elif step == "wire":
                    server.ask("CLIENT", "KILL", "TYPE", "normal")
                elif step == "cut":
                    proxy.swallow = 1
                elif step == "fence":
                    server.ask("DEL", "tw:{fence}:index")
                elif step == "held" and owner == 0:
                    expected = await regained(one, "s", epoch)
                    proxy.hold = b"RPUSHX"
                elif step == "late":
                    await proxy.release()
                elif step == "lapse":
                    server.ask("DEL", *lapse_keys(server))
                elif step == "foreign":
                    expected.append(b"foreign %d" % next(numbers))
                    server.ask("RPUSH", "tw:{s}:log", expected[-1].decode())
                for number, store in enumerate((one, two)):
                    # Both try, and so does whoever has lost it.
                    for _ in range(3 if step == "turn" else 1):
                        word = b"%d of %d" % (next(numbers), number)
                        outcome = await soon(
                            store, "s", len(expected) + 1, word, epochs[number] or 999
                        )
                        assert (outcome is None) == (number == owner), (number, owner, outcome)
                        if outcome is None:
                            expected.append(word)
                if owner == 2:
                    word = b"%d before" % next(numbers)
                    expected.append(word)
                    assert before.append(epoch, len(expected), word) == len(expected)
                assert server.answer("LRANGE", "tw:{s}:log", "0", "-1") == expected
            await proxy.release()
            assert server.answer("LRANGE", "tw:{s}:log", "0", "-1") == expected

    with pytest.MonkeyPatch.context() as monkeypatch, redis_server() as server:
        use_permits(monkeypatch)
        asyncio.run(main(server))


def test_a_claim_is_seen_by_the_step_that_pushes() -> None:
    """The lease was over before it said so, and nobody tells the owner before."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        writer._router._touched = lambda log, message: None  # type: ignore[attr-defined]
        server.ask("HSET", "tw:{s}:meta", "lease", "0")
        assert await other.claim("s", owner="o", lease=60) is not None
        before = calls_of(server, "exec")
        assert (await soon(writer, "s", len(records) + 1, b"late")).status == "fenced"
        assert calls_of(server, "exec") == before + 1
        assert (await other.read("s", fresh=True)).records == records

    run_two(case)


def test_an_end_beside_pushes_that_do_not_happen_is_heard_of() -> None:
    """They are asked about again; the end is not, as it would be a duplicate that nobody hears."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        for number in range(3):
            log, ends = f"s{number}", f"t{number}"
            records = await permitted(writer, log)
            await writer.create(ends, owner="w", lease=60)
            heard: list[str] = []
            writer.subscribe(ends, lambda heard=heard: heard.append("end"))
            await other.create(f"u{number}", owner="gone", lease=0)
            assert await other.claim(f"u{number}", owner="o", lease=60) is not None
            before = calls_of(server, "exec")
            told, end = await asyncio.gather(
                soon(writer, log, len(records) + 1, b"word"),
                writer.append(ends, epoch=1, first=1, records=[b"end"], close="complete"),
            )
            assert calls_of(server, "exec") == before + 1
            assert (told, end.status, set(heard)) == (None, "ok", {"end"})
            page = await writer.read(ends)
            assert (page.records, page.closed) == ([b"end"], "complete")
            assert (await other.read(log, fresh=True)).records == [*records, b"word"]

    run_two(case)


def test_pushes_that_arrive_late_do_not_happen() -> None:
    """Their connection was lost and what they bring was sent again, when the server reads them."""

    async def main(server: RedisServer) -> None:
        async with Proxy(server.port) as proxy, opened(proxy.url) as log:
            records = await permitted(log, "s")
            for _ in range(3):
                proxy.hold = b"RPUSHX"
                records.append(b"%d" % (len(records) + 1))
                assert await soon(log, "s", len(records), records[-1]) is None
                assert proxy.hold == b""
                before = calls_of(server, "exec")
                assert await proxy.release() == 1
                assert calls_of(server, "exec") == before + 1
                assert server.answer("LRANGE", "tw:{s}:log", "0", "-1") == records
                records = await regained(log, "s")

    need_redis()
    with redis_server() as server:
        asyncio.run(main(server))


def test_pushes_that_arrive_first_happen_once() -> None:
    async def main(server: RedisServer) -> None:
        async with Proxy(server.port) as proxy, opened(proxy.url) as log:
            records = await permitted(log, "s")
            also = await permitted(log, "t")
            proxy.swallow = 1
            outcomes = await asyncio.gather(
                soon(log, "s", len(records) + 1, b"s"), soon(log, "t", len(also) + 1, b"t")
            )
            assert outcomes == [None, None]
            assert proxy.swallow == 0
            assert server.answer("LRANGE", "tw:{s}:log", "0", "-1") == [*records, b"s"]
            assert server.answer("LRANGE", "tw:{t}:log", "0", "-1") == [*also, b"t"]

    need_redis()
    with redis_server() as server:
        asyncio.run(main(server))


@pytest.mark.parametrize("by", ["deletion", "time"])
def test_nothing_is_pushed_once_the_time_is_over(by: str) -> None:
    """By the server's clock, in the step that pushes."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        assert writer._appends._calls.watch is not None
        key = writer._appends._calls.watch.key
        assert 0 < int(server.answer("PTTL", key)) <= watch.HELD_MS
        if by == "time":
            server.ask("PEXPIRE", key, "1")
            await until(lambda: server.answer("EXISTS", key) == 0)
        else:
            server.ask("DEL", key)
        before = calls_of(server, "rpushx")
        records.append(b"looked at")
        assert await soon(writer, "s", len(records), records[-1]) is None
        assert calls_of(server, "rpushx") == before
        assert (await other.read("s", fresh=True)).records == records
        records = await regained(writer, "s")
        assert await soon(writer, "s", len(records) + 1, b"pushed") is None
        assert calls_of(server, "rpushx") == before + 1

    run_two(case)


def test_what_was_pushed_behind_another_s_record_is_taken_back() -> None:
    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        also = await permitted(writer, "t")
        server.ask("RPUSH", "tw:{s}:log", "foreign")
        outcomes = await asyncio.gather(
            soon(writer, "s", len(records) + 1, b"s"), soon(writer, "t", len(also) + 1, b"t")
        )
        assert (outcomes[0].status, outcomes[1]) == ("conflict", None)
        assert server.answer("LRANGE", "tw:{s}:log", "0", "-1") == [*records, b"foreign"]
        assert (await other.read("t")).records == [*also, b"t"]

    run_two(case)


@pytest.mark.parametrize("command", ["multi", "exec", "rpushx", "watch", "unwatch", "mget"])
def test_a_user_without_the_right_to_push(command: str) -> None:
    """Everything is appended all the same, each with a look at its owner."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        server.ask("ACL", "SETUSER", "default", f"-{command}")
        for _ in range(5):
            records.append(b"%d" % (len(records) + 1))
            assert await soon(writer, "s", len(records), records[-1]) is None
        before = calls_of(server, "rpushx")
        records.append(b"%d" % (len(records) + 1))
        assert await soon(writer, "s", len(records), records[-1]) is None
        assert calls_of(server, "rpushx") == before
        assert not writer._appends._can_push
        assert (await other.read("s", fresh=True)).records == records

    run_two(case)


def test_the_next_owner_s_fence_is_seen_by_all() -> None:
    """A takeover ends every permit, and the next look gives it back."""

    async def case(writer: RedisStore, other: RedisStore, server: RedisServer) -> None:
        records = await permitted(writer, "s")
        await other.create("t", owner="gone", lease=0)
        assert await writer.claim("t", owner="w", lease=60) is not None
        for number in range(1, 5):
            assert await soon(writer, "s", len(records) + number, b"%d" % number) is None
        await until(lambda: has_permit(writer, "s"))
        assert len((await other.read("s")).records) == len(records) + 4

    run_two(case)
