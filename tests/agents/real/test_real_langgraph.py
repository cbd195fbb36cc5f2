"""LangGraph and LangChain themselves, against the simulator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langgraph")
sys.path.insert(0, str(Path(__file__).parent))

from common import (
    approve,
    check_instructed,
    events_of,
    kinds,
    over_a_restart,
    simulator,
    state_of,
)
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import interrupt

import tokenwire
from support.conversation import THREAD, HeldModel, device, until
from tokenwire.agents.load import agents_of
from tokenwire.errors import ConflictError
from tokenwire.events import model as m
from tokenwire.log.memory import MemoryStore
from tokenwire.relay.conversation.errors import ThreadBusyError


@tool
def get_weather(city: str) -> str:
    """The weather."""
    return f"sunny in {city}"


def model_at(url: str) -> Any:
    return ChatOpenAI(model="m", base_url=url, api_key="x", max_retries=0, stream_usage=True)


def graph_at(url: str) -> Any:
    model = model_at(url).bind_tools([get_weather])

    async def answer(state: MessagesState) -> dict[str, Any]:
        get_stream_writer()({"stage": "answering"})
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_node("tools", ToolNode([get_weather]))
    graph.add_edge(START, "answer")
    graph.add_conditional_edges("answer", tools_condition)
    graph.add_edge("tools", "answer")
    return graph.compile(name="weather")


async def test_text_calls_results_and_custom_data() -> None:
    async with simulator() as url:
        events = await events_of(graph_at(url), "scenario:tool")
    shown = [k for k in kinds(events) if k not in ("usage", "finish", "data")]
    assert shown == [
        "run-start",
        *("step-start", "tool-call-start", "tool-call-end", "step-end"),
        *("tool-start", "tool-result"),
        *("step-start", "text-start", "text-end", "step-end"),
        "run-end",
    ]
    assert next(e for e in events if isinstance(e, m.ToolCallEnd)).arguments == {"city": "Paris"}
    assert next(e for e in events if isinstance(e, m.ToolResult)).content == "sunny in Paris"
    custom = [e.payload for e in events if isinstance(e, m.Data)]
    assert custom == [{"stage": "answering"}] * 2
    assert events[-1].outcome == "complete"
    assert events[-1].usage["output_tokens"] > 0


@pytest.mark.parametrize(
    ("scenario", "outcome"), [("cut", "error"), ("error", "error"), ("length", "incomplete")]
)
async def test_what_is_not_whole_is_not_told_as_whole(scenario: str, outcome: str) -> None:
    async with simulator() as url:
        state = await state_of(graph_at(url), f"scenario:{scenario}")
    assert state.outcome == outcome


async def test_nodes_at_once_are_not_mixed_and_a_graph_inside_is_a_subagent() -> None:
    async with simulator() as url:
        model = model_at(url)

        async def first(state: MessagesState) -> dict[str, Any]:
            return {"messages": [await model.ainvoke("scenario:slow")]}

        inner = StateGraph(MessagesState)
        inner.add_node("deep", first)
        inner.add_edge(START, "deep")
        graph = StateGraph(MessagesState)
        graph.add_node("one", first)
        graph.add_node("two", inner.compile())
        graph.add_edge(START, "one")
        graph.add_edge(START, "two")
        events = await events_of(graph.compile(name="both"), "Hi")
    starts = [e for e in events if isinstance(e, m.TextStart)]
    texts = {
        s.part: "".join(e.text for e in events if isinstance(e, m.TextDelta) and e.part == s.part)
        for s in starts
    }
    numbers = "".join(f"{n} " for n in range(1, 91))
    assert list(texts.values()) == [numbers, numbers]
    parents = {s.agent.name: s.agent.parent for s in starts if s.agent is not None}
    assert parents == {"one": None, "two": "both"}


async def test_stop_reaches_the_model() -> None:
    async with simulator() as url:
        async with tokenwire.stream("scenario:slow", model=graph_at(url)) as run:
            async for event in run:
                if isinstance(event, m.TextDelta):
                    run.cancel()
            assert run.state.outcome == "cancelled"


async def test_a_plain_runnable() -> None:
    async with simulator() as url:
        state = await state_of(model_at(url), "scenario:slow")
    assert state.text == "".join(f"{n} " for n in range(1, 91))
    assert state.outcome == "complete"


def asking(saver: Any) -> tuple[Any, list[Any]]:
    answers: list[Any] = []

    def ask(state: MessagesState) -> dict[str, Any]:
        answers.append(interrupt({"question": "Delete?"}))
        return {"messages": [("assistant", "done")]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph.compile(checkpointer=saver, name="asker"), answers


@pytest.mark.parametrize("approved", [True, False])
async def test_interrupts_are_approvals(approved: bool) -> None:
    graph, answers = asking(InMemorySaver())
    state = await state_of(graph, "Hi", approve(approved))
    assert [a["approved"] for a in answers] == [approved]
    assert answers[0]["value"] == {"question": "Delete?"}
    assert state.outcome == "complete"


async def test_an_interrupt_over_a_restart(tmp_path: Path) -> None:
    saver = InMemorySaver()  # stands for one that outlives the process
    graph, answers = asking(saver)
    state = await over_a_restart(tmp_path, lambda: graph, "Hi", approved=True)
    assert [a["approved"] for a in answers] == [True]
    assert state.outcome == "complete"


async def test_every_turn_has_its_instructions() -> None:
    await check_instructed(
        lambda url: create_react_agent(model_at(url), [get_weather], prompt="Speak as a pirate.")
    )


async def test_a_turn_that_waits_for_a_yes_is_interrupted_and_not_steered() -> None:
    """`steer` is refused, from any device; `interrupt` takes the question back."""
    graph, answers = asking(InMemorySaver())
    model = HeldModel()
    async with device(MemoryStore(), model, agents=agents_of([graph])) as here:
        first = await here.ask("Hi", model="asker")

        async def is_waiting() -> bool:
            return (await here.runs.fold(first.run)).status == "waiting"

        await until(is_waiting)
        with pytest.raises(ThreadBusyError) as caught:
            await here.ask("and that", while_busy="steer")
        assert caught.value.details["reason"] == "cannot_steer"
        await here.done(await here.ask("never mind", while_busy="interrupt"))
        fold = await here.runs.fold(first.run)
        assert fold.outcome == "cancelled"
        for call in fold.tools.values():
            with pytest.raises(ConflictError):
                await here.runs.approve(first.run, call.approval_id or "", approved=True)
        assert answers == []
        turns, _ = await here.conversations.page("", THREAD, most=9)
        assert [turn.messages[0].text for turn in turns] == ["Hi", "never mind"]
