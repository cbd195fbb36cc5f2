"""Functions as agents: what they take, what they give, and where they run.

Always true: a blocking function runs in a thread, one piece at a time; closing the run closes the
generator; a function that gives something else than text and events is an error that names it.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any, cast

from tokenwire.agents.context import RunContext
from tokenwire.agents.spec import Agent, Allow
from tokenwire.agents.threads import in_thread
from tokenwire.errors import AgentError, ConfigError
from tokenwire.events.model import Event

__all__ = ["agent", "function_agent"]

_END = object()


def agent(
    name: str | Callable[..., Any] | None = None,
    *,
    version: str = "1",
    restart: bool = True,
    allow: Allow = None,
) -> Any:
    """Make a function an agent: ``@agent`` or ``@agent("name", version="3", restart=False)``.

    The function takes a `RunContext` (or the prompt, if its parameter is annotated ``str``), and
    is an async generator of text and events, a coroutine that returns text, or a blocking function
    or generator, which runs in a thread. ``name``: default the function's. ``version``: a run that
    was begun with one version is not continued with another. ``restart``: whether a run whose
    worker was lost is run again from the top. ``allow``: principals who may start it.
    """
    if callable(name):
        return function_agent(name)

    def decorate(function: Callable[..., Any]) -> Agent:
        return function_agent(function, name, version=version, restart=restart, allow=allow)

    return decorate


def function_agent(
    function: Callable[..., Any],
    name: str | None = None,
    *,
    version: str = "1",
    restart: bool = True,
    allow: Allow = None,
) -> Agent:
    """A function as an agent, under its own name. Raises `ConfigError`."""
    title = name or getattr(function, "__name__", "")
    takes = _parameter(function, title)

    async def work(ctx: RunContext) -> None:
        await _give(ctx, function, _arguments(ctx, takes), title)

    return Agent(title, work, version=version, restart=restart, allow=allow, function=function)


def _parameter(function: Callable[..., Any], name: str) -> str:
    """What the function is called with: ``context``, ``prompt``, or nothing."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError) as error:
        raise ConfigError(f"agent '{name}' has no signature: {error}") from None
    required = [
        p
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not parameters:
        return ""
    if len(required) > 1:
        raise ConfigError(f"agent '{name}' must take one argument, the RunContext")
    first = parameters[0]
    if first.annotation in (str, "str") or first.name == "prompt":
        return "prompt"
    return "context"


def _arguments(ctx: RunContext, takes: str) -> list[Any]:
    if not takes:
        return []
    return [ctx.prompt] if takes == "prompt" else [ctx]


async def _give(
    ctx: RunContext, function: Callable[..., Any], arguments: list[Any], name: str
) -> None:
    """Call the function, and say what it gives."""
    if inspect.isasyncgenfunction(function):
        await _give_all(ctx, function(*arguments), name)
    elif inspect.iscoroutinefunction(function):
        await _give_one(ctx, await function(*arguments), name)
    elif inspect.isgeneratorfunction(function):
        await _give_blocking(ctx, function(*arguments), name)
    else:
        value = await in_thread(function, *arguments)
        if inspect.isasyncgen(value):
            await _give_all(ctx, value, name)
        elif inspect.isawaitable(value):
            await _give_one(ctx, await value, name)
        elif inspect.isgenerator(value):
            await _give_blocking(ctx, value, name)
        else:
            await _give_one(ctx, value, name)


async def _give_all(ctx: RunContext, pieces: AsyncIterator[Any], name: str) -> None:
    async with aclosing(cast(Any, pieces)):
        async for piece in pieces:
            if type(piece) is str:
                await ctx.say(piece)
            else:
                await _give_one(ctx, piece, name)


async def _give_blocking(ctx: RunContext, pieces: Iterator[Any], name: str) -> None:
    try:
        while (piece := await in_thread(next, pieces, _END)) is not _END:
            await _give_one(ctx, piece, name)
    finally:
        with suppress(ValueError):  # it is at work in its thread, and ends there
            cast(Any, pieces).close()


async def _give_one(ctx: RunContext, piece: Any, name: str) -> None:
    if piece is None:
        return
    if isinstance(piece, str):
        await ctx.say(str.__str__(piece))  # of a subclass: its text alone
    elif isinstance(piece, Event):
        await ctx.emit(piece)
    else:
        raise AgentError(
            f"agent '{name}' gave {type(piece).__name__}; it may give text and tokenwire events"
        )
