"""A graph of LangGraph, as it is: a model's words, and an `interrupt()` that a person answers."""

import asyncio

from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

import tokenwire
from tokenwire.demo import demo_server
from tokenwire.events import RunWait, TextDelta


def graph_at(url: str):
    model = ChatOpenAI(model="demo", base_url=url, api_key="none")

    def ask(state: MessagesState):
        answer = interrupt({"question": "May I answer?"})
        return {"messages": [("system", f"approved: {answer['approved']}")]}

    async def answer(state: MessagesState):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("answer", answer)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "answer")
    return graph.compile(checkpointer=InMemorySaver(), name="careful")


async def main() -> None:
    async with demo_server() as url:
        async with tokenwire.stream("Good day", model=graph_at(url)) as run:
            async for event in run:
                match event:
                    case TextDelta(text=text):
                        print(text, end="", flush=True)
                    case RunWait(pending=[approval]):
                        run.approve(approval, by="me")
        print(f"\n-- {run.state.outcome}")


asyncio.run(main())
