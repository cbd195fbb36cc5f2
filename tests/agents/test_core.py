"""Agents without a log: what they give, what they may ask for, and how they end."""

from __future__ import annotations

import asyncio
import copy
import sys
import time
from typing import Any

import pytest

import tokenwire
from tokenwire import RunContext, agent
from tokenwire.agents import load
from tokenwire.agents.spec import Agent
from tokenwire.errors import (
    AgentError,
    CancelledRunError,
    ConfigError,
    DeadlineError,
    InputError,
    LimitError,
    StepError,
)
from tokenwire.events import model as m
from tokenwire.events.order import Order
from tokenwire.testing import ScriptedModel


async def events_of(model: Any, prompt: Any = "Hello", **more: Any) -> list[m.Event]:
    async with tokenwire.stream(prompt, model=model, **more) as run:
        events = [event async for event in run]
    order = Order()
    for number, event in enumerate(events, 1):
        assert event.seq == number
        event.seq = 0
        order.check(event)
    assert order.state == "ended"
    return events


async def text_of(model: Any, prompt: Any = "Hello", **more: Any) -> str:
    async with tokenwire.stream(prompt, model=model, **more) as run:
        return (await run.result()).text


def kinds(events: list[m.Event]) -> list[str]:
    return [event.type for event in events]


@agent
async def words(ctx: RunContext):
    for word in ctx.prompt.split():
        yield word + " "


async def plain(prompt: str):
    yield f"You said {prompt}."


async def whole(ctx: RunContext) -> str:
    return f"{len(ctx.messages)} message"


def blocking(ctx: RunContext):
    time.sleep(0.01)
    yield "one "
    yield "two"


def answer() -> str:
    return "42"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (words, "a b "),
        (plain, "You said a b."),
        (whole, "1 message"),
        (blocking, "one two"),
        (answer, "42"),
    ],
)
async def test_every_kind_of_function_is_an_agent(model: Any, expected: str) -> None:
    assert await text_of(model, "a b") == expected
    async with tokenwire.stream(model, "a b") as run:
        assert (await run.result()).text == expected


async def test_own_words_are_a_step_of_the_agent() -> None:
    events = await events_of(words, "a b")
    assert (
        kinds(events)
        == [
            "run-start",
            "step-start",
            "text-start",
            "text-delta",
            "text-end",
            "step-end",
            "run-end",
        ]
        or kinds(events).count("text-delta") == 2
    )
    start = next(e for e in events if isinstance(e, m.StepStart))
    assert (start.kind, start.name) == ("agent", "words")


async def test_what_an_agent_shows_beside_its_words() -> None:
    @agent("shows")
    async def shows(ctx: RunContext):
        ctx.progress(0.3, "reading")
        ctx.data("sources", ["a"], id="s")
        ctx.state({"stage": "draft", "n": [1] * 20})
        await asyncio.to_thread(ctx.progress, 2.0)
        ctx.state({"stage": "done", "n": [1] * 20})
        ctx.state({"stage": "done", "n": [1] * 20})
        yield "ok"

    events = await events_of(shows)
    progress = [(e.fraction, e.message) for e in events if isinstance(e, m.RunProgress)]
    assert progress == [(0.3, "reading"), (1.0, None)]
    assert [e.payload for e in events if isinstance(e, m.Data)] == [["a"]]
    states = [(e.snapshot, e.patch) for e in events if isinstance(e, m.SharedState)]
    assert states == [
        ({"stage": "draft", "n": [1] * 20}, None),
        (None, [{"op": "replace", "path": "/stage", "value": "done"}]),
    ]


async def test_steps_overlap_and_give_their_values() -> None:
    began: list[str] = []

    async def slow(name: str) -> dict[str, str]:
        began.append(name)
        await asyncio.sleep(0.02)
        return {"name": name}

    @agent
    async def both(ctx: RunContext):
        one, two = await asyncio.gather(ctx.step("a", slow, "x"), ctx.step("b", slow, "y"))
        three = await ctx.step("c", str.upper, "z")
        yield f"{one['name']}{two['name']}{three}"

    events = await events_of(both)
    starts = [e for e in events if isinstance(e, m.StepStart) and e.kind == "task"]
    assert [s.name for s in starts] == ["a", "b", "c"]
    ends = [e for e in events if isinstance(e, m.StepEnd) and e.step in [s.step for s in starts]]
    assert kinds(events).index("step-end") > events.index(starts[1]), "the steps did not overlap"
    assert [e.size for e in ends] == [len(b'{"name":"x"}')] * 2 + [3]
    assert not [e for e in events if "name" in str(getattr(e, "payload", ""))]
    assert began == ["x", "y"]


async def test_a_failed_step_is_an_error_that_the_agent_may_handle() -> None:
    def broken() -> None:
        raise ValueError("no such thing")

    @agent
    async def careful(ctx: RunContext):
        try:
            await ctx.step("broken", broken)
        except StepError as error:
            yield f"failed: {error}"

    assert await text_of(careful) == "failed: no such thing"


