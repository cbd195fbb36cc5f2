"""Records that the lane appends and writes by hand: nobody can tell them from others."""

from __future__ import annotations

import asyncio

import pytest

from run.test_lane import BEGIN, CALL, DONE, STOP, TEXT, WIRES, chat, raw
from support.both_ways import END, RUN, Body, chunked, run_over, same_both_ways
from support.spine import run_async
from tokenwire.express import Reader
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.openai.chat import DIALECT as CHAT
from tokenwire.relay.follow import open_follower
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.produce.producer import Producer
from tokenwire.run.call.lane import _MOST_BYTES
from tokenwire.run.call.several import size_lines

SHORT = [*TEXT[:12], *TEXT[-2:]]


def test_one_reader_and_several_are_written_to_by_hand():
    for wires in (("native",), WIRES):
        found = same_both_ways(CHAT, [*chunked(*TEXT), END], wires=wires)
        assert found.by_hand >= 32

    async def second(scene):
        await scene.read("native", "second")

    chunks = chunked(*TEXT)
    found = same_both_ways(CHAT, [*chunks[:9], second, *chunks[9:], END])
    assert found.by_hand >= 50


def test_longer_than_what_is_settled_at_once():
    words = [chat(content=f"{n} ") for n in range(200)]
    found = same_both_ways(CHAT, [*chunked(BEGIN, *words, STOP, DONE), END])
    assert found.by_hand >= 196


# --- what ends a loan -----------------------------------------------------------------------------


async def another_owner(scene):
    """The lease ran out, and another process took the run."""
    scene.store._logs[RUN].lease_until = 0.0
    await scene.store.claim(RUN, owner="another")


async def listen(scene):
    """Somebody who is no reader hears of each record when it is there."""
    seen = scene.bodies.setdefault("listener", Body())

    def wake():
        entry = scene.store._logs[RUN]
        seen.data += b"%d " % len(entry.records)

    scene.store.subscribe(RUN, wake)


async def listen_once(scene):
    """One that ends its subscription at the first record."""
    seen = scene.bodies.setdefault("listener", Body())

    def wake():
        seen.data += b"%d " % len(scene.store._logs[RUN].records)
        end()

    end = scene.store.subscribe(RUN, wake)


async def break_socket(scene):
    """The reader's socket fails at the next write."""

    def fail(data):
        raise RuntimeError("unable to write; the transport is closing")

    scene.bodies["native"].write = fail


async def fill_and_empty(scene):
    """The reader's socket is full for a moment; nobody says when it is not."""
    body = scene.bodies["native"]
    body.is_full = True
    body.is_full = False


async def change_body(scene):
    """The reader must leave at the next record."""
    for connection in scene.connections:
        connection.leave("max_age")


ENDINGS = [another_owner, listen, listen_once, break_socket, fill_and_empty, change_body]


@pytest.mark.parametrize("action", ENDINGS, ids=lambda a: a.__name__)
@pytest.mark.parametrize("blocks", [SHORT, CALL], ids=["text", "call"])
def test_what_happens_between_two_records_is_the_same(action, blocks):
    chunks = [*chunked(*blocks), END]
    by_hand = 0
    for place in range(1, len(chunks)):
        steps = [*chunks[:place], action, *chunks[place:]]
        found = same_both_ways(
            CHAT, steps, wires=("native", "ui"), ends=action is not another_owner
        )
        by_hand += found.by_hand
    assert by_hand


@pytest.mark.parametrize("most", range(6, 16))
def test_a_full_log_ends_at_the_same_record(most):
    found = same_both_ways(
        CHAT, [*chunked(*TEXT), END], bounds=ProducerLimits(records=most), wires=("native", "ui")
    )
    assert found.closed == "error"
    assert len(found.records) < most + 8


@pytest.mark.parametrize("most", range(900, 1900, 70))
def test_a_log_of_too_many_bytes_ends_at_the_same_record(most):
    found = same_both_ways(CHAT, [*chunked(*TEXT), END], bounds=ProducerLimits(bytes=most))
    assert found.closed == "error"


@pytest.mark.parametrize("most", [600, 1500, 8192, 9000, 9001, 9050, 10_000, 12_000, 50_000])
def test_a_store_is_filled_to_the_same_record(most):
    """The store's bound holds to the byte, also near it."""
    words = [chat(content=f"{n} ") for n in range(150)]
    plain, found = (
        run_over(
            CHAT,
            [*chunked(BEGIN, *words, STOP, DONE), END],
            lane=lane,
            store=lambda: MemoryStore(max_bytes=most, clock=lambda: 1.0),
            bounds=ProducerLimits(store_timeout=0.0),
        )
        for lane in (False, True)
    )
    # The end of a run whose store failed has the machine's time, and so other checks.
    assert [_timeless(r) for r in found.records] == [_timeless(r) for r in plain.records]
    assert found.records[:-4] == plain.records[:-4]
    assert found.closed == plain.closed == ("complete" if most > 20_000 else "error")
    assert (found.by_hand > 0) == (most >= 9000)


