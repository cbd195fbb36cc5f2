"""`tokenwire.stream`: what a user gives, as a `Run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal

from tokenwire.errors import UnknownModelError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.request import Request, request_of
from tokenwire.run.buffer import Policy
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.plan import LoopLimits, Plan
from tokenwire.run.step_request import stop_rule
from tokenwire.run.stream import Run, as_list, new_run_id

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.providers.registry import Registry

__all__ = ["stream"]


def stream(
    model: str | Iterable[str],
    prompt: str | Message | Iterable[Message | dict[str, Any]],
    *,
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
    buffer_events: int = 100,
    buffer_bytes: int = 256 * 1024,
    buffer_policy: Policy = "wait",
    registry: Registry | None = None,
    http: HttpClient | None = None,
) -> Run:
    """An answer, as it is written: ``async with stream("demo", "Hello") as run: ...``.

    ``model``: a name such as ``openai:gpt-5``, ``demo`` or ``http://127.0.0.1:8080/v1#name``; of
    several, the next one is called when one fails before any visible output. ``prompt``: a
    text, a message, or a conversation. ``tools``: functions or `Tool` s, run while streaming.
    ``tool_choice``: ``auto``, ``none``, ``required`` or the name of the tool that the first step
    must call. ``stop_when``: names of tools, or a function of the run so far; the run ends after
    a step in which one of them gave a result, or for which the function returns True.

    ``output``: a pydantic model or a JSON Schema that the answer must fit; the validated value is
    ``(await run.result()).output``. ``output_by``: ask for it by the provider's mechanism, or by a
    tool that must be called (auto: by a tool where the provider takes no schema). ``extra``: fields
    for this provider only, merged into the request. Raises `InputError` and `UnknownModelError`
    at once; what the network does, later.
    """
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.providers.registry import Registry

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
    names = _names(model)
    resolver = registry or Registry()
    stack = AsyncExitStack()
    candidates = [resolver.resolve(name) for name in names if name != "demo"]
    toolset = _tool_set(tools)
    read: Callable[[Fold], Any] | None = None
    if output is not None:
        schemaless = any("json_object_only" in target.quirks for _, target in candidates)
        by_tool = output_by == "tool" or (output_by == "auto" and schemaless)
        request, read = _shaped(request, output, by_tool, bool(toolset))

    async def prepare(plan: Plan) -> Callable[[], Any]:
        """Start the demo model when it is among the models."""
        if "demo" in names and not resolver.has_demo:
            from tokenwire.demo import demo_server

            resolver.demo_url = await stack.enter_async_context(demo_server())
        plan.candidates = [resolver.resolve(name) for name in names]
        return stack.aclose

    plan = Plan(
        run=new_run_id(),
        request=request,
        candidates=candidates,
        model=names[0],
        deadlines=deadlines or Deadlines(),
        retry=retry or RetryPolicy(),
        limits=limits or LoopLimits(),
        tools=toolset,
        stop_when=stop_rule(stop_when),
    )
    return Run(
        plan,
        http=(lambda: http) if http is not None else HttpClient,
        own_http=http is None,
        buffer_events=buffer_events,
        buffer_bytes=buffer_bytes,
        buffer_policy=buffer_policy,
        prepare=prepare,
        output=read,
    )


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