async def test_a_models_words_are_the_agents_words_and_a_hidden_ones_are_not() -> None:
    router = ScriptedModel(["secret route"])
    # What readers hear of the hidden answer is that it was made.
    writer = ScriptedModel(["Good ", "day"])

    @agent
    async def routed(ctx: RunContext):
        async with ctx.stream("which?", model=router, visible=False) as answer:
            route = (await answer.result()).text
        yield "Answer: "
        async with ctx.stream(model=writer) as answer:
            seen = [event async for event in answer]
        assert route == "secret route"
        assert "".join(e.text for e in seen if isinstance(e, m.TextDelta)) == "Good day"
        yield "!"

    events = await events_of(routed)
    said = "".join(e.text for e in events if isinstance(e, m.TextDelta))
    assert said == "Answer: Good day!"
    assert "secret" not in str(events)
    starts = [e for e in events if isinstance(e, m.StepStart)]
    assert [s.kind for s in starts] == ["model", "agent", "model", "agent"]


async def test_two_answers_at_once_follow_each_other_and_share_no_number() -> None:
    models = [ScriptedModel([f"{n}a ", f"{n}b "]) for n in range(3)]

    @agent
    async def at_once(ctx: RunContext):
        async def one(model: Any) -> str:
            async with ctx.stream("x", model=model) as answer:
                return (await answer.result()).text

        texts = await asyncio.gather(*map(one, models))
        yield "|".join(texts)

    events = await events_of(at_once)
    said = "".join(e.text for e in events if isinstance(e, m.TextDelta))
    assert sorted(said[:18].split()) == ["0a", "0b", "1a", "1b", "2a", "2b"]
    assert said[18:] == "0a 0b |1a 1b |2a 2b "
    for n in range(3):
        assert f"{n}a {n}b " in said[:18]


async def test_an_answer_that_is_left_early_is_closed() -> None:
    @agent
    async def early(ctx: RunContext):
        async with ctx.stream("x", model="demo") as answer:
            async for event in answer:
                if isinstance(event, m.TextDelta):
                    break
        yield "enough"

    events = await events_of(early)
    ends = [e for e in events if isinstance(e, m.StepEnd)]
    assert ends[0].status == "cancelled"
    assert events[-1].outcome == "complete"  # type: ignore[union-attr]


async def test_events_of_the_agents_own_and_what_it_may_not_send() -> None:
    @agent
    async def sends(ctx: RunContext):
        yield m.ReasoningStart(part=5)
        yield m.ReasoningDelta(part=5, text="hm")
        yield m.ReasoningEnd(part=5)
        yield m.Data(name="n", payload=1)
        yield "text"

    events = await events_of(sends)
    assert [e.part for e in events if isinstance(e, m.PartStart)] == [0, 1]

    @agent
    async def ends(ctx: RunContext):
        yield m.RunEnd(outcome="complete")

    with pytest.raises(InputError):
        await text_of(ends)


async def test_failures_are_told_safely(caplog: pytest.LogCaptureFixture) -> None:
    @agent
    async def breaks(ctx: RunContext):
        yield "Half "
        raise RuntimeError("password=hunter2")

    events = await events_of(breaks)
    error = next(e for e in events if isinstance(e, m.Error))
    assert error.code == "agent_failed"
    assert "hunter2" not in str(events)
    assert "hunter2" in caplog.text
    assert events[-1].outcome == "error"  # type: ignore[union-attr]
    with pytest.raises(AgentError):
        await text_of(breaks)

    @agent
    async def gives_a_number(ctx: RunContext):
        yield 3

    with pytest.raises(AgentError, match="int"):
        await text_of(gives_a_number)


async def test_a_cut_answer_is_not_a_whole_run() -> None:
    @agent
    async def careless(ctx: RunContext):
        async with ctx.stream("x", model="demo", max_tokens=3) as answer:
            async for _ in answer:
                pass

    events = await events_of(careless)
    assert (events[-1].outcome, events[-1].reason) == ("incomplete", "length")  # type: ignore[union-attr]


async def test_stop_reaches_the_agent_and_its_model_call() -> None:
    seen: list[str] = []

    @agent
    async def endless(ctx: RunContext):
        try:
            while True:
                yield "again "
                await asyncio.sleep(0.001)
        finally:
            seen.append(f"cancelled={ctx.cancelled}")

    begin = time.monotonic()
    async with tokenwire.stream("x", model=endless) as run:
        async for event in run:
            if isinstance(event, m.TextDelta):
                run.cancel()
        assert run.state.outcome == "cancelled"
    assert seen == ["cancelled=True"]
    assert time.monotonic() - begin < 30
    with pytest.raises(CancelledRunError):
        async with tokenwire.stream("x", model=endless) as run:
            async for _ in run:
                run.cancel()
            await run.result()


async def test_an_endless_agent_meets_the_deadline_and_a_greedy_one_the_limit() -> None:
    @agent
    async def sleeps(ctx: RunContext):
        yield "zzz"
        await asyncio.sleep(60)

    with pytest.raises(DeadlineError):
        await text_of(sleeps, deadlines=tokenwire.Deadlines(total=0.2))

    @agent
    async def asks_on(ctx: RunContext):
        while True:
            async with ctx.stream("x", model=ScriptedModel(["a"])) as answer:
                await answer.result()

    with pytest.raises(LimitError):
        await text_of(asks_on, limits=tokenwire.LoopLimits(steps=3))


