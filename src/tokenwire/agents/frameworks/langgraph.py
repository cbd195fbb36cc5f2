"""Graphs of LangGraph and other runnables of LangChain: their stream to ours.

Always true: each message of a model is a speaker of its own, so that nodes that answer at the same
time are not mixed; a message ends when its node is done or the stream ends; what a graph inside of
a graph says is a subagent's.
"""

from __future__ import annotations

from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.graph_places import Places, has_checkpointer
from tokenwire.agents.frameworks.steps import Steps, usage_event
from tokenwire.agents.frameworks.turns import Turn, cut_short
from tokenwire.agents.frameworks.values import plain
from tokenwire.agents.outlet import Source
from tokenwire.agents.spec import Agent
from tokenwire.events import model as m
from tokenwire.events.message import FilePart, Message, Part, TextPart, ToolResultPart
from tokenwire.providers.history import arguments_object, mended, result_text

__all__ = ["GraphEvents", "Spoken", "langchain_messages", "langgraph_agent", "runnable_agent"]

_REASONS: dict[str, m.FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
    "end_turn": "stop",
}

#: Events, and the message that they belong to ("" for the graph itself).
Spoken = tuple[str, list[m.Event]]


class _Message:
    def __init__(self, node: str, agent: m.Agent | None) -> None:
        self.node, self.agent = node, agent
        self.steps = Steps(provider="langgraph")
        self.reason: m.FinishReason = "stop"
        self.usage: m.Usage | None = None


