"""Agents of pydantic-ai: its events to ours, and `run_stream_events` driven with its state.

Always true: a model's answer is closed only when the next thing begins, because more of a part may
follow its end event; a tool's start is told with its result, because pydantic-ai announces calls
that only wait for a person in the same way as calls that run.
"""

from __future__ import annotations

from typing import Any

from tokenwire.agents.context import RunContext
from tokenwire.agents.frameworks.conversation import (
    Content,
    Entry,
    bytes_of,
    entries_of,
    question_of,
    refused,
)
from tokenwire.agents.frameworks.steps import Steps, usage_event
from tokenwire.agents.frameworks.turns import Turn, ask, cut_short
from tokenwire.agents.frameworks.values import plain
from tokenwire.agents.spec import Agent
from tokenwire.errors import AgentError, InputError
from tokenwire.events.message import (
    FilePart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.model import (
    Data,
    Event,
    FinishReason,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.providers.history import arguments_object

__all__ = ["PydanticEvents", "pydantic_agent", "pydantic_messages"]

#: pydantic-ai's finish reasons -> ours.
_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content_filter",
    "tool_call": "tool_calls",
    "error": "error",
}


class PydanticEvents:
    """The reading of one `run_stream_events`."""

    def __init__(self) -> None:
        self._steps = Steps(provider="pydantic-ai")
        self._output_call: str | None = None
        self._calls: dict[str, Any] = {}
        self._resolved: set[str] = set()

    def read(self, event: Any) -> list[Event]:
        """One event of pydantic-ai, known by its ``event_kind``."""
        kind = event.event_kind
        if kind == "part_start":
            return self._part(event.index, event.part)
        if kind == "part_delta":
            return self._delta(event.index, event.delta)
        if kind == "function_tool_call":
            self._calls[event.part.tool_call_id] = event.part
            return self._steps.end("tool_calls")
        if kind in ("function_tool_result", "output_tool_result"):
            return [*self._steps.end("tool_calls"), *self._result(event.part)]
        if kind == "final_result":
            self._output_call = event.tool_call_id
        elif kind == "agent_run_result":
            return self._end(event.result)
        elif kind == "custom":
            payload = getattr(event, "data", None)
            return [Data(name=str(getattr(event, "name", "custom")), payload=payload)]
        return []

    def _part(self, index: int, part: Any) -> list[Event]:
        if part.part_kind == "text":
            return self._steps.text(index, part.content or "")
        if part.part_kind == "thinking":
            return self._steps.reasoning(index, part.content or "")
        if part.part_kind == "tool-call":
            return self._steps.call(index, part.tool_call_id, part.tool_name, _json_text(part.args))
        return []

    def _delta(self, index: int, delta: Any) -> list[Event]:
        kind = delta.part_delta_kind
        if kind == "text":
            return self._steps.text(index, delta.content_delta)
        if kind == "thinking":
            return self._steps.reasoning(index, delta.content_delta or "")
        if kind == "tool_call":
            return self._steps.arguments(index, _json_text(delta.args_delta))
        return []

    def _result(self, part: Any) -> list[Event]:
        call_id, name = part.tool_call_id, part.tool_name or ""
        self._resolved.add(call_id)
        call = self._calls.get(call_id)
        arguments = call.args_as_dict() if call is not None else None
        start = ToolStart(call_id=call_id, name=name, arguments=arguments)
        failed = part.part_kind == "retry-prompt" or getattr(part, "outcome", "") == "failed"
        content = part.model_response() if failed else plain(part.content)
        if failed:
            text = str(content)[:500]
            return [start, ToolError(call_id=call_id, name=name, code="exception", message=text)]
        return [start, ToolResult(call_id=call_id, name=name, content=content)]

    def _end(self, result: Any) -> list[Event]:
        responses = [m for m in result.all_messages() if m.kind == "response"]
        reason = responses[-1].finish_reason if responses else None
        usage = result.usage
        counts = usage_event(usage.input_tokens, usage.output_tokens)
        events = self._steps.end(_REASONS.get(reason or "stop", "other"), counts)
        output = result.output
        if self._output_call is not None and self._output_call not in self._resolved:
            # An answer by a tool that only carries it: the call has its result.
            content = {"accepted": True}
            events.append(ToolResult(call_id=self._output_call, content=content))
        if not isinstance(output, str) and type(output).__name__ != "DeferredToolRequests":
            events.append(Data(name="output", payload=plain(output)))
        return events


def pydantic_agent(agent: Any, name: str | None = None) -> Agent:
    """An agent of pydantic-ai. Approvals (``requires_approval``, and ``DeferredToolRequests`` among
    its output types) are continued, also by another worker."""

    async def work(ctx: RunContext) -> None:
        await _drive(ctx, agent)

    return Agent(name or getattr(agent, "name", None) or "agent", work)


async def _drive(ctx: RunContext, agent: Any) -> None:
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    history, prompt = pydantic_messages(ctx.messages)
    if history:
        history = await _instructed(ctx, agent, history, prompt)
    deferred: Any = None
    number = 0
    while True:
        number += 1
        turn = await Turn.begin(ctx, number)
        if turn.state is None:
            state = await _run(ctx, turn, agent, prompt, history, deferred)
        else:
            state = turn.state
        if not state["approvals"]:
            if state["reason"] == "length":
                cut_short(ctx, "length")
            return
        history = ModelMessagesTypeAdapter.validate_python(state["messages"])
        deferred = await _answers(ctx, state["approvals"])
        prompt = None


def _deps(ctx: RunContext, agent: Any) -> dict[str, Any]:
    return {"deps": ctx} if getattr(agent, "deps_type", None) is RunContext else {}


async def _instructed(ctx: RunContext, agent: Any, history: list[Any], prompt: Any) -> list[Any]:
    """A conversation with the agent's system prompts in front: pydantic-ai itself adds them only
    where there is none, whoever began it."""
    from pydantic_ai.messages import ModelRequest

    parts = await agent.system_prompt_parts(
        message_history=history, prompt=prompt, **_deps(ctx, agent)
    )
    return [ModelRequest(parts=parts), *history] if parts else history


async def _run(
    ctx: RunContext, turn: Turn, agent: Any, prompt: Any, history: Any, deferred: Any
) -> dict[str, Any]:
    """One turn; returns what the next one needs."""
    from pydantic_ai.messages import ModelMessagesTypeAdapter

    reading, result = PydanticEvents(), None
    more = _deps(ctx, agent)
    async with agent.run_stream_events(
        prompt, message_history=history or None, deferred_tool_results=deferred, **more
    ) as events:
        async for event in events:
            if event.event_kind == "agent_run_result":
                result = event.result
            await turn.say(reading.read(event))
    if result is None:
        raise AgentError("pydantic-ai's stream ended without a result; the answer was cut")
    output = result.output
    approvals: list[dict[str, Any]] = []
    if type(output).__name__ == "DeferredToolRequests":
        approvals = [
            {"id": call.tool_call_id, "name": call.tool_name, "arguments": call.args_as_dict()}
            for call in output.approvals
        ]
    messages = result.all_messages()
    responses = [m for m in messages if m.kind == "response"]
    state = {
        "messages": ModelMessagesTypeAdapter.dump_python(messages, mode="json"),
        "approvals": approvals,
        "reason": responses[-1].finish_reason if responses else None,
    }
    await turn.finish(state)
    return state


async def _answers(ctx: RunContext, approvals: list[dict[str, Any]]) -> Any:
    """What people said to the calls that wait for them."""
    from pydantic_ai import DeferredToolResults, ToolApproved, ToolDenied

    results = DeferredToolResults()
    for call in approvals:
        answer = await ask(ctx, call["id"], call["name"], call["arguments"])
        if answer:
            edited = answer.arguments if answer.arguments != call["arguments"] else None
            results.approvals[call["id"]] = ToolApproved(override_args=edited)
        else:
            text = answer.reason or "The person denied this call."
            results.approvals[call["id"]] = ToolDenied(text)
    return results


def pydantic_messages(messages: list[Message]) -> tuple[list[Any], Any]:
    """The conversation before the question as pydantic-ai's messages, and the question: a text, a
    list of text and files, or None where the last message is not the user's. Raises
    `InputError`."""
    before, question = question_of(entries_of(messages))
    history = [_message(entry) for entry in before]
    return history, _prompt(question) if question is not None else None


def _prompt(entry: Entry) -> Any:
    return entry.text if not entry.files else [_content(part) for part in entry.parts]


def _content(part: Content) -> Any:
    """A part of the user's."""
    from pydantic_ai.messages import AudioUrl, BinaryContent, DocumentUrl, ImageUrl, VideoUrl

    if isinstance(part, TextPart):
        return part.text
    if not isinstance(part, FilePart):
        raise InputError(f"a user's message holds text and files, not a {type(part).__name__}")
    if part.url is None or part.data is not None:
        return BinaryContent(bytes_of(part, "pydantic-ai"), media_type=part.media_type)
    kinds = {"image": ImageUrl, "audio": AudioUrl, "video": VideoUrl}
    kind = kinds.get(part.media_type.partition("/")[0], DocumentUrl)
    return kind(part.url, media_type=part.media_type)


def _message(entry: Entry) -> Any:
    from pydantic_ai import messages as p

    if entry.role == "system":
        if entry.files:
            raise refused(entry.files[0], "a system message of pydantic-ai")
        return p.ModelRequest(parts=[p.SystemPromptPart(content=entry.text)])
    if entry.role == "user":
        return p.ModelRequest(parts=[p.UserPromptPart(content=_prompt(entry))])
    if entry.role == "tool":
        return p.ModelRequest(
            parts=[_result(part) for part in entry.parts if isinstance(part, ToolResultPart)]
        )
    return p.ModelResponse(parts=[_said(part) for part in entry.parts])


def _said(part: Content) -> Any:
    """A part of the assistant's."""
    from pydantic_ai import messages as p

    if isinstance(part, TextPart):
        return p.TextPart(content=part.text)
    if isinstance(part, ToolCallPart):
        arguments = arguments_object(part)
        return p.ToolCallPart(tool_name=part.name, args=arguments, tool_call_id=part.call_id)
    assert isinstance(part, FilePart)
    data = bytes_of(part, "pydantic-ai")
    return p.FilePart(content=p.BinaryContent(data, media_type=part.media_type))


def _result(part: ToolResultPart) -> Any:
    from pydantic_ai import messages as p

    return p.ToolReturnPart(
        tool_name=part.name,
        content=part.content,
        tool_call_id=part.call_id,
        outcome="failed" if part.is_error else "success",
    )


def _json_text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return _dumps(value).decode()


def _dumps(value: Any) -> bytes:
    from pydantic_core import to_json

    return to_json(value, fallback=str)
