"""Runs whose writer fails: readers that are there get the one end, after what they have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire.errors import LogLimitError, StoreFullError, StoreUnavailableError
from tokenwire.events import model as m
from tokenwire.events.order import Order
from tokenwire.log.memory import CLOSING_BYTES, MemoryStore
from tokenwire.log.open import open_store
from tokenwire.observe.facts import RunEnded, RunStarted
from tokenwire.observe.hooks import observe
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.produce.producer import Producer
from tokenwire.relay.record import Chain
from tokenwire.relay.replay import read_run


async def ended(runs: Any, run: str) -> list[Any]:
    """All events of a run that ended, for a reader that was there, and again from the log."""
    events = [event for _, event in await read_all(runs, run)]
    order = Order()
    for event in events:
        order.check(event)
    assert order.state == "ended"
    assert [e.t for e in events] == sorted(e.t for e in events)
    assert len((await read_run(runs.store, run)).records) == len(events)
    assert (await runs.info(run)).state == events[-1].outcome
    return events


def codes(events: list[Any]) -> list[str]:
    return [e.code for e in events if isinstance(e, m.Error)]


@pytest.mark.parametrize("bounds", [ProducerLimits(records=20), ProducerLimits(bytes=2000)])
def test_a_log_at_its_own_bound_still_takes_the_end(bounds: ProducerLimits) -> None:
    async def main() -> None:
        async with simulator(rate=2000.0) as server, relay(server, bounds=bounds) as runs:
            info = await runs.start(request_of("scenario:long"), model="m0")
            events = await ended(runs, info.id)
            assert events[-1].outcome == "error"
            assert codes(events) == ["log_limit"]
            assert len(events) < 60

    run_async(main())


def test_a_log_may_have_just_as_much_as_its_bound() -> None:
    """Up to the bound there is no word of it; beyond, the end alone still fits."""

    async def main() -> None:
        log = MemoryStore()
        await log.start()
        made = await log.create("r" * 20, owner="me", lease=15.0)
        limits = ProducerLimits(records=4)
        producer = Producer(log, made.log, made.epoch, limits=limits)
        await producer.write([m.RunStart(run=made.log, time=0, model="m", seq=1)])
        await producer.write([m.StepStart(step=1, provider="p", dialect="d", model="m", seq=2)])
        await producer.write([m.TextStart(part=0, step=1, seq=3)])
        await producer.write([m.TextDelta(part=0, text="a", seq=4)])
        with pytest.raises(LogLimitError, match="4 events"):
            await producer.write([m.TextDelta(part=0, text="b", seq=5)])
        await producer.write([m.RunEnd(outcome="error", reason="log_limit", seq=6)])
        assert (await log.describe(made.log)).closed == "error"
        await log.close()

    run_async(main())


BRIEF = ProducerLimits(store_timeout=0.2)


def test_a_full_memory_ends_the_run_and_no_other() -> None:
    facts: list[Any] = []

    async def main() -> None:
        log = MemoryStore(max_bytes=12_000)
        async with simulator(rate=2000.0) as server, relay(server, log=log, bounds=BRIEF) as runs:
            whole = await runs.start(request_of("Hi"), model="m0")
            assert (await ended(runs, whole.id))[-1].outcome == "complete"
            info = await runs.start(request_of("scenario:long"), model="m0")
            events = await ended(runs, info.id)
            assert (events[-1].outcome, events[-1].reason) == ("error", "store_full")
            assert codes(events) == ["store_full"]
            assert any(isinstance(e, m.TextDelta) for e in events)
            assert (await ended(runs, whole.id))[-1].outcome == "complete"

    stop = observe(facts.append)
    try:
        run_async(main())
    finally:
        stop()
    assert len([f for f in facts if isinstance(f, RunStarted)]) == 2
    assert [f.outcome for f in facts if isinstance(f, RunEnded)] == ["complete", "error"]


def test_a_server_that_stops_while_its_memory_is_full_says_so() -> None:
    full = asyncio.Event()

    class Full(MemoryStore):
        async def append(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().append(*args, **kwargs)
            except StoreFullError:
                full.set()
                raise

    async def main() -> None:
        async with (
            simulator(rate=2000.0) as server,
            relay(server, log=Full(max_bytes=4000)) as runs,
        ):
            info = await runs.start(request_of("scenario:long"), model="m0")
            await full.wait()
            await runs.drain(0.0)
            assert (await ended(runs, info.id))[-1].outcome == "interrupted"

    run_async(main())


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_a_fault_of_ours_in_the_writer_is_an_end_for_readers(
    store: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal_all, broken = Chain.seal_all, []

    def seal_badly(self: Chain, events: Any) -> list[bytes]:
        late = any(isinstance(event, m.TextDelta) and event.seq > 10 for event in events)
        if late and not broken:
            broken.append(late)
            seal_all(self, events)  # as if it failed after it had begun
            raise ValueError("a fault of ours")
        return seal_all(self, events)

    monkeypatch.setattr(Chain, "seal_all", seal_badly)

    async def main() -> None:
        log = open_store(store if store == "memory:" else f"sqlite:///{tmp_path}/log.db")
        async with simulator(rate=500.0) as server, relay(server, log=log) as runs:
            info = await runs.start(request_of("scenario:long"), model="m0")
            events = await ended(runs, info.id)
            assert events[-1].outcome == "error"
            assert codes(events) == ["internal"]
            assert "fault of ours" not in str(events)
            assert not any(isinstance(e, m.RunClaim) for e in events)

    run_async(main())
    assert broken


def test_an_end_fits_into_a_full_memory_and_nothing_else_does() -> None:
    async def main() -> None:
        log = MemoryStore(max_bytes=100)
        for name in ("one", "two", "three"):
            await log.create(name, owner="o")
        await log.append("one", epoch=1, first=1, records=[b"x" * 100])
        with pytest.raises(StoreFullError):
            await log.append("one", epoch=1, first=2, records=[b"x"])
        for name, first in (("one", 2), ("two", 1)):
            end = [b"x" * CLOSING_BYTES]
            done = await log.append(name, epoch=1, first=first, records=end, close="error")
            assert done.status == "ok"
        with pytest.raises(StoreFullError):
            much = [b"x" * (CLOSING_BYTES + 1)]
            await log.append("three", epoch=1, first=1, records=much, close="complete")

    asyncio.run(main())


def test_a_store_that_hangs_is_given_its_time_once() -> None:
    """An attempt that takes all of the time is not followed by another one."""

    class Hanging(MemoryStore):
        tries = 0

        async def append(self, *args: Any, **more: Any) -> Any:
            self.tries += 1
            await asyncio.sleep(0.3)
            raise StoreUnavailableError("no answer")

    async def main() -> None:
        store = Hanging()
        await store.create("run-of-the-test-1", owner="o", meta=b"{}", lease=60)
        producer = Producer(store, "run-of-the-test-1", 1, limits=BRIEF)
        with pytest.raises(StoreUnavailableError):
            await producer.write([m.RunStart(run="run-of-the-test-1", time=1, model="m", seq=1)])
        assert store.tries == 1

    asyncio.run(main())
