"""What a step asks the model: the conversation so far, the tools that it may call, and whether it
must.

Always true: pure; a tool is told of once; a forced choice is for the first step only, unless the
answer itself is given by a tool; the last step must answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.message import Message, ToolCallPart
from tokenwire.events.request import Request, ToolSpec
from tokenwire.tools.structured import OUTPUT_TOOL

__all__ = ["earlier_calls", "step_request", "stop_rule"]


def step_request(
    request: Request, history: list[Message], own: list[ToolSpec], *, last: bool
) -> Request:
    """The request of the step that comes after ``history``. ``own``: the run's tools, which win
    over the request's of the same names. ``last``: no further step may follow."""
    changes: dict[str, Any] = {}
    if history:
        changes["messages"] = [*request.messages, *history]
    tools = request.tools or []
    if own:
        names = {spec.name for spec in own}
        tools = changes["tools"] = [*(t for t in tools if t.name not in names), *own]
    answer = [spec for spec in tools if spec.name == OUTPUT_TOOL]
    if last and answer:
        changes |= {"tools": answer, "tool_choice": OUTPUT_TOOL}
    elif last and tools:
        changes["tool_choice"] = "none"
    elif history and not answer and request.tool_choice not in (None, "auto", "none"):
        changes["tool_choice"] = "auto"
    return msgspec.structs.replace(request, **changes) if changes else request


def stop_rule(
    given: str | Iterable[str] | Callable[[Fold], bool] | None,
) -> Callable[[Fold], bool] | None:
    """A rule that ends a run after a step's calls: as it is, or from names of tools, of which one
    must have given a result."""
    if given is None or callable(given):
        return given
    names = {given} if isinstance(given, str) else set(given)
    return lambda fold: any(
        tool.name in names and tool.done and tool.error is None for tool in fold.tools.values()
    )


def earlier_calls(request: Request) -> set[str]:
    """The ids of calls that the conversation has before the run begins."""
    return {p.call_id for m in request.messages for p in m.parts if isinstance(p, ToolCallPart)}
