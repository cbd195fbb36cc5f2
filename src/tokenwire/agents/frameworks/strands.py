"""Agents of Strands: its events to ours, and `stream_async` driven with its snapshot.

Always true: only the raw chunks of a model (``event``) become text, because Strands tells the same
words again under other keys; an agent inside of a tool is a speaker of its own; each run has a copy
of the agent, because an agent of Strands holds one conversation.
"""

from __future__ import annotations

import copy
import re
import threading
from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.conversation import (
    Content,
    bytes_of,
    entries_of,
    question_of,
    refused,
)
from tokenwire.agents.frameworks.steps import Steps, usage_event
from tokenwire.agents.frameworks.turns import Turn, ask, cut_short
from tokenwire.agents.frameworks.values import plain, title
from tokenwire.agents.outlet import Source
from tokenwire.agents.spec import Agent
from tokenwire.errors import AgentError, ConfigError
from tokenwire.events import model as m
from tokenwire.events.message import Message, TextPart, ToolCallPart, ToolResultPart
from tokenwire.providers.history import arguments_object

__all__ = ["StrandsEvents", "strands_agent", "strands_messages"]

#: Strands' stop reasons -> ours.
_REASONS: dict[str, m.FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "content_filtered": "content_filter",
    "guardrail_intervened": "content_filter",
}
_CUT = ("length", "content_filter")
#: Kinds of files, by their media types, in Strands' words.
_IMAGES = frozenset(("png", "jpeg", "gif", "webp"))
_SOUNDS = frozenset(("mp3", "mpeg", "opus", "wav", "x-wav", "aac", "flac", "ogg", "mp4", "webm"))
_FILMS = frozenset(("mp4", "mpeg", "webm", "quicktime", "x-matroska", "x-flv", "x-ms-wmv", "3gpp"))
_SPELLINGS = {
    "x-wav": "wav",
    "quicktime": "mov",
    "x-matroska": "mkv",
    "x-flv": "flv",
    "x-ms-wmv": "wmv",
    "3gpp": "three_gp",
}
_OFFICE = "application/vnd.openxmlformats-officedocument"
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    f"{_OFFICE}.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    f"{_OFFICE}.spreadsheetml.sheet": "xlsx",
}


class StrandsEvents:
    """The reading of one `stream_async`, or of the stream of one agent inside of a tool."""

    def __init__(self) -> None:
        self._steps = Steps(provider="strands")
        self._block = 0
        self._call: int | None = None
        self._usage: m.Usage | None = None
        self._names: dict[str, str] = {}
        #: Why the last answer ended, in our word.
        self.reason: m.FinishReason = "stop"

    def read(self, event: dict[str, Any]) -> list[m.Event]:
        """One event of Strands."""
        if "event" in event:
            return self._chunk(event["event"])
        if "message" in event:
            return self._message(event["message"])
        return []

    def end(self) -> list[m.Event]:
        """The last answer is whole: its counts came after its end."""
        events = self._steps.end(self.reason, self._usage)
        self._usage, self._call = None, None
        return events

    def _chunk(self, chunk: dict[str, Any]) -> list[m.Event]:
        (kind, data), *_ = chunk.items()
        if kind == "messageStart":
            return [*self.end(), *self._steps.start()]
        if kind == "contentBlockStart":
            self._block += 1
            call = data.get("start", {}).get("toolUse")
            if call:
                self._call = self._block
                self._names[call["toolUseId"]] = call["name"]
                return self._steps.call(self._block, call["toolUseId"], call["name"])
        elif kind == "contentBlockDelta":
            return self._delta(data["delta"])
        elif kind == "contentBlockStop":
            self._call = None
            self._block += 1
        elif kind == "messageStop":
            self.reason = _REASONS.get(data.get("stopReason", ""), "other")
        elif kind == "metadata":
            usage = data.get("usage", {})
            self._usage = usage_event(usage.get("inputTokens"), usage.get("outputTokens"))
        return []

    def _delta(self, delta: dict[str, Any]) -> list[m.Event]:
        if delta.get("text"):
            return self._steps.text(("text", self._block), delta["text"])
        reasoning = delta.get("reasoningContent") or {}
        if reasoning.get("text"):
            return self._steps.reasoning(("reasoning", self._block), reasoning["text"])
        if "toolUse" in delta and self._call is not None:
            return self._steps.arguments(self._call, delta["toolUse"].get("input") or "")
        return []

    def _message(self, message: dict[str, Any]) -> list[m.Event]:
        """The results that a message of the user's side carries; its text was read before."""
        if message["role"] != "user":
            return []
        events: list[m.Event] = []
        for block in message["content"]:
            if "toolResult" in block:
                events += self._result(block["toolResult"])
        return [*self.end(), *events] if events else []

    def _result(self, result: dict[str, Any]) -> list[m.Event]:
        call_id = result["toolUseId"]
        name = self._names.get(call_id, "")
        items = [x.get("text", x.get("json", plain(x))) for x in result.get("content", [])]
        content = items[0] if len(items) == 1 else items
        start = m.ToolStart(call_id=call_id, name=name)
        if result.get("status") == "error":
            text = str(content)[:500]
            return [start, m.ToolError(call_id=call_id, name=name, code="exception", message=text)]
        return [start, m.ToolResult(call_id=call_id, name=name, content=plain(content))]


