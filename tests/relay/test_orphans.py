"""Who takes a lost run over: a process that has its model and tools, or nobody for a while.

Time is given to `Orphans.look`, so nothing here waits.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.spine import QUICK, OneModel, read_all, request_of, run_async, simulator
from tokenwire.errors import UnknownModelError
from tokenwire.events import model as m
from tokenwire.log.open import open_store
from tokenwire.relay.description import RunMeta
from tokenwire.relay.record import Chain
from tokenwire.relay.runs import Runs
from tokenwire.relay.takeover.orphans import Orphans
from tokenwire.run.stream import new_run_id
from tokenwire.tools.registry import ToolSet, tool

LEASE, LEAVE = 15.0, 600.0


class Only(OneModel):
    """Knows one name."""

    def __init__(self, url: str, name: str) -> None:
        super().__init__(url)
        self.name = name

    def resolve(self, name: str) -> Any:
        if name != self.name:
            raise UnknownModelError(f"no model is named {name}")
        return super().resolve("m0")


@tool
def get_weather(city: str) -> str:
    """Rain."""
    return f"It rains in {city}."


@asynccontextmanager
async def process(folder: Path, url: str, name: str = "m0", *, tools: Any = (), **options: Any):
    """A process that takes over nothing by itself."""
    runs = Runs(
        open_store(f"sqlite:{folder}/log.db"),
        registry=Only(url, name),  # type: ignore[arg-type]
        tools=ToolSet.of(tools),
        retry=QUICK,
        leave_for=LEAVE,
        **options,
    )
    await runs.open(take_over=False)
    try:
        yield runs, Orphans(runs.worker)
    finally:
        await runs.aclose()


async def lost(runs: Runs, model: str = "m0", prompt: str = "scenario:text", **fields: Any) -> str:
    """A run without an owner, and with these events."""
    run, events = new_run_id(), fields.pop("events", [])
    meta = RunMeta(model=model, request=request_of(prompt), **fields)
    await runs.store.create(run, owner="elsewhere:1:a", meta=msgspec.json.encode(meta))
    if events:
        events = [m.RunStart(run=run), *events]
        for number, event in enumerate(events, 1):
            event.seq = number
        chain = Chain(run)
        records = [chain.seal(event) for event in events]
        await runs.store.append(run, epoch=1, first=1, records=records)
    await runs.store.release(run, epoch=1)
    return run


def calling() -> list[m.Event]:
    """A step that called get_weather, which has no result yet."""
    return [
        m.StepStart(step=1),
        m.ToolCallStart(part=0, step=1, name="get_weather", call_id="c1"),
        m.ToolCallEnd(part=0, arguments={"city": "Paris"}),
        m.Finish(reason="tool_calls"),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
    ]


async def end_of(runs: Runs, run: str) -> m.RunEnd:
    events = [event for _, event in await asyncio.wait_for(read_all(runs, run), 60)]
    return events[-1]


async def epoch_of(runs: Runs, run: str) -> int:
    return (await runs.store.describe(run)).epoch


@pytest.mark.parametrize("how", ["registry", "models"])
def test_a_process_without_the_model_leaves_a_run_to_one_that_has_it(tmp_path, how):
    options: dict[str, Any] = {"name": "m0", "models": ["other"]} if how == "models" else {}

    async def main():
        async with simulator() as server:
            options.setdefault("name", "other")
            async with process(tmp_path, server.url, **options) as (runs, orphans):
                run = await lost(runs)
                for now in (0.0, 1.0, LEAVE - 1):
                    await orphans.look(now)
                assert await epoch_of(runs, run) == 1
                assert not server.requests
                async with process(tmp_path, server.url) as (able, its):
                    await its.look(0.0)
                    assert (await end_of(able, run)).outcome == "complete"

    run_async(main())


def test_a_run_that_nobody_can_go_on_with_ends_after_as_long_as_an_answer_may_take(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, "other") as (runs, orphans):
                run = await lost(runs)
                await orphans.look(100.0)
                await orphans.look(100.0 + LEAVE)
                end = await end_of(runs, run)
                assert (end.outcome, end.reason, end.recoverable) == (
                    "interrupted",
                    "worker_lost",
                    True,
                )
                assert not server.requests

    run_async(main())


def test_a_stopped_run_is_ended_by_whoever_sees_it(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, "other") as (runs, orphans):
                run = await lost(runs)
                await orphans.look(0.0)
                await runs.cancel(run, by="ann")
                await orphans.look(1.0)
                assert (await end_of(runs, run)).outcome == "cancelled"

    run_async(main())


def test_whoever_has_the_tools_comes_first_and_then_another(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, lease=LEASE) as (runs, orphans):
                first = await lost(runs, tool_names=["get_weather"])
                second = await lost(runs, tool_names=["get_weather"])
                await orphans.look(0.0)
                async with process(tmp_path, server.url, tools=[get_weather]) as (able, its):
                    able.store.orphans = lambda **_: asyncio.sleep(0, [first])  # type: ignore[method-assign]
                    await its.look(0.0)
                    assert (await end_of(able, first)).outcome == "complete"
                await orphans.look(LEASE - 1)
                assert await epoch_of(runs, second) == 1
                await orphans.look(LEASE)
                assert (await end_of(runs, second)).outcome == "complete"

    run_async(main())


def test_an_open_call_waits_for_a_process_with_its_tool(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, lease=LEASE) as (runs, orphans):
                fields = {"prompt": "scenario:tool", "tool_names": ["get_weather"]}
                first = await lost(runs, events=calling(), **fields)
                second = await lost(runs, events=calling(), **fields)
                await orphans.look(0.0)
                await orphans.look(LEASE)
                assert [await epoch_of(runs, run) for run in (first, second)] == [1, 1]
                async with process(tmp_path, server.url, tools=[get_weather]) as (able, its):
                    able.store.orphans = lambda **_: asyncio.sleep(0, [first])  # type: ignore[method-assign]
                    await its.look(0.0)
                    events = [event for _, event in await read_all(able, first)]
                    assert events[-1].outcome == "complete"
                    assert any(isinstance(event, m.ToolResult) for event in events)
                await orphans.look(LEAVE)
                assert (await end_of(runs, second)).outcome == "interrupted"

    run_async(main())


def test_runs_that_are_left_hide_no_others(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url) as (runs, orphans):
                others = [await lost(runs, "other") for _ in range(130)]
                mine = await lost(runs)
                await orphans.look(0.0)
                await orphans.look(1.0)
                assert (await end_of(runs, mine)).outcome == "complete"
                assert {await epoch_of(runs, run) for run in others} == {1}

    run_async(main())


def test_a_run_that_cannot_be_read_keeps_no_other_from_being_taken_over(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, lease=LEASE) as (runs, orphans):
                broken = new_run_id()
                await runs.store.create(broken, owner="elsewhere:1:a", meta=b"no description")
                await runs.store.release(broken, epoch=1)
                run = await lost(runs)
                await orphans.look(0.0)
                assert (await end_of(runs, run)).outcome == "complete"
                await orphans.look(1.0)
                assert await epoch_of(runs, broken) == 1

    run_async(main())


def test_a_damaged_run_is_tried_less_and_less_often_and_told_of_once(tmp_path, caplog):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, lease=LEASE) as (runs, orphans):
                run = await lost(runs)
                await runs.store.append(run, epoch=1, first=1, records=[b"no record of a run"])
                tried = []
                now, epoch = 0.0, 1
                while now <= 16 * LEASE:
                    await orphans.look(now)
                    if await epoch_of(runs, run) > epoch:
                        epoch += 1
                        tried.append(now)
                        await runs.store.release(run, epoch=epoch)
                    now += LEASE / 3
                assert tried == [0.0, LEASE, 3 * LEASE, 7 * LEASE, 15 * LEASE]

    run_async(main())
    told = [r for r in caplog.records if r.levelname == "WARNING"]
    assert [r.getMessage().partition(" could not")[2][:18] for r in told] == [" be taken over: re"]


@pytest.mark.parametrize("how", ["cancelled", "interrupted"])
def test_who_ends_a_run_is_written_down_like_who_goes_on_with_it(tmp_path, how):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url, "other") as (runs, orphans):
                run = await lost(runs, events=calling())
                await orphans.look(0.0)
                if how == "cancelled":
                    await runs.cancel(run)
                await orphans.look(LEAVE)
                events = [event for _, event in await read_all(runs, run)]
                assert events[-1].outcome == how
                (at,) = [n for n, e in enumerate(events) if isinstance(e, m.RunClaim)]
                assert events[at].epoch == await epoch_of(runs, run) == 2
                assert events[at].owner == runs.owner.partition(":")[0]
                assert isinstance(events[at - 1], m.StepEnd)

    run_async(main())


def test_the_same_request_is_the_same_on_a_server_with_other_tools(tmp_path):
    async def main():
        async with simulator() as server:
            async with process(tmp_path, server.url) as (plain, _):
                one = await plain.start(request_of("Hello"), model="m0", key="k")
                async with process(tmp_path, server.url, tools=[get_weather]) as (more, _):
                    two = await more.start(request_of("Hello"), model="m0", key="k")
                assert two.id == one.id
                assert not two.created_now
                await end_of(plain, one.id)

    run_async(main())
