"""A graph of LangGraph with its SQLite checkpointer as the agent that is killed; every node has an
effect outside.

It needs the environment of frameworks (``make .venv-agents/.installed``); without LangGraph this
module can be imported, and `unavailable` says why there is no graph. Its nodes are one after the
other, two at once, a graph inside of a node, a tool, and one that asks a person.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from tokenwire.agents.load import agents_of

#: Its name, where a request has its model's.
NAME = "graph"
_WORDS = {
    "look": ("Look ", "here. "),
    "one": ("One ", "more. "),
    "two": ("And ", "two. "),
    "end": ("At ", "last."),
}
EXPECTED = "".join("".join(words) for words in _WORDS.values())
#: Nodes of the graph itself, of the one inside of a node, and the tool.
NODES = ("look", "call", "left", "right", "ask", "end")
INNER = ("one", "two")
TOOL = "weigh"
EFFECTS = (*NODES, *INNER, TOOL)
#: Called in a node: its run, its name, and the step of the graph to which it belongs.
Effect = Callable[[str, str, int], Any]
#: Called after a checkpoint was stored: its run and its step.
Stored = Callable[[str, int], None]


def unavailable() -> str | None:
    """Why there is no graph; None where there can be one."""
    for module in ("langgraph", "langchain_core", "langgraph.checkpoint.sqlite"):
        try:
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed here"
        except ModuleNotFoundError:
            return f"{module} is not installed here"
    return None


def version() -> str:
    """LangGraph's."""
    return importlib.metadata.version("langgraph")


def load() -> None:
    """Import all that the graph needs, before the fork."""
    for module in ("aiosqlite", "langgraph.checkpoint.sqlite.aio", "langgraph.graph"):
        importlib.import_module(module)
    for module in ("langchain_core.language_models", "langchain_core.tools", "langgraph.prebuilt"):
        importlib.import_module(module)


async def graph_of(
    file: Path, effect: Effect, stored: Stored, *, gate: asyncio.Lock
) -> tuple[dict[str, Any], Any]:
    """The graph as an agent by its name, with its checkpoints in ``file``; and what to close.
    ``gate``: held while the file is written, so that nobody is stopped in the middle of it."""
    import aiosqlite
    from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

    last: dict[str, int] = {}

    class Saver(AsyncSqliteSaver):
        async def aput(self, config: Any, checkpoint: Any, metadata: Any, *more: Any) -> Any:
            async with gate:
                where = await super().aput(config, checkpoint, metadata, *more)
                if not config["configurable"].get("checkpoint_ns"):
                    run = config["configurable"]["thread_id"]
                    last[run] = metadata["step"]
                    stored(run, metadata["step"])
                return where

        async def aget_tuple(self, config: Any) -> Any:
            saved = await super().aget_tuple(config)
            if saved is not None and not config["configurable"].get("checkpoint_ns"):
                last[config["configurable"]["thread_id"]] = saved.metadata["step"]
            return saved

        async def aput_writes(self, *args: Any, **options: Any) -> None:
            async with gate:
                await super().aput_writes(*args, **options)

    connection = await aiosqlite.connect(file, timeout=30)
    saver = Saver(connection)
    async with gate:
        await saver.setup()
    return agents_of([_built(effect, saver, last)]), connection


def _built(effect: Effect, saver: Any, last: dict[str, int]) -> Any:
    """The compiled graph. ``last``: the step of each run's last checkpoint that was stored here."""
    from langchain_core.messages import AIMessage
    from langchain_core.tools import tool
    from langgraph.config import get_config
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode
    from langgraph.types import interrupt

    async def begin(name: str) -> None:
        config = get_config()
        run, step = config["configurable"]["thread_id"], config["metadata"]["langgraph_step"]
        if name in INNER:  # LangGraph counts its steps by themselves: the outer one matters
            step = last[run] + 1
        await effect(run, name, step)

    def node(name: str) -> Any:
        async def work(state: Any) -> dict[str, Any]:
            await begin(name)
            await asyncio.sleep(0.01)
            words = _WORDS.get(name)
            return {"messages": [await _say(words)] if words else []}

        return work

    async def call(state: Any) -> dict[str, Any]:
        await begin("call")
        calls = [{"id": "call_1", "name": TOOL, "args": {"what": "tea"}}]
        return {"messages": [AIMessage(content="", tool_calls=calls)]}

    @tool
    async def weigh(what: str) -> str:
        """Weigh it."""
        await begin(TOOL)
        return f"3 g of {what}"

    async def ask(state: Any) -> dict[str, Any]:
        answer = interrupt({"question": "Is that all?"})
        await begin("ask")
        if not answer["approved"]:
            raise RuntimeError("nobody says no here")
        return {"messages": []}

    inner = StateGraph(MessagesState)
    inner.add_sequence([(name, node(name)) for name in INNER])
    inner.add_edge(START, INNER[0])
    graph = StateGraph(MessagesState)
    for name, work in {
        "look": node("look"),
        "call": call,
        "tools": ToolNode([weigh]),
        "deep": inner.compile(),
        "left": node("left"),
        "right": node("right"),
        "ask": ask,
        "end": node("end"),
    }.items():
        graph.add_node(name, work)
    graph.add_edge(START, "look")
    for before, after in [("look", "call"), ("call", "tools"), ("tools", "deep")]:
        graph.add_edge(before, after)
    for both in ("left", "right"):
        graph.add_edge("deep", both)
    graph.add_edge(["left", "right"], "ask")
    graph.add_edge("ask", "end")
    return graph.compile(checkpointer=saver, name=NAME)


async def _say(words: tuple[str, ...]) -> Any:
    """An answer of a model, word by word."""
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    class Slow(GenericFakeChatModel):
        async def _astream(self, *args: Any, **keywords: Any) -> AsyncIterator[Any]:
            for chunk in self._stream(*args, **keywords):
                await asyncio.sleep(0.005)
                yield chunk

    return await Slow(messages=iter([AIMessage(content="".join(words))])).ainvoke("Go")
