"""Tools in whole runs: over the wire of every provider, with a real grammar, and under faults."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import tokenwire
from tokenwire import LoopLimits
from tokenwire.events.model import Event, RunEnd, ToolError, ToolResult, ToolStart
from tokenwire.events.order import Order
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.settings import Settings
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools import Tool

#: Dialect -> path below the server.
WIRES = {
    "openai-chat": "/v1",
    "openai-responses": "/v1",
    "anthropic": "/v1",
    "gemini": "/v1beta",
    "ollama": "",
}
needs_llama = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None or importlib.util.find_spec("gguf") is None,
    reason="the extra 'local' and the package 'gguf' are not installed",
)


async def events_of(run: tokenwire.Run) -> list[Event]:
    """All events, checked again against the table of orders."""
    order, found = Order(), []
    async for event in run:
        order.check(event)
        found.append(event)
    assert order.state == "ended"
    return found


def scripted(*scripts: Any, tools: list[Any], **options: Any) -> tuple[ScriptedModel, list[Event]]:
    model = ScriptedModel(*scripts)

    async def main() -> list[Event]:
        async with tokenwire.stream("Hi", model=model, tools=tools, **options) as run:
            return await events_of(run)

    return model, asyncio.run(main())


def errors(events: list[Event]) -> list[str]:
    return [e.code for e in events if isinstance(e, ToolError)]


@pytest.mark.parametrize("dialect", WIRES)
def test_a_conversation_with_a_tool_over_every_wire(dialect: str) -> None:
    asked: list[str] = []

    def get_weather(city: str) -> dict[str, Any]:
        asked.append(city)
        return {"city": city, "sky": "frogs falling"}

    async def main() -> None:
        async with SimulatorServer(Settings()) as server:
            name = f"{dialect}+{server.url}{WIRES[dialect]}#demo"
            messages = [tokenwire.user("scenario:tool")]
            async with tokenwire.stream(messages, model=name, tools=[get_weather]) as run:
                events = await events_of(run)
                result = await run.result()
            assert [type(e) for e in events if isinstance(e, ToolStart | ToolResult)] == [
                ToolStart,
                ToolResult,
            ]
            assert "frogs falling" in result.text
            assert len(run.state.steps) == 2
            # What came of it is a conversation that can go on.
            messages += [*result.history, tokenwire.user("Hello")]
            async with tokenwire.stream(messages, model=name, tools=[get_weather]) as run:
                assert (await run.result()).outcome == "complete"

    asyncio.run(main())
    assert asked == ["Paris"]


def test_the_same_call_for_ever_ends_at_the_step_limit() -> None:
    ran: list[int] = []

    def again() -> str:
        ran.append(1)
        return "again"

    model, events = scripted([call("again")], tools=[again])
    assert len(model.requests) == 10
    assert len(ran) == 9
    assert errors(events) == ["too_many"]
    end = events[-1]
    assert isinstance(end, RunEnd)
    assert (end.outcome, end.reason) == ("incomplete", "max_steps")


def test_two_hundred_parallel_calls_each_get_one_answer() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def work(n: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        with lock:
            running -= 1
        return n

    calls = [call("work", {"n": n}, call_id=f"c{n}") for n in range(200)]
    model, events = scripted(calls, ["enough"], tools=[work])
    results = [e.call_id for e in events if isinstance(e, ToolResult)]
    assert len(results) == 50
    assert errors(events) == ["too_many"] * 150
    assert most <= 8
    answered = [m["tool_call_id"] for m in model.requests[1]["messages"] if m["role"] == "tool"]
    assert sorted(answered) == sorted(f"c{n}" for n in range(200))


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        '{"n":1,"n":2}',
        '{"n":NaN}',
        '{"n":' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"n":',
        "[1]",
        '{"n":"one"}',
        '{"m":1}',
        '{"n":1e999}',
    ],
)
def test_bad_arguments_never_run_and_the_model_hears_why(arguments: str) -> None:
    ran: list[int] = []

    @tokenwire.tool(needs_approval=True)  # nobody is asked about what cannot run
    def work(n: int) -> None:
        ran.append(n)

    model, events = scripted([call("work", arguments)], ["sorry"], tools=[work])
    assert errors(events) == ["invalid_arguments"]
    assert ran == []
    assert not [e for e in events if e.type in ("approval-request", "tool-start")]
    assert events[-1].type == "run-end"
    assert "argument" in model.requests[1]["messages"][-1]["content"]


def leave() -> None:
    raise SystemExit(3)


def hang() -> None:
    threading.Event().wait()


def huge() -> str:
    return "x" * 50_000_000


def cyclic() -> Any:
    found: dict[str, Any] = {}
    found["me"] = found
    return found


@pytest.mark.parametrize(
    ("function", "code"),
    [(leave, "exception"), (hang, "timeout"), (huge, "oversize"), (cyclic, "bad_result")],
)
def test_a_run_outlives_its_tools(function: Any, code: str) -> None:
    found = Tool.of(function, timeout=0.1)
    model, events = scripted([call(function.__name__)], ["So be it."], tools=[found])
    assert errors(events) == [code]
    assert len(model.requests) == 2
    assert events[-1].type == "run-end"


def test_text_and_calls_keep_their_order() -> None:
    script = ["one ", call("f", call_id="a"), "two ", call("f", call_id="b"), "three"]
    model, events = scripted(script, ["done"], tools=[Tool.of(lambda: 1, name="f")])
    ended = [e.type for e in events if e.type in ("tool-result", "text-delta", "tool-call-start")]
    assert ended.index("tool-call-start") > ended.index("text-delta")
    assert [e.call_id for e in events if isinstance(e, ToolResult)] == ["a", "b"]
    assistant = model.requests[1]["messages"][1]
    assert "one " in assistant["content"]
    assert [c["id"] for c in assistant["tool_calls"]] == ["a", "b"]


def test_limits_are_the_callers() -> None:
    calls = [call("f", call_id=f"c{n}") for n in range(3)]
    limits = LoopLimits(steps=2, calls=2)
    model, events = scripted(calls, ["ok"], tools=[Tool.of(lambda: 1, name="f")], limits=limits)
    assert errors(events) == ["too_many"]
    assert model.requests[1]["tool_choice"] == "none"


@needs_llama
def test_a_real_grammar_forces_a_shape(tmp_path: Path) -> None:
    """A tiny model of random weights can write nothing sensible; llama.cpp's grammar makes it
    write what our schema says, and we must read it."""
    place = Path(__file__).parents[1] / "providers" / "tiny_gguf.py"
    spec = importlib.util.spec_from_file_location("tiny_gguf_for_tools", place)
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    model = str(tiny.write(tmp_path / "tiny.gguf"))

    class Choice(BaseModel):
        good: bool

    async def main() -> None:
        options: Any = {"max_tokens": 60, "seed": 1}
        async with tokenwire.stream("abc", model=model, output=Choice, **options) as run:
            result = await run.result()
        assert isinstance(result.output, Choice)

    asyncio.run(main())
