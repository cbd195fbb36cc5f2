"""`tokenwire.stream`: a prompt, a model and their options, as a `Run`.

Always true: a registry of the caller is read and never changed; each run on the demo model keeps
the demo's server open by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, runtime_checkable

from tokenwire.errors import UnknownModelError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.request import Request, request_of
from tokenwire.providers.http.client import ByteStream, HttpClient
from tokenwire.providers.registry import Registry
from tokenwire.run.buffer import BufferLimits
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.plan import LoopLimits, Plan
from tokenwire.run.step_request import stop_rule
from tokenwire.run.stream import Run, new_run_id

if TYPE_CHECKING:
    from tokenwire.providers.base import Call, Dialect, Target

__all__ = ["ModelObject", "stream"]

P = ParamSpec("P")
R = TypeVar("R")
#: Keywords of the past -> the present ones.
_RENAMED = {
    "buffer_events": "buffer=BufferLimits(events=...)",
    "buffer_bytes": "buffer=BufferLimits(bytes=...)",
    "buffer_policy": "buffer=BufferLimits(policy=...)",
}


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


def _names_new_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Calls of the past raise a `TypeError` that names the present form."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs.keys() & _RENAMED.keys():
            raise TypeError(f"stream() has no '{name}'; use {_RENAMED[name]}")
        if len(args) > 1:
            raise TypeError("stream() takes the model by name: stream(prompt, model=...)")
        return function(*args, **kwargs)

    return checked


@_names_new_keywords
def stream(
    prompt: str | Message | dict[str, Any] | Iterable[Message | dict[str, Any]],
    *,
    model: str | ModelObject | Iterable[str | ModelObject],
    system: str | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    stop: str | list[str] | None = None,
    seed: int | None = None,
    tools: Iterable[Any] | None = None,
    tool_choice: str | None = None,
    parallel_tool_calls: bool | None = None,
    stop_when: str | Iterable[str] | Callable[[Fold], bool] | None = None,
    output: Any = None,
    output_by: Literal["auto", "provider", "tool"] = "auto",
    reasoning: str | int | None = None,
    extra: dict[str, Any] | None = None,
    deadlines: Deadlines | None = None,
    retry: RetryPolicy | None = None,
    limits: LoopLimits | None = None,
    buffer: BufferLimits | None = None,
    registry: Registry | None = None,
    http: HttpClient | None = None,
) -> Run:
    """One answer while it is written: ``async with stream("Hello", model="demo") as run: ...``.

    ``prompt``: a text, a message, or a conversation.
    ``model``: a name such as ``openai:gpt-5``, ``demo`` or ``http://127.0.0.1:8080/v1#name``, or a
    model object; of several, the next is called when one fails before any visible output.

    ``system``: system prompt. ``temperature``: 0 to 2. ``top_p``: 0 to 1. ``max_tokens``: of the
    answer. ``stop``: texts that end the answer. ``seed``: for repeatable answers. ``reasoning``:
    an effort (``low``, ``medium``, ``high``) or a budget in tokens. ``extra``: fields merged into
    the provider's request body.

    ``tools``: functions or `Tool` s, run while streaming. ``tool_choice``: ``auto``, ``none``,
    ``required`` or the name of the tool that the first step must call. ``parallel_tool_calls``:
    whether one step may call several. ``stop_when``: names of tools, or a function of the run so
    far; the run ends after a step in which one of them gave a result, or for which the function
    returns True.

    ``output``: a pydantic model or a JSON Schema for the answer; the validated value is
    ``(await run.result()).output``. ``output_by``: request it by the provider's own mechanism, or
    by a tool (``auto``: by a tool where the provider takes no schema).

    ``deadlines`` (seconds), ``retry``, ``limits`` (of the tool loop), ``buffer`` (between model and
    reader): their defaults are those of the classes. ``registry``: the models that names refer to.
    ``http``: a client to share connections between runs.

    Raises `InputError` for an invalid prompt or option, `UnknownModelError`, and `ConfigError` for
    a missing key, at once; network and provider errors while reading.
    """
    request = request_of(
        prompt,
        system=system,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        stop=stop,
        seed=seed,
        tool_choice=tool_choice,
        parallel_tool_calls=parallel_tool_calls,
        reasoning=reasoning,
        extra=extra,
    )
    models = _Models(model, registry or Registry())
    toolset = _tool_set(tools)
    read: Callable[[Fold], Any] | None = None
    if output is not None:
        schemaless = any("json_object_only" in target.quirks for _, target in models.candidates)
        by_tool = output_by == "tool" or (output_by == "auto" and schemaless)
        request, read = _shaped(request, output, by_tool, bool(toolset))
    plan = Plan(
        run=new_run_id(),
        request=request,
        candidates=models.candidates,
        model=models.names[0],
        deadlines=deadlines or Deadlines(),
        retry=retry or RetryPolicy(),
        limits=limits or LoopLimits(),
        tools=toolset,
        stop_when=stop_rule(stop_when),
    )
    return Run(
        plan,
        http=lambda: models.transport(http),
        own_http=http is None or bool(models.objects),
        buffer=buffer or BufferLimits(),
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
