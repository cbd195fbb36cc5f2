"""A graph of LangGraph whose worker dies at each of its records: the next one goes on from the
graph's checkpoint, and readers end with the same message."""

from __future__ import annotations

import asyncio
import operator
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest

pytest.importorskip("langgraph")
sys.path.insert(0, str(Path(__file__).parent))

from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.types import interrupt

from support.agents import asked, crash, events_of, worker
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold

PAUSE = 0.01
NODES = ["look", "call", "one", "two", "left", "right", "end"]
TEXTS = ["Look here. ", "One more. ", "And two. ", "At last."]


class State(MessagesState):
    done: Annotated[list[str], operator.add]


class SlowModel(GenericFakeChatModel):
    async def _astream(self, *args: Any, **keywords: Any) -> AsyncIterator[Any]:
        for chunk in self._stream(*args, **keywords):
            await asyncio.sleep(PAUSE)
            yield chunk


async def say(text: str) -> AIMessage:
    model = SlowModel(messages=iter([AIMessage(content=text)]))
    return await model.ainvoke("Go")


def built(effects: list[str], saver: Any) -> Any:
    @tool
    async def weigh(what: str) -> str:
        """Weigh it."""
        effects.append("tool")
        await asyncio.sleep(PAUSE)
        return f"{what}: 3 kg"

    def node(name: str, text: str = "") -> Any:
        async def work(state: State) -> dict[str, Any]:
            await asyncio.sleep(PAUSE)
            effects.append(name)
            get_stream_writer()({"node": name})
            messages = [await say(text)] if text else []
            await asyncio.sleep(PAUSE)
            return {"messages": messages, "done": [name]}

        return work

    def call(state: State) -> dict[str, Any]:
        effects.append("call")
        calls = [{"id": "call_1", "name": "weigh", "args": {"what": "a cat"}}]
        return {"messages": [AIMessage(content="", tool_calls=calls)], "done": ["call"]}

    inner = StateGraph(State)
    inner.add_sequence([("one", node("one", "One more. ")), ("two", node("two", "And two. "))])
    inner.add_edge(START, "one")

    graph = StateGraph(State)
    graph.add_node("look", node("look", "Look here. "))
    graph.add_node("call", call)
    graph.add_node("tools", ToolNode([weigh]))
    graph.add_node("deep", inner.compile())
    graph.add_node("left", node("left"))
    graph.add_node("right", node("right"))
    graph.add_node("end", node("end", "At last."))
    graph.add_edge(START, "look")
    graph.add_edge("look", "call")
    graph.add_edge("call", "tools")
    graph.add_edge("tools", "deep")
    graph.add_edge("deep", "left")
    graph.add_edge("deep", "right")
    graph.add_edge(["left", "right"], "end")
    return graph.compile(checkpointer=saver, name="graph")


@asynccontextmanager
async def savers(path: Path) -> AsyncIterator[Any]:
    """What gives each worker a checkpointer of its own, over one file."""
    sqlite = pytest.importorskip("langgraph.checkpoint.sqlite.aio")
    file = str(path / "graph.db")
    async with (
        sqlite.AsyncSqliteSaver.from_conn_string(file) as first,
        sqlite.AsyncSqliteSaver.from_conn_string(file) as second,
    ):
        yield Savers([first, second])


class Savers:
    """Checkpointers, one for each worker."""

    def __init__(self, savers: list[Any]) -> None:
        self._savers = iter(savers)
        self._first = savers[0]

    def __call__(self) -> Any:
        return next(self._savers)

    async def die(self) -> None:
        """A process that dies leaves no transaction open, and so no lock on the file."""
        await self._first.conn.rollback()


async def cut_at(
    path: Path, cut: int, make: Any, death: Callable[[], Awaitable[None]] | None = None
) -> tuple[list[Any], list[Any]]:
    """What readers had of a run whose worker died at a record, and all of it. ``death``: what else
    goes with a worker's process."""
    async with worker(path, make()) as first:
        info = await first.start(asked(), model="graph")
        seen = await events_of(first, info.id, lambda e: e.seq >= cut or isinstance(e, m.RunEnd))
        crash(first)
        if death is not None:
            await death()
        async with worker(path, make()) as second:
            return seen, await events_of(second, info.id)


def check(seen: list[Any], events: list[Any], effects: list[str]) -> Fold:
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    assert events[: len(seen)] == seen, "what a reader had has changed"
    state = fold(events)
    assert (state.outcome, state.end_reason) in (("complete", None), ("complete", "stop"))
    assert [part.text for part in state.parts.values() if part.kind == "text"] == TEXTS
    results = [e for e in events if isinstance(e, m.ToolResult)]
    assert [e.content for e in results] == ["a cat: 3 kg"]
    data = [e.payload["node"] for e in events if isinstance(e, m.Data)]
    assert sorted(data) == sorted(set(data))
    counts = {name: effects.count(name) for name in [*NODES, "tool"]}
    assert all(1 <= count <= 2 for count in counts.values())
    # Only what ran after one checkpoint runs again: one superstep of the graph.
    steps = [{"look"}, {"call"}, {"tool"}, {"one", "two"}, {"left", "right"}, {"end"}]
    assert any({name for name, count in counts.items() if count == 2} <= step for step in steps)
    return state


