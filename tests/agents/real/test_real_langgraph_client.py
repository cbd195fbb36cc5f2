"""The Python client of LangGraph's server, and a graph that interrupts, on our server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import pytest

from support.node import serving

pytest.importorskip("langgraph_sdk")
pytest.importorskip("langgraph")

from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.types import interrupt
from langgraph_sdk import get_client
from langgraph_sdk.errors import BadRequestError


class Talk(TypedDict):
    messages: Annotated[list[Any], add_messages]


def ask(state: Talk) -> dict[str, Any]:
    said = interrupt({"question": "go on?"})
    return {"messages": [AIMessage(content=f"you said {said!r}")]}


def graph() -> Any:
    built = StateGraph(Talk).add_node("ask", ask).add_edge(START, "ask")
    return built.compile(checkpointer=InMemorySaver(), name="asker")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(agents=[graph()]) as server:
        yield server.url


def asked(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}


def test_a_graph_is_interrupted_and_resumed_with_what_its_client_says(url: str) -> None:
    async def main() -> None:
        client = get_client(url=f"{url}/langgraph", api_key=None)
        assert [a["name"] for a in await client.assistants.search()] == ["asker", "demo"]
        thread = (await client.threads.create())["thread_id"]
        modes = ["values", "messages-tuple", "updates"]
        parts = [
            part
            async for part in client.runs.stream(
                thread, "asker", input=asked("hi"), stream_mode=modes
            )
        ]
        assert parts[-1].event == "end"
        (asks,) = parts[-2].data["__interrupt__"]
        assert asks["value"] == {"question": "go on?"}
        assert (await client.threads.get(thread))["status"] == "interrupted"
        command = {"resume": {"yes": 1}}
        rest = [
            part
            async for part in client.runs.stream(
                thread, "asker", command=command, stream_mode=modes
            )
        ]
        assert rest[-1].event == "end"
        assert rest[-2].data["messages"][-1]["content"] == "you said {'yes': 1}"
        state = await client.threads.get_state(thread)
        assert (state["next"], state["values"]) == ([], rest[-2].data)

    asyncio.run(main())


def test_runs_are_awaited_joined_and_cancelled(url: str) -> None:
    async def main() -> None:
        client = get_client(url=f"{url}/langgraph", api_key=None)
        values = await client.runs.wait(None, "demo", input=asked("scenario:text?rate=2000"))
        assert [message["type"] for message in values["messages"]] == ["human", "ai"]
        thread = (await client.threads.create())["thread_id"]
        run = await client.runs.create(thread, "demo", input=asked("scenario:text?rate=300"))
        pieces = [
            part.data[0]["content"]
            async for part in client.runs.join_stream(
                thread, run["run_id"], stream_mode=["messages-tuple"]
            )
            if part.event == "messages"
        ]
        assert "".join(pieces) == values["messages"][1]["content"]
        assert (await client.runs.get(thread, run["run_id"]))["status"] == "success"
        assert len(await client.threads.get_history(thread)) == 3
        slow = await client.runs.create(thread, "demo", input=asked("scenario:slow"))
        await client.runs.cancel(thread, slow["run_id"], wait=True)
        assert (await client.runs.get(thread, slow["run_id"]))["status"] == "interrupted"
        with pytest.raises(Exception, match="overloaded"):
            await client.runs.wait(thread, "demo", input=asked("scenario:error"))
        with pytest.raises(BadRequestError, match="unknown model 'nobody'"):
            async for _ in client.runs.stream(thread, "nobody", input=asked("x")):
                raise AssertionError
        await client.threads.delete(thread)

    asyncio.run(main())
