"""The plan of one answer, from what a caller of `tokenwire.stream` passes.

Always true: names and values are checked at once; the network is not touched before the plan is
prepared; a registry of the caller is read and never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import msgspec

from tokenwire.errors import UnknownModelError
from tokenwire.events.fold import Fold
from tokenwire.events.request import Request
from tokenwire.providers.http.client import ByteStream, HttpClient
from tokenwire.providers.registry import Registry
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.plan import LoopLimits, Plan
from tokenwire.run.step_request import stop_rule
from tokenwire.run.stream import new_run_id

if TYPE_CHECKING:
    from tokenwire.providers.base import Call, Dialect, Target

__all__ = ["ModelObject", "Planned", "plan_for"]


@runtime_checkable
class ModelObject(Protocol):
    """A model given as an object, such as `tokenwire.testing.ScriptedModel`, instead of a name."""

    name: str

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        """The dialect that it speaks, and the address that its calls carry."""
        ...

    async def open(self, call: Call, *, connect_timeout: float) -> ByteStream:
        """The response to a call."""
        ...


class Planned(msgspec.Struct, kw_only=True):
    """A plan, the client of its calls, what must be awaited before it runs (it returns the
    cleanup), and how its answer is read as a value."""

    plan: Plan
    transport: Callable[[HttpClient | None], HttpClient]
    #: Whether its calls need a client of their own.
    own_transport: bool
    prepare: Callable[[Plan], Any]
    output: Callable[[Fold], Any] | None = None


def plan_for(
    request: Request,
    model: object,
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
) -> Planned:
    """The plan of ``request``; the other arguments are `tokenwire.stream`'s. Raises `InputError`,
    `UnknownModelError`, `ConfigError`."""
    models = _Models(model, registry or Registry())
    toolset = _tool_set(tools)
    read: Callable[[Fold], Any] | None = None
    if output is not None:
        schemaless = any("json_object_only" in target.quirks for _, target in models.candidates)
        by_tool = output_by == "tool" or (output_by == "auto" and schemaless)
        request, read = _shaped(request, output, by_tool, bool(toolset))
    plan = Plan(
        run=run or new_run_id(),
        request=request,
        candidates=models.candidates,
        model=models.names[0],
        deadlines=deadlines or Deadlines(),
        retry=retry or RetryPolicy(),
        limits=limits or LoopLimits(),
        tools=toolset,
        stop_when=stop_rule(stop_when),
    )
    return Planned(
        plan=plan,
        transport=models.transport,
        own_transport=bool(models.objects),
        prepare=models.prepare,
        output=read,
    )


class _Models:
    """The models of one run: names of a registry, and model objects."""

    def __init__(self, model: object, registry: Registry) -> None:
        self._registry = registry
        self._items = _as_list(model)
        self.names = [item if isinstance(item, str) else item.name for item in self._items]
        #: Base URL -> the model object that answers its calls.
        self.objects: dict[str, ModelObject] = {}
        #: Without the demo model as long as its server does not run.
        self.candidates = [
            self._resolve(item, registry) for item in self._items if not self._needs_demo(item)
        ]

    async def prepare(self, plan: Plan) -> Callable[[], Any]:
        """Start the demo model, if it is among the models. Returns what stops it."""
        stack = AsyncExitStack()
        if any(map(self._needs_demo, self._items)):
            from tokenwire.demo import demo_server

            demo = Registry(demo_url=await stack.enter_async_context(demo_server()), env={})
            plan.candidates = [
                self._resolve(item, demo if self._needs_demo(item) else self._registry)
                for item in self._items
            ]
        return stack.aclose

    def transport(self, http: HttpClient | None) -> HttpClient:
        """The client of the run; it passes calls of model objects to them."""
        if not self.objects:
            return http or HttpClient()
        return _Transport(self.objects, http)

    def _needs_demo(self, item: str | ModelObject) -> bool:
        return item == "demo" and not self._registry.has_demo

    def _resolve(self, item: str | ModelObject, registry: Registry) -> tuple[Dialect, Target]:
        if isinstance(item, str):
            return registry.resolve(item)
        dialect, target = item.resolve(item.name)
        self.objects[target.base_url] = item
        return dialect, target


class _Transport(HttpClient):
    """Calls of model objects go to them, all others to the network."""

    def __init__(self, objects: dict[str, ModelObject], http: HttpClient | None) -> None:
        super().__init__()
        self._objects, self._http = objects, http

    async def open(self, call: Call, *, connect_timeout: float) -> ByteStream:
        for url, item in self._objects.items():
            if call.url.startswith(f"{url}/"):
                return await item.open(call, connect_timeout=connect_timeout)
        if self._http is not None:
            return await self._http.open(call, connect_timeout=connect_timeout)
        return await super().open(call, connect_timeout=connect_timeout)


def _as_list(model: object) -> list[str | ModelObject]:
    """The model or models of a caller. Raises `UnknownModelError` for anything else."""
    one = isinstance(model, str | ModelObject)
    items: list[Any] = [model] if one else list(model) if isinstance(model, Iterable) else []
    if not items or not all(isinstance(item, str | ModelObject) for item in items):
        raise UnknownModelError(
            f"the model must be a name, a model object, or a list of these, not {model!r:.80}"
        )
    return items


def _shaped(
    request: Request, output: Any, by_tool: bool, among_tools: bool
) -> tuple[Request, Callable[[Fold], Any]]:
    """The request that asks for a shape, and how the run's answer is read."""
    from tokenwire.tools.structured import structured

    shape = structured(output)
    shaped = shape.request(request, by_tool=by_tool, among_tools=among_tools)
    return shaped, shape.read_answer


def _tool_set(tools: Iterable[Any] | None) -> Any:
    if tools is None:
        return None
    from tokenwire.tools.registry import ToolSet

    return ToolSet.of(tools)