@pytest.mark.parametrize("cut", range(1, 52, 2))
async def test_a_worker_that_dies_there(cut: int, tmp_path: Path) -> None:
    effects: list[str] = []
    async with savers(tmp_path) as saver:
        seen, events = await cut_at(tmp_path, cut, lambda: built(effects, saver()), saver.die)
    check(seen, events, effects)


@pytest.mark.parametrize("saver", [InMemorySaver, lambda: None])
async def test_without_a_checkpoint_it_ends(saver: Any, tmp_path: Path) -> None:
    """A checkpointer whose process is gone is like none."""
    effects: list[str] = []
    seen, events = await cut_at(tmp_path, 7, lambda: built(effects, saver()))
    assert events[: len(seen)] == seen
    assert (events[-1].outcome, events[-1].reason) == ("interrupted", "worker_lost")
    assert effects.count("look") == 1


def questions(effects: list[str], saver: Any, *, together: bool) -> Any:
    """A graph that asks, and then says something; ``together``: beside a node that is quicker."""

    async def ask(state: State) -> dict[str, Any]:
        answer = interrupt({"question": "Delete?"})
        effects.append("ask")
        return {"messages": [await say(f"It was {answer['value']['question']} And so on. ")]}

    async def beside(state: State) -> dict[str, Any]:
        interrupt({"question": "And this?"})
        effects.append("beside")
        return {"messages": [await say("Short.")]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    if together:
        graph.add_node("beside", beside)
        graph.add_edge(START, "beside")
    return graph.compile(checkpointer=saver, name="graph")


async def answered_and_cut(
    path: Path, make: Any, count: int, deltas: int, death: Callable[[], Awaitable[None]]
) -> tuple[list[Any], list[Any]]:
    """As `cut_at`: ``count`` questions are answered, and so many deltas were said after them."""
    async with worker(path, make()) as first:
        info = await first.start(asked(), model="graph")
        for number in range(count):
            waits = 0

            def waiting(event: Any, most: int = number) -> bool:
                nonlocal waits
                waits += isinstance(event, m.RunWait)
                return waits > most

            seen = await events_of(first, info.id, waiting)
            await first.approve(info.id, seen[-1].pending[0], approved=True)
        left = deltas

        def spoken(event: Any) -> bool:
            nonlocal left
            left -= isinstance(event, m.TextDelta)
            return left <= 0

        seen = await events_of(first, info.id, spoken)
        crash(first)
        await death()
        async with worker(path, make()) as second:
            return seen, await events_of(second, info.id)


@pytest.mark.parametrize("deltas", range(1, 6))
async def test_after_an_answer_it_goes_on(deltas: int, tmp_path: Path) -> None:
    effects: list[str] = []
    async with savers(tmp_path) as saver:
        seen, events = await answered_and_cut(
            tmp_path, lambda: questions(effects, saver(), together=False), 1, deltas, saver.die
        )
    assert events[: len(seen)] == seen
    state = fold(events)
    assert (state.outcome, state.text) == ("complete", "It was Delete? And so on. ")
    assert sum(isinstance(e, m.ApprovalRequest) for e in events) == 1
    assert effects.count("ask") == 2


async def test_what_was_said_beside_an_open_node_ends_it(tmp_path: Path) -> None:
    """The graph would not run the quicker node again, so its words could not be said again."""
    effects: list[str] = []
    async with savers(tmp_path) as saver:
        seen, events = await answered_and_cut(
            tmp_path, lambda: questions(effects, saver(), together=True), 2, 4, saver.die
        )
    assert events[: len(seen)] == seen
    assert (events[-1].outcome, events[-1].reason) == ("interrupted", "worker_lost")
    assert sorted(effects) == ["ask", "beside"]


@pytest.mark.parametrize("kept", [True, False])
async def test_a_worker_that_leaves_runs_no_node_twice(kept: bool, tmp_path: Path) -> None:
    """With a checkpointer another worker goes on from the next checkpoint; without one the turn
    is finished first."""
    effects: list[str] = []
    async with savers(tmp_path) as saver:
        make = lambda: built(effects, saver() if kept else None)  # noqa: E731
        async with worker(tmp_path, make()) as first:
            info = await first.start(asked(), model="graph")
            await events_of(first, info.id, lambda e: isinstance(e, m.TextDelta))
            await first.drain(30.0)
            assert effects.count("end") == (0 if kept else 1)
            async with worker(tmp_path, make()) as second:
                events = await events_of(second, info.id)
    assert fold(events).outcome == "complete"
    assert sorted(effects) == sorted([*NODES, "tool"])
    assert not any(isinstance(e, m.StepReset) for e in events)