def strands_agent(agent: Any, name: str | None = None) -> Agent:
    """An agent of Strands. Its interrupts ask a person, also over a restart; an interrupt's answer
    is ``{"approved": bool, "reason": str | None, "value": the reason given, perhaps edited}``."""
    if getattr(agent, "_session_manager", None) is not None:
        raise ConfigError(
            f"the Strands agent {agent.name!r} has a session manager, which holds one conversation;"
            " make it without one: the log keeps the conversations"
        )

    async def work(ctx: RunContext) -> None:
        await _drive(ctx, agent)

    return Agent(name or title(agent.name), work)


async def _drive(ctx: RunContext, agent: Any) -> None:
    history, begin = strands_messages(ctx.messages)
    snapshot: dict[str, Any] | None = None
    number = 0
    while True:
        number += 1
        turn = await Turn.begin(ctx, number)
        state = turn.state
        if state is None:
            state = await _run(ctx, turn, _copy(agent, snapshot, history), begin)
        if not state["interrupts"]:
            if state["reason"] in _CUT:
                cut_short(ctx, state["reason"])
            return
        snapshot = state["snapshot"]
        begin = [await _answer(ctx, item) for item in state["interrupts"]]


async def _run(ctx: RunContext, turn: Turn, agent: Any, begin: Any) -> dict[str, Any]:
    """One turn; returns what the next one needs."""
    from strands.types.exceptions import MaxTokensReachedException
    from strands.types.session import encode_bytes_values

    reading, inner = StrandsEvents(), _Inner(ctx, turn)
    calls: dict[str, dict[str, Any]] = {}
    result: Any = None
    stop = threading.Event()  # Strands' tools run in threads, which no cancellation reaches
    limits = {"turns": ctx.engine.plan.limits.steps}
    stream = agent.stream_async(
        begin, cancel_signal=stop, limits=limits, invocation_state={"tokenwire": ctx}
    )
    try:
        async for event in stream:
            result = event.get("result", result)
            if "tool_interrupt_event" in event:
                question = event["tool_interrupt_event"]
                calls |= {item.id: question["tool_use"] for item in question["interrupts"]}
            elif "tool_stream_event" in event:
                await inner.say(event["tool_stream_event"])
            else:
                await turn.say(reading.read(event))
    except MaxTokensReachedException:
        reading.reason = "length"  # an answer, and cut
    finally:
        stop.set()
        await stream.aclose()
        inner.close()
    await turn.say(reading.end())
    reason: str = reading.reason
    if result is None and reason != "length":
        raise AgentError("Strands' stream ended without a result; the answer was cut")
    if result is not None:
        reason = _ending(result.stop_reason, reason)
        if getattr(result, "structured_output", None) is not None:
            await turn.say([m.Data(name="output", payload=plain(result.structured_output))])
    interrupts = [
        {"id": item.id, "name": item.name, "reason": plain(item.reason), "call": calls.get(item.id)}
        for item in getattr(result, "interrupts", None) or []
    ]
    snapshot = encode_bytes_values(agent.take_snapshot(preset="session").to_dict())
    state = {"interrupts": interrupts, "reason": reason, "snapshot": plain(snapshot)}
    if not interrupts:
        state["snapshot"] = None
    await turn.finish(state)
    return state


def _ending(stop_reason: str, reason: str) -> str:
    """Our reason for the end of Strands' loop; limits of turns and tokens end an answer early."""
    return "length" if stop_reason.startswith("limit_") else reason


class _Inner:
    """The agents inside of tools, by the call that runs them."""

    def __init__(self, ctx: RunContext, turn: Turn) -> None:
        self._ctx, self._turn = ctx, turn
        self._agents: dict[str, tuple[StrandsEvents, Source]] = {}

    async def say(self, event: dict[str, Any]) -> None:
        """What a tool streams: events of an agent are read, all else is data."""
        call, data = event["tool_use"], event.get("data")
        outlet = self._ctx.engine.outlet
        if not isinstance(data, dict):
            if data is not None:
                payload = {"call_id": call["toolUseId"], "data": plain(data)}
                await self._turn.say([m.Data(name="tool-stream", payload=payload)])
            return
        speaker = self._agents.get(call["toolUseId"])
        if speaker is None:
            source = self._ctx.engine.source(self._turn.source.operation)
            parent = self._ctx.engine.name
            source.agent = m.Agent(id=call["toolUseId"], name=call["name"], parent=parent)
            speaker = self._agents[call["toolUseId"]] = StrandsEvents(), source
        reading, source = speaker
        events = reading.read(data)
        if "result" in data:
            events += reading.end()
        if events:
            await outlet.put(source, events)

    def close(self) -> None:
        """The turn is over."""
        for _, source in self._agents.values():
            self._ctx.engine.outlet.close(source)


