"""The OpenAI Agents SDK itself, against the simulator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("agents.run")
sys.path.insert(0, str(Path(__file__).parent))

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    function_tool,
)
from common import (
    approve,
    check_instructed,
    events_of,
    kinds,
    over_a_restart,
    simulator,
    state_of,
)
from openai import AsyncOpenAI

import tokenwire
from tokenwire.events import model as m

MODELS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}


@function_tool
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def agent_at(url: str, wire: str = "responses", **more: Any) -> Any:
    client = AsyncOpenAI(base_url=url, api_key="x", max_retries=0)
    model = MODELS[wire](model="m", openai_client=client)
    return Agent(name="Weather agent", model=model, **{"tools": [get_weather], **more})


@pytest.mark.parametrize("wire", MODELS)
async def test_text_calls_results_and_who_speaks(wire: str) -> None:
    async with simulator() as url:
        events = await events_of(agent_at(url, wire), "scenario:tool")
    shown = [k for k in kinds(events) if not k.startswith(("usage", "finish", "response", "part"))]
    assert shown == [
        "run-start",
        *("step-start", "tool-call-start", "tool-call-end", "step-end"),
        *("tool-start", "tool-result"),
        *("step-start", "text-start", "text-end", "step-end"),
        "run-end",
    ]
    assert next(e for e in events if isinstance(e, m.ToolCallEnd)).arguments == {"city": "Paris"}
    assert next(e for e in events if isinstance(e, m.ToolResult)).content == "sunny in Paris"
    start = next(e for e in events if isinstance(e, m.TextStart))
    assert start.agent == m.Agent(id="Weather agent", name="Weather agent")
    assert events[-1].outcome == "complete"
    if wire == "responses":  # the SDK asks for no counts in chat completions
        assert events[-1].usage["output_tokens"] > 0


@pytest.mark.parametrize(
    ("scenario", "outcome"), [("cut", "error"), ("error", "error"), ("length", "incomplete")]
)
@pytest.mark.parametrize("wire", MODELS)
async def test_what_is_not_whole_is_not_told_as_whole(
    wire: str, scenario: str, outcome: str
) -> None:
    if (wire, scenario) == ("chat", "length"):
        pytest.skip("the SDK hides the finish reason of chat completions")
    async with simulator() as url:
        state = await state_of(agent_at(url, wire), f"scenario:{scenario}")
    assert state.outcome == outcome


async def test_stop_reaches_the_model() -> None:
    async with simulator() as url:
        async with tokenwire.stream("scenario:slow", model=agent_at(url)) as run:
            async for event in run:
                if isinstance(event, m.TextDelta):
                    run.cancel()
            assert run.state.outcome == "cancelled"


def deleting(url: str) -> tuple[Any, list[str]]:
    deleted: list[str] = []

    @function_tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return f"{path} is gone"

    return agent_at(url, tools=[delete_file]), deleted


@pytest.mark.parametrize(
    ("approved", "arguments", "expected"),
    [(True, None, ["report.txt"]), (True, {"path": "b.txt"}, []), (False, None, [])],
)
async def test_approvals(approved: bool, arguments: Any, expected: list[str]) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await state_of(agent, "scenario:approval", approve(approved, arguments))
    assert deleted == expected, "never with arguments that nobody approved"
    assert state.outcome == "complete"


@pytest.mark.parametrize("approved", [True, False])
async def test_an_approval_over_a_restart(tmp_path: Path, approved: bool) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await over_a_restart(
            tmp_path, lambda: agent, "scenario:approval", approved=approved
        )
    assert deleted == (["report.txt"] if approved else [])
    assert state.outcome == "complete"


async def test_every_turn_has_its_instructions() -> None:
    for wire in MODELS:
        await check_instructed(
            lambda url, wire=wire: agent_at(url, wire, instructions="Speak as a pirate.")
        )
