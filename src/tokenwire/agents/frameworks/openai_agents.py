"""Agents of the OpenAI Agents SDK: its events to ours, and `Runner.run_streamed` driven with its
state.

Always true: a model's answer is read by the decoder of OpenAI's Responses, as if it came from the
wire; the stream is read to its end, or the SDK loses its state; a handoff changes who speaks.
"""

from __future__ import annotations

from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.answers import Answers
from tokenwire.agents.frameworks.turns import Turn, ask, cut_short
from tokenwire.agents.frameworks.values import plain, title
from tokenwire.agents.spec import Agent
from tokenwire.errors import InputError
from tokenwire.events import model as m
from tokenwire.events.message import FilePart, Message, ToolCallPart, ToolResultPart
from tokenwire.providers.history import arguments_text, mended, result_text

__all__ = ["OpenAIAgentEvents", "openai_agent", "openai_items"]

_EDITED = "a person wants this call with other arguments; call the tool again with:"
_CUT = ("length", "content_filter")
_ENDS = ("response.completed", "response.incomplete", "response.failed")


class OpenAIAgentEvents:
    """The reading of one `stream_events`."""

    def __init__(self) -> None:
        self._answers = Answers("openai-agents")

    @property
    def reason(self) -> str:
        """Why the last answer ended, in our word."""
        return self._answers.reason

    def speak(self, name: str) -> None:
        """Another agent speaks from here on."""
        self._answers.speaker = m.Agent(id=name, name=name)

    def read(self, event: Any) -> list[m.Event]:
        """One event of the SDK, known by its ``type``."""
        if event.type == "raw_response_event":
            events = self._answers.item(event.data)
            if getattr(event.data, "type", "") in _ENDS:
                events += self._answers.end()
            return events
        if event.type == "run_item_stream_event":
            return self._item(event.name, event.item)
        if event.type == "agent_updated_stream_event":
            self.speak(event.new_agent.name)
        return []

    def _item(self, name: str, item: Any) -> list[m.Event]:
        raw = getattr(item, "raw_item", None)
        call_id = _field(raw, "call_id")
        if name == "tool_called" and call_id:
            self._answers.names[call_id] = _field(raw, "name") or self._answers.names.get(
                call_id, ""
            )
        elif name in ("tool_output", "handoff_occured") and call_id:
            tool = self._answers.names.get(call_id, "")
            output = getattr(item, "output", None)
            content = plain(output if output is not None else _field(raw, "output"))
            return [
                m.ToolStart(call_id=call_id, name=tool),
                m.ToolResult(call_id=call_id, name=tool, content=content),
            ]
        return []


def openai_agent(agent: Any, name: str | None = None) -> Agent:
    """An agent of the SDK. Tools with ``needs_approval`` ask a person, also over a restart; edited
    arguments go to the model, which may call again with them."""

    async def work(ctx: RunContext) -> None:
        await _drive(ctx, agent)

    return Agent(name or title(agent.name), work)


async def _drive(ctx: RunContext, agent: Any) -> None:
    from agents import RunState

    begin: Any = _input(ctx)
    number = 0
    while True:
        number += 1
        turn = await Turn.begin(ctx, number)
        state = turn.state
        if state is None:
            state = await _run(ctx, turn, agent, begin)
        if not state["approvals"]:
            if state["reason"] in _CUT:
                cut_short(ctx, state["reason"])
            return
        begin = await RunState.from_json(agent, state["state"])
        for item in begin.get_interruptions():
            arguments = _arguments(item)
            answer = await ask(ctx, item.call_id, item.name, arguments)
            if answer and answer.arguments != arguments:
                # The SDK runs a call only with the model's own arguments.
                begin.reject(item, rejection_message=f"{_EDITED} {plain(answer.arguments)}")
            elif answer:
                begin.approve(item)
            else:
                begin.reject(item, rejection_message=answer.reason)


async def _run(ctx: RunContext, turn: Turn, agent: Any, begin: Any) -> dict[str, Any]:
    """One turn; returns what the next one needs."""
    from agents import AgentsException, RunConfig, Runner

    reading = OpenAIAgentEvents()
    reading.speak(agent.name)
    result = Runner.run_streamed(
        agent,
        begin,
        context=ctx,
        max_turns=ctx.engine.plan.limits.steps,
        run_config=RunConfig(tracing_disabled=True),
    )
    try:
        async for event in result.stream_events():
            await turn.say(reading.read(event))
    except AgentsException:
        if reading.reason not in _CUT:
            raise
        # The SDK takes an answer that its limit cut for a failure; it is an answer, and cut.
        await turn.finish({"approvals": False, "state": None, "reason": reading.reason})
        return {"approvals": False, "reason": reading.reason}
    finally:
        if not result.is_complete:
            result.cancel()
    waits = list(result.interruptions)
    state = {
        "approvals": bool(waits),
        "state": result.to_state().to_json(context_serializer=lambda _: {}) if waits else None,
        "reason": reading.reason,
    }
    await turn.finish(state)
    return state


def _input(ctx: RunContext) -> list[dict[str, Any]]:
    return openai_items(ctx.messages)


def openai_items(messages: list[Message]) -> list[dict[str, Any]]:
    """A conversation as items of Responses: files as content, calls with their results. Raises
    `InputError` for a file that is neither an image nor a document."""
    items: list[dict[str, Any]] = []
    for message in mended(messages):
        role = "system" if message.role == "developer" else message.role
        files = [_file(part) for part in message.parts if isinstance(part, FilePart)]
        content: Any = message.text
        if files:
            content = [{"type": "input_text", "text": content}, *files] if content else files
        if content and role != "tool":
            items.append({"role": role, "content": content})
        for part in message.parts:
            if isinstance(part, ToolCallPart) and part.executor != "provider":
                call = {"call_id": part.call_id, "name": part.name}
                items.append({"type": "function_call", **call, "arguments": arguments_text(part)})
            elif isinstance(part, ToolResultPart):
                result = {"call_id": part.call_id, "output": result_text(part)}
                items.append({"type": "function_call_output", **result})
    return items


def _file(part: FilePart) -> dict[str, Any]:
    kind = part.media_type.partition("/")[0]
    if kind in ("audio", "video"):
        raise InputError(f"the OpenAI Agents SDK takes no {kind}; leave out '{part.media_type}'")
    data = f"data:{part.media_type};base64,{part.data}" if part.data is not None else None
    if kind == "image":
        return {"type": "input_image", "image_url": data or part.url, "detail": "auto"}
    if data is None:
        return {"type": "input_file", "file_url": part.url}
    return {"type": "input_file", "file_data": data, "filename": part.name or "file"}


def _arguments(item: Any) -> Any:
    from pydantic_core import from_json

    text = item.arguments or "{}"
    try:
        return from_json(text)
    except ValueError:
        return {"text": text}


def _field(raw: Any, name: str) -> Any:
    return raw.get(name) if isinstance(raw, dict) else getattr(raw, name, None)
