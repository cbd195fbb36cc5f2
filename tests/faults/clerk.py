"""An agent with all that an agent's run can have, whose every step has an effect outside.

It speaks, does steps that may be done again and steps that may not, one after the other and two at
once, reads a model's answer, sends data and state, and asks a person.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tokenwire import RunContext, agent
from tokenwire.agents.load import agents_of
from tokenwire.simulator.scenarios import SCENARIOS, Scenario
from tokenwire.simulator.script import Ask, Say, Script

#: Its name, where a request has its model's.
NAME = "clerk"
#: What the model says inside of it.
SCENARIO = "clerk"
_ANSWER = ("The tea ", "is on ", "its way. ")
EXPECTED = f"I look first. {''.join(_ANSWER)}Is that all? All of it is done."
#: Each is sent once.
DATA = frozenset({"stock", "receipt"})


@dataclass(frozen=True)
class Step:
    """One step: its name, and whether it may be done again."""

    name: str
    idempotent: bool = False


READ, ORDER = Step("read_stock", True), Step("send_order")
COUNT, NOTIFY, DELETE = Step("count_stock", True), Step("send_notice"), Step("delete_file")
STEPS = (READ, ORDER, COUNT, NOTIFY, DELETE)


def clerk_of(effect: Callable[[RunContext, Step], Awaitable[None]]) -> Any:
    """The agent, by its name; ``effect`` is called in the middle of each step."""

    async def done(ctx: RunContext, step: Step, seconds: float = 0.0) -> Any:
        async def work(what: str) -> dict[str, str]:
            await effect(ctx, step)
            await asyncio.sleep(seconds)
            return {"done": f"{step.name} of {what}"}

        return await ctx.step(step.name, work, "tea", idempotent=step.idempotent)

    @agent(NAME)
    async def clerk(ctx: RunContext) -> AsyncIterator[str]:
        yield "I look "
        await asyncio.sleep(0.01)
        yield "first. "
        ctx.data("stock", await done(ctx, READ))
        receipt = await done(ctx, ORDER, 0.05)
        ctx.state({"stage": "ordered"})
        ctx.data("receipt", receipt)
        async with ctx.stream(f"scenario:{SCENARIO}", model=f"model-{ctx.principal}") as answer:
            await answer.result()
        ctx.progress(0.5, "half of it")
        await asyncio.gather(done(ctx, COUNT, 0.03), done(ctx, NOTIFY, 0.01))
        yield "Is that all? "
        if await ctx.request_approval("tidy_up", {"path": "list.txt"}):
            await done(ctx, DELETE)
        ctx.state({"stage": "done"})
        yield "All of it "
        await asyncio.sleep(0.01)
        yield "is done."

    return agents_of([clerk])


def _said(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("".join(_ANSWER), _ANSWER)])


def add_scenario() -> None:
    """Teach the simulator of this process what the model says."""
    SCENARIOS[SCENARIO] = Scenario(SCENARIO, "What an agent's model says.", _said)


def remove_scenario() -> None:
    """Undo `add_scenario`."""
    SCENARIOS.pop(SCENARIO, None)


async def _nothing(ctx: RunContext, step: Step) -> None: ...


clerk_of(_nothing)  # loads what makes an agent, before the fork
