"""Google's ADK itself, with its Gemini model against the simulator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.adk.agents")
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
from google.adk.agents import LlmAgent, SequentialAgent
from google.adk.models.google_llm import Gemini
from google.adk.tools import FunctionTool

import tokenwire
from tokenwire.events import model as m
from tokenwire.events.message import FilePart


def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "x")


def agent_at(url: str, **more: Any) -> Any:
    model = Gemini(model="m", base_url=url.removesuffix("/v1"))
    return LlmAgent(model=model, **{"name": "weather", "tools": [get_weather], **more})


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
    assert next(e for e in events if isinstance(e, m.ToolCallEnd)).arguments == {"city": "Paris"}
    assert next(e for e in events if isinstance(e, m.ToolResult)).content == "sunny in Paris"
    text = "".join(e.text for e in events if isinstance(e, m.TextDelta))
    assert text.count("The weather report says") == 1, "the whole text is not said again"
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


async def test_stop_reaches_the_model() -> None:
    async with simulator() as url:
        async with tokenwire.stream("scenario:slow", model=agent_at(url)) as run:
            async for event in run:
                if isinstance(event, m.TextDelta):
                    run.cancel()
            assert run.state.outcome == "cancelled"


async def test_agents_of_an_agent_speak_for_themselves() -> None:
    async with simulator() as url:
        steps = [agent_at(url, name=name, tools=[]) for name in ("first", "second")]
        both = SequentialAgent(name="both", sub_agents=steps)
        events = await events_of(both, "scenario:text")
    speakers = [(e.agent.name, e.agent.parent) for e in events if isinstance(e, m.TextStart)]
    assert speakers == [("first", "both"), ("second", "both")]
    assert events[-1].outcome == "complete"


async def test_a_failing_tool_is_told() -> None:
    def get_weather(city: str) -> dict[str, str]:
        """The weather."""
        return {"error": "no satellite"}

    async with simulator() as url:
        events = await events_of(agent_at(url, tools=[get_weather]), "scenario:tool")
    assert [e.message for e in events if isinstance(e, m.ToolError)] == ["no satellite"]


def deleting(url: str) -> tuple[Any, list[str]]:
    deleted: list[str] = []

    def delete_file(path: str) -> str:
        """Delete a file."""
        deleted.append(path)
        return f"{path} is gone"

    return agent_at(url, tools=[FunctionTool(delete_file, require_confirmation=True)]), deleted


@pytest.mark.parametrize(
    ("approved", "arguments", "expected"),
    [(True, None, ["report.txt"]), (True, {"path": "b.txt"}, []), (False, None, [])],
)
async def test_confirmations_are_approvals(
    approved: bool, arguments: Any, expected: list[str]
) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await state_of(agent, "scenario:approval", approve(approved, arguments))
    assert deleted == expected, "never with arguments that nobody approved"
    assert state.outcome == "complete"
    (call,) = state.tools.values()
    assert (call.name, call.approved, call.done) == ("delete_file", approved, True)


@pytest.mark.parametrize("approved", [True, False])
async def test_a_confirmation_over_a_restart(tmp_path: Path, approved: bool) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await over_a_restart(
            tmp_path, lambda: agent, "scenario:approval", approved=approved
        )
    assert deleted == (["report.txt"] if approved else [])
    assert state.outcome == "complete"


async def test_every_turn_has_its_instructions() -> None:
    await check_instructed(lambda url: agent_at(url, instruction="Speak as a pirate."))


async def test_it_gets_files_and_earlier_calls() -> None:
    await check_sent(agent_at, "functionResponse", "image/png", "application/pdf")


async def test_what_it_cannot_take_is_refused() -> None:
    await check_refused(agent_at, FilePart(media_type="image/png", data="?"), "is not base64")
