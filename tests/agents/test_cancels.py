"""A cancel at any moment of an agent: no step begins after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import tokenwire
from tokenwire import RunContext, agent
from tokenwire.events import model as m
from tokenwire.events.order import Order
from tokenwire.testing import ScriptedModel, call


def cancel(ctx: RunContext) -> None:
    """As a command that arrives in this very moment."""
    ctx.engine.inbox.put(m.Control(command="cancel", by="somebody"))


async def cancelled(work: Any) -> list[Any]:
    """All events of the agent, whose run is cancelled, in a legal order."""
    async with tokenwire.stream("x", model=work) as run:
        events = [event async for event in run]
    order = Order()
    for number, event in enumerate(events, 1):
        assert event.seq == number
        event.seq = 0
        order.check(event)
    assert events[-1].outcome == "cancelled"
    types = [event.type for event in events]
    assert types.count("control") == 1
    assert "step-start" not in types[types.index("control") :]
    return events


async def test_who_speaks_may_finish() -> None:
    @agent
    async def speaker(ctx: RunContext):
        yield "One"
        cancel(ctx)
        yield " and a half."

    events = await cancelled(speaker)
    assert "".join(e.text for e in events if isinstance(e, m.TextDelta)) in (
        "One",
        "One and a half.",
    )
    assert [e.status for e in events if isinstance(e, m.StepEnd)] == ["cancelled"]


async def _step(ctx: RunContext, done: list[str]) -> None:
    async def work() -> None:
        done.append("step")

    await ctx.step("work", work)


async def _stream(ctx: RunContext, done: list[str]) -> None:
    async with ctx.stream("x", model=ScriptedModel(["Hello"])) as answer:
        done.append((await answer.result()).text)


async def _question(ctx: RunContext, done: list[str]) -> None:
    done.append(str(await ctx.request_approval("delete", {})))


@pytest.mark.parametrize("begin", [_step, _stream, _question])
async def test_a_cancel_while_an_operation_is_entered_lets_nothing_begin(
    begin: Callable[[RunContext, list[str]], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    @agent
    async def busy(ctx: RunContext):
        enter = ctx.engine.journal.enter

        async def entered(*args: Any, **keywords: Any) -> Any:
            operation = await enter(*args, **keywords)
            cancel(ctx)
            return operation

        monkeypatch.setattr(ctx.engine.journal, "enter", entered)
        await begin(ctx, done)
        yield "Never said."

    events = await cancelled(busy)
    assert [event.type for event in events] == ["run-start", "control", "run-end"]
    assert done == []


async def test_a_stream_that_is_open_calls_its_model_no_further_time() -> None:
    """The agent hears of the cancel a moment later than the run does: its stream must not."""
    calls: list[str] = []

    @tokenwire.tool
    async def look(what: str) -> str:
        """Something that the model uses."""
        calls.append(what)
        return "seen"

    model = ScriptedModel([call("look", {"what": "x"})], ["Never said."])

    @agent
    async def user(ctx: RunContext):
        async with ctx.stream("x", model=model, tools=[look]) as answer:
            async for event in answer:
                if isinstance(event, m.ToolCallEnd):
                    cancel(ctx)
                    await asyncio.sleep(0)

    events = await cancelled(user)
    assert len(model.requests) == 1
    assert sum(isinstance(e, m.StepStart) for e in events) == 1
