"""One list of promises, every store: the same cases give the same results."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Awaitable, Callable

import pytest

from tokenwire.errors import (
    ConflictError,
    CursorError,
    GoneError,
    KeyReusedError,
    NotFoundError,
)
from tokenwire.log.base import Due, Store, private_kind

NewLog = Callable[[], Store]
Case = Callable[[Store], Awaitable[None]]


def run(new_log: NewLog, case: Case) -> None:
    async def main() -> None:
        log = new_log()
        await log.start()
        try:
            await case(log)
        finally:
            await log.close()

    asyncio.run(main())


async def made(log: Store, stream: str = "s", *, count: int = 0, lease: float = 60.0) -> str:
    await log.create(stream, owner="me", lease=lease)
    if count:
        records = [b"record %d" % number for number in range(1, count + 1)]
        assert (await log.append(stream, epoch=1, first=1, records=records)).status == "ok"
    return stream


def test_a_store_that_is_started_again_is_as_it_was(new_log: NewLog) -> None:
    """By its owner, and by the application that it is given to: nothing of it stays open then."""

    async def main() -> None:
        log = new_log()
        await log.start()
        await made(log, count=1)
        await log.start()
        assert len((await log.read("s")).records) == 1
        await log.close()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    gc.collect()
    threads = set(threading.enumerate())
    with warnings.catch_warnings(record=True) as unclosed:
        warnings.simplefilter("always", ResourceWarning)
        asyncio.run(main())
        gc.collect()
    assert [str(one.message) for one in unclosed] == []
    assert set(threading.enumerate()) <= threads


def test_a_new_stream_is_described(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        info = await log.create("s", owner="me", meta=b"\x00meta\xff", thread="t", lease=60)
        assert (info.log, info.epoch, info.owner, info.tail) == ("s", 1, "me", 0)
        assert (info.closed, info.meta, info.thread, info.bytes) == (None, b"\x00meta\xff", "t", 0)
        assert info.lease_until == pytest.approx(info.created + 60, abs=0.01)
        assert await log.describe("s") == info

    run(new_log, case)


def test_records_come_back_as_they_went_in(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        records = [b"", b"\x00", b"\r\n*3\r\n", bytes(range(256)), "ж漢🙂".encode(), b"," * 9]
        done = await log.append("s", epoch=1, first=1, records=records)
        assert (done.status, done.tail) == ("ok", len(records))
        page = await log.read("s")
        assert (page.records, page.first, page.tail, page.closed) == (records, 1, 6, None)
        assert (await log.describe("s")).bytes == sum(map(len, records))

    run(new_log, case)


def test_a_page_of_nothing_but_empty_records(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        await log.append("s", epoch=1, first=1, records=[b"", b"", b""])
        assert (await log.read("s")).records == [b"", b"", b""]
        assert (await log.read("s", after=2)).records == [b""]

    run(new_log, case)


def test_pages_are_bounded_in_records_and_bytes(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=10)
        page = await log.read("s", after=3, most=4)
        assert page.records == [b"record 4", b"record 5", b"record 6", b"record 7"]
        assert (page.first, page.tail) == (4, 10)
        assert (await log.read("s", after=3, most_bytes=16)).records == [b"record 4", b"record 5"]
        assert (await log.read("s", after=3, most_bytes=1)).records == [b"record 4"]
        assert (await log.read("s", after=10)).records == []

    run(new_log, case)


def test_an_append_sent_twice_is_stored_once(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=3)
        again = await log.append("s", epoch=1, first=2, records=[b"record 2", b"record 3"])
        assert (again.status, again.tail) == ("duplicate", 3)
        partly = await log.append("s", epoch=1, first=3, records=[b"record 3", b"record 4"])
        assert (partly.status, partly.tail) == ("ok", 4)
        assert (await log.read("s", after=2)).records == [b"record 3", b"record 4"]
        nothing = await log.append("s", epoch=1, first=5, records=[])
        assert (nothing.status, nothing.tail) == ("duplicate", 4)

    run(new_log, case)


def test_another_record_at_the_offset_is_a_conflict(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=3)
        for first, records in ((3, [b"mine"]), (2, [b"record 2", b"mine", b"4"]), (1, [b"mine"])):
            done = await log.append("s", epoch=1, first=first, records=records)
            assert (done.status, done.tail) == ("conflict", 3)
        closing = await log.append("s", epoch=1, first=3, records=[b"mine"], close="end")
        assert closing.status == "conflict"
        assert (await log.describe("s")).closed is None
        await log.append("s", epoch=1, first=4, records=[b"end"], close="end")
        late = await log.append("s", epoch=1, first=4, records=[b"mine"])
        assert late.status == "conflict"
        assert (await log.read("s", after=2)).records == [b"record 3", b"end"]

    run(new_log, case)


def test_writers_of_one_epoch_take_turns(new_log: NewLog) -> None:
    """Each goes on behind what the others wrote, so that nothing is lost or written twice."""

    async def write(log: Store, name: bytes, count: int) -> None:
        tail = 0
        for number in range(count):
            record = b"%s%d" % (name, number)
            while True:
                done = await log.append("s", epoch=1, first=tail + 1, records=[record])
                tail = done.tail
                if done.status == "ok":
                    break
                assert done.status == "conflict"

    async def case(log: Store) -> None:
        await made(log)
        others = [log]
        if log.shared:
            others.append(new_log())
            await others[1].start()
        writers = [(others[n % len(others)], name) for n, name in enumerate((b"a", b"b", b"c"))]
        await asyncio.gather(*(write(log, name, 20) for log, name in writers))
        records = (await log.read("s")).records
        for name in (b"a", b"b", b"c"):
            mine = [record for record in records if record.startswith(name)]
            assert mine == [b"%s%d" % (name, number) for number in range(20)]
        for other in others[1:]:
            await other.close()

    run(new_log, case)


def test_what_others_append_to_a_shared_stream_is_told_and_read_at_once(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        other = new_log() if log.shared else log
        if other is not log:
            await other.start()
        await log.create("s", owner="all", lease=60, shared=True)
        woken = asyncio.Event()
        stop = log.subscribe("s", woken.set)
        for number in range(1, 41):
            writer = log if number % 3 == 0 else other
            woken.clear()
            done = await writer.append("s", epoch=1, first=number, records=[b"%d" % number])
            assert done.status == "ok"
            page = await log.read("s", after=number - 1, fresh=True)
            assert (page.records, page.tail) == ([b"%d" % number], number)
            await asyncio.wait_for(woken.wait(), 60)
        stop()
        if other is not log:
            await other.close()

    run(new_log, case)


def test_a_gap_is_refused_and_names_the_tail(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=3)
        done = await log.append("s", epoch=1, first=5, records=[b"5"], close="end")
        assert (done.status, done.tail) == ("gap", 3)
        assert (await log.describe("s")).closed is None

    run(new_log, case)


def test_offsets_start_at_one(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        with pytest.raises(ValueError, match="start at 1"):
            await log.append("s", epoch=1, first=0, records=[b"0"])

    run(new_log, case)


def test_a_close_is_part_of_its_append(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=1)
        done = await log.append("s", epoch=1, first=2, records=[b"end"], close="complete")
        assert (done.status, done.tail) == ("ok", 2)
        assert (await log.read("s")).closed == "complete"
        assert (await log.read("s", most=1)).closed is None
        assert (await log.read("s", after=2)).closed == "complete"
        assert (await log.describe("s")).closed == "complete"
        again = await log.append("s", epoch=1, first=2, records=[b"end"], close="complete")
        assert again.status == "duplicate"
        other = await log.append("s", epoch=1, first=3, records=[], close="error")
        assert other.status == "closed"
        more = await log.append("s", epoch=1, first=3, records=[b"more"])
        assert (more.status, more.tail) == ("closed", 2)

    run(new_log, case)


def test_a_close_needs_no_records(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        done = await log.append("s", epoch=1, first=1, records=[], close="interrupted")
        assert (done.status, done.tail) == ("ok", 0)
        assert (await log.read("s")).closed == "interrupted"

    run(new_log, case)


def test_an_old_owner_is_fenced(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=2, lease=0)
        claim = await log.claim("s", owner="you", lease=60)
        assert claim is not None
        assert (claim.log, claim.epoch, claim.tail) == ("s", 2, 2)
        old = await log.append("s", epoch=1, first=3, records=[b"zombie"], close="done")
        assert (old.status, old.tail, old.epoch) == ("fenced", 2, 2)
        new = await log.append("s", epoch=2, first=3, records=[b"three"])
        assert new.status == "ok"
        assert (await log.read("s", after=2)).records == [b"three"]
        assert (await log.describe("s")).owner == "you"

    run(new_log, case)


def test_a_claim_waits_for_the_lease(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, lease=60)
        assert await log.claim("s", owner="you") is None
        await log.release("s", epoch=7)
        assert await log.claim("s", owner="you") is None
        await log.release("s", epoch=1)
        claims = await asyncio.gather(*(log.claim("s", owner=f"o{n}") for n in range(5)))
        assert [claim.epoch for claim in claims if claim] == [2]
        assert await log.claim("unknown", owner="you") is None

    run(new_log, case)


def test_a_claim_says_whether_the_owner_handed_over(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        await log.release("s", epoch=1, handed_over=True)
        claim = await log.claim("s", owner="you", lease=60)
        assert claim is not None
        assert claim.handed_over
        assert await log.renew({"s": 1}, owner="me") == {"s"}
        await log.release("s", epoch=2)
        claim = await log.claim("s", owner="they", lease=60)
        assert claim is not None
        assert not claim.handed_over
        await log.release("s", epoch=1, handed_over=True)
        assert (await log.describe("s")).owner == "they", "an older epoch releases nothing"

    run(new_log, case)


def test_a_closed_stream_is_not_claimed(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, lease=0)
        await log.append("s", epoch=1, first=1, records=[], close="complete")
        assert await log.claim("s", owner="you") is None
        assert await log.orphans() == []

    run(new_log, case)


def test_leases_are_renewed_or_reported_lost(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for name in ("kept", "ended", "taken"):
            await made(log, name, lease=0)
        await log.append("ended", epoch=1, first=1, records=[], close="complete")
        assert await log.claim("taken", owner="you", lease=60)
        lost = await log.renew(
            {"kept": 1, "ended": 1, "taken": 1, "unknown": 1}, owner="me", lease=60
        )
        assert lost == {"ended", "taken", "unknown"}
        assert await log.claim("kept", owner="you") is None
        assert await log.renew({"kept": 1}, owner="somebody else", lease=60) == {"kept"}
        assert await log.renew({}, owner="me") == set()

    run(new_log, case)


def test_the_leases_of_an_owner_are_found_and_can_be_released(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for name, owner in [("a", "me"), ("b", "me"), ("ended", "me"), ("c", "you"), ("d", "it")]:
            await log.create(name, owner=owner, lease=60)
        await log.append("ended", epoch=1, first=1, records=[], close="complete")
        await log.release("d", epoch=1)
        assert await log.claim("d", owner="heir", lease=60)
        assert {"me", "you", "heir"} <= await log.owners()
        assert sorted(await log.leases({"me"})) == [("a", 1), ("b", 1)]
        assert await log.leases({"it", "nobody"}) == []
        assert sorted(await log.leases({"heir", "you"})) == [("c", 1), ("d", 2)]
        assert len(await log.leases({"me", "you"}, most=2)) == 2
        await log.release("a", epoch=1)
        assert await log.leases({"me"}) == [("b", 1)], "what is released is no lease any more"
        assert await log.orphans() == ["a"]

    run(new_log, case)


def test_orphans_are_open_streams_without_a_lease(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for number in range(4):
            await made(log, f"s{number}", lease=0 if number % 2 else 60)
        assert sorted(await log.orphans()) == ["s1", "s3"]
        assert len(await log.orphans(most=1)) == 1
        await log.claim("s1", owner="you", lease=60)
        assert await log.orphans() == ["s3"]
        await log.release("s0", epoch=1)
        assert sorted(await log.orphans()) == ["s0", "s3"]

    run(new_log, case)


def test_unknown_streams_and_taken_names(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        with pytest.raises(NotFoundError):
            await log.read("none")
        with pytest.raises(NotFoundError):
            await log.describe("none")
        with pytest.raises(NotFoundError):
            await log.append("none", epoch=1, first=1, records=[b"x"])
        with pytest.raises(NotFoundError):
            await log.command("none", b"stop")
        with pytest.raises(NotFoundError):
            await log.commands("none")
        await made(log)
        with pytest.raises(ConflictError):
            await log.create("s", owner="you")

    run(new_log, case)


def test_an_offset_beyond_the_tail_is_an_error(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=2)
        with pytest.raises(CursorError):
            await log.read("s", after=3)
        with pytest.raises(CursorError):
            await log.read("s", after=-1)

    run(new_log, case)


def test_a_key_gives_the_same_stream_again(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        first = await log.create("a", owner="me", key="k", key_hash="h", lease=60)
        again = await log.create("b", owner="you", key="k", key_hash="h", lease=60)
        assert again == first
        with pytest.raises(NotFoundError):
            await log.describe("b")
        with pytest.raises(KeyReusedError):
            await log.create("c", owner="me", key="k", key_hash="other")
        other = await log.create("c", owner="me", key="k2", key_hash="other")
        assert other.log == "c"
        assert [await log.named(key) for key in ("k", "k2", "k3")] == ["a", "c", None]

    run(new_log, case)


def test_a_key_used_at_once_makes_one_stream(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        infos = await asyncio.gather(
            *(log.create(f"s{n}", owner=f"o{n}", key="k", key_hash="h") for n in range(8))
        )
        assert len({info.log for info in infos}) == 1
        assert (await log.stats())["streams"] == 1

    run(new_log, case)


def test_a_thread_lists_its_streams_newest_first(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for number in range(5):
            await log.create(f"s{number}", owner="me", thread="t")
        await log.create("other", owner="me", thread="u")
        assert await log.thread("t") == ["s4", "s3", "s2", "s1", "s0"]
        assert await log.thread("t", most=2) == ["s4", "s3"]
        assert await log.thread("t", before="s3") == ["s2", "s1", "s0"]
        assert await log.thread("t", most=1, before="s3") == ["s2"]
        assert await log.thread("t", before="s0") == []
        assert await log.thread("t", before="unknown") == []
        assert await log.thread("none") == []
        await log.delete("s3")
        assert await log.thread("t", most=2) == ["s4", "s2"]

    run(new_log, case)


def test_commands_reach_the_owner_in_order(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        woken = asyncio.Event()
        log.subscribe("s", woken.set)
        await log.command("s", b"cancel")
        await asyncio.wait_for(woken.wait(), 60)
        await log.command("s", b"\x00approve\n")
        assert await log.commands("s") == [(1, b"cancel"), (2, b"\x00approve\n")]
        assert await log.commands("s", after=1) == [(2, b"\x00approve\n")]
        assert await log.commands("s", after=2) == []

    run(new_log, case)


def test_the_mailboxes_of_many_logs_in_one_call(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        names = [f"s{number}" for number in range(70)]  # more than a store asks for at a time
        for name in [*names, 'a "b" é']:
            await made(log, name)
        for name in names[::2]:
            await log.command(name, b"one")
            await log.command(name, b"\x00two")
        await log.command('a "b" é', b"cancel")
        await log.delete("s4")
        places = {name: number % 3 for number, name in enumerate(names)}
        expected = {
            name: [(1, b"one"), (2, b"\x00two")][seen:]
            for name, seen in places.items()
            if name != "s4" and int(name[1:]) % 2 == 0 and seen < 2
        }
        places |= {'a "b" é': 0, "unknown": 0}
        assert await log.mailboxes(places) == expected | {'a "b" é': [(1, b"cancel")]}
        assert await log.mailboxes({}) == {}

    run(new_log, case)


def test_subscribers_are_woken_after_the_records_are_there(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        woken = asyncio.Event()
        end = log.subscribe("s", woken.set)
        seen: list[bytes] = []

        async def follow() -> str:
            while True:
                page = await log.read("s", after=len(seen), most=7)
                seen.extend(page.records)
                if page.closed:
                    return page.closed
                if not page.records:
                    await asyncio.wait_for(woken.wait(), 60)
                    woken.clear()

        follower = asyncio.create_task(follow())
        for number in range(1, 101):
            await log.append("s", epoch=1, first=number, records=[b"%d" % number])
            if number % 10 == 0:
                await asyncio.sleep(0)
        await log.append("s", epoch=1, first=101, records=[], close="complete")
        assert await follower == "complete"
        assert seen == [b"%d" % number for number in range(1, 101)]
        end()
        end()

    run(new_log, case)


def test_one_subscriber_may_leave_while_it_is_woken(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        called: list[str] = []
        woken = asyncio.Event()

        def wake_first() -> None:
            called.append("first")
            end_first()

        end_first = log.subscribe("s", wake_first)
        end_second = log.subscribe("s", woken.set)
        await log.append("s", epoch=1, first=1, records=[b"1"])
        await asyncio.wait_for(woken.wait(), 60)
        woken.clear()
        await log.append("s", epoch=1, first=2, records=[b"2"])
        await asyncio.wait_for(woken.wait(), 60)
        assert called == ["first"]
        end_second()

    run(new_log, case)


def test_a_follower_that_left_and_came_back_misses_nothing(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        end = log.subscribe("s", lambda: None)
        await log.append("s", epoch=1, first=1, records=[b"1"])
        end()
        await log.append("s", epoch=1, first=2, records=[b"2"])
        end = log.subscribe("s", lambda: None)
        await log.append("s", epoch=1, first=3, records=[b"3"])
        assert (await log.read("s")).records == [b"1", b"2", b"3"]
        assert (await log.read("s", after=1)).records == [b"2", b"3"]
        end()

    run(new_log, case)


def test_many_streams_at_once_keep_their_own_order(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        names = [f"s{number}" for number in range(40)]

        async def write(name: str) -> None:
            await log.create(name, owner="me", lease=60)
            for number in range(1, 26):
                record = f"{name} {number}".encode()
                done = await log.append(name, epoch=1, first=number, records=[record])
                assert (done.status, done.tail) == ("ok", number)

        await asyncio.gather(*map(write, names))
        for name in names:
            page = await log.read(name)
            assert page.records == [f"{name} {number}".encode() for number in range(1, 26)]

    run(new_log, case)


def test_appends_sent_without_waiting_are_kept_in_order(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        done = await asyncio.gather(
            *(log.append("s", epoch=1, first=n, records=[b"%d" % n]) for n in range(1, 51))
        )
        assert [one.status for one in done] == ["ok"] * 50
        assert (await log.read("s")).records == [b"%d" % n for n in range(1, 51)]

    run(new_log, case)


def test_a_cancelled_append_is_kept_or_not_but_whole(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        for number in range(1, 40, 2):
            records = [b"%d" % number, b"%d" % (number + 1)]
            waiting = asyncio.create_task(log.append("s", epoch=1, first=number, records=records))
            for _ in range(number % 4):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            again = await log.append("s", epoch=1, first=number, records=records)
            assert again.status in ("ok", "duplicate")
            assert again.tail == number + 1
        assert (await log.read("s")).records == [b"%d" % n for n in range(1, 41)]

    run(new_log, case)


def test_a_document_is_swapped_only_for_what_was_seen(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        assert await log.document("d", "one") is None
        assert not await log.swap_document("d", "one", b"", b"1"), "there is none, not an empty one"
        assert await log.swap_document("d", "one", None, b"1")
        assert await log.swap_document("d", "one", None, b"1"), "sent twice"
        assert not await log.swap_document("d", "one", None, b"2")
        assert await log.swap_document("d", "one", b"1", b"\x00\r\n\xff")
        assert await log.document("d", "one") == b"\x00\r\n\xff"
        assert await log.document("d", "on") is None
        assert await log.swap_document("d", "one", b"\x00\r\n\xff", b"")
        assert await log.document("d", "one") == b""
        assert await log.documents("d") == {"one": b""}
        assert not await log.swap_document("d", "one", b"1", None)
        assert await log.swap_document("d", "one", b"", None)
        assert await log.swap_document("d", "one", b"", None), "sent twice"
        assert await log.documents("d") == {}

    run(new_log, case)


def test_of_swaps_at_once_one_wins(new_log: NewLog) -> None:
    async def add(log: Store, names: list[bytes]) -> None:
        for name in names:
            while True:
                seen = await log.document("d", "all")
                if await log.swap_document("d", "all", seen, (seen or b"") + name):
                    break

    async def case(log: Store) -> None:
        other = new_log() if log.shared else log
        if other is not log:
            await other.start()
        lower, upper = ([b"%c" % (start + n) for n in range(20)] for start in (97, 65))
        await asyncio.gather(add(log, lower), add(other, upper))
        assert sorted(await log.document("d", "all") or b"") == sorted(b"".join(upper + lower))
        if other is not log:
            await other.close()

    run(new_log, case)


def test_documents_by_name_a_page_at_a_time(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        names = ["p/a", "p/b", "p/\U0001f600", "p/\uffff", "p%", "q/a", "p/", "p"]
        for name in names:
            await log.set_document("page", name, name.encode())
        by_name = sorted(name for name in names if name.startswith("p/"))
        pages: list[str] = []
        after = ""
        while page := await log.documents("page", prefix="p/", most=2, after=after):
            assert all(data == name.encode() for name, data in page.items())
            pages += page
            after = list(page)[-1]
        assert pages == by_name
        assert list(await log.documents("page", after="")) == sorted(names)
        assert list(await log.documents("page", after="p/b", most=1)) == ["p/\uffff"]
        assert await log.documents("page", prefix="p/", after="p0") == {}
        assert list(await log.documents("page", prefix="q/", after="p/b")) == ["q/a"]
        await log.set_document("page", "p/a", None)
        assert list(await log.documents("page", prefix="p/a", after="")) == []

    run(new_log, case)


def test_documents_newest_first(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for name in ("p/a", "p/b", "q/c", "p%d"):
            await log.set_document("title", name, name.encode())
        await log.set_document("title", "p/a", b"changed")
        await log.set_document("other", "p/z", b"")
        found = await log.documents("title", prefix="p/")
        assert list(found.items()) == [("p/a", b"changed"), ("p/b", b"p/b")]
        assert list(await log.documents("title", most=2)) == ["p/a", "p%d"]
        await log.set_document("title", "p/a", None)
        await log.set_document("title", "never", None)
        assert list(await log.documents("title", prefix="p/")) == ["p/b"]
        assert await log.documents("other") == {"p/z": b""}
        assert await log.documents("none") == {}
        assert await log.count_documents("title") == len(await log.documents("title"))
        assert await log.count_documents("title", prefix="p/") == 1
        assert await log.count_documents("title", prefix="p") == 2
        assert await log.count_documents("none", prefix="p") == 0

    run(new_log, case)


def test_deleted_streams_are_forgotten(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await log.create("s", owner="me", thread="t", key="k", key_hash="h")
        await log.append("s", epoch=1, first=1, records=[b"secret"])
        await log.command("s", b"stop")
        woken = asyncio.Event()
        log.subscribe("s", woken.set)
        await log.delete("s")
        await asyncio.wait_for(woken.wait(), 60)
        await log.delete("s")
        with pytest.raises(NotFoundError):
            await log.read("s")
        with pytest.raises(NotFoundError):
            await log.append("s", epoch=1, first=2, records=[b"x"])
        assert await log.thread("t") == []
        assert await log.orphans() == []
        again = await log.create("s", owner="you", key="k", key_hash="new")
        assert (again.owner, again.tail, again.epoch) == ("you", 0, 1)
        assert await log.commands("s") == []

    run(new_log, case)


def test_expired_streams_are_gone_not_unknown(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await log.create("old", owner="me", thread="t", key="k", key_hash="h")
        await made(log, "open", count=1)
        await log.append("old", epoch=1, first=1, records=[b"end"], close="complete")
        assert await log.expire(retention=3600) == 0
        assert await log.expire(retention=-1) == 1
        for call in (log.read("old"), log.describe("old"), log.commands("old")):
            with pytest.raises(GoneError):
                await call
        with pytest.raises(GoneError):
            await log.append("old", epoch=1, first=2, records=[b"x"])
        with pytest.raises(ConflictError):
            await log.create("old", owner="me")
        assert await log.thread("t") == []
        assert (await log.read("open")).records == [b"record 1"]
        assert await log.expire(retention=-1) == 0

    run(new_log, case)


def test_an_owner_hears_of_all_but_its_own_appends(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log)
        heard: list[str] = []
        ends = [
            log.subscribe("s", lambda: heard.append("owner"), appends=False),
            log.subscribe("s", lambda: heard.append("reader")),
        ]

        async def until_heard(*whose: str) -> None:
            async with asyncio.timeout(40):
                while not {*whose} <= {*heard}:
                    await asyncio.sleep(0.01)

        told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        for number in range(1, 4):
            await log.append("s", epoch=1, first=number, records=[b"x"])
        assert log.append_soon("s", epoch=1, first=4, records=[b"x"], then=told.set_result)
        assert await told is None
        await until_heard("reader")
        await asyncio.sleep(0.05)  # should it be told late
        assert heard.count("owner") <= 1  # a store may say once that the subscription stands
        heard.clear()
        await log.command("s", b"stop")
        await until_heard("owner")
        heard.clear()
        await log.append("s", epoch=1, first=5, records=[], close="complete")
        await log.delete("s")
        await until_heard("owner", "reader")
        for end in ends:
            end()
        heard.clear()
        await made(log)
        await log.command("s", b"stop")
        await asyncio.sleep(0.05)
        assert not heard

    run(new_log, case)


def test_stats_count_what_is_there(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, "a", count=3)
        await made(log, "b", count=2)
        await log.append("b", epoch=1, first=3, records=[], close="complete")
        stats = await log.stats()
        assert (stats["streams"], stats["open"]) == (2, 1)
        assert (stats["records"], stats["bytes"]) == (5, 5 * len(b"record 1"))
        assert stats["durability"] == log.durability
        assert all(isinstance(note, str) for note in stats["notes"])
        for taken in ("a", "b"):  # a name that is taken, by an open stream and by an ended one
            with pytest.raises(ConflictError):
                await log.create(taken, owner="you", thread="other")
        stats = await log.stats()
        assert (stats["streams"], stats["open"]) == (2, 1)
        assert await log.thread("other") == []

    run(new_log, case)


def test_a_store_may_be_opened_again(new_log: NewLog) -> None:
    async def main() -> None:
        log = new_log()
        if not log.shared:
            pytest.skip("a memory log ends with its process")
        await log.start()
        await log.create("s", owner="me", thread="t", meta=b"m", key="k", key_hash="h", lease=0)
        await log.append("s", epoch=1, first=1, records=[b"1", b"2"])
        await log.command("s", b"stop")
        await log.close()
        log = new_log()
        await log.start()
        assert (await log.read("s")).records == [b"1", b"2"]
        assert await log.commands("s") == [(1, b"stop")]
        assert await log.thread("t") == ["s"]
        claim = await log.claim("s", owner="you", lease=60)
        assert claim is not None
        assert (claim.epoch, claim.tail) == (2, 2)
        await log.close()

    asyncio.run(main())


def test_two_logs_on_one_store_see_each_other(new_log: NewLog) -> None:
    async def main() -> None:
        writer, reader = new_log(), new_log()
        if not writer.shared:
            pytest.skip("a memory log ends with its process")
        await writer.start()
        await reader.start()
        await writer.create("s", owner="me", lease=60)
        woken = asyncio.Event()
        reader.subscribe("s", woken.set)
        seen: list[bytes] = []
        for number in range(1, 31):
            await writer.append("s", epoch=1, first=number, records=[b"%d" % number])
            while len(seen) < number:
                page = await reader.read("s", after=len(seen))
                seen.extend(page.records)
                if not page.records:
                    await asyncio.wait_for(woken.wait(), 60)
                    woken.clear()
        await reader.command("s", b"stop")
        assert await writer.commands("s") == [(1, b"stop")]
        await writer.release("s", epoch=1)
        claim = await reader.claim("s", owner="you", lease=60)
        assert claim is not None
        assert (await reader.append("s", epoch=2, first=31, records=[b"31"])).status == "ok"
        late = await writer.append("s", epoch=1, first=31, records=[b"zombie"])
        assert (late.status, late.epoch) == ("fenced", 2)
        assert (await writer.read("s", after=30)).records == [b"31"]
        await writer.close()
        await reader.close()

    asyncio.run(main())


async def soon(log: Store, *, first: int, records: list[bytes], epoch: int = 1) -> object:
    """What `append_soon` tells; ``later`` when it takes nothing now."""
    told: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    if not log.append_soon("s", epoch=epoch, first=first, records=records, then=told.set_result):
        assert not told.done()
        return "later"
    return await asyncio.wait_for(told, 60)


def test_an_append_without_waiting_is_an_append_or_nothing(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=2)
        told = await soon(log, first=3, records=[b"3", b"4"])
        if told == "later":
            done = await log.append("s", epoch=1, first=3, records=[b"3", b"4"])
            assert done.status == "ok"
        else:
            assert told is None
        assert (await log.read("s", after=2)).records == [b"3", b"4"]
        # A gap and an older owner are refused, here or by `append`; nothing is written.
        for wrong in ({"first": 9}, {"first": 5, "epoch": 7}):
            assert await soon(log, records=[b"x"], **wrong) is not None  # type: ignore[arg-type]
        assert (await log.describe("s")).tail == 4
        await log.append("s", epoch=1, first=5, records=[], close="end")
        assert await soon(log, first=5, records=[b"x"]) is not None
        assert (await log.describe("s")).tail == 4

    run(new_log, case)


def test_who_is_told_of_an_append_without_waiting_finds_it(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=1)
        woken: list[list[bytes]] = []

        def wake() -> None:
            page = log.read_now("s", after=1)
            woken.append(page.records if page is not None else [b"ask"])

        unsubscribe = log.subscribe("s", wake)
        if await soon(log, first=2, records=[b"2"]) is None:
            assert woken[-1] in ([b"2"], [b"ask"])
        unsubscribe()

    run(new_log, case)


def test_a_page_at_hand_is_the_page(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await made(log, count=3)
        unsubscribe = log.subscribe("s", lambda: None)
        await log.append("s", epoch=1, first=4, records=[b"4", b"5"], close="end")
        for after in range(6):
            page = log.read_now("s", after=after)
            assert page is None or page == await log.read("s", after=after)
        unsubscribe()

    run(new_log, case)


def test_private_documents_go_with_their_log_and_others_stay(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for name in ("kept", "deleted", "expired"):
            await log.create(name, owner="a")
            await log.set_document(private_kind(name), "op-1", name.encode())
        await log.set_document("title", "deleted", b"a title")
        await log.append("expired", epoch=1, first=1, records=[b"x"], close="complete")
        await log.delete("deleted")
        assert await log.expire(retention=-1) == 1
        assert await log.documents(private_kind("deleted")) == {}
        assert await log.documents(private_kind("expired")) == {}
        assert await log.documents(private_kind("kept")) == {"op-1": b"kept"}
        assert await log.document("title", "deleted") == b"a title"

    run(new_log, case)


# Retention: of a log without a thread from its end, of a conversation from its last use.


async def ended(log: Store, name: str, thread: str | None = None, key: str | None = None) -> None:
    await log.create(name, owner="me", thread=thread, key=key, lease=60)
    done = await log.append(name, epoch=1, first=1, records=[b"x"], close="complete")
    assert done.status == "ok"


async def left(log: Store, *names: str) -> list[str]:
    """Those of ``names`` that are still there."""
    there = []
    for name in names:
        try:
            await log.describe(name)
        except (GoneError, NotFoundError):
            continue
        there.append(name)
    return there


@pytest.mark.parametrize("use", ["a new log", "a log that ends", "nothing"])
def test_a_conversation_is_kept_from_its_last_use(new_log: NewLog, use: str) -> None:
    async def case(log: Store) -> None:
        await ended(log, "first", "t", "k")
        if use == "a log that ends":
            await log.create("second", owner="me", thread="t", lease=60)
        await ended(log, "alone")
        await asyncio.sleep(0.6)
        between = time.time()
        await asyncio.sleep(0.6)
        if use == "a new log":
            await log.create("second", owner="me", thread="t", lease=60)
        elif use == "a log that ends":
            await log.append("second", epoch=1, first=1, records=[b"x"], close="complete")
        # What was used before that moment goes, however long the machine took since.
        erased = await log.expire(retention=time.time() - between)
        there = await left(log, "first", "second", "alone")
        if use == "nothing":
            assert (erased, there) == (2, [])
            assert await log.named("k") is None
        else:
            assert (erased, there) == (1, ["first", "second"])
            assert await log.thread("t") == ["second", "first"]
            assert await log.named("k") == "first"
            assert (await log.read("first")).records == [b"x"]

    run(new_log, case)


def test_an_open_log_keeps_its_conversation_and_no_other(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await ended(log, "old", "t")
        await log.create("waiting", owner="me", thread="t", lease=60)
        await ended(log, "other", "u")
        assert await log.expire(retention=-1) == 1
        assert await left(log, "old", "waiting", "other") == ["old", "waiting"]
        assert await log.expire(retention=-1) == 0
        await log.append("waiting", epoch=1, first=1, records=[], close="complete")
        assert await log.expire(retention=3600) == 0
        assert await log.expire(retention=-1) == 2
        assert await left(log, "old", "waiting") == []
        assert await log.thread("t") == []

    run(new_log, case)


def test_a_conversation_outlives_the_logs_that_are_deleted(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await ended(log, "a", "t")
        await log.create("b", owner="me", thread="t")
        await log.delete("b")
        assert await log.expire(retention=3600) == 0
        assert await log.thread("t") == ["a"]
        assert await log.expire(retention=-1) == 1
        await ended(log, "c", "t")  # the same name begins anew
        assert await log.thread("t") == ["c"]
        assert await log.expire(retention=3600) == 0
        await log.delete("c")
        assert await log.expire(retention=-1) == 0

    run(new_log, case)


def test_a_long_conversation_goes_as_a_whole(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        for start in range(0, 450, 50):
            await asyncio.gather(*(ended(log, f"s{n}", "t") for n in range(start, start + 50)))
        await ended(log, "other", "u")
        stats = await log.stats()
        assert (stats["streams"], stats["open"], stats["tombstones"]) == (451, 0, 0)
        assert await log.expire(retention=-1) == 451
        stats = await log.stats()
        assert (stats["streams"], stats["tombstones"]) == (0, 451)
        assert await log.thread("t", most=1000) == []

    run(new_log, case)


class Sweep:
    """Keeps what it is told to, and notes what it was told."""

    def __init__(self, *held: str) -> None:
        self.held = set(held)
        self.asked: list[str] = []
        self.erased: list[Due] = []

    async def before(self, due: list[Due]) -> list[Due]:
        self.asked += [log for one in due for log in one.logs]
        return [one for one in due if not self.held.intersection(one.logs)]

    async def after(self, erased: list[Due]) -> None:
        self.erased += erased


def test_a_sweeper_keeps_some_for_a_while_and_hears_what_went(new_log: NewLog) -> None:
    async def case(log: Store) -> None:
        await ended(log, "held", "t")
        await ended(log, "beside", "t")
        await ended(log, "alone")
        await ended(log, "alone-held")
        for number in range(3):
            await ended(log, f"u{number}", "u")
        await asyncio.sleep(1.1)
        sweep = Sweep("held", "alone-held")
        begin = time.monotonic()
        assert await log.expire(retention=1.0, sweeper=sweep) == 4
        assert await left(log, "held", "beside", "alone-held") == ["held", "beside", "alone-held"]
        told = {(one.thread, *one.logs) for one in sweep.erased if one.is_all}
        assert told == {(None, "alone"), ("u", "u0", "u1", "u2")}
        sweep.asked.clear()
        assert await log.expire(retention=1.0, sweeper=sweep) == 0
        if time.monotonic() < begin + 0.9:  # else it is due again, a second later
            assert sweep.asked == [], "what is held is not looked at all the time"
        sweep.held.clear()
        sweep.asked.clear()
        erased = 0
        async with asyncio.timeout(40):
            while not (erased := await log.expire(retention=1.0, sweeper=sweep)):
                await asyncio.sleep(0.05)
        assert erased == 3
        assert sorted(sweep.asked) == ["alone-held", "beside", "held"]

    run(new_log, case)
