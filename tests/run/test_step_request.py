"""What each step asks: whom it tells of which tools, whether it must call, and when it is over."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import pytest

import tokenwire
from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire import LoopLimits, Runs, Tool, ToolSet
from tokenwire.errors import InputError
from tokenwire.events.message import Message, ToolCallPart, ToolResultPart, user
from tokenwire.events.model import RunEnd, ToolCallStart, ToolError, ToolResult
from tokenwire.events.request import Request, ToolSpec
from tokenwire.log.memory import MemoryStore
from tokenwire.run.step_request import step_request
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools.structured import OUTPUT_TOOL

SHAPE = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def look() -> str:
    return "seen"


def book() -> str:
    return "booked"


def ask(*scripts: Any, **options: Any) -> tuple[ScriptedModel, list[Any], Any]:
    model = ScriptedModel(*scripts)

    async def main() -> tuple[list[Any], Any]:
        async with tokenwire.stream("Hi", model=model, **options) as run:
            events = [event async for event in run]
            return events, await run.result()

    events, result = asyncio.run(main())
    return model, events, result


def names(request: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in request.get("tools") or []]


# --- which tools ---------------------------------------------------------------------------------


def test_the_model_hears_only_of_tools_that_the_principal_may_use() -> None:
    tools = ToolSet([Tool.of(look), Tool.of(book, allow={"ann"})])
    model: Any = ScriptedModel(["ok"])

    async def main() -> None:
        runs = Runs(MemoryStore(), registry=model, http=model, tools=tools)
        await runs.open()
        for principal in ("ann", "bob"):
            info = await runs.start(request_of("Hi"), model="x", principal=principal)
            follower = await runs.follow(info.id, principal=principal)
            while await follower.next() is not None:
                pass
            follower.close()
        await runs.aclose()

    run_async(main())
    assert [names(request) for request in model.requests] == [["look", "book"], ["look"]]


def test_of_two_tools_of_one_name_the_runs_own_is_told_of_and_run() -> None:
    clients = ToolSpec(name="look", description="theirs", executor="client")
    found = step_request(
        Request(messages=[user("Hi")], tools=[clients, ToolSpec(name="other")]),
        [],
        [Tool.of(look, description="ours").spec],
        last=False,
    )
    assert [(t.name, t.description) for t in found.tools or []] == [("other", ""), ("look", "ours")]


def test_a_call_id_of_the_conversation_before_names_another_call() -> None:
    before = [
        user("Hi"),
        Message(role="assistant", content=[ToolCallPart(call_id="call_0", name="look")]),
        Message(role="tool", content=[ToolResultPart(call_id="call_0", content="seen")]),
        user("Again"),
    ]
    model = ScriptedModel([call("look", call_id="call_0")], ["Done."])

    async def main() -> None:
        async with tokenwire.stream(before, model=model, tools=[look]) as run:
            starts = [event async for event in run if isinstance(event, ToolCallStart)]
        assert [s.call_id for s in starts] == ["call_0-2"]

    asyncio.run(main())
    sent = model.requests[1]["messages"]
    assert [m["tool_call_id"] for m in sent if m["role"] == "tool"] == ["call_0", "call_0-2"]


def test_parallel_calls_can_be_refused() -> None:
    model, _, _ = ask(["ok"], tools=[look], parallel_tool_calls=False)
    assert model.requests[0]["parallel_tool_calls"] is False


# --- whether it must -----------------------------------------------------------------------------


def test_a_forced_choice_is_for_the_first_step() -> None:
    model, _, _ = ask([call("look")], ["Done."], tools=[look], tool_choice="required")
    assert [r.get("tool_choice") for r in model.requests] == ["required", "auto"]
    model, _, _ = ask([call("look")], ["Done."], tools=[look, book], tool_choice="look")
    assert model.requests[0]["tool_choice"]["function"]["name"] == "look"
    assert model.requests[1]["tool_choice"] == "auto"


def test_an_answer_by_a_tool_stays_forced_and_the_last_step_can_call_nothing_else() -> None:
    scripts = [[call("look")], [call("look")], [call(OUTPUT_TOOL, {"n": 3})]]
    model, _, result = ask(
        *scripts,
        tools=[look],
        output=SHAPE,
        output_by="tool",
        limits=LoopLimits(steps=3),
    )
    assert result.output == {"n": 3}
    choices = [r["tool_choice"] for r in model.requests]
    assert choices[:2] == ["required", "required"]
    assert choices[2]["function"]["name"] == OUTPUT_TOOL
    assert names(model.requests[2]) == [OUTPUT_TOOL]


# --- when it is over -----------------------------------------------------------------------------


def end(events: list[Any]) -> tuple[str, str | None]:
    assert isinstance(events[-1], RunEnd)
    return events[-1].outcome, events[-1].reason


def test_a_run_ends_after_the_result_of_a_named_tool() -> None:
    script = [[call("look")], [call("look"), call("book")], ["never asked"]]
    for names_given in ("book", ["book", "other"]):
        model, events, result = ask(*script, tools=[look, book], stop_when=names_given)
        assert len(model.requests) == 2
        assert end(events) == ("complete", "stop_when")
        assert [e.name for e in events if isinstance(e, ToolResult)] == ["look", "look", "book"]
        assert result.outcome == "complete"
        assert result.history[-1].role == "tool"


def test_a_tool_that_failed_ends_nothing() -> None:
    def broken() -> None:
        raise ValueError("no")

    model, events, _ = ask(
        [call("broken")], ["Sorry."], tools=[Tool.of(broken)], stop_when="broken"
    )
    assert len(model.requests) == 2
    assert end(events) == ("complete", "stop")


def test_a_run_ends_when_its_rule_says_so_and_the_rule_is_asked_after_calls_only() -> None:
    seen: list[int] = []

    def enough(state: Any) -> bool:
        seen.append(len(state.steps))
        return len(state.tools) >= 2

    script = [[call("look")], [call("look")], ["never asked"]]
    model, events, _ = ask(*script, tools=[look], stop_when=enough)
    assert (len(model.requests), seen) == (2, [1, 2])
    assert end(events) == ("complete", "stop_when")
    _, events, _ = ask(["Hello"], tools=[look], stop_when=lambda state: True)
    assert end(events) == ("complete", "stop")


async def _says_yes(state: Any) -> bool:
    return True


def test_an_async_rule_is_refused_before_anything_runs() -> None:
    """Its coroutine would count as a yes."""
    with pytest.raises(InputError, match="plain function"):
        tokenwire.stream("Hi", model=ScriptedModel(["Hello"]), stop_when=_says_yes)


def test_a_rule_that_exits_ends_its_run_alone() -> None:
    async def main() -> list[Any]:
        model = ScriptedModel([call("look")], ["never asked"])
        async with tokenwire.stream(
            "Hi", model=model, tools=[look], stop_when=lambda state: sys.exit(1)
        ) as run:
            return [event async for event in run]

    assert end(asyncio.run(main())) == ("error", "bad_config")


def test_a_rule_that_hides_a_coroutine_is_an_error_of_the_run() -> None:
    model = ScriptedModel([call("look")], ["never asked"])

    async def main() -> list[Any]:
        rule = _says_yes
        async with tokenwire.stream(
            "Hi", model=model, tools=[look], stop_when=lambda state: rule(state)
        ) as run:
            return [event async for event in run]

    events = asyncio.run(main())
    assert end(events) == ("error", "bad_config")
    assert len(model.requests) == 1


def test_a_rule_that_fails_is_an_error_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    def wrong(state: Any) -> bool:
        raise ZeroDivisionError

    model = ScriptedModel([call("look")], ["never asked"])

    async def main() -> None:
        async with tokenwire.stream("Hi", model=model, tools=[look], stop_when=wrong) as run:
            events = [event async for event in run]
            assert end(events) == ("error", "bad_config")

    with caplog.at_level(logging.CRITICAL, "tokenwire.run"):
        asyncio.run(main())
    assert len(model.requests) == 1


def test_a_servers_runs_have_its_rule() -> None:
    def get_weather(city: str) -> str:
        return f"sunny in {city}"

    async def main() -> None:
        options: dict[str, Any] = {"tools": [get_weather], "stop_when": "get_weather"}
        async with simulator() as server, relay(server, **options) as runs:
            info = await runs.start(request_of("scenario:tool"), model="m0")
            events = [event for _, event in await read_all(runs, info.id)]
            assert end(events) == ("complete", "stop_when")
            assert len(list(server.requests)) == 1

    run_async(main())


# --- a fault of ours in a call -------------------------------------------------------------------


def test_a_call_that_fails_inside_has_its_end_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = Tool.of(look)
    bind, times = found.signature.bind, []

    def bind_thrice(arguments: dict[str, Any]) -> dict[str, Any]:
        times.append(1)
        if len(times) > 2:
            raise RuntimeError("not a third time")
        return bind(arguments)

    found.signature.bind = bind_thrice  # type: ignore[method-assign]
    with caplog.at_level(logging.CRITICAL, "tokenwire.run"):
        _, events, result = ask([call("look")], ["Sorry."], tools=[found])
    (error,) = [e for e in events if isinstance(e, ToolError)]
    assert error.code == "exception"
    assert "third" not in error.message
    assert result.text == "Sorry."
