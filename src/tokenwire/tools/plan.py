"""What is to happen with the calls of one step: run, ask a person, hand to the client, or refuse.

Always true: pure but for the user's own rules; every call of the step gets exactly one fate, so the
model gets an answer to each; nothing is asked or run that was not validated first.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from tokenwire.events.model import ApprovalAnswer, ApprovalRequest, ToolError
from tokenwire.tools.assemble import ToolCall
from tokenwire.tools.registry import Tool, ToolSet
from tokenwire.tools.schema import ArgumentsError

__all__ = [
    "Plan",
    "ToolLimits",
    "apply_answer",
    "approval_id",
    "approval_request",
    "check",
    "plan",
]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ToolLimits:
    """What tools of one run may cost, whatever the model wants."""

    #: Answers of the model in one run; stops a model that calls for ever.
    steps: int = 10
    #: Calls in one run.
    calls: int = 50
    #: Calls that run at the same time in one run.
    parallel: int = 8
    #: Seconds that a cancelled tool gets to clean up before it is left behind.
    grace: float = 0.5
    #: Characters of an error that the model and the client are told.
    error_text: int = 500


@dataclasses.dataclass(slots=True)
class Plan:
    """The fate of every call of a step; each list is in the model's order."""

    run: list[ToolCall] = dataclasses.field(default_factory=list)
    approve: list[ToolCall] = dataclasses.field(default_factory=list)
    client: list[ToolCall] = dataclasses.field(default_factory=list)
    refused: list[ToolError] = dataclasses.field(default_factory=list)

    @property
    def waits(self) -> bool:
        """Must the run wait for a person or for the client?"""
        return bool(self.approve or self.client)


def plan(
    tools: ToolSet,
    calls: Iterable[ToolCall],
    *,
    principal: str = "",
    calls_before: int = 0,
    limits: ToolLimits | None = None,
) -> Plan:
    """Sort the calls of a step. ``calls_before``: calls that earlier steps of the run made.
    Calls that the provider runs itself are left out: they are none of our business."""
    limits = limits or ToolLimits()
    found = Plan()
    seen: set[str] = set()
    for call in calls:
        if call.executor == "provider":
            continue
        calls_before += 1
        error: ToolError | None = None
        if calls_before > limits.calls:
            error = refusal(call, "too_many", f"a run may make {limits.calls} tool calls; stop")
        elif call.call_id in seen:
            error = refusal(call, "invalid_arguments", "two calls have the same id")
        checked = error or check(tools, call, principal=principal)
        seen.add(call.call_id)
        if isinstance(checked, ToolError):
            found.refused.append(checked)
        elif checked.asks(_mapping(call.arguments)):
            found.approve.append(call)
        elif checked.executor == "client":
            found.client.append(call)
        else:
            found.run.append(call)
    return found


def check(tools: ToolSet, call: ToolCall, *, principal: str = "") -> Tool | ToolError:
    """The tool that this call may run as it stands, or the error that the model is told."""
    if call.status != "complete":
        code = "truncated" if call.status == "truncated" else "invalid_arguments"
        return refusal(call, code, f"not run: {call.error or call.status}")
    found = tools.get(call.name)
    if found is None or not found.allows(principal):
        known = ", ".join(t.name for t in tools if t.allows(principal)) or "none"
        return refusal(
            call, "unknown_tool", f"no tool is called {call.name[:80]!r}; there are: {known[:400]}"
        )
    try:
        found.bind(call.arguments)
    except ArgumentsError as error:
        return refusal(call, "invalid_arguments", f"invalid arguments: {error}")
    except Exception as error:  # a validator of the user's own broke
        return refusal(call, "invalid_arguments", f"arguments refused: {type(error).__name__}")
    return found


def approval_id(call: ToolCall) -> str:
    """Binds a yes to this call with exactly these arguments; the same after a restart."""
    facts = [call.step, call.part, call.call_id, call.name, call.arguments]
    canonical = msgspec.json.encode(facts, order="sorted")
    return "apr_" + hashlib.sha256(canonical).hexdigest()[:32]


def approval_request(call: ToolCall, reason: str | None = None) -> ApprovalRequest:
    """The event that asks a person."""
    return ApprovalRequest(
        approval_id=approval_id(call),
        call_id=call.call_id,
        name=call.name,
        arguments=call.arguments,
        reason=reason,
    )


def apply_answer(
    tools: ToolSet, call: ToolCall, answer: ApprovalAnswer, *, principal: str = ""
) -> ToolCall | ToolError:
    """The call that may run now, or the error that the model is told: a no, an answer to other
    arguments than these, or edited arguments that do not fit."""
    if answer.approval_id != approval_id(call):
        return refusal(call, "denied", "the approval is not for these arguments")
    if not answer.approved:
        because = f": {answer.reason}" if answer.reason else ""
        return refusal(call, "denied", f"a person said no{because}"[:500])
    if answer.arguments is None:
        return call
    edited = msgspec.structs.replace(
        call,
        arguments=answer.arguments,
        arguments_text=msgspec.json.encode(answer.arguments).decode(),
    )
    checked = check(tools, edited, principal=principal)
    return checked if isinstance(checked, ToolError) else edited


def refusal(call: ToolCall, code: str, message: str) -> ToolError:
    """A call that did not run, as an event."""
    return ToolError(call_id=call.call_id, name=call.name, code=code, message=message)


def _mapping(arguments: Any) -> dict[str, Any]:
    return arguments if isinstance(arguments, dict) else {"input": arguments}
