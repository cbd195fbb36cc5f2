"""Deltas past the sleeping task: the same events, each once, in order, whoever takes them."""

from __future__ import annotations

import asyncio
import fcntl
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.redis import redis_server
from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire.errors import FramingError, NetworkError, StoreFullError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.express import NO, SETTLE, YES
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.log.spool import Spools
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.relay.produce.producer import Producer
from tokenwire.run.call.reading import Reading
from tokenwire.run.inbox import Inbox


def chunk(**delta):
    return b"data: " + json.dumps({"id": "x", "choices": [{"index": 0, "delta": delta}]}).encode()


WORDS = [f"word{n} " for n in range(12)]
ANSWER = b"\n\n".join(
    [
        chunk(role="assistant"),
        *[chunk(content=w) for w in WORDS[:6]],
        b": keep-alive",
        *[chunk(reasoning_content=w) for w in WORDS[:3]],
        *[chunk(content=w) for w in WORDS[6:]],
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}',
        b"data: [DONE]",
        b"",
    ]
)


class Pieces:
    """A `Source` whose bytes are there already."""

    def __init__(self, pieces, error=None):
        self.pieces, self.error = list(pieces), error
        self.offered = 0

    async def read(self, take=None):
        while self.pieces:
            data = self.pieces.pop(0)
            if take is not None:
                self.offered += 1
                taken = take(data)
                if taken is YES:
                    continue
                if taken is SETTLE:
                    return None
            return data
        if self.error is not None:
            raise self.error
        return b""

    def touch(self):
        return 0.0

    def hold(self):
        return None

    def alive(self):
        pass

    def end_within(self, seconds):
        pass


class Way:
    """An `Express` of a function; how often it said that it has to settle, and did."""

    def __init__(self, take=lambda events: YES):
        self._take = take
        self.to_settle = self.settled = 0

    def take(self, events):
        taken = self._take(events)
        self.to_settle += taken is SETTLE
        return taken

    async def settle(self):
        self.settled += 1

    def seat(self, make_up):
        return None

    def catch_up(self, delta, times):
        raise AssertionError("there is no lane here")


