"""Agents that the browser tests serve: what an agent can tell beside its words."""

import asyncio

from tokenwire import RunContext, agent
from tokenwire.errors import StepError
from tokenwire.events import Agent, StepEnd, StepStart, TextDelta, TextEnd, TextStart

HELPER = Agent(id="helper", name="Researcher", parent="root")


async def search(question: str) -> list[str]:
    return ["one", "two"]


async def fail(question: str) -> None:
    raise RuntimeError("the index is away")


async def nap(question: str) -> str:
    await asyncio.sleep(60)
    return ""


@agent
async def telling(ctx: RunContext):
    """Everything, one after another; waits for a person before the end."""
    found = await ctx.step("search", search, ctx.prompt)
    try:
        await ctx.step("look at the index", fail, ctx.prompt)
    except StepError as error:
        ctx.state({"stage": "drafting", "problem": str(error), "plan": ["read", {"then": "write"}]})
    ctx.progress(0.3, f"reading {len(found)} documents")
    ctx.data(
        "sources",
        [
            {"title": "A page", "url": "http://example.com/page"},
            "docs/guide: Agents",
            {"title": "No link", "url": "javascript:alert(1)"},
        ],
        id="sources",
    )
    ctx.data("weather", {"city": "Paris", "degrees": 13}, id="weather")
    await _speak(ctx, HELPER, "The helper found two documents.")
    yield "The answer begins. "
    await ctx.request_approval("publish", {"path": "draft.md"})
    ctx.progress(1.0, "done")
    yield "The answer ends."


async def _speak(ctx: RunContext, who: Agent, text: str) -> None:
    speaker = ctx.speaker(who)
    events = [
        StepStart(step=1, kind="agent", name=who.name, agent=who),
        TextStart(part=0, step=1, agent=who),
        TextDelta(part=0, text=text),
        TextEnd(part=0),
        StepEnd(step=1, status="complete"),
    ]
    await ctx.emit_as(speaker, events)


@agent
async def napping(ctx: RunContext):
    """A task that does not end by itself."""
    ctx.progress(None, "waiting for the index")
    await ctx.step("a long look", nap, ctx.prompt)
    yield "never"