class GraphEvents:
    """The reading of one ``astream`` of a graph. ``name``: the root agent's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._messages: dict[str, _Message] = {}
        #: Values of `interrupt()` that wait for an answer, by their id.
        self.interrupts: dict[str, Any] = {}
        self.reason: str = "stop"

    def agent_of(self, message: str) -> m.Agent | None:
        """Who says a message."""
        return self._messages[message].agent if message in self._messages else None

    def read(self, namespace: tuple[str, ...], mode: str, data: Any) -> list[Spoken]:
        """One item of the stream."""
        if mode == "messages":
            chunk, metadata = data
            return self._chunk(namespace, chunk, str(metadata.get("langgraph_node", "")))
        if mode == "updates":
            return self._update(namespace, data)
        if mode == "custom":
            return [("", [m.Data(name="custom", payload=plain(data))])]
        return []

    def end(self) -> list[Spoken]:
        """The stream is over: messages that are open are whole."""
        return [ending for name in list(self._messages) if (ending := self._end(name))]

    def _chunk(self, namespace: tuple[str, ...], chunk: Any, node: str) -> list[Spoken]:
        if chunk.type == "tool":
            return self._tool(chunk)
        if not chunk.type.lower().startswith("ai"):
            return []
        name = chunk.id or f"{'/'.join(namespace)}:{node}"
        message = self._messages.get(name)
        if message is None:
            message = self._messages[name] = _Message(node, self._agent(namespace, node))
        return [(name, self._content(message, chunk))]

    def _agent(self, namespace: tuple[str, ...], node: str) -> m.Agent:
        if not namespace:
            return m.Agent(id=self._name, name=node or self._name)
        inner = namespace[-1].partition(":")[0]
        return m.Agent(id="/".join(namespace), name=inner, parent=self._name)

    def _content(self, message: _Message, chunk: Any) -> list[m.Event]:
        from pydantic_core import to_json

        steps, events = message.steps, []
        content = chunk.content
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for item in blocks:
            block = {"type": "text", "text": item} if isinstance(item, str) else item
            if block.get("type") == "text" and block.get("text"):
                events += steps.text("text", block["text"])
            elif block.get("type") in ("thinking", "reasoning"):
                text = block.get("thinking") or block.get("reasoning") or block.get("text") or ""
                events += steps.reasoning("reasoning", text) if text else []
        for piece in getattr(chunk, "tool_call_chunks", None) or []:
            key = ("call", piece.get("index"))
            if piece.get("id") and piece.get("name"):
                events += steps.call(key, piece["id"], piece["name"], piece.get("args") or "")
            else:
                events += steps.arguments(key, piece.get("args") or "")
        if not chunk.type.endswith("Chunk"):  # a whole message: of a model that does not stream
            for call in getattr(chunk, "tool_calls", None) or []:
                arguments = to_json(call["args"]).decode()
                events += steps.call(("call", call["id"]), call["id"], call["name"], arguments)
        usage = getattr(chunk, "usage_metadata", None)
        if usage:
            message.usage = usage_event(usage.get("input_tokens"), usage.get("output_tokens"))
        metadata = chunk.response_metadata or {}
        reason = metadata.get("finish_reason") or metadata.get("stop_reason")
        if reason:
            message.reason = _REASONS.get(reason, "other")
        return events

    def _tool(self, chunk: Any) -> list[Spoken]:
        ended = self.end()  # the model's answer that called it is whole
        call_id, name = chunk.tool_call_id, chunk.name or ""
        start = m.ToolStart(call_id=call_id, name=name)
        if chunk.status == "error":
            message = str(chunk.content)[:500]
            end: m.Event = m.ToolError(
                call_id=call_id, name=name, code="exception", message=message
            )
        else:
            end = m.ToolResult(call_id=call_id, name=name, content=plain(chunk.content))
        return [*ended, ("", [start, end])]

    def _update(self, namespace: tuple[str, ...], data: Any) -> list[Spoken]:
        spoken: list[Spoken] = []
        for node, update in data.items():
            if node == "__interrupt__":
                for item in update:
                    self.interrupts[str(item.id)] = plain(item.value)
                continue
            for name, message in list(self._messages.items()):
                if message.node == node:
                    ending = self._end(name)
                    spoken += [ending] if ending else []
        return spoken

    def _end(self, name: str) -> Spoken | None:
        message = self._messages.pop(name)
        if not message.steps.in_step:
            return None
        self.reason = message.reason
        return name, message.steps.end(message.reason, message.usage)


def langgraph_agent(graph: Any, name: str | None = None) -> Agent:
    """A compiled graph. Where it has a checkpointer that outlives the process, `interrupt()` asks a
    person also over a restart, and a turn that a lost worker left open goes on."""

    async def work(ctx: RunContext) -> None:
        await _drive(ctx, graph)

    return Agent(name or getattr(graph, "name", None) or "graph", work)


async def _drive(ctx: RunContext, graph: Any) -> None:
    from langgraph.types import Command

    begin: Any = {"messages": _messages(ctx)}
    number, checkpoint = 0, None
    while True:
        number += 1
        turn = await Turn.begin(ctx, number, resumable=has_checkpointer(graph))
        state = turn.state
        if state is None:
            places = Places(ctx, turn, graph, number)
            await places.find()
            if checkpoint is not None and places.place is None:
                await places.wait_for_answer(checkpoint)
            state = await _run(ctx, turn, graph, begin, places)
        if not state["interrupts"]:
            if state["reason"] == "length":
                cut_short(ctx, "length")
            return
        answers: dict[str, Any] = {}
        for key, value in state["interrupts"].items():
            answer = await ctx.request_approval("interrupt", {"value": value})
            answers[key] = _resumed(answer)
        one = len(answers) == 1
        begin = Command(resume=next(iter(answers.values())) if one else answers)
        checkpoint = state.get("checkpoint")


def _resumed(answer: Any) -> Any:
    """What `interrupt()` returns. A client of LangGraph's own says it itself, as ``resume``."""
    if answer.approved and "resume" in answer.arguments:
        return answer.arguments["resume"]
    return {
        "approved": answer.approved,
        "value": answer.arguments["value"],
        "reason": answer.reason,
    }


