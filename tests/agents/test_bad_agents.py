"""Agents that misbehave: each harms its own run only, and its end says so."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import tokenwire
from support.agents import asked, events_of, worker
from tokenwire import RunContext, agent
from tokenwire.errors import AgentError, StepError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.testing import ScriptedModel


class Odd(BaseException):
    pass


class Words(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


async def both(path: Path, job: Any) -> list[Fold]:
    """The run without a log, and with one that is read back."""
    async with tokenwire.stream("Hello", model=job) as run:
        async for _ in run:
            pass
        states = [run.state]
    async with worker(path, job) as runs:
        info = await runs.start(asked(), model=job.name)
        states.append(fold(await events_of(runs, info.id)))
        # The process works on.
        assert (await runs.info(info.id)).state == states[1].outcome
    return states


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt("secret"), Odd("secret"), GeneratorExit(), StopIteration(1),
     StopAsyncIteration(), asyncio.CancelledError(), RuntimeError("secret"), TimeoutError("secret"),
     ExceptionGroup("secret", [ValueError("secret")])],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("is_blocking", [False, True])
async def test_whatever_it_raises(error: BaseException, is_blocking: bool, tmp_path: Path) -> None:
    @agent("job")
    async def waiting(ctx: RunContext):
        await ctx.say("a")
        raise error

    @agent("job")
    def blocking(ctx: RunContext):
        raise error

    for state in await both(tmp_path, blocking if is_blocking else waiting):
        assert (state.outcome, (state.error or {})["code"]) == ("error", "agent_failed")
        assert "secret" not in str(state.error)


@pytest.mark.parametrize("error", [SystemExit(3), StopIteration(1), Odd("x"), ValueError("x")])
@pytest.mark.parametrize("is_blocking", [False, True])
async def test_whatever_a_step_raises(
    error: BaseException, is_blocking: bool, tmp_path: Path
) -> None:
    async def waiting() -> None:
        raise error

    def blocking() -> None:
        raise error

    @agent("job")
    async def job(ctx: RunContext):
        try:
            await ctx.step("x", blocking if is_blocking else waiting)
        except StepError:
            yield "handled"

    for state in await both(tmp_path, job):
        assert (state.outcome, state.text) == ("complete", "handled")


async def test_the_message_of_a_failed_step_is_not_for_readers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("password=hunter2")

    @agent("job")
    async def job(ctx: RunContext):
        await ctx.step("x", broken)

    for state in await both(tmp_path, job):
        assert (state.outcome, (state.error or {})["code"]) == ("error", "step_failed")
        assert "hunter2" not in str(state.error)
    assert "hunter2" in caplog.text


def sends(*events: m.Event) -> Any:
    @agent("job")
    async def job(ctx: RunContext):
        yield "a"
        for event in events:
            yield event
        yield "b"

    return job


@pytest.mark.parametrize(
    "event",
    [
        m.RunEnd(outcome="complete"), m.RunStart(run="x" * 16, time=1), m.Control(command="cancel"),
        m.RunWait(reason="approval", pending=["x"]),
        m.ApprovalAnswer(approval_id="x", call_id="y", approved=True, by="eve"),
        m.ApprovalRequest(approval_id="x", call_id="y", name="n", arguments={}),
        m.StepReset(step=1, attempt=2, discard_parts=[0], reason="restart"),
        m.TextDelta(part=99, text="x"), m.TextEnd(part=5), m.StepEnd(step=1, status="complete"),
        m.TextDelta(part="a", text=5),  # type: ignore[arg-type]
        m.Data(name=5, payload=1),  # type: ignore[arg-type]
        m.Data(name="n", payload=object()), m.Data(name="n", payload="\ud800"),
        m.ReasoningDelta(part=0, text="\ud800"),
        m.StepStart(step=1, name=7),  # type: ignore[arg-type]
    ],
    ids=lambda event: event.type,
)  # fmt: skip
async def test_events_that_are_not_its_to_send(event: m.Event, tmp_path: Path) -> None:
    for state in await both(tmp_path, sends(event)):
        assert (state.outcome, state.text) == ("error", "a")
        assert (state.error or {})["code"] in ("bad_request", "bad_order")


async def test_an_answer_that_it_calls_cut_is_not_complete(tmp_path: Path) -> None:
    for state in await both(tmp_path, sends(m.Finish(reason="length"))):
        assert (state.outcome, state.end_reason) == ("incomplete", "length")


BAD_CALLS: dict[str, Any] = {
    "a step's name": lambda ctx: ctx.step(5, print),
    "an empty name": lambda ctx: ctx.step("", print),
    "a broken name": lambda ctx: ctx.step("\ud800", print),
    "a long name": lambda ctx: ctx.step("x" * 1000, print),
    "an approval's name": lambda ctx: ctx.request_approval(5),
    "arguments without a form": lambda ctx: ctx.step("x", print, {(1, 2): object()}),
    "broken text": lambda ctx: ctx.say("\ud800"),
    "the name of data": lambda ctx: ctx.data(5),
    "the id of data": lambda ctx: ctx.data("x", 1, id=5),
    "a message": lambda ctx: ctx.progress(0.5, 7),
    "a broken state": lambda ctx: ctx.state("\ud800"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
async def test_what_could_not_be_stored_is_refused(name: str, tmp_path: Path) -> None:
    @agent("job")
    async def job(ctx: RunContext):
        result = BAD_CALLS[name](ctx)
        if result is not None:
            await result

    for state in await both(tmp_path, job):
        assert (state.outcome, (state.error or {})["code"]) == ("error", "bad_request")


async def test_a_kind_of_text_is_text(tmp_path: Path) -> None:
    @agent("job")
    async def job(ctx: RunContext):
        yield Words("its own")

    for state in await both(tmp_path, job):
        assert (state.outcome, state.text) == ("complete", "its own")


async def test_nothing_begins_after_the_end(tmp_path: Path) -> None:
    contexts: list[RunContext] = []
    calls: list[str] = []
    model = ScriptedModel(["late"])

    @agent("job")
    async def job(ctx: RunContext):
        contexts.append(ctx)
        yield "ok"

    await both(tmp_path, job)
    for ctx in contexts:
        ctx.progress(1.0)
        ctx.data("late")
        ctx.state("late")
        await ctx.say("late")
        with pytest.raises(AgentError):
            await ctx.step("late", lambda: calls.append("step"))
        with pytest.raises(AgentError):
            await ctx.request_approval("late")
        with pytest.raises(AgentError):
            async with ctx.stream("late", model=model):
                pass
    assert (calls, model.requests) == ([], [])


async def test_a_stop_that_is_swallowed_begins_nothing(tmp_path: Path) -> None:
    calls: list[str] = []
    model = ScriptedModel(["late"])

    @agent("job")
    async def job(ctx: RunContext):
        yield "a"
        for _ in range(3):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass
            try:
                await ctx.step("late", lambda: calls.append("step"))
            except asyncio.CancelledError:
                pass
            try:
                async with ctx.stream("late", model=model):
                    pass
            except asyncio.CancelledError:
                pass

    async with worker(tmp_path, job) as runs:
        info = await runs.start(asked(), model="job")
        await events_of(runs, info.id, lambda e: isinstance(e, m.TextDelta))
        begin = time.monotonic()
        await runs.cancel(info.id)
        state = fold(await events_of(runs, info.id))
        assert time.monotonic() - begin < 30
        assert (state.outcome, state.text, calls, model.requests) == ("cancelled", "a", [], [])


async def test_awaiting_in_another_thread_is_an_error_and_no_hang(tmp_path: Path) -> None:
    calls: list[int] = []

    @agent("job")
    async def job(ctx: RunContext):
        async def inner() -> None:
            await ctx.step("x", lambda: calls.append(threading.get_ident()))

        await asyncio.to_thread(lambda: asyncio.run(inner()))

    for state in await both(tmp_path, job):
        assert (state.outcome, (state.error or {})["code"]) == ("error", "agent_failed")
        assert "event loop" in state.error["message"]  # type: ignore[index]
    assert calls == []
