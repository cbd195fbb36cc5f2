"""Code of the user that raises an exit, in its own task, in one that it created, or in a callback:
it ends its own run, and neither the event loop nor the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import tokenwire
from support.process import serving
from tokenwire import RunContext, Runs, agent, open_store, tool
from tokenwire.agents.load import agents_of
from tokenwire.errors import AgentError
from tokenwire.events import model as m
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.exits import is_by_signal
from tokenwire.testing import ScriptedModel, call

EXITS = [SystemExit(3), KeyboardInterrupt("secret")]


async def leave(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def alone(error: BaseException) -> None:
    task = asyncio.create_task(leave(error))
    await asyncio.sleep(30)
    del task


async def awaited(error: BaseException) -> None:
    await asyncio.create_task(leave(error))


async def together(error: BaseException) -> None:
    await asyncio.gather(leave(error), asyncio.sleep(30))


async def in_a_group(error: BaseException) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(leave(error))


async def deep(error: BaseException) -> None:
    async def outer() -> None:
        asyncio.get_running_loop().create_task(leave(error))
        await asyncio.sleep(30)

    await asyncio.create_task(outer())


async def swallowed(error: BaseException) -> None:
    with contextlib.suppress(Exception):
        await asyncio.create_task(leave(error))


def at_once(error: BaseException) -> None:
    raise error


async def in_a_thread(error: BaseException) -> None:
    await asyncio.create_task(asyncio.to_thread(at_once, error))


WAYS = [alone, awaited, together, in_a_group, deep, swallowed, in_a_thread]


@pytest.mark.parametrize("error", EXITS, ids=repr)
@pytest.mark.parametrize("way", WAYS)
def test_a_task_of_an_agent(way: Callable[..., Any], error: BaseException) -> None:
    @agent
    async def job(ctx: RunContext):
        yield "words "
        await way(error)

    async def main() -> str:
        async with tokenwire.stream("x", model=job) as run:
            with pytest.raises(AgentError, match="only its run ends") as raised:
                await run.result()
            assert "secret" not in str(raised.value)
            assert run.state.outcome == "error"
        # The loop is there for others.
        return await asyncio.create_task(asyncio.sleep(0, "there"))

    assert asyncio.run(main()) == "there"


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_a_task_that_outlives_its_run(error: BaseException) -> None:
    tasks: list[asyncio.Task[None]] = []
    go = asyncio.Event()

    async def late() -> None:
        await go.wait()
        raise error

    @agent
    async def job(ctx: RunContext):
        tasks.append(asyncio.create_task(late()))
        yield "done"

    async def main() -> None:
        async with tokenwire.stream("x", model=job) as run:
            assert (await run.result()).text == "done"
        go.set()
        await asyncio.wait(tasks)
        assert isinstance(tasks[0].exception(), AgentError)

    asyncio.run(main())


@pytest.mark.parametrize("error", EXITS, ids=repr)
def test_a_task_of_a_tool_fails_its_call(error: BaseException) -> None:
    @tool
    async def look() -> str:
        """Look."""
        await asyncio.create_task(leave(error))
        return "seen"

    async def main() -> None:
        model = ScriptedModel([call("look")], ["I could not."])
        async with tokenwire.stream("x", model=model, tools=[look]) as run:
            events = [event async for event in run]
        assert [e.code for e in events if isinstance(e, m.ToolError)] == ["exception"]
        assert events[-1].outcome == "complete"

    asyncio.run(main())


@pytest.mark.parametrize(("way", "error"), [(awaited, EXITS[0]), (leave, EXITS[1])])
def test_on_end(way: Callable[..., Any], error: BaseException) -> None:
    calls: list[str] = []

    @agent
    async def job(ctx: RunContext):
        yield "done"

    async def save(ended: Any) -> None:
        calls.append(ended.run)
        if len(calls) == 1:
            await way(error)

    async def main() -> None:
        runs = Runs(open_store("memory:"), agents=agents_of([job]), on_end=save)
        await runs.open()
        try:
            first = await runs.start(Request(messages=[user("x")]), model="job")
            async with asyncio.timeout(60):
                while calls.count(first.id) < 2:  # told again, as after any failure
                    await asyncio.sleep(0.02)
        finally:
            await runs.aclose()

    asyncio.run(main())


def test_a_coroutine_that_never_began_is_closed(recwarn: pytest.WarningsRecorder) -> None:
    @agent
    async def job(ctx: RunContext):
        asyncio.create_task(leave(SystemExit(1))).cancel()
        yield "done"

    async def main() -> None:
        async with tokenwire.stream("x", model=job) as run:
            assert (await run.result()).text == "done"

    asyncio.run(main())
    assert not [w for w in recwarn if "never awaited" in str(w.message)]


def test_what_a_signal_raises_is_told_from_what_code_raises() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as error:
        before = signal.signal(signal.SIGINT, lambda *_: None)
        try:
            assert not is_by_signal(error)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            assert is_by_signal(error)
        finally:
            signal.signal(signal.SIGINT, before)
    assert not is_by_signal(SystemExit(1))


_AGENTS = """
import asyncio, sys
from tokenwire import RunContext, agent

async def leave(error):
    raise error

@agent
async def bad(ctx: RunContext):
    yield "words "
    loop = asyncio.get_running_loop()
    how, name = ctx.prompt.split()
    error = {"exit": SystemExit(1), "interrupt": KeyboardInterrupt()}[name]
    if how == "task":
        task = asyncio.create_task(leave(error))
        await asyncio.sleep(60)
    elif how == "callback":
        def callback():
            raise error
        loop.call_soon(callback)
        await asyncio.sleep(0.05)
    else:
        raise error
"""


def test_a_server_goes_on_and_stops_at_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "bad_agents.py").write_text(_AGENTS)
    with serving(tmp_path, "--agent", f"bad={tmp_path}/bad_agents.py:bad") as process:
        ends: dict[str, str] = {}
        for how in ("task", "callback", "raise"):
            for name in ("exit", "interrupt"):
                body = {"prompt": f"{how} {name}", "model": "bad"}
                head = {"accept": "text/event-stream"}
                url = process.url + "/v1/runs"
                with httpx.stream("POST", url, json=body, headers=head, timeout=60) as answer:
                    text = answer.read().decode()
                end = next(e for e in ("complete", "error") if f'"outcome":"{e}"' in text)
                ends[f"{how} {name}"] = end
        assert process.process.poll() is None
        errors = process.errors()
        code, _, _ = process.stop(signal.SIGINT)
    # A callback belongs to no run: the server says it, and goes on.
    expected = {"task": "error", "callback": "complete", "raise": "error"}
    assert ends == {name: expected[name.partition(" ")[0]] for name in ends}
    assert errors.count("a callback of the event loop raised") == 2
    assert code == 0
    assert len(ends) == 6