async def _run(
    ctx: RunContext, turn: Turn, graph: Any, begin: Any, places: Places
) -> dict[str, Any]:
    """One turn; returns what the next one needs."""
    reading = GraphEvents(ctx.engine.name)
    speakers: dict[str, Source] = {}

    async def say(spoken: list[Spoken]) -> None:
        for name, events in spoken:
            source = turn.source
            if name:
                source = speakers.get(name) or ctx.engine.source(turn.source.operation)
                source.agent = reading.agent_of(name) or source.agent
                speakers[name] = source
            fresh = [event for event in events if not places.was_said(event)]
            if fresh:
                await ctx.engine.outlet.put(source, fresh)
            turn.source.calls |= source.calls

    async def reach(checkpoint: str) -> None:
        await say(reading.end())
        await places.reach(checkpoint, reading.reason)

    stream = _stream(ctx, places.watched(reach), begin, places)
    if places.place is not None:
        reading.reason = places.place.reason
    try:
        async for namespace, mode, data in stream:
            await say(reading.read(namespace, mode, data))
        await say(reading.end())
    finally:
        await stream.aclose()
        for source in speakers.values():
            ctx.engine.outlet.close(source)
    state = {
        "interrupts": reading.interrupts,
        "reason": reading.reason,
        "checkpoint": places.place.checkpoint if places.place is not None else None,
    }
    await turn.finish(state)
    return state


def _stream(ctx: RunContext, graph: Any, begin: Any, places: Places) -> Any:
    """The graph's stream, from its place where a lost worker left one."""
    modes, more = ["messages", "updates", "custom"], dict[str, Any]()
    where: dict[str, Any] = {"thread_id": ctx.run, "tokenwire": ctx}
    if has_checkpointer(graph):
        more["durability"] = "sync"  # a node begins when the checkpoint before it is stored
    if places.is_resumed and places.place is not None:
        where["checkpoint_id"] = places.place.checkpoint
        if places.place.before_answer is None:
            begin = None
    config = {"configurable": where, "recursion_limit": 10 * ctx.engine.plan.limits.steps}
    return graph.astream(begin, config, stream_mode=modes, subgraphs=True, **more)


def runnable_agent(runnable: Any, name: str | None = None) -> Agent:
    """Any other runnable of LangChain: it gets the conversation as messages, and streams its
    answer."""

    async def work(ctx: RunContext) -> None:
        turn = await Turn.begin(ctx, 1)
        if turn.state is not None:
            return
        reading = GraphEvents(ctx.engine.name)
        async for chunk in runnable.astream(_messages(ctx)):
            if isinstance(chunk, str):
                await ctx.say(chunk)
            elif hasattr(chunk, "response_metadata"):
                for _, events in reading.read((), "messages", (chunk, {})):
                    await turn.say(events)
            elif chunk is not None:
                ctx.data("output", plain(chunk), id="output")
        for _, events in reading.end():
            await turn.say(events)
        if reading.reason == "length":
            cut_short(ctx, "length")
        await turn.finish({"reason": reading.reason})

    return Agent(name or _title(runnable), work)


def _title(runnable: Any) -> str:
    return type(runnable).__name__


def _messages(ctx: RunContext) -> list[dict[str, Any]]:
    return langchain_messages(ctx.messages)


def langchain_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """A conversation as LangChain takes it: files as content blocks, calls with their results."""
    entries: list[dict[str, Any]] = []
    for message in mended(messages):
        role = "system" if message.role == "developer" else message.role
        calls = [p for p in message.tool_calls if p.executor != "provider"]
        blocks = [b for part in message.parts if (b := _block(part)) is not None]
        content = blocks if any(b["type"] != "text" for b in blocks) else message.text
        entry: dict[str, Any] = {"role": role, "content": content}
        if calls:
            entry["tool_calls"] = [
                {"id": c.call_id, "name": c.name, "args": arguments_object(c)} for c in calls
            ]
        if role != "tool" and (content or calls):
            entries.append(entry)
        entries += [_result(part) for part in message.parts if isinstance(part, ToolResultPart)]
    return entries


def _block(part: Part) -> dict[str, Any] | None:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text} if part.text else None
    if not isinstance(part, FilePart):
        return None
    kind = part.media_type.partition("/")[0]
    block = {"type": kind if kind in ("image", "audio", "video") else "file"}
    block |= {"url": part.url} if part.data is None else {"base64": part.data}
    block["mime_type"] = part.media_type
    return {**block, "filename": part.name} if part.name else block


def _result(part: ToolResultPart) -> dict[str, Any]:
    status = "error" if part.is_error else "success"
    text = result_text(part)
    result = {"role": "tool", "tool_call_id": part.call_id, "content": text, "status": status}
    return {**result, "name": part.name} if part.name else result