async def _answer(ctx: RunContext, item: dict[str, Any]) -> dict[str, Any]:
    """What a person says to an interrupt, as Strands takes it."""
    call = item["call"]
    if call is not None:
        # The tool itself hears a no, and its result is what is told.
        answer = await ask(
            ctx, call["toolUseId"], call["name"], plain(call["input"]), refuses=False
        )
        value = item["reason"] if answer.arguments == call["input"] else answer.arguments
    else:
        answer = await ctx.request_approval(item["name"], {"value": item["reason"]})
        value = answer.arguments["value"]
    response = {"approved": answer.approved, "reason": answer.reason, "value": value}
    return {"interruptResponse": {"interruptId": item["id"], "response": response}}


def _copy(agent: Any, snapshot: dict[str, Any] | None, history: list[dict[str, Any]]) -> Any:
    """The agent for one turn of one run: with its tools and model, and this conversation."""
    from strands.types._snapshot import Snapshot
    from strands.types.session import decode_bytes_values

    twin = copy.copy(agent)
    twin.conversation_manager = copy.deepcopy(agent.conversation_manager)
    twin.event_loop_metrics = type(agent.event_loop_metrics)()
    twin._cancel_signal = threading.Event()
    twin._concurrency = type(agent._concurrency)(agent._concurrency.mode)
    twin.callback_handler = lambda **_: None  # the default one prints
    fresh = agent.take_snapshot(preset="session") if snapshot is None else None
    twin.load_snapshot(fresh or Snapshot.from_dict(decode_bytes_values(snapshot)))
    if snapshot is None:
        twin.messages += copy.deepcopy(history)
    return twin


def strands_messages(messages: list[Message]) -> tuple[list[dict[str, Any]], Any]:
    """The conversation before the question as Strands' messages, and the question: a text, content
    blocks, or None where it is in the conversation: after results, which Strands would else make
    up, and where the last message is not the user's. Turns of one role are joined, and a system
    message is the user's, marked as such: Strands has no other in a conversation. Raises
    `InputError`."""
    before, question = question_of(entries_of(messages))
    history: list[dict[str, Any]] = []
    for entry in before:
        role = "assistant" if entry.role == "assistant" else "user"
        blocks = [_block(part) for part in entry.parts]
        if entry.role == "system":
            blocks = [{"text": f"<system>\n{entry.text}\n</system>"}, *map(_block, entry.files)]
        if history and history[-1]["role"] == role:
            history[-1]["content"] += blocks
        else:
            history.append({"role": role, "content": blocks})
    if question is None:
        return history, None
    if history and history[-1]["role"] == "user":
        history[-1]["content"] += [_block(part) for part in question.parts]
        return history, None
    if not question.files:
        return history, question.text
    return history, [_block(part) for part in question.parts]


def _block(part: Content) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    if isinstance(part, ToolCallPart):
        arguments = arguments_object(part)
        return {"toolUse": {"toolUseId": part.call_id, "name": part.name, "input": arguments}}
    if isinstance(part, ToolResultPart):
        text = isinstance(part.content, str)
        content = {"text": part.content} if text else {"json": part.content}
        status = "error" if part.is_error else "success"
        result = {"toolUseId": part.call_id, "status": status, "content": [content]}
        return {"toolResult": result}
    kind, _, name = part.media_type.partition(";")[0].strip().lower().partition("/")
    if kind == "image" and name in _IMAGES:
        block: tuple[str, dict[str, Any]] = "image", {"format": name}
    elif kind in ("audio", "video") and name in (_SOUNDS if kind == "audio" else _FILMS):
        block = kind, {"format": _SPELLINGS.get(name, name)}
    elif f"{kind}/{name}" in _DOCUMENTS:
        title = re.sub(r"[^A-Za-z0-9 ()\[\]-]+", "-", part.name or "file").strip("- ")
        block = "document", {"format": _DOCUMENTS[f"{kind}/{name}"], "name": title or "file"}
    else:
        raise refused(part, "Strands")
    word, fields = block
    return {word: {**fields, "source": {"bytes": bytes_of(part, "Strands")}}}
