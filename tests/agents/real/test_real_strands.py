"""Strands itself, against the simulator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("strands")
sys.path.insert(0, str(Path(__file__).parent))

from common import (
    approve,
    check_instructed,
    check_refused,
    check_sent,
    conversation,
    events_of,
    kinds,
    over_a_restart,
    sent_for,
    simulator,
    state_of,
)
from pydantic import BaseModel
from strands import Agent, ToolContext, tool
from strands.models.openai import OpenAIModel

import tokenwire
from tokenwire.agents.frameworks.strands import StrandsEvents
from tokenwire.agents.load import agent_of
from tokenwire.errors import ConfigError
from tokenwire.events import model as m
from tokenwire.events.message import FilePart


@tool
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def model_at(url: str) -> Any:
    return OpenAIModel(
        client_args={"base_url": url, "api_key": "x", "max_retries": 0}, model_id="m"
    )


def agent_at(url: str, **more: Any) -> Any:
    return Agent(model=model_at(url), name="Weather agent", **{"tools": [get_weather], **more})


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
    assert events[-1].outcome == "complete"
    assert events[-1].usage["output_tokens"] > 0


@pytest.mark.parametrize(
    ("scenario", "outcome"), [("cut", "error"), ("error", "error"), ("length", "incomplete")]
)
async def test_what_is_not_whole_is_not_told_as_whole(scenario: str, outcome: str) -> None:
    async with simulator() as url:
        state = await state_of(agent_at(url), f"scenario:{scenario}")
    assert state.outcome == outcome
    assert state.text


async def test_stop_reaches_the_model() -> None:
    async with simulator() as url:
        async with tokenwire.stream("scenario:slow", model=agent_at(url)) as run:
            async for event in run:
                if isinstance(event, m.TextDelta):
                    run.cancel()
            assert run.state.outcome == "cancelled"


async def test_two_runs_at_once_are_two_conversations() -> None:
    async with simulator() as url:
        agent = agent_at(url)
        async with (
            tokenwire.stream("scenario:slow", model=agent) as one,
            tokenwire.stream("scenario:tool", model=agent) as two,
        ):
            assert (await two.result()).text.startswith("The weather report says")
            assert (await one.result()).text == "".join(f"{n} " for n in range(1, 91))
        assert agent.messages == [], "the agent itself took no part"


async def test_an_agent_inside_of_a_tool_speaks_for_itself() -> None:
    async with simulator() as url:
        inner = Agent(model=model_at(url), name="inner", callback_handler=None)
        outer = agent_at(url, tools=[inner.as_tool(name="get_weather")])
        events = await events_of(outer, "scenario:tool")
    speakers = [e.agent for e in events if isinstance(e, m.TextStart)]
    assert [s and (s.name, s.parent) for s in speakers] == [
        ("get_weather", "Weather-agent"),
        ("Weather-agent", None),
    ]


async def test_a_failing_tool_is_told() -> None:
    @tool(name="get_weather")
    def broken(city: str) -> str:
        """The weather."""
        raise RuntimeError("no satellite")

    async with simulator() as url:
        events = await events_of(agent_at(url, tools=[broken]), "scenario:tool")
    assert [e.code for e in events if isinstance(e, m.ToolError)] == ["exception"]


async def test_structured_output() -> None:
    class Weather(BaseModel):
        city: str

    async with simulator() as url:
        agent = agent_at(url, tools=[], structured_output_model=Weather)
        events = await events_of(agent, "scenario:text")
    data = [e for e in events if isinstance(e, m.Data)]
    assert [(d.name, list(d.payload)) for d in data] == [("output", ["city"])]
    assert events[-1].outcome == "complete"


def test_arguments_grow() -> None:
    reading = StrandsEvents()
    call = {"toolUse": {"name": "f", "toolUseId": "c"}}
    chunks: list[dict[str, Any]] = [
        {"messageStart": {"role": "assistant"}},
        {"contentBlockStart": {"start": call}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": '{"a"'}}}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": ":1}"}}}},
        {"contentBlockStop": {}},
        {"messageStop": {"stopReason": "tool_use"}},
    ]
    events = [e for chunk in chunks for e in reading.read({"event": chunk})] + reading.end()
    assert [e.text for e in events if isinstance(e, m.ToolCallDelta)] == ['{"a"', ":1}"]
    assert [e.arguments for e in events if isinstance(e, m.ToolCallEnd)] == [{"a": 1}]


def test_a_session_of_its_own_is_refused(tmp_path: Path) -> None:
    from strands.session.file_session_manager import FileSessionManager

    session = FileSessionManager(session_id="s", storage_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="session manager"):
        agent_of(agent_at("http://127.0.0.1:1/v1", session_manager=session))


def deleting(url: str) -> tuple[Any, list[str]]:
    deleted: list[str] = []

    @tool(context=True)
    def delete_file(path: str, tool_context: ToolContext) -> str:
        """Delete a file."""
        answer = tool_context.interrupt("approval", reason={"path": path})
        if not answer["approved"]:
            return f"{path} stays: {answer['reason']}"
        deleted.append(answer["value"]["path"])
        return f"{answer['value']['path']} is gone"

    return agent_at(url, tools=[delete_file]), deleted


@pytest.mark.parametrize(
    ("approved", "arguments", "expected"),
    [(True, None, ["report.txt"]), (True, {"path": "b.txt"}, ["b.txt"]), (False, None, [])],
)
async def test_interrupts_are_approvals(
    approved: bool, arguments: Any, expected: list[str]
) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await state_of(agent, "scenario:approval", approve(approved, arguments))
    assert deleted == expected
    assert state.outcome == "complete"
    (call,) = state.tools.values()
    assert (call.approved, call.done) == (approved, True)


@pytest.mark.parametrize("approved", [True, False])
async def test_an_interrupt_over_a_restart(tmp_path: Path, approved: bool) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await over_a_restart(
            tmp_path, lambda: agent, "scenario:approval", approved=approved
        )
    assert deleted == (["report.txt"] if approved else [])
    assert state.outcome == "complete"


async def test_every_turn_has_its_instructions() -> None:
    await check_instructed(lambda url: agent_at(url, system_prompt="Speak as a pirate."))


async def test_it_gets_files_and_earlier_calls() -> None:
    await check_sent(agent_at, "call_7", "data:image/png;base64")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (FilePart(media_type="image/png", url="https://files.example/a.png"), "only a URL"),
        (FilePart(media_type="image/tiff", data="aGk="), "takes no image/tiff"),
        (FilePart(media_type="application/zip", data="aGk="), "takes no application/zip"),
    ],
)
async def test_what_it_cannot_take_is_refused(part: FilePart, message: str) -> None:
    await check_refused(agent_at, part, message)


async def test_a_result_before_the_question_is_said_once() -> None:
    messages = [*conversation()[:3], *conversation()[4:]]
    bodies, _ = await sent_for(agent_at, messages)
    assert bodies[0].count('"role":"tool"') == 1
    assert "interrupted" not in bodies[0]
    assert "who is in there?" in bodies[0]
