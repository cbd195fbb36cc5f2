"""A framework of one's own, and the adapter that makes its objects agents of tokenwire."""

from __future__ import annotations

from tokenwire import RunContext
from tokenwire.agents.spec import Agent


class Oracle:
    """What the framework calls an agent."""

    def __init__(self, answer: str) -> None:
        self.answer = answer


def adapter(value: object, name: str | None) -> Agent | None:
    """An agent for an `Oracle`; None for anything else."""
    if not isinstance(value, Oracle):
        return None

    async def work(ctx: RunContext) -> None:
        ctx.progress(0.5, "thinking")
        await ctx.say(f"{value.answer}, to '{ctx.prompt}'")

    return Agent(name or "oracle", work)


def broken(value: object, name: str | None) -> Agent | None:
    """A plugin at fault."""
    raise RuntimeError("the plugin is at fault")


def wrong(value: object, name: str | None) -> str:
    """A plugin that does not return an agent."""
    return "an agent"
