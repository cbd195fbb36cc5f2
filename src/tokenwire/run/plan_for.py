"""The plan of one answer, from what a caller of `tokenwire.stream` passes.

Always true: names and values are checked at once; the network is not touched before the plan is
prepared.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from tokenwire.errors import UnknownModelError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.request import Request, request_of
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.plan import LoopLimits, Plan
from tokenwire.run.step_request import stop_rule
from tokenwire.run.stream import as_list, new_run_id

if TYPE_CHECKING:
    from tokenwire.providers.registry import Registry

__all__ = ["Planned", "plan_for"]


class Planned(msgspec.Struct, kw_only=True):
    """A plan; what must be awaited before it runs (it returns the cleanup); how its answer is read
    as a value."""

    plan: Plan
    prepare: Callable[[Plan], Any]
    output: Callable[[Fold], Any] | None = None


def plan_for(
    model: str | Iterable[str],
    prompt: str | Message | Iterable[Message | dict[str, Any]],
    *,
    run: str | None = None,
    registry: Registry | None = None,
    tools: Iterable[Any] | None = None,
    stop_when: str | Iterable[str] | Callable[[Fold], bool] | None = None,
    output: Any = None,
    output_by: Literal["auto", "provider", "tool"] = "auto",
    deadlines: Deadlines | None = None,
    retry: RetryPolicy | None = None,
    limits: LoopLimits | None = None,
    **request: Any,
) -> Planned:
    """The plan. ``request``: the fields of a request, as `tokenwire.stream` takes them. Raises
    `InputError` and `UnknownModelError`."""
    from tokenwire.providers.registry import Registry

    asked = request_of(prompt, **request)
    names = _names(model)
    resolver = registry or Registry()
    stack = AsyncExitStack()
    candidates = [resolver.resolve(name) for name in names if name != "demo"]
    toolset = _tool_set(tools)
    read: Callable[[Fold], Any] | None = None
    if output is not None:
        schemaless = any("json_object_only" in target.quirks for _, target in candidates)
        by_tool = output_by == "tool" or (output_by == "auto" and schemaless)
        asked, read = _shaped(asked, output, by_tool, bool(toolset))

    async def prepare(plan: Plan) -> Callable[[], Any]:
        """Start the demo model when it is among the models."""
        if "demo" in names and not resolver.has_demo:
            # By name: the demo stands above, and nothing here may depend on the simulator.
            demo = importlib.import_module("tokenwire.demo")
            resolver.demo_url = await stack.enter_async_context(demo.demo_server())
        plan.candidates = [resolver.resolve(name) for name in names]
        return stack.aclose

    plan = Plan(
        run=run or new_run_id(),
        request=asked,
        candidates=candidates,
        model=names[0],
        deadlines=deadlines or Deadlines(),
        retry=retry or RetryPolicy(),
        limits=limits or LoopLimits(),
        tools=toolset,
        stop_when=stop_rule(stop_when),
    )
    return Planned(plan=plan, prepare=prepare, output=read)


def _shaped(
    request: Request, output: Any, by_tool: bool, among_tools: bool
) -> tuple[Request, Callable[[Fold], Any]]:
    """The request that asks for a shape, and how the run's answer is read."""
    from tokenwire.tools.structured import structured

    shape = structured(output)
    shaped = shape.request(request, by_tool=by_tool, among_tools=among_tools)
    return shaped, shape.read_answer


def _names(model: str | Iterable[str]) -> list[str]:
    names: list[Any] = as_list(model) if isinstance(model, Iterable) else [model]
    if not names or not all(isinstance(name, str) for name in names):
        raise UnknownModelError(f"the model must be a name, or a list of names, not {model!r:.80}")
    return names


def _tool_set(tools: Iterable[Any] | None) -> Any:
    if tools is None:
        return None
    from tokenwire.tools.registry import ToolSet

    return ToolSet.of(tools)
