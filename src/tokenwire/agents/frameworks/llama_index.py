"""Agents and workflows of LlamaIndex: their events to ours, and `run` driven with its context.

Always true: text is what ``AgentStream`` brings as ``delta``, never the whole text that it repeats;
arguments of a call come whole, because LlamaIndex guesses at growing ones; a workflow that ends
without a word says its result.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.conversation import (
    Content,
    bytes_of,
    entries_of,
    question_of,
    refused,
)
from tokenwire.agents.frameworks.langgraph import langchain_messages
from tokenwire.agents.frameworks.steps import Steps
from tokenwire.agents.frameworks.turns import Turn, cut_short
from tokenwire.agents.frameworks.values import plain, title
from tokenwire.agents.spec import Agent
from tokenwire.errors import InputError
from tokenwire.events import model as m
from tokenwire.events.message import (
    FilePart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.providers.history import arguments_object, result_text

__all__ = ["LlamaIndexEvents", "llama_index_agent", "llama_index_messages"]

#: The finish reasons of the model's own chunks that mean less than a whole answer.
_REASONS: dict[str, m.FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "MAX_TOKENS": "length",
    "content_filter": "content_filter",
    "refusal": "content_filter",
    "SAFETY": "content_filter",
}
_CUT = ("length", "content_filter")
_SOUNDS = {"mpeg": "mp3", "x-wav": "wav"}


class LlamaIndexEvents:
    """The reading of one `stream_events`. ``calls``: those that an earlier turn started, which
    LlamaIndex tells again when it goes on."""

    def __init__(self, calls: Iterable[str] = ()) -> None:
        self._steps = Steps(provider="llama-index")
        self.calls = set(calls)
        self._call_ids = set(calls)
        self._ended: set[str] = set()
        #: Who speaks now; None in a workflow without agents.
        self.speaker: str | None = None
        self.reason: m.FinishReason = "stop"
        self.spoke = False

    def read(self, event: Any) -> list[m.Event]:
        """One event, known by its class's name; what an application made itself becomes data."""
        name = type(event).__name__
        if name == "AgentStream":
            return self._stream(event)
        if name == "AgentOutput":
            return self._output(event)
        if name == "ToolCall":
            return [*self._steps.end("tool_calls"), *self._start(event)]
        if name == "ToolCallResult":
            return self._result(event)
        if name == "AgentInput":
            self.speaker = event.current_agent_name
            return self._steps.end(self.reason)
        if name in ("AgentSetup", "StopEvent", "AgentWorkflowStartEvent", "WorkflowFailedEvent"):
            return []
        return [m.Data(name=title(name), payload=_fields(event))]

    def end(self) -> list[m.Event]:
        """The stream is over."""
        return self._steps.end(self.reason)

    def _stream(self, event: Any) -> list[m.Event]:
        events = self._steps.start()
        self.speaker = event.current_agent_name
        if getattr(event, "thinking_delta", None):
            events += self._steps.reasoning("reasoning", event.thinking_delta)
        if event.delta:
            self.spoke = True
            events += self._steps.text("text", event.delta)
        self.reason = _reason(event.raw) or self.reason
        return events

    def _output(self, event: Any) -> list[m.Event]:
        """One answer of a model is whole, with the calls that it holds."""
        events: list[m.Event] = []
        text = event.response.content
        if text and not self._steps.in_step:  # an agent that does not stream
            self.spoke = True
            events += self._steps.text("text", text)
        for call in event.tool_calls:
            self.calls.add(call.tool_id)
            arguments = plain(call.tool_kwargs)
            events += self._steps.call(call.tool_id, call.tool_id, call.tool_name, _text(arguments))
        self.reason = _reason(event.raw) or ("tool_calls" if event.tool_calls else "stop")
        return [*events, *self._steps.end(self.reason)]

    def _start(self, event: Any) -> list[m.Event]:
        events: list[m.Event] = []
        if event.tool_id in self._call_ids:
            return []
        self._call_ids.add(event.tool_id)
        if event.tool_id not in self.calls:  # a workflow of the user's own
            self.calls.add(event.tool_id)
            arguments = _text(plain(event.tool_kwargs))
            events = self._steps.call(event.tool_id, event.tool_id, event.tool_name, arguments)
            events += self._steps.end("tool_calls")
        return [*events, m.ToolStart(call_id=event.tool_id, name=event.tool_name)]

    def _result(self, event: Any) -> list[m.Event]:
        call_id, name, output = event.tool_id, event.tool_name, event.tool_output
        if call_id in self._ended:
            return []
        self._ended.add(call_id)
        if output.is_error:
            text = str(output.content)[:500]
            return [m.ToolError(call_id=call_id, name=name, code="exception", message=text)]
        raw = output.raw_output
        content = plain(raw) if isinstance(raw, str | dict | list | int | float) else output.content
        return [m.ToolResult(call_id=call_id, name=name, content=content)]