def cut(data, places):
    ends = sorted({p % len(data) for p in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if b > a]


def read(pieces, answers, error=None):
    """All events, in the order in which somebody got them. ``answers``: what the sink says."""
    said = iter(answers)
    found = []

    def take(events):
        answer = next(said, YES)
        if answer is not NO:
            assert way.settled == way.to_settle  # nothing is offered before the rest is settled
            found.extend(events)
        return answer

    way = Way(take)

    async def main():
        decoder = DIALECT.decoder()
        source = Pieces(pieces, error)
        reading = Reading(source, decoder, Inbox(), way)
        while (events := await reading.next(express=True)) is not None:
            found.extend(events)
        found.extend(decoder.finish())
        return source

    source = asyncio.run(main())
    return [e for e in found if not isinstance(e, m.Heartbeat)], source


def plainly(data):
    decoder = DIALECT.decoder()
    events = [*decoder.feed(data), *decoder.finish()]
    return [e for e in events if not isinstance(e, m.Heartbeat)]


@given(
    st.lists(st.integers(0, 10_000), max_size=40),
    st.lists(st.sampled_from([YES, NO, SETTLE]), max_size=40),
)
def test_however_it_is_cut_and_whatever_the_sink_says_the_events_are_the_same(places, answers):
    found, _ = read(cut(ANSWER, places), answers)
    assert found == plainly(ANSWER)


def test_plain_deltas_do_not_come_back_to_the_task():
    pieces = [block + b"\n\n" for block in ANSWER.split(b"\n\n") if block]
    taken = []

    async def main():
        def take(events):
            taken.extend(events)
            return YES

        reading = Reading(Pieces(pieces), DIALECT.decoder(), Inbox(), Way(take))
        came = []
        while (events := await reading.next(express=True)) is not None:
            came.extend(events)
        return came

    came = asyncio.run(main())
    # The first delta of a part comes with its start, and so the whole way.
    assert [e.text for e in came if isinstance(e, m.TextDelta)] == [WORDS[0], WORDS[6]]
    assert [e.text for e in taken if isinstance(e, m.TextDelta)] == WORDS[1:6] + WORDS[7:]


def test_without_express_nothing_goes_past_the_task():
    async def main():
        source = Pieces([ANSWER])
        reading = Reading(source, DIALECT.decoder(), Inbox(), Way())
        assert await reading.next()
        assert source.offered == 0

    asyncio.run(main())


def test_what_fails_while_the_task_sleeps_is_raised_in_the_task():
    async def main():
        good = ANSWER.split(b"\n\n")[0] + b"\n\n" + chunk(content="a") + b"\n\n"
        broken = b"data: " + b"x" * (33 << 20)
        reading = Reading(Pieces([good, broken]), DIALECT.decoder(), Inbox(), Way())
        assert await reading.next(express=True)
        with pytest.raises(FramingError):
            await reading.next(express=True)

        reading = Reading(Pieces([good], NetworkError("cut")), DIALECT.decoder(), Inbox(), Way())
        assert await reading.next(express=True)
        with pytest.raises(NetworkError):
            await reading.next(express=True)

    asyncio.run(main())


class Counting:
    """How often the producer wrote at once, and how often its task did."""

    def __init__(self, monkeypatch):
        self.at_once = self.by_task = 0
        now, later = Producer._give, Producer.write

        def take(producer, records):
            self.at_once += 1
            return now(producer, records)

        async def write(producer, events):
            self.by_task += 1
            await later(producer, events)

        monkeypatch.setattr(Producer, "_give", take)
        monkeypatch.setattr(Producer, "write", write)


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def new_log(request, tmp_path):
    if request.param == "redis":
        with redis_server() as server:
            yield lambda: open_store(server.url)
        return
    url = "memory:" if request.param == "memory" else f"sqlite:{tmp_path}/log.db"
    yield lambda: open_store(url)


def test_in_a_run_tokens_go_past_the_sleeping_task(monkeypatch, new_log):
    async def main():
        counting = Counting(monkeypatch)
        async with simulator(rate=60.0) as server, relay(server, log=new_log()) as runs:
            info = await runs.start(request_of("scenario:slow"), model="m0")
            events = [event for _, event in await read_all(runs, info.id)]
            assert [e.seq for e in events] == list(range(1, len(events) + 1))
            # On a busy machine tokens come while the task is awake; some always find it asleep.
            assert counting.at_once > 0
            assert fold(events).text == "".join(f"{n} " for n in range(1, 91))

    run_async(main())


def test_a_store_that_is_full_for_a_while_loses_nothing(monkeypatch):
    async def main():
        log = MemoryStore()
        refused, appends = asyncio.Event(), 0
        append_soon, append = MemoryStore.append_soon, MemoryStore.append

        def fill():
            """No room in the middle, however much of the answer each append has."""
            nonlocal appends
            appends += 1
            if appends == 4:
                log._usage.most = log._usage.bytes

        def watched(self, *args, **options):
            fill()
            taken = append_soon(self, *args, **options)
            if not taken:
                refused.set()
            return taken

        async def watched_too(self, *args, **options):
            fill()
            try:
                return await append(self, *args, **options)
            except StoreFullError:
                refused.set()  # the task was awake when the last room went
                raise

        monkeypatch.setattr(MemoryStore, "append_soon", watched)
        monkeypatch.setattr(MemoryStore, "append", watched_too)
        async with simulator(rate=60.0) as server, relay(server, log=log) as runs:
            info = await runs.start(request_of("scenario:slow"), model="m0")
            reading = asyncio.ensure_future(read_all(runs, info.id))
            await asyncio.wait_for(refused.wait(), 60)
            log._usage.most = 1 << 30
            events = [event for _, event in await asyncio.wait_for(reading, 60)]
            assert fold(events).text == "".join(f"{n} " for n in range(1, 91))
            assert events[-1].outcome == "complete"

    run_async(main())


def test_a_file_that_another_process_keeps_for_a_while_loses_nothing(monkeypatch, tmp_path):
    """The lock is taken before a delta goes past the task, and let go when that has failed."""

    async def main():
        log = SQLiteStore(f"{tmp_path}/log.db", busy=0.2)
        failures, count = [], 0
        hand_over, fail = Spools.hand_over, Spools.fail
        with open(f"{tmp_path}/log.db-lock", "w") as lock:

            def locked_at_ten(spools):
                nonlocal count
                count += bool(spools.dirty)
                if spools.dirty and count == 10:
                    fcntl.flock(lock, fcntl.LOCK_EX)
                hand_over(spools)

            def unlocked(spools, batch, error):
                failures.append(error)
                fcntl.flock(lock, fcntl.LOCK_UN)
                fail(spools, batch, error)

            monkeypatch.setattr(Spools, "hand_over", locked_at_ten)
            monkeypatch.setattr(Spools, "fail", unlocked)
            async with simulator(rate=60.0) as server, relay(server, log=log) as runs:
                info = await runs.start(request_of("scenario:slow"), model="m0")
                events = [event for _, event in await asyncio.wait_for(read_all(runs, info.id), 60)]
        assert failures
        assert fold(events).text == "".join(f"{n} " for n in range(1, 91))
        assert events[-1].outcome == "complete"

    run_async(main())


def test_a_cancel_is_written_before_what_it_causes_also_past_the_task(new_log):
    async def main():
        async with simulator(rate=60.0) as server, relay(server, log=new_log()) as runs:
            info = await runs.start(request_of("scenario:slow"), model="m0")
            follower = await runs.follow(info.id)
            events = []
            while (batch := await follower.next()) is not None:
                events += [event for _, event in batch.events()]
                if sum(isinstance(e, m.TextDelta) for e in events) >= 5:
                    await runs.cancel(info.id, principal="")
            follower.close()
            types = [e.type for e in events]
            stop = types.index("control")
            assert "text-delta" not in types[stop:]
            assert events[-1].outcome == "cancelled"

    run_async(main())
