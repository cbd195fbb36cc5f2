"""What the hooks around a tool see and decide.

Always true: what a hook changes is a copy until its decision is checked; arguments that a hook
changed fit the tool, or the call does not run; a result that a hook saw is JSON within the tool's
cap.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NoReturn

import msgspec

from tokenwire.errors import CallRefusedError, HookError
from tokenwire.events.model import ToolError, ToolResult
from tokenwire.events.principal import parts_of
from tokenwire.run.hooks.hook import Hook
from tokenwire.tools.calls.assemble import ToolCall
from tokenwire.tools.calls.execute import Outcome
from tokenwire.tools.calls.outcome import BadResult, json_value
from tokenwire.tools.check import refusal
from tokenwire.tools.context import CallScope
from tokenwire.tools.registry import Tool
from tokenwire.tools.schema import ArgumentsError

__all__ = ["CallAnswer", "CallRequest", "CallResult", "review", "revise"]

#: Characters of a refusal or an error text.
_MOST_TEXT = 500


@dataclasses.dataclass(frozen=True)
class CallAnswer:
    """A result in place of the tool's: any JSON value."""

    content: Any


@dataclasses.dataclass(kw_only=True)
class CallRequest:
    """A tool call that is about to start. ``arguments``: a copy, which ``before_tool`` may change;
    the rest is to be read. ``call_id`` is the same when the hook is called again for the call
    after a worker was lost. ``is_restart``: a lost worker had started the tool (``after_tool``
    only; such a call had its ``before_tool``)."""

    call_id: str
    name: str
    arguments: Any
    step: int
    run: str
    thread: str | None
    principal: str
    metadata: dict[str, Any]
    #: The host's own object: ``Live(app=...)``.
    app: Any
    is_restart: bool = False

    @property
    def user(self) -> str:
        """The plain id of the principal who started the run, without its tenant."""
        return parts_of(self.principal)[0]

    @property
    def tenant(self) -> str | None:
        """The tenant of the principal; None without one."""
        return parts_of(self.principal)[1]

    def refuse(self, message: str) -> NoReturn:
        """Refuse the call; the model sees ``message`` as the tool's error. Raises
        `CallRefusedError`."""
        raise CallRefusedError(message)

    def answer(self, content: Any) -> CallAnswer:
        """Return this from ``before_tool``: the tool does not run, ``content`` (a JSON value) is
        its result."""
        return CallAnswer(content)


@dataclasses.dataclass(kw_only=True)
class CallResult:
    """What a tool returned: ``content``, a JSON value. Of a call that failed ``error`` is its code
    (``exception``, ``timeout``, ...) and ``content`` the text. ``after_tool`` may change both, or
    return another content."""

    content: Any
    error: str | None = None


async def review(hook: Hook, tool: Tool, call: ToolCall, scope: CallScope) -> ToolCall | Outcome:
    """The call as ``before_tool`` lets it run, or its outcome without running. Raises
    `HookError`."""
    request = _request(call, scope)
    try:
        decision = await hook.call(scope.run, request, passes=CallRefusedError)
    except CallRefusedError as error:
        return refusal(call, "denied", error.message[:_MOST_TEXT] or "refused")
    if isinstance(decision, CallAnswer):
        content = _json(hook, scope, tool, decision.content)
        return ToolResult(call_id=call.call_id, name=call.name, content=content)
    if decision is not None and decision is not request:
        raise hook.failure(
            scope.run,
            TypeError(
                f"before_tool returned {type(decision).__name__}; return None, or call.answer(...)"
            ),
        )
    if request.arguments == call.arguments:
        return call
    arguments = _json(hook, scope, tool, request.arguments)
    changed = msgspec.structs.replace(
        call, arguments=arguments, arguments_text=msgspec.json.encode(arguments).decode()
    )
    try:
        tool.bind(arguments)
    except (ArgumentsError, ValueError, TypeError) as error:
        raise hook.failure(scope.run, error) from None
    return changed


async def revise(
    hook: Hook, tool: Tool, call: ToolCall, outcome: Outcome, scope: CallScope, *, restart: bool
) -> Outcome:
    """The outcome as ``after_tool`` lets it be seen. Raises `HookError`."""
    failed = isinstance(outcome, ToolError)
    result = CallResult(
        content=outcome.message if failed else copy.deepcopy(outcome.content),
        error=outcome.code if failed else None,
    )
    request = _request(call, scope, restart=restart)
    returned = await hook.call(scope.run, request, result, passes=HookError)
    content = result.content if returned is None or returned is result else returned
    if result.error is not None:
        text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
        return refusal(call, str(result.error)[:64], text[:_MOST_TEXT])
    content = _json(hook, scope, tool, content)
    return ToolResult(call_id=call.call_id, name=call.name, content=content)


def _request(call: ToolCall, scope: CallScope, *, restart: bool = False) -> CallRequest:
    return CallRequest(
        call_id=call.call_id,
        name=call.name,
        arguments=copy.deepcopy(call.arguments),
        step=call.step,
        run=scope.run,
        thread=scope.thread,
        principal=scope.principal,
        metadata=scope.metadata,
        app=scope.app,
        is_restart=restart,
    )


def _json(hook: Hook, scope: CallScope, tool: Tool, value: Any) -> Any:
    try:
        return json_value(value, tool.output_cap)
    except BadResult as error:
        raise hook.failure(scope.run, error) from None