def llama_index_agent(workflow: Any, name: str | None = None) -> Agent:
    """An agent or a workflow. ``InputRequiredEvent`` asks a person, also over a restart: the answer
    is a ``HumanResponseEvent`` with the question's fields, ``approved``, ``reason`` and
    ``response`` ("yes" or "no", unless the person gave another)."""

    async def work(ctx: RunContext) -> None:
        await _drive(ctx, workflow)

    own = getattr(workflow, "name", None) or type(workflow).__name__
    return Agent(name or title(str(own)), work)


async def _drive(ctx: RunContext, workflow: Any) -> None:
    number, before, answer = 0, None, None
    while True:
        number += 1
        turn = await Turn.begin(ctx, number)
        state = turn.state
        if state is None:
            state = await _run(ctx, turn, workflow, before, answer)
        if state["question"] is None:
            if state["reason"] in _CUT:
                cut_short(ctx, state["reason"])
            return
        before = state
        reply = await ctx.request_approval("input", state["question"])
        fields = dict(reply.arguments)
        fields.setdefault("response", "yes" if reply.approved else "no")
        answer = {**fields, "approved": reply.approved, "reason": reply.reason}


async def _run(
    ctx: RunContext, turn: Turn, workflow: Any, before: Any, answer: dict[str, Any] | None
) -> dict[str, Any]:
    """One turn; returns what the next one needs."""
    from workflows.events import HumanResponseEvent, InputRequiredEvent

    reading = LlamaIndexEvents(before["calls"] if before else ())
    handler = workflow.run(
        ctx=_context(workflow, before), **({} if before else _input(ctx, workflow))
    )
    if before is not None:
        await _remember(handler, before["memory"])
        handler.ctx.send_event(HumanResponseEvent(**answer or {}))
    question: dict[str, Any] | None = None
    try:
        async for event in handler.stream_events():
            if isinstance(event, InputRequiredEvent):
                question = _fields(event)
                break
            events = reading.read(event)
            if reading.speaker is not None and reading.speaker != ctx.engine.name:
                turn.source.agent = m.Agent(
                    id=reading.speaker, name=reading.speaker, parent=ctx.engine.name
                )
            await turn.say(events)
        await turn.say(reading.end())
        if question is None:
            await _say_result(ctx, turn, reading, await handler)
    finally:
        if not handler.is_done():
            await handler.cancel_run()
    state = {"question": question, "reason": reading.reason, "context": None, "memory": None}
    state["calls"] = sorted(reading.calls)
    if question is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the memory, which is stored beside it
            state["context"] = handler.ctx.to_dict()
        memory = await handler.ctx.store.get("memory", default=None)
        if memory is not None:
            state["memory"] = [plain(x.model_dump()) for x in await memory.aget_all()]
    await turn.finish(state)
    return state


async def _say_result(ctx: RunContext, turn: Turn, reading: LlamaIndexEvents, result: Any) -> None:
    if type(result).__name__ == "AgentOutput":
        structured = getattr(result, "structured_response", None)
        if structured:
            await turn.say([m.Data(name="output", payload=plain(structured))])
    elif isinstance(result, str):
        if not reading.spoke:
            await ctx.say(result)
    elif result is not None:
        await turn.say([m.Data(name="output", payload=plain(result))])


def _context(workflow: Any, before: Any) -> Any:
    """The workflow's context, as it was when it asked."""
    from workflows import Context

    return Context(workflow) if before is None else Context.from_dict(workflow, before["context"])


