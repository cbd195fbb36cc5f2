"""Spools: what is appended by hand to a store that has it later, and who hears of it when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.spool_store import Store, by_hand, give, turns
from tokenwire.errors import FencedError, LogError, StoreUnavailableError
from tokenwire.events.model import RunEnd, StepStart, TextDelta
from tokenwire.express import SETTLE, YES
from tokenwire.log import spool as spools
from tokenwire.log.base import Appended, Page
from tokenwire.log.paces import MOST_PACE, PACES
from tokenwire.log.spool import (
    MOST_LANDED,
    STALL_SECONDS,
    Batch,
    Spools,
)
from tokenwire.relay.produce import producer as producing
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.produce.producer import Producer
from tokenwire.relay.record import Chain, verify


def case(test: Callable[[Store], Any]) -> None:
    async def main() -> None:
        store = Store()
        try:
            await test(store)
        finally:
            store.tails.close()

    asyncio.run(main())


def test_nobody_has_a_record_before_the_store() -> None:
    async def test(store: Store) -> None:
        told = give(store, 1, b"one")
        assert not store.groups  # it leaves with the others of its turn
        await turns()
        spool = store.tape("r")
        assert spool is not None
        by_hand(spool, b"two")
        await turns()
        assert [(start, end) for _, start, end in store.groups[0].items] == [(0, 1)]
        assert len(store.groups) == 1  # one at a time
        assert (store.seen, told) == ([], [])
        page = store.tails.page("r", 0, 10, 1000)
        assert page is None or page.records == []
        store.commit()
        assert (store.seen, told) == ([b"one"], [None])
        assert store.tails.page("r", 0, 10, 1000) == Page([b"one"], 1, 1)
        await turns()
        store.commit()
        assert store.seen == [b"one", b"two"]
        assert spool.usage.bytes == 0

    case(test)


@pytest.mark.parametrize("late", [False, True])
def test_a_group_that_fails_ends_its_spools_and_those_behind(late: bool) -> None:
    async def test(store: Store) -> None:
        told = give(store, 1, b"one")
        await turns()
        spool = store.tape("r")
        assert spool is not None
        by_hand(spool, b"two")
        store.lose(late=late)
        assert [type(each) for each in told] == [StoreUnavailableError]
        assert store.tape("r") is None
        assert (spool.writer, spool.takers) == (0, None)
        assert spool.records[spool.landed :] == [b"one", b"two"]
        assert spool.usage.bytes == 0
        assert store.seen == ([b"one"] if late else [])
        await turns()
        assert not store.groups
        told = give(store, 1, b"one")  # again, as it was
        await turns()
        store.commit()
        assert told == [None]
        assert store.records == [b"one"]

    case(test)


def test_a_log_that_is_refused_disturbs_no_other() -> None:
    async def test(store: Store) -> None:
        told = give(store, 1, b"one", epoch=7)
        others: list[Any] = []
        assert store.tails.append("other", 1, 1, [b"one"], others.append)
        await turns()
        batch = store.groups.pop()
        assert [spool.log for spool, _, _ in batch.items] == ["r", "other"]
        fenced = Appended("fenced", 0, 1)
        store.tails.land(batch, [fenced, None])
        assert (told, others) == ([fenced], [None])
        assert store.tape("r") is None
        assert store.tape("other") is not None

    case(test)


def test_a_call_that_fails_is_logged_and_the_others_are_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(store: Store) -> None:
        def fail(problem: Any) -> None:
            raise ValueError("a fault")

        assert store.tails.append("r", 1, 1, [b"one"], fail)
        others: list[Any] = []
        assert store.tails.append("other", 1, 1, [b"one"], others.append)
        await turns()
        store.tails.land(store.groups.pop(), None)
        assert others == [None]

    case(test)
    assert "the callback of an append failed" in caplog.text


def test_what_does_not_follow_goes_another_way_behind_what_does() -> None:
    async def test(store: Store) -> None:
        give(store, 1, b"one")
        for count, (first, epoch) in enumerate(((1, 1), (3, 1), (2, 2)), 1):
            assert not store.tails.append("r", epoch, first, [b"x"], print)
            assert store.tape("r") is None
            assert len(store.groups) == count  # given at once
            give(store, 2, b"two")
        assert not store.tails.append("r", 1, 3, [b"x"], print)  # the one before has not landed
        assert not store.tails.append("s", 1, 1_000_000, [b"x"], print)

    case(test)


def test_more_bytes_than_the_store_is_behind_by_are_not_taken() -> None:
    async def test(store: Store) -> None:
        store.tails.usage.most = 10
        give(store, 1, b"x" * 11)
        assert not store.tails.append("other", 1, 1, [b"x"], print)
        store.commit()
        assert store.tails.append("other", 1, 1, [b"x"], print)

    case(test)


def test_a_store_that_takes_its_time_lends_nothing_until_it_answers() -> None:
    async def test(store: Store) -> None:
        give(store, 1, b"one")
        await turns()
        spool = store.tape("r")
        assert spool is not None
        await asyncio.sleep(STALL_SECONDS * 1.2)
        assert spool.writer == 0
        assert store.tape("r") is None
        told: list[Any] = []
        assert store.tails.append("other", 1, 1, [b"one"], told.append)
        assert store.tape("other") is None
        store.commit()
        assert (spool.writer, store.tape("r")) == (1, spool)
        assert store.tape("other") is not None

    case(test)


def test_an_append_goes_behind_what_is_there_however_much_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spools, "MOST_ITEMS", 2)

    async def test(store: Store) -> None:
        for log in "abcder":
            assert store.tails.append(log, 1, 1, [b"one"], print)
        store.tails.retire("r")
        assert [each.log for group in store.groups for each, _, _ in group.items] == [*"abcder"]

    case(test)


def test_readers_hear_of_what_was_in_the_store_all_the_time() -> None:
    async def test(store: Store) -> None:
        store.records.append(b"one")  # its answer was lost
        told = give(store, 1, b"one")
        await turns()
        store.commit()
        assert (store.seen, told) == ([b"one"], [None])

    case(test)


def test_a_reader_that_fails_is_logged_whatever_became_of_the_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(store: Store) -> None:
        def fail() -> None:
            raise ValueError("a fault")

        store.tails.subscribe("r", fail)
        give(store, 1, b"one")
        await turns()
        store.lose(late=True)
        assert store.records == [b"one"]

    case(test)
    assert "the wake-up of a reader failed" in caplog.text


def test_what_has_landed_does_not_stay() -> None:
    async def test(store: Store) -> None:
        give(store, 1, b"record")
        await turns()
        store.commit()
        spool = store.tape("r")
        assert spool is not None
        for _ in range(3 * MOST_LANDED):
            by_hand(spool, b"record")
            store.tails.hand_over()
            store.commit()
        assert len(spool.records) == 3 * MOST_LANDED + 1
        assert sum(map(len, spool.records)) <= MOST_LANDED * len(b"record")
        page = store.tails.page("r", 1, 1000, 1 << 20)
        assert page is not None
        assert page.records == [b"record"] * (3 * MOST_LANDED)

    case(test)


OFTEN = ["hand"] * 6 + ["turn"] * 4 + ["commit"] * 3 + ["make up", "leave"] * 2
PRODUCED = ["soon", "soon", "put", "put", "write"]
STEPS = st.lists(
    st.sampled_from(
        [*OFTEN, *PRODUCED, "lose", "late", "read", "forget", "fence", "retire", "repeat"]
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_the_log_has_what_was_sealed_once_and_in_order(steps: list[str]) -> None:
    """Whatever becomes of the groups, and whenever the lane is left."""

    async def main() -> None:
        store = Store()
        store.tails.subscribe("r", lambda: None)
        log: Any = store
        producer = Producer(log, "r", 1, limits=ProducerLimits(store_timeout=0.0))
        hand = Hand(producer)
        texts: list[str] = []
        is_fenced = False

        async def write(text: str | None, *, soon: bool = False) -> None:
            nonlocal is_fenced
            hand.leave()
            method = producer.put if soon else producer.write
            task = asyncio.ensure_future(method([] if text is None else [delta(text)]))
            while not task.done():
                await turns()
                if store.groups and not (soon and task.done()):
                    store.commit()
            try:
                await task
            except FencedError:
                is_fenced = True

        for number, step in enumerate(steps):
            text = f"{number} "
            if is_fenced:
                break
            if step in ("hand", "soon", "write", "put"):
                texts.append(text)
                take = {"hand": hand.take, "soon": hand.soon}.get(step, lambda _: False)
                if not take(text):
                    await write(text, soon=step == "put")
            elif step == "turn":
                await turns()
            elif step in ("commit", "lose", "late") and store.groups:
                act = {"commit": store.commit, "lose": store.lose}
                act.get(step, lambda: store.lose(late=True))()
            elif step == "make up":
                hand.leave()
                hand.borrow()
            elif step == "leave":
                hand.leave()
            elif step == "repeat" and producer.is_stuck:
                hand.leave()
                repeated = producer.tail + 1
                with suppress(FencedError):
                    await producer.repeat()
                    assert producer.tail >= repeated
                assert not producer.is_stuck
            elif step == "read":
                store._wake()
            elif step == "forget":
                store.tails.forget("r")
            elif step == "retire":
                store.tails.retire("r")
            elif step == "fence":
                store.epoch = 2
            assert store.seen == store.records[: len(store.seen)]
            assert producer.tail <= len(store.records)
        await write(None)
        verify("r", store.records)
        found = [record.partition(b'"text":"')[2].partition(b'"')[0] for record in store.records]
        if is_fenced or store.epoch == 2:
            assert found == [text.encode() for text in texts[: len(found)]]
        else:
            assert found == [text.encode() for text in texts]
            assert producer.tail == len(store.records)
            assert producer._bytes == sum(map(len, store.records))
            assert not producer.appending
            assert producer.ready
        store._wake()
        assert store.seen == store.records
        assert store.tails.usage.bytes == 0
        store.tails.close()

    asyncio.run(main())


def test_a_run_waits_for_no_answer_to_its_deltas() -> None:
    async def test(store: Store) -> None:
        log: Any = store
        producer = Producer(log, "r", 1, limits=ProducerLimits(store_timeout=0.0))
        for number in range(5):
            await producer.put([delta(f"{number}")])
            assert producer.ready
        await turns()
        assert [item[1:] for batch in store.groups for item in batch.items] == [(0, 5)]
        await producer.put([delta("5"), delta("6")])
        end = asyncio.ensure_future(producer.put([StepStart(step=2, seq=8, t=1)]))
        await turns()
        assert not end.done()
        while store.groups:
            store.commit()
            await turns()
        await end
        assert len(store.records) == 8
        verify("r", store.records)
        assert (producer.tail, producer._bytes) == (8, sum(map(len, store.records)))

    case(test)


def test_a_run_waits_where_much_is_not_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producing, "_MOST_PENDING", 3)

    async def test(store: Store) -> None:
        log: Any = store
        producer = Producer(log, "r", 1, limits=ProducerLimits(store_timeout=0.0))
        for number in range(3):
            assert producer.ready
            await producer.put([delta(f"{number}")])
        assert not producer.ready
        waiting = asyncio.ensure_future(producer.put([delta("3")]))
        await turns()
        assert not waiting.done()
        while not waiting.done():
            await turns()
            if store.groups:
                store.commit()
        assert len(store.records) == 4
        assert producer.ready

    case(test)


def test_deltas_that_find_their_spool_gone_come_behind_what_is_under_way() -> None:
    async def test(store: Store) -> None:
        log: Any = store
        producer = Producer(log, "r", 1, limits=ProducerLimits(store_timeout=0.0))
        assert producer.take([delta("0")]) is YES
        assert producer.ready
        store.tails.retire("r")
        assert producer.take([delta("1"), delta("2")]) is SETTLE
        assert not producer.ready
        assert producer.lend() is None
        settled = asyncio.ensure_future(producer.settle())
        await turns()
        store.commit()
        await settled
        assert len(store.records) == 3
        verify("r", store.records)
        assert producer.ready

    case(test)


def delta(text: str) -> TextDelta:
    event = TextDelta(part=1, text=text)
    event.seq, event.t = 1, 1
    return event


class Hand:
    """What the lane does with a loan."""

    def __init__(self, producer: Producer) -> None:
        self.producer, self.spool = producer, None
        self.borrow()

    def borrow(self) -> None:
        loan = self.producer.lend()
        self.spool: Any = None
        if loan is not None:
            self.spool, self.epoch, self.check = loan.tape, loan.epoch, loan.check
            self.seq, self.size = len(loan.tape.records), 0

    def leave(self) -> None:
        if self.spool is not None and self.size:
            self.producer.repay(self.check, self.seq, self.size)
        self.spool = None

    def take(self, text: str) -> bool:
        spool = self.spool
        if spool is None:
            return self.soon(text)
        if spool.writer != self.epoch or len(spool.records) != self.seq:
            self.leave()
            return self.soon(text)
        chain = type(self.producer._chain)("r", self.check)
        record = chain.seal(delta(text))
        by_hand(spool, record)
        self.check, self.seq, self.size = chain.last, self.seq + 1, self.size + len(record)
        return True

    def soon(self, text: str) -> bool:
        self.leave()
        if not self.producer.ready:
            return False
        self.producer.take([delta(text)])
        self.borrow()
        return True


def test_close_gives_the_store_what_is_there() -> None:
    async def main() -> None:
        store = Store()
        told = give(store, 1, b"one")
        store.tails.close()
        assert len(store.groups) == 1
        store.commit()
        assert told == [None]

        def closed(batch: Batch) -> None:
            raise LogError("the store is closed")

        store.tails._carry = closed
        told = give(store, 2, b"two")
        store.tails.close()
        assert [type(each) for each in told] == [LogError]

    asyncio.run(main())


def pace(last: int, beside: float) -> float:
    tails = Spools(lambda batch: None)
    tails._last, tails.beside = last, beside
    return tails._pace()


def test_a_process_alone_waits_as_its_last_group_says() -> None:
    assert [pace(last, 0.0) for last in (0, 2)] == [0.0, 0.0]
    for count, seconds in PACES:
        assert pace(count, 0.0) == pace(count + 1, 0.0) == seconds


@given(st.integers(0, 3000), st.floats(0.0, 5000.0), st.floats(0.0, 5000.0))
def test_other_processes_make_groups_rarer_and_nobody_waits_long(
    last: int, beside: float, more: float
) -> None:
    assert pace(last, 0.0) <= pace(last, beside) <= pace(last, beside + more) <= MOST_PACE


@given(st.integers(1, 8), st.sampled_from([3, 8, 16, 100]), st.integers(1, 20))
def test_processes_that_share_a_load_send_no_more_groups_than_one(
    processes: int, count: int, times: int
) -> None:
    """As long as that is not longer than anybody may wait."""
    records = count * times
    alone = pace(records, 0.0)
    shared = pace(records, records * (processes - 1.0))
    assert shared == MOST_PACE or shared >= alone * processes * 0.999


def test_what_is_given_while_a_failed_append_is_repeated_comes_behind_it() -> None:
    """Also where that fails once more: nobody waits for ever, and nothing is lost."""

    async def test(store: Store) -> None:
        log: Any = store
        producer = Producer(log, "r", 1, limits=ProducerLimits(store_timeout=0.0))
        append, answer = log.append, asyncio.Event()

        async def fails(*arguments: Any, **options: Any) -> Appended:
            await answer.wait()
            raise StoreUnavailableError("no answer")

        await producer.put([delta("0")])
        await turns()
        assert not producer.is_stuck
        store.lose()
        assert producer.is_stuck
        log.append = fails
        repeated = asyncio.ensure_future(producer.repeat())
        await turns()
        assert not producer.is_stuck
        more = asyncio.ensure_future(producer.put([delta("1")]))
        await turns()
        log.append = append
        answer.set()
        with pytest.raises(StoreUnavailableError):
            await repeated
        async with asyncio.timeout(10):
            await more
        assert not producer.is_stuck
        assert len(store.records) == 2
        verify("r", store.records)

    case(test)


def test_an_end_that_failed_is_repeated_by_who_wrote_it_only() -> None:
    async def test(store: Store) -> None:
        log: Any = store
        producer = Producer(log, "r", 1, limits=ProducerLimits(store_timeout=0.0))

        async def fails(*arguments: Any, **options: Any) -> Appended:
            raise StoreUnavailableError("no answer")

        log.append = fails
        with pytest.raises(StoreUnavailableError):
            await producer.write([RunEnd(outcome="complete", seq=1, t=1)])
        assert not producer.is_stuck  # else the end would be appended without closing the log

    case(test)


@pytest.mark.parametrize("way", ["given", "lent", "written", "repeated", "filled"])
def test_a_store_that_told_of_a_fence_is_not_asked_again(way: str) -> None:
    async def test(store: Store) -> None:
        log: Any = store
        judge, told = store.judge, []

        def judged(*arguments: Any) -> Appended:
            done = judge(*arguments)
            told.append(done.status)
            return done

        log.judge = judged
        store.rewinds = way == "filled"
        producer = Producer(log, "r", 1)
        await producer.write([delta("0")])
        store.epoch = 2
        if way == "given":
            await producer.put([delta("1")])
            await turns()
            store.commit()
        elif way == "lent":
            await producer.put([delta("1")])
            await turns()
            store.epoch = 1
            store.commit()
            store.epoch = 2
            loan = producer.lend()
            assert loan is not None
            chain = Chain("r", loan.check)
            loan.tape.records.append(chain.seal(delta("2")))
            log.tape("r")._grown()
            await turns()
            store.commit()
            producer.repay(chain.last, 3, len(loan.tape.records[-1]))
        elif way == "repeated":
            await producer.put([delta("1")])
            await turns()
            store.commit()
            assert producer.is_stuck
            with pytest.raises(FencedError):
                await producer.repeat()
        elif way == "filled":
            with pytest.raises(FencedError):
                await producer.refill()
        else:
            with pytest.raises(FencedError):
                await producer.write([delta("1")])
        assert told.count("fenced") == 1
        assert producer.is_fenced
        assert producer.lend() is None
        for again in (producer.settle(), producer.write([delta("3")]), producer.put([delta("4")])):
            with pytest.raises(FencedError) as raised:
                await again
            assert raised.value.details["epoch"] == 2
        assert told.count("fenced") == 1
        assert len(store.records) == 1 + (way == "lent")

    case(test)
