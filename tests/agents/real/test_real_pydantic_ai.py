"""pydantic-ai itself, against the simulator."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_ai")
sys.path.insert(0, str(Path(__file__).parent))

from common import (
    approve,
    check_instructed,
    check_refused,
    check_sent,
    events_of,
    kinds,
    over_a_restart,
    simulator,
    state_of,
)
from pydantic import BaseModel
from pydantic_ai import Agent, DeferredToolRequests
from pydantic_ai import RunContext as AgentContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.providers.openai import OpenAIProvider

import tokenwire
from tokenwire.errors import AgentError, CancelledRunError
from tokenwire.events import model as m
from tokenwire.events.message import FilePart


def agent_at(url: str, **more: Any) -> Agent[Any, Any]:
    model = OpenAIChatModel("m", provider=OpenAIProvider(base_url=url, api_key="x"))
    agent: Agent[Any, Any] = Agent(model, **more)

    @agent.tool_plain
    def get_weather(city: str) -> dict[str, str]:
        return {"city": city, "sky": "sunny"}

    return agent


async def test_text_calls_results_and_usage() -> None:
    async with simulator() as url:
        events = await events_of(agent_at(url), "scenario:tool")
    shown = [k for k in kinds(events) if k not in ("usage", "finish")]
    assert shown == [
        "run-start",
        *("step-start", "tool-call-start", "tool-call-end", "step-end"),
        *("tool-start", "tool-result"),
        *("step-start", "text-start", "text-end", "step-end"),
        "run-end",
    ]
    call = next(e for e in events if isinstance(e, m.ToolCallEnd))
    assert call.arguments == {"city": "Paris"}
    assert next(e for e in events if isinstance(e, m.ToolResult)).content["sky"] == "sunny"
    assert events[-1].outcome == "complete"
    assert events[-1].usage["output_tokens"] > 0


async def test_reasoning() -> None:
    async with simulator() as url:
        state = await state_of(agent_at(url), "scenario:reasoning")
    assert [p.kind for p in state.parts.values()] == ["reasoning", "text"]


@pytest.mark.parametrize(
    ("scenario", "outcome"), [("cut", "error"), ("error", "error"), ("length", "incomplete")]
)
async def test_what_is_not_whole_is_not_told_as_whole(scenario: str, outcome: str) -> None:
    async with simulator() as url:
        state = await state_of(agent_at(url), f"scenario:{scenario}")
    assert state.outcome == outcome
    assert state.text


async def test_structured_output() -> None:
    class City(BaseModel):
        name: str

    state = await events_of(Agent(TestModel(), output_type=City), "Hi")
    data = [e for e in state if isinstance(e, m.Data)]
    assert [(d.name, d.payload) for d in data] == [("output", {"name": "a"})]
    assert state[-1].outcome == "complete"


async def test_stop_reaches_the_model() -> None:
    async with simulator() as url:
        async with tokenwire.stream("scenario:slow", model=agent_at(url)) as run:
            async for event in run:
                if isinstance(event, m.TextDelta):
                    run.cancel()
            assert run.state.outcome == "cancelled"
            with pytest.raises(CancelledRunError):
                await run.result()


async def test_a_failing_tool_is_told() -> None:
    agent: Agent[Any, Any] = Agent(TestModel())

    @agent.tool_plain
    def broken() -> str:
        raise RuntimeError("password=hunter2")

    with pytest.raises(AgentError) as caught:
        async with tokenwire.stream("Hi", model=agent) as run:
            await run.result()
    assert "hunter2" not in str(caught.value)


def deleting(url: str) -> tuple[Agent[Any, Any], list[str]]:
    deleted: list[str] = []
    agent = agent_at(url, output_type=[str, DeferredToolRequests], name="deleter")

    @agent.tool_plain(requires_approval=True)
    def delete_file(path: str) -> str:
        deleted.append(path)
        return f"{path} is gone"

    return agent, deleted


@pytest.mark.parametrize(
    ("approved", "arguments", "expected"),
    [(True, None, ["report.txt"]), (True, {"path": "b.txt"}, ["b.txt"]), (False, None, [])],
)
async def test_approvals(approved: bool, arguments: Any, expected: list[str]) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await state_of(agent, "scenario:approval", approve(approved, arguments))
    assert deleted == expected
    assert state.outcome == "complete"
    tool = next(t for t in state.tools.values() if t.name == "delete_file")
    assert (tool.approved, tool.done) == (approved, True)


@pytest.mark.parametrize("approved", [True, False])
async def test_an_approval_over_a_restart(tmp_path: Path, approved: bool) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await over_a_restart(
            tmp_path, lambda: agent, "scenario:approval", approved=approved
        )
        await asyncio.sleep(0)
    assert deleted == (["report.txt"] if approved else [])
    assert state.outcome == "complete"


async def test_an_agent_whose_dependency_is_the_context_gets_it() -> None:
    agent: Agent[Any, Any] = Agent(TestModel(), deps_type=tokenwire.RunContext)

    @agent.tool
    def who(ctx: AgentContext[Any]) -> str:
        return f"prompt {ctx.deps.prompt}"

    events = await events_of(agent, "Hi")
    results = [e.content for e in events if isinstance(e, m.ToolResult)]
    assert results == ["prompt Hi"]


async def test_every_turn_has_its_instructions() -> None:
    await check_instructed(lambda url: agent_at(url, system_prompt="Speak as a pirate."))


async def test_it_gets_files_and_earlier_calls() -> None:
    await check_sent(agent_at, '"tool_call_id":"call_7"', "data:image/png;base64")


async def test_what_it_cannot_take_is_refused() -> None:
    await check_refused(agent_at, FilePart(media_type="image/png", data="?"), "is not base64")
