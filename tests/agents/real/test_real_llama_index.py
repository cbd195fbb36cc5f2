"""LlamaIndex's agents and workflows themselves, against the simulator."""

# Annotations stay values here: LlamaIndex reads those of a tool.
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core.agent.workflow")
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
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.workflow import Context, HumanResponseEvent, InputRequiredEvent
from llama_index.llms.openai_like import OpenAILike
from workflows import Workflow, step
from workflows.events import Event, StartEvent, StopEvent

import tokenwire
from tokenwire.events import model as m
from tokenwire.events.message import FilePart


def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def agent_at(url: str, **more: Any) -> Any:
    llm = OpenAILike(
        model="m",
        api_base=url,
        api_key="x",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    return FunctionAgent(llm=llm, **{"name": "weather", "tools": [get_weather], **more})


async def test_text_calls_and_results() -> None:
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


async def test_several_agents_and_who_speaks() -> None:
    async with simulator() as url:
        first = agent_at(url, description="knows the weather")
        team = AgentWorkflow(agents=[first], root_agent="weather")
        events = await events_of(team, "scenario:tool")
    (start,) = [e for e in events if isinstance(e, m.TextStart)]
    assert start.agent == m.Agent(id="weather", name="weather", parent="AgentWorkflow")
    assert events[-1].outcome == "complete"


async def test_a_failing_tool_is_told() -> None:
    def get_weather(city: str) -> str:
        """The weather."""
        raise RuntimeError("no satellite")

    async with simulator() as url:
        events = await events_of(agent_at(url, tools=[get_weather]), "scenario:tool")
    assert [e.code for e in events if isinstance(e, m.ToolError)] == ["exception"]


class Stage(Event):
    stage: str


class Question(StartEvent):
    prompt: str


class Upper(Workflow):
    @step
    async def answer(self, ctx: Context, event: Question) -> StopEvent:
        ctx.write_event_to_stream(Stage(stage="answering"))
        return StopEvent(result=event.prompt.upper())


async def test_a_workflow_of_ones_own() -> None:
    events = await events_of(Upper(), "hello")
    data = [(e.name, e.payload) for e in events if isinstance(e, m.Data)]
    assert data == [("Stage", {"stage": "answering"})]
    assert "".join(e.text for e in events if isinstance(e, m.TextDelta)) == "HELLO"
    assert events[-1].outcome == "complete"


class Broken(Workflow):
    @step
    async def answer(self, event: StartEvent) -> StopEvent:
        raise RuntimeError("password=hunter2")


async def test_a_workflow_that_fails() -> None:
    events = await events_of(Broken(), "hello")
    assert events[-1].outcome == "error"
    assert "hunter2" not in str(events)


def deleting(url: str) -> tuple[Any, list[str]]:
    deleted: list[str] = []

    async def delete_file(ctx: Context, path: str) -> str:
        """Delete a file."""
        question = InputRequiredEvent(prefix=f"Delete {path}?", path=path)
        answer = await ctx.wait_for_event(HumanResponseEvent, waiter_id=path, waiter_event=question)
        if not answer.approved:
            return f"{path} stays"
        deleted.append(answer.path)
        return f"{answer.path} is gone"

    return agent_at(url, tools=[delete_file]), deleted


@pytest.mark.parametrize(
    ("approved", "arguments", "expected"),
    [
        (True, None, ["report.txt"]),
        (True, {"prefix": "", "path": "b.txt"}, ["b.txt"]),
        (False, None, []),
    ],
)
async def test_questions_are_approvals(approved: bool, arguments: Any, expected: list[str]) -> None:
    async with simulator() as url:
        agent, deleted = deleting(url)
        state = await state_of(agent, "scenario:approval", approve(approved, arguments))
    assert deleted == expected
    assert state.outcome == "complete"
    assert [t.done for t in state.tools.values()] == [True, True]


@pytest.mark.parametrize("approved", [True, False])
async def test_a_question_over_a_restart(tmp_path: Path, approved: bool) -> None:
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


async def test_an_address_is_refused_which_it_would_fetch_itself() -> None:
    part = FilePart(media_type="image/png", url="http://127.0.0.1/a.png")
    await check_refused(agent_at, part, "only a URL")


class TextOnly(Workflow):
    @step
    async def answer(self, event: "Question") -> StopEvent:
        return StopEvent(result=event.query)


class Question(StartEvent):
    query: str


async def test_a_workflow_that_takes_text_alone_refuses_files() -> None:
    part = FilePart(media_type="image/png", data="aGk=")
    await check_refused(lambda _: TextOnly(), part, "takes no image/png")
