"""The request of a step: the conversation so far, the tools, the tool choice, the ids of calls.

Always true: pure; each tool is listed once; a forced choice applies to the first step only, unless
a tool call carries the answer itself; the last step must answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message, ToolCallPart
from tokenwire.events.model import PartAttr, ToolCallStart
from tokenwire.events.request import Request, ToolSpec
from tokenwire.tools.structured import OUTPUT_TOOL

__all__ = ["earlier_calls", "own_call_id", "step_request", "stop_rule"]


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
    rule: str | Iterable[str] | Callable[[Fold], bool] | None,
) -> Callable[[Fold], bool] | None:
    """A rule that ends a run after a step's calls: unchanged, or from names of tools, one of
    which must have a result. Raises `InputError` for an async function."""
    if inspect.iscoroutinefunction(rule):
        raise InputError(
            "'stop_when' must be a plain function, not an async one", field="stop_when"
        )
    if rule is None or callable(rule):
        return rule
    names = {rule} if isinstance(rule, str) else set(rule)
    return lambda fold: any(
        tool.name in names and tool.done and tool.error is None for tool in fold.tools.values()
    )


def earlier_calls(request: Request) -> Collection[str]:
    """The ids of calls that the conversation has before the run begins."""
    calls = {p.call_id for m in request.messages for p in m.parts if isinstance(p, ToolCallPart)}
    return calls or ()


def own_call_id(event: ToolCallStart | PartAttr, fold: Fold, earlier: Collection[str]) -> None:
    """Make the call id of ``event`` unique within the run so far (``fold``) and its conversation
    (``earlier``), in the log and in later requests: some servers number their calls from the start
    in each answer."""
    if isinstance(event, ToolCallStart):
        call_id = event.call_id if event.executor != "provider" else ""
    else:
        call_id = event.value if event.name == "call_id" else ""
    used_ids = {
        part.attrs.get("call_id")
        for number, part in fold.parts.items()
        if part.kind == "tool-call" and number != event.part
    }
    used_ids |= set(earlier)
    if not call_id or call_id not in used_ids:
        return
    count = 2
    while f"{call_id}-{count}" in used_ids:
        count += 1
    if isinstance(event, ToolCallStart):
        event.call_id, event.id_source = f"{call_id}-{count}", "synthetic"
    else:
        event.value = f"{call_id}-{count}"