async def _remember(handler: Any, messages: Any) -> None:
    """Give an agent its memory, which LlamaIndex leaves out of a context."""
    if messages is None:
        return
    from llama_index.core.base.llms.types import ChatMessage
    from llama_index.core.memory import ChatMemoryBuffer

    history = [ChatMessage.model_validate(x) for x in messages]
    await handler.ctx.store.set("memory", ChatMemoryBuffer.from_defaults(chat_history=history))


def _input(ctx: RunContext, workflow: Any) -> dict[str, Any]:
    """The arguments of `run`: what the start event names, or all that a free one takes. Raises
    `InputError` where it takes no files and the question has some."""
    if _is_agent(workflow):
        *earlier, last = llama_index_messages(ctx.messages)
        if last.role.value != "user":
            raise InputError("a LlamaIndex agent needs a message of the user as the last one")
        return {"user_msg": last, "chat_history": earlier}
    _, question = question_of(entries_of(ctx.messages))
    files = question.files if question is not None else []
    values = {
        "prompt": ctx.prompt,
        "messages": langchain_messages(ctx.messages),
        **dict.fromkeys(("user_msg", "input", "query", "message", "question", "topic"), ctx.prompt),
    }
    fields = workflow.start_event_class.model_fields
    if not fields:  # a start event that takes what it is given
        return {"prompt": values["prompt"], "messages": values["messages"]}
    if files and "messages" not in fields:
        raise refused(files[0], "a workflow whose start event has no 'messages'")
    return {name: values[name] for name in fields if name in values}


def llama_index_messages(messages: list[Message]) -> list[Any]:
    """A conversation as chat messages of LlamaIndex: files as blocks, calls with their results.
    Raises `InputError` for a file without its bytes, which LlamaIndex would fetch from here."""
    from llama_index.core.base.llms.types import ChatMessage

    history: list[Any] = []
    for entry in entries_of(messages):
        if entry.role != "tool":
            blocks = [_block(part) for part in entry.parts]
            history.append(ChatMessage(role=entry.role, blocks=blocks))
            continue
        for part in entry.parts:
            if isinstance(part, ToolResultPart):
                more = {"tool_call_id": part.call_id, "name": part.name}
                text = result_text(part)
                history.append(ChatMessage(role="tool", content=text, additional_kwargs=more))
    return history


def _block(part: Content) -> Any:
    from llama_index.core.base.llms import types

    if isinstance(part, TextPart):
        return types.TextBlock(text=part.text)
    if isinstance(part, ToolCallPart):
        return types.ToolCallBlock(
            tool_call_id=part.call_id, tool_name=part.name, tool_kwargs=arguments_object(part)
        )
    assert isinstance(part, FilePart)
    kind, _, name = part.media_type.partition("/")
    data = bytes_of(part, "LlamaIndex")
    if kind == "image":
        return types.ImageBlock(image=data, image_mimetype=part.media_type)
    if kind == "audio":
        return types.AudioBlock(audio=data, format=_SOUNDS.get(name, name))
    if kind == "video":
        return types.VideoBlock(video=data, video_mimetype=part.media_type)
    return types.DocumentBlock(data=data, title=part.name, document_mimetype=part.media_type)


def _fields(event: Any) -> dict[str, Any]:
    """The fields of an event: those of its class, and those that it was just given."""
    values = event.model_dump()
    return plain({**{k: v for k, v in values.items() if k != "_data"}, **dict(event.items())})


def _is_agent(workflow: Any) -> bool:
    names = {cls.__name__ for cls in type(workflow).__mro__}
    return bool(names & {"BaseWorkflowAgent", "AgentWorkflow"})


def _reason(raw: Any) -> m.FinishReason | None:
    """The reason in a chunk of the model's own, where it has one that cuts."""
    if raw is None:
        return None
    data = raw if isinstance(raw, dict) else plain(raw)
    if not isinstance(data, dict):
        return None
    items = data.get("choices") or data.get("candidates") or [data]
    first = items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}
    reason = first.get("finish_reason") or first.get("finishReason") or first.get("stop_reason")
    return _REASONS.get(reason) if isinstance(reason, str) else None


def _text(arguments: Any) -> str:
    from pydantic_core import to_json

    return to_json(arguments).decode()
