"""`tokenwire.stream`: a prompt, a model (or an agent) and their options, as a `Run`.

Always true: a registry of the caller is read and never changed; each run on the demo model keeps
the demo's server open by itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal, ParamSpec, TypeVar

from tokenwire.errors import InputError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.request import Request, request_of
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.registry import Registry
from tokenwire.run.buffer import BufferLimits
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.plan import LoopLimits, Plan
from tokenwire.run.plan_for import ModelObject, plan_for
from tokenwire.run.stream import Run, new_run_id

__all__ = ["ModelObject", "stream"]

P = ParamSpec("P")
R = TypeVar("R")
#: Keywords of the past -> the present ones.
_RENAMED = {
    "buffer_events": "buffer=BufferLimits(events=...)",
    "buffer_bytes": "buffer=BufferLimits(bytes=...)",
    "buffer_policy": "buffer=BufferLimits(policy=...)",
}


def _names_new_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Calls of the past raise a `TypeError` that names the present form."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs.keys() & _RENAMED.keys():
            raise TypeError(f"stream() has no '{name}'; use {_RENAMED[name]}")
        if len(args) == 2 and not isinstance(args[0], str | list | tuple | dict | Message):
            kwargs["model"] = args[0]  # stream(agent, prompt)
            return function(args[1], **kwargs)  # type: ignore[call-arg]
        if len(args) > 1:
            raise TypeError("stream() takes the model by name: stream(prompt, model=...)")
        return function(*args, **kwargs)

    return checked


@_names_new_keywords
def stream(
    prompt: str | Message | dict[str, Any] | Iterable[Message | dict[str, Any]],
    *,
    model: Any,
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
    model object; of several, the next is called when one fails before any visible output. Or an
    agent: a function made by `tokenwire.agent`, or an object of a framework; then the options of
    the answer's shape and tools are the agent's own matter.

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
    agent = _agent(model)
    if agent is not None:
        if tools is not None or output is not None or stop_when is not None:
            raise InputError("an agent has tools and an output of its own; leave them out here")
        plan = _agent_plan(agent, request, registry, deadlines, retry, limits)
        return Run(
            plan,
            http=lambda: http or HttpClient(),
            own_http=http is None,
            buffer=buffer or BufferLimits(),
        )
    planned = plan_for(
        request,
        model,
        registry=registry,
        tools=tools,
        stop_when=stop_when,
        output=output,
        output_by=output_by,
        deadlines=deadlines,
        retry=retry,
        limits=limits,
    )
    return Run(
        planned.plan,
        http=lambda: planned.transport(http),
        own_http=http is None or planned.own_transport,
        buffer=buffer or BufferLimits(),
        prepare=planned.prepare,
        output=planned.output,
    )


def _agent(model: object) -> Any:
    """The agent that ``model`` is; None for a model."""
    if isinstance(model, str | list | tuple | ModelObject):
        return None
    from tokenwire.agents.load import agent_of

    return agent_of(model)


def _agent_plan(
    agent: Any,
    request: Request,
    registry: Registry | None,
    deadlines: Deadlines | None,
    retry: RetryPolicy | None,
    limits: LoopLimits | None,
) -> Plan:
    return Plan(
        run=new_run_id(),
        request=request,
        candidates=[],
        model=agent.name,
        deadlines=deadlines or Deadlines(),
        retry=retry or RetryPolicy(),
        limits=limits or LoopLimits(),
        agent=agent,
        registry=registry or Registry(),
    )