def _timeless(record):
    return record[16:].partition(b',"t":')[0]


def test_who_erases_a_log_ends_what_is_written_to_it():
    erased = []

    async def erase(scene):
        entry = scene.store._logs[RUN]
        before = list(entry.records)
        await scene.store.delete(RUN)
        erased.append((scene.store, entry, before))

    async def look(scene):
        assert scene.owned is None or scene.owned.task.done()
        store, entry, before = erased[0]
        assert entry.records == before
        assert (await store.stats())["bytes"] == (await store.stats())["records"] == 0
        await store.create(RUN, owner="x", meta=entry.meta)  # `run_over` reads it at its end
        await store.append(RUN, epoch=1, first=1, records=before)

    chunks = chunked(*SHORT)
    found = run_over(CHAT, [*chunks[:8], erase, *chunks[8:], look], lane=True, ends=False)
    assert found.by_hand > 3


# --- the pieces -----------------------------------------------------------------------------------


def test_a_chunk_begins_with_the_line_of_its_length():
    for form in (b"%x\r\n", b"%X\r\n"):
        lines = size_lines(form, _MOST_BYTES)
        assert len(lines) > _MOST_BYTES
        for length in range(_MOST_BYTES + 1):
            fits = []
            for size in range(max(1, length - 8), length):
                line = form % size
                if len(line) + size + 2 == length:
                    fits.append(line)
            if len(lines[length]) <= length:
                fits.remove(lines[length])
            assert not fits


def test_a_read_of_a_length_that_no_chunk_has_is_parsed():
    lines = size_lines(b"%x\r\n", _MOST_BYTES)
    lengths = [length for length in range(200, 300) if len(lines[length]) > length]
    assert lengths
    for length in lengths:
        for first in (b"\0", b"0", b"\r"):
            text = b"a" * (length - len(first + raw(b"")) - 2)
            chunks = chunked(BEGIN, *[raw(b"%d" % n) for n in range(6)], STOP, DONE)
            odd = first + raw(text) + b"\r\n"
            assert len(odd) == length
            same_both_ways(CHAT, [*chunks[:5], odd, *chunks[5:], END])


def test_a_log_of_memory_is_lent_only_to_who_may_append():
    async def main():
        store = MemoryStore()
        await store.create("r", owner="x")
        producer = Producer(store, "r", 1)
        loan = producer.lend()
        assert loan is not None
        assert loan.tape.writer == loan.epoch == 1
        follower = await open_follower(store, "r", None)
        assert isinstance(follower, Reader)
        store._logs["r"].lease_until = 0.0
        assert await store.claim("r", owner="y") is not None
        assert loan.tape.writer == 2
        assert producer.lend() is None
        second = Producer(store, "r", 2)
        assert second.lend() is not None
        await store.append("r", epoch=2, first=1, records=[b"x" * 20])
        assert second.lend() is None  # it does not know of this record
        await store.append("r", epoch=2, first=2, records=[], close="complete")
        assert loan.tape.writer == 0
        assert Producer(store, "r", 2, records=[b"x" * 20]).lend() is None
        follower.close()

    run_async(main())


def test_whose_appends_are_calls_lends_nothing():
    async def main():
        store = MemoryStore()
        await store.create("r", owner="x")
        assert store.tape("r") is not None
        assert store.tape("other") is None
        called = store.append_soon
        store.append_soon = lambda *args, **more: called(*args, **more)  # type: ignore[method-assign]
        assert store.tape("r") is None

    run_async(main())


def test_a_reader_that_is_awake_has_no_port():
    async def main():
        store = MemoryStore()
        await store.create("r", owner="x")
        follower = await open_follower(store, "r", None)
        body = Body()
        follower.express(lambda batch: 0, None, body.port)  # type: ignore[arg-type, return-value]
        assert follower.port is None
        for wake in (follower.poke, lambda: follower.fail(ValueError("x")), follower.close):
            waiting = asyncio.ensure_future(follower.next())
            await asyncio.sleep(0)
            assert follower.port is body.port
            wake()
            assert follower.port is None
            await asyncio.wait([waiting])
            assert follower.port is None
            waiting.exception()

    run_async(main())
