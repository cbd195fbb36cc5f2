"""Reading a run back: whole, and only its newest records; the event loop stays with others."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.arbitrary_runs import arbitrary_run
from support.spine import OneModel, request_of, run_async, simulator
from tokenwire.errors import StoreDamagedError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.events.order import Order
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.record import Chain
from tokenwire.relay.replay import GLANCE, SLICE, read_run, waits
from tokenwire.relay.runs import Runs


async def stored(run: str, events: list[Any]) -> MemoryStore:
    store, chain = MemoryStore(), Chain(run)
    await store.create(run, owner="me")
    await store.append(run, epoch=1, first=1, records=[chain.seal(event) for event in events])
    return store


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_the_newest_records_tell_whether_a_run_waits(seed: int) -> None:
    # Arbitrary values of a checkpoint and of a part's attributes are none that a fold could have.
    loose = (m.Checkpoint, m.PartAttr)
    events = [event for event in arbitrary_run(seed) if not isinstance(event, loose)]

    async def main() -> None:
        for count in range(1, len(events) + 1):
            part = events[:count]
            if part[-1].type == "run-end":
                break
            store = await stored("r", part)
            expected = fold(part).status == "waiting"
            assert await waits(store, "r", count) is expected, [e.type for e in part[-12:]]

    asyncio.run(main())


def long_wait(claims: int) -> list[Any]:
    order = Order()
    events: list[Any] = [
        m.RunStart(run="r"),
        m.StepStart(step=1, attempt=1),
        m.ToolCallStart(part=0, call_id="c", name="t"),
        m.ToolCallEnd(part=0, arguments={}),
        m.StepEnd(step=1, status="complete"),
        m.ApprovalRequest(approval_id="a", call_id="c", name="t", arguments={}),
        m.RunWait(reason="approval", pending=["a"]),
        *(m.RunClaim(epoch=n + 2, reason="lost") for n in range(claims)),
    ]
    return [order.check(event) for event in events]


@pytest.mark.parametrize("claims", [0, GLANCE - 1, GLANCE, 3 * GLANCE + 1])
def test_a_wait_behind_many_claims_is_found(claims: int) -> None:
    async def main() -> None:
        events = long_wait(claims)
        store = await stored("r", events)
        assert await waits(store, "r", len(events))
        replay = await read_run(store, "r")
        assert (replay.fold.status, replay.losses) == ("waiting", 0)
        assert replay.waiting_since is not None

    asyncio.run(main())


def long_run(deltas: int) -> list[Any]:
    order = Order()
    start = [m.RunStart(run="r"), m.StepStart(step=1, attempt=1), m.TextStart(part=0)]
    events = [*start, *(m.TextDelta(part=0, text="x") for _ in range(deltas))]
    return [order.check(event) for event in events]


def test_others_have_their_turns_while_a_long_run_is_read() -> None:
    async def main() -> None:
        store = await stored("r", long_run(20 * SLICE))
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        replay = await read_run(store, "r")
        counting.cancel()
        assert len(replay.records) == 20 * SLICE + 3
        assert turns >= 20

    asyncio.run(main())


def test_the_first_record_that_does_not_fit_is_named() -> None:
    async def main() -> None:
        store, chain = MemoryStore(), Chain("r")
        records = [chain.seal(event) for event in long_run(10)]
        records[7] = records[7][:20] + b"X" + records[7][21:]
        await store.create("r", owner="me")
        await store.append("r", epoch=1, first=1, records=records)
        with pytest.raises(StoreDamagedError, match="record 8 of run r"):
            await read_run(store, "r")

    asyncio.run(main())


def test_runs_are_a_context() -> None:
    async def main() -> None:
        async with (
            simulator() as server,
            Runs(MemoryStore(), registry=OneModel(server.url)) as runs,  # type: ignore[arg-type]
        ):
            info = await runs.start(request_of("scenario:stall"), model="m0")
            assert info.id in runs.owned
        assert (await runs.store.describe(info.id)).closed == "interrupted"

    run_async(main())
