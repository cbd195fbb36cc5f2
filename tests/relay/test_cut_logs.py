"""A run whose log ends after any of its records is finished by whoever takes it over.

No process is killed here: the first records of a whole run become the log of a lost one. For every
scenario and every number of records, so that no state in which a worker can be lost is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import msgspec
import pytest

from support.spine import QUICK, OneModel, read_all, request_of, run_async, simulator
from tokenwire.errors import ConflictError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.log.open import open_store
from tokenwire.relay.description import RunMeta
from tokenwire.relay.record import Chain
from tokenwire.relay.runs import Runs
from tokenwire.run.plan import LoopLimits
from tokenwire.run.stream import new_run_id
from tokenwire.tools.registry import ToolSet, tool

SCENARIOS = ["text", "reasoning", "tool", "tools", "approval", "object", "empty"]
OTHER_ENDS = ["length", "refusal", "filter", "error", "cut"]


def tools() -> ToolSet:
    @tool
    def get_weather(city: str) -> str:
        """May not run twice."""
        return f"It rains in {city}."

    @tool(idempotent=True)
    def clock(timezone: str) -> str:
        """May run again."""
        return f"Noon in {timezone}."

    @tool
    def calculator(expression: str) -> str:
        """May not run twice."""
        return f"{expression} = 14"

    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """May not run twice, nor without a yes."""
        return f"{path} is gone."

    return ToolSet.of([get_weather, clock, calculator, delete_file])


async def whole_run(runs: Runs, prompt: str) -> list[m.Event]:
    """A run that nothing happens to; its approvals get a yes."""
    info = await runs.start(request_of(prompt), model="m0")
    events, _ = await asyncio.gather(read_all(runs, info.id), say_yes(runs, info.id))
    return [event for _, event in events]


async def say_yes(runs: Runs, run: str) -> None:
    follower = await runs.follow(run)
    while (batch := await follower.next()) is not None:
        for _, event in batch.events():
            if isinstance(event, m.RunWait):
                with contextlib.suppress(ConflictError):  # it has its answer by now
                    await runs.approve(run, event.pending[0], approved=True)
    follower.close()


async def lost(runs: Runs, prompt: str, events: list[m.Event]) -> str:
    """A run with these records and no owner."""
    run = new_run_id()
    meta = msgspec.json.encode(RunMeta(model="m0", request=request_of(prompt)))
    await runs.store.create(run, owner="elsewhere:1:a", meta=meta)
    copied = [msgspec.structs.replace(event) for event in events]
    if copied:
        assert isinstance(copied[0], m.RunStart)
        copied[0].run = run
        chain = Chain(run)
        records = [chain.seal(event) for event in copied]
        await runs.store.append(run, epoch=1, first=1, records=records)
    await runs.store.release(run, epoch=1)
    return run


def in_doubt(events: list[m.Event]) -> bool:
    begun = {e.call_id for e in events if isinstance(e, m.ToolStart) and not e.idempotent}
    return bool(begun - {e.call_id for e in events if isinstance(e, m.ToolResult)})


async def taken_over_everywhere(path: Any, prompt: str) -> list[m.Event]:
    async with simulator() as server:
        registry = OneModel(server.url)
        runs = Runs(open_store(f"sqlite:{path}"), registry=registry, retry=QUICK, tools=tools())
        await runs.open()
        whole = await whole_run(runs, prompt)
        cuts = range(len(whole))
        names = [await lost(runs, prompt, whole[:cut]) for cut in cuts]
        yes = [asyncio.create_task(say_yes(runs, name)) for name in names]
        found = await asyncio.gather(*(read_all(runs, name) for name in names))
        await asyncio.gather(*yes)
        for cut, pairs in zip(cuts, found, strict=True):
            events = [event for _, event in pairs]
            told = f"cut after {cut}: {[e.type for e in events]}"
            assert [e.seq for e in events] == list(range(1, len(events) + 1)), told
            end, want = events[-1], whole[-1]
            assert isinstance(end, m.RunEnd), told
            assert isinstance(want, m.RunEnd)
            if in_doubt(whole[:cut]):
                assert (end.outcome, end.reason) == ("interrupted", "tool_in_doubt"), told
                continue
            assert (end.outcome, end.reason) == (want.outcome, want.reason), told
            assert fold(events).text == fold(whole).text, told
        await runs.aclose()
        return whole


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_run_lost_after_any_record_comes_to_the_same_end(tmp_path, scenario):
    whole = run_async(taken_over_everywhere(tmp_path / "log.db", f"scenario:{scenario}"))
    assert whole[-1].outcome == "complete"


@pytest.mark.parametrize("scenario", OTHER_ENDS)
def test_a_run_that_ends_otherwise_ends_so_after_a_takeover(tmp_path, scenario):
    whole = run_async(taken_over_everywhere(tmp_path / "log.db", f"scenario:{scenario}"))
    assert whole[-1].outcome in ("incomplete", "error", "complete")


def test_a_run_that_made_its_last_step_makes_no_other(tmp_path):
    """A model that calls in its last step, though it was told to answer, gets no further one."""
    limits = LoopLimits(steps=1)
    whole: list[m.Event] = [
        m.RunStart(run="r"),
        m.StepStart(step=1),
        m.ToolCallStart(part=0, step=1, name="clock", call_id="c1"),
        m.ToolCallEnd(part=0, arguments={"timezone": "UTC"}),
        m.Finish(reason="tool_calls"),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
        m.ToolError(call_id="c1", code="too_many", message="", name="clock"),
    ]
    for number, event in enumerate(whole, 1):
        event.seq = number

    async def main() -> None:
        async with simulator() as server:
            runs = Runs(
                open_store(f"sqlite:{tmp_path}/log.db"),
                registry=OneModel(server.url),
                tools=tools(),
                limits=limits,
            )
            await runs.open()
            for cut in (6, 7):
                run = await lost(runs, "scenario:tools", whole[:cut])
                events = [event for _, event in await read_all(runs, run)]
                assert (events[-1].outcome, events[-1].reason) == ("incomplete", "max_steps")
                assert [e.code for e in events if isinstance(e, m.ToolError)] == ["too_many"]
            assert not server.requests
            await runs.aclose()

    run_async(main())
