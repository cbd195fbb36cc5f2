"""`tokenwire.stream_with_tools`: text and tool calls as plain dictionaries, from one generator.

Always true: text is yielded while it is written; each step's calls are yielded once, whole and in
the model's order; tools given as functions are run and the answer continues; a broken answer raises
its error at the end.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

import msgspec

from tokenwire.ask import ModelObject, stream
from tokenwire.errors import InputError
from tokenwire.events.message import Message, ToolCallPart, ToolResultPart, messages_of
from tokenwire.events.model import (
    ApprovalRequest,
    RunWait,
    StepEnd,
    StepReset,
    StepStart,
    TextDelta,
    ToolError,
    ToolResult,
)
from tokenwire.tools.calls.assemble import ToolCall, calls_of
from tokenwire.tools.registry import Tool, ToolSet

__all__ = ["stream_with_tools"]

Approve = Callable[[ApprovalRequest], bool | Awaitable[bool]]


async def stream_with_tools(
    messages: str | Iterable[Message | dict[str, Any]],
    tools: Iterable[Any] = (),
    *,
    model: str | ModelObject | Iterable[str | ModelObject] = "demo",
    approve: Approve | None = None,
    **options: Any,
) -> AsyncIterator[dict[str, Any]]:
    """Yield ``{"type": "content", "data": text}`` and, when a step ends with calls,
    ``{"type": "tool_calls", "data": [{"id", "function": {"name", "arguments"}}]}``.

    ``messages``: a text, or messages of this library or in the form of OpenAI's API. ``tools``:
    functions and `Tool` s, which are run, or declarations in the form of OpenAI's API, whose calls
    the caller runs: the generator ends after them. (Results of functions in the same step precede
    that end, as ``{"type": "tool_results", "data": [{"tool_call_id", "content"}]}``, so that every
    call can be returned with its result.) ``model``: as in `tokenwire.stream`. ``approve``: decides
    calls that need an approval; without it they are rejected. ``options``: those of
    `tokenwire.stream`.

    Raises `InputError` for an invalid message or tool, and whatever `Run.result` raises.
    """
    toolset = ToolSet(_tool(tool) for tool in tools)
    prompt = messages if isinstance(messages, str) else [_message(item) for item in messages]
    results: list[dict[str, Any]] = []
    own = toolset if len(toolset) else None
    async with stream(prompt, model=model, tools=own, **options) as run:
        async with aclosing(run.batches()) as batches:  # type: ignore[type-var]
            async for event in (event async for batch in batches for event in batch):
                if isinstance(event, TextDelta):
                    yield {"type": "content", "data": event.text}
                    continue
                if isinstance(event, StepStart | StepReset):
                    results = []
                elif isinstance(event, ToolResult | ToolError):
                    results.append(_result(event))
                if isinstance(event, StepEnd):
                    step = next(s for s in run.state.steps if s.step == event.step)
                    calls = _calls(calls_of(run.state, step))
                    if calls:
                        yield {"type": "tool_calls", "data": calls}
                elif isinstance(event, ApprovalRequest):
                    run.approve(event.approval_id, await _ask(approve, event))
                elif isinstance(event, RunWait) and event.reason == "client_tool":
                    if results:
                        yield {"type": "tool_results", "data": results}
                    return  # the other calls are the caller's to run
        await run.result()


async def _ask(approve: Approve | None, request: ApprovalRequest) -> bool:
    answer = False if approve is None else approve(request)
    return bool(await answer if inspect.isawaitable(answer) else answer)


def _calls(calls: list[ToolCall]) -> list[dict[str, Any]]:
    return [
        {"id": call.call_id, "function": {"name": call.name, "arguments": call.arguments_text}}
        for call in calls
        if call.runnable
    ]


def _result(event: ToolResult | ToolError) -> dict[str, Any]:
    content = event.content if isinstance(event, ToolResult) else event.message
    if not isinstance(content, str):
        content = msgspec.json.encode(content).decode()
    return {"tool_call_id": event.call_id, "content": content}


def _tool(value: Any) -> Any:
    """A declaration in the form of OpenAI's API becomes a tool that the caller runs."""
    if not isinstance(value, dict):
        return value
    function = value.get("function", value)
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InputError("a tool must be a function, a Tool, or {'type': 'function', ...}")
    return Tool.from_schema(
        function["name"],
        function.get("parameters") or {},
        description=str(function.get("description") or ""),
    )


def _message(item: Message | dict[str, Any]) -> Message:
    """A message of this library, or one in the form of OpenAI's API."""
    if not isinstance(item, dict) or not item.keys() & {"tool_calls", "tool_call_id"}:
        return messages_of([item])[0]
    content = item.get("content") or ""
    if "tool_call_id" in item:
        result = ToolResultPart(
            call_id=str(item["tool_call_id"]), content=content, name=str(item.get("name") or "")
        )
        return Message(role="tool", content=[result])
    parts: list[Any] = list(messages_of([{"role": "assistant", "content": content}])[0].parts)
    for call in item["tool_calls"] or []:
        try:
            function = call["function"]
            arguments = function.get("arguments") or "{}"
            if not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            parts.append(
                ToolCallPart(call_id=call["id"], name=function["name"], arguments=arguments)
            )
        except (KeyError, TypeError) as error:
            raise InputError("a tool call of a message needs 'id' and 'function'") from error
    return Message(role="assistant", content=parts)
