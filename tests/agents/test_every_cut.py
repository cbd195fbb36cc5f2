"""An agent whose worker dies at each of its records: the next one ends it, and nothing is done or
said twice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.agents import asked, crash, events_of, worker
from tokenwire import RunContext, agent
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.testing import ScriptedModel

PAUSE = 0.02
WHOLE = "Begin. Model words. Then A and B. End."


def made(effects: list[str], model: ScriptedModel) -> Any:
    async def effect(name: str) -> str:
        effects.append(name)
        await asyncio.sleep(PAUSE)
        return name.upper()

    @agent
    async def job(ctx: RunContext):
        await asyncio.sleep(PAUSE)
        yield "Begin. "
        await asyncio.sleep(PAUSE)
        first = await ctx.step("first", effect, "a")
        ctx.data("first", first)
        await asyncio.sleep(PAUSE)
        async with ctx.stream("write", model=model) as answer:
            async for _ in answer:
                await asyncio.sleep(PAUSE)
        both = await asyncio.gather(
            ctx.step("again", effect, "x", idempotent=True), ctx.step("second", effect, "b")
        )
        ctx.state({"both": both})
        yield f"Then {first} and {both[1]}. "
        await asyncio.sleep(PAUSE)
        yield "End."

    return job


@pytest.mark.parametrize("cut", range(1, 27))
async def test_a_worker_that_dies_there(cut: int, tmp_path: Path) -> None:
    effects: list[str] = []
    model = ScriptedModel(["Model ", "words. "])
    async with worker(tmp_path, made(effects, model)) as first:
        info = await first.start(asked(), model="job")
        seen = await events_of(first, info.id, lambda e: e.seq >= cut or isinstance(e, m.RunEnd))
        crash(first)
        async with worker(tmp_path, made(effects, model)) as second:
            events = await events_of(second, info.id)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert events[: len(seen)] == seen, "what a reader had has changed"
    state = fold(events)
    assert effects.count("a") <= 1
    assert effects.count("b") <= 1
    assert effects.count("x") <= 2
    assert len(model.requests) <= 2
    if state.outcome == "complete":
        assert state.text == WHOLE
        assert state.shared == {"both": ["X", "B"]}
        assert sum(isinstance(e, m.Data) for e in events) == 1
        assert (effects.count("a"), effects.count("b")) == (1, 1)
    else:
        assert (state.outcome, state.end_reason) == ("interrupted", "step_in_doubt")
        in_doubt = {s.name for s in state.steps if s.kind == "task" and s.status != "complete"}
        assert in_doubt & {"first", "second"}