@pytest.mark.parametrize("edited", [None, {"paths": ["b"]}])
async def test_what_an_agent_does_to_its_answer_reaches_no_reader(edited: Any) -> None:
    @agent
    async def hasty(ctx: RunContext) -> str:
        answer = await ctx.request_approval("delete_files", {"paths": ["a"]})
        answer.arguments["paths"].append("everything")
        return "done"

    events = []
    async with tokenwire.stream("Hi", model=hasty) as run:
        async for event in run:
            events.append(event)
            if isinstance(event, m.RunWait):
                run.approve(event.pending[0], True, arguments=edited)
    assert events[-1].outcome == "complete"
    assert "everything" not in str(events)


async def test_approval_is_waited_for_and_bound_to_its_arguments() -> None:
    @agent
    async def deletes(ctx: RunContext):
        answer = await ctx.request_approval("delete_file", {"path": "a"})
        yield f"{bool(answer)} {answer.arguments['path']} {answer.by} {answer.reason}"

    for approved, edited, expected in [
        (True, None, "True a eve why"),
        (True, {"path": "b"}, "True b eve why"),
        (False, None, "False a eve why"),
    ]:
        async with tokenwire.stream("x", model=deletes) as run:
            async for event in run:
                if isinstance(event, m.RunWait):
                    (pending,) = event.pending
                    run.approve(pending, approved, arguments=edited, by="eve", reason="why")
            assert run.state.text == expected
            tool = next(iter(run.state.tools.values()))
            assert tool.done
            assert tool.error == (None if approved else "denied")


async def test_a_slow_reader_bounds_the_agent() -> None:
    given = 0

    @agent
    async def floods(ctx: RunContext):
        nonlocal given
        while given < 100_000:
            given += 1
            yield "x"

    async with tokenwire.stream("x", model=floods) as run:
        async for event in run:
            if isinstance(event, m.TextDelta):
                await asyncio.sleep(0.1)
                break
        assert given < 50_000


@pytest.mark.parametrize("how", ["at once", "in its clean-up", "both"])
async def test_no_step_begins_after_a_cancel(how: str) -> None:
    step = (
        m.StepStart(step=1, kind="agent", name="late"),
        m.TextStart(part=0),
        m.TextDelta(part=0, text="late"),
        m.TextEnd(part=0),
        m.StepEnd(step=1, status="complete", terminal_seen=True),
    )
    runs: list[Any] = []

    @agent
    async def job(ctx: RunContext) -> None:
        await ctx.say("words")
        runs[0].cancel()
        try:
            if how != "in its clean-up":
                await ctx.emit(*copy.deepcopy(step))
            await asyncio.sleep(60)
        finally:
            if how != "at once":
                await ctx.emit(*copy.deepcopy(step))

    async with tokenwire.stream("x", model=job) as run:
        runs.append(run)
        types = [event.type async for event in run]
    assert run.state.outcome == "cancelled"
    cancel = types.index("control")
    assert "step-start" not in types[cancel:]


@pytest.mark.parametrize("bad", [lambda a, b: "x", 7])
def test_what_is_no_agent_is_an_error(bad: Any) -> None:
    with pytest.raises((ConfigError, tokenwire.errors.UnknownModelError)):  # type: ignore[attr-defined]
        tokenwire.stream("x", model=bad)


async def test_other_packages_add_their_own_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    class Oracle:
        answer = "42"

    def adapter(value: object, name: str | None) -> Any:
        if not isinstance(value, Oracle):
            return None

        async def work(ctx: RunContext) -> None:
            await ctx.say(value.answer)

        return Agent(name or "oracle", work)

    class Point:
        def load(self) -> Any:
            return adapter

    monkeypatch.setattr(
        load, "entry_points", lambda group: [Point()] * (group == "tokenwire.agents")
    )
    assert await text_of(Oracle()) == "42"
    with pytest.raises(tokenwire.TokenwireError):
        tokenwire.stream("x", model=object())


@agent
async def exits(ctx: RunContext) -> str:
    raise SystemExit(3)


@agent
async def exits_late(ctx: RunContext):
    yield "words "
    sys.exit("the end")


@agent
def exits_in_a_thread(ctx: RunContext):
    yield "words "
    sys.exit(0)


@agent
async def exits_in_a_step(ctx: RunContext):
    async def work() -> None:
        sys.exit(1)

    await ctx.step("work", work)
    yield "words "


@pytest.mark.parametrize("model", [exits, exits_late, exits_in_a_thread, exits_in_a_step])
def test_an_agent_that_exits_ends_its_run_and_not_the_process(model: Any) -> None:
    """``sys.exit`` in a task would stop the event loop, and with it every run of a server."""

    async def main() -> None:
        async with tokenwire.stream("x", model=model) as run:
            with pytest.raises(AgentError, match="called exit"):
                await run.result()
            assert run.state.outcome == "error"

    asyncio.run(main())
