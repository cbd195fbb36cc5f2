"""May this call run as it stands? The last question before a tool starts, or a person is asked.

Always true: nothing runs that was not validated here; who may not use a tool is told what somebody
is told for whom it does not exist.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tokenwire.errors import InputError
from tokenwire.events.model import ToolError
from tokenwire.tools.calls.assemble import ToolCall
from tokenwire.tools.registry import Tool, ToolSet
from tokenwire.tools.schema import ArgumentsError

__all__ = ["ToolLimits", "check", "check_edited", "refusal"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ToolLimits:
    """What one call may cost beside its tool's own limits."""

    #: Seconds that a cancelled tool gets to clean up before it is left behind.
    grace: float = 0.5
    #: Characters of an error that the model and the client are told.
    error_text: int = 500


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


def check_edited(tools: ToolSet | None, name: str, arguments: dict[str, Any]) -> None:
    """Whether arguments that a person edited fit the tool. Raises `InputError` that says where
    not, so that the question stays open and can be answered again."""
    found = tools.get(name) if tools is not None else None
    if found is None:
        return
    try:
        found.bind(arguments)
    except ArgumentsError as error:
        raise InputError(f"the edited arguments do not fit: {error}", field="arguments") from None


def refusal(call: ToolCall, code: str, message: str) -> ToolError:
    """A call that did not run, as an event."""
    return ToolError(call_id=call.call_id, name=call.name, code=code, message=message)
