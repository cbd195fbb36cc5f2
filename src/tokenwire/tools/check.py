"""Validation of a call before its tool starts or an approval is requested.

Always true: nothing runs that was not validated here; a tool that a principal may not use looks
to it like a tool that does not exist.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tokenwire.errors import InputError
from tokenwire.events.model import ToolError
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.tools.calls.assemble import ToolCall
from tokenwire.tools.registry import Tool, ToolSet
from tokenwire.tools.schema import ArgumentsError

__all__ = ["ToolLimits", "check", "check_edited", "refusal"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ToolLimits:
    """What one call may cost beside its tool's own limits."""

    #: Seconds that a cancelled tool gets to clean up before it is left behind.
    grace: float = 0.5
    #: Characters of an error message for the model and the client.
    error_text: int = 500


def check(tools: ToolSet, call: ToolCall, *, principal: str = "") -> Tool | ToolError:
    """The tool that this call may run as it stands, or the error for the model."""
    if call.status != "complete":
        code = "truncated" if call.status == "truncated" else "invalid_arguments"
        return refusal(call, code, f"not run: {call.error or call.status}")
    tool = tools.get(call.name)
    if tool is None or not tool.allows(principal):
        names = ", ".join(t.name for t in tools if t.allows(principal)) or "none"
        return refusal(
            call, "unknown_tool", f"unknown tool {call.name[:80]!r}; available: {names[:400]}"
        )
    try:
        tool.bind(call.arguments)
    except ArgumentsError as error:
        return refusal(call, "invalid_arguments", f"invalid arguments: {error}")
    except (Exception, *EXITS) as error:  # a validator of the user's own broke
        if is_by_signal(error):
            raise
        return refusal(call, "invalid_arguments", f"arguments refused: {type(error).__name__}")
    return tool


def check_edited(tools: ToolSet | None, name: str, arguments: dict[str, Any]) -> None:
    """Check arguments that a person edited. Raises `InputError` that names the mismatch; the
    approval stays open and can be answered again."""
    tool = tools.get(name) if tools is not None else None
    if tool is None:
        return
    try:
        tool.bind(arguments)
    except ArgumentsError as error:
        raise InputError(f"the edited arguments do not fit: {error}", field="arguments") from None


def refusal(call: ToolCall, code: str, message: str) -> ToolError:
    """A call that did not run, as an event."""
    return ToolError(call_id=call.call_id, name=call.name, code=code, message=message)
