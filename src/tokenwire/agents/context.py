"""What an agent has: the request, and the ways to do recorded work and to be heard.

Always true: `progress`, `data` and `state` return at once and may be called from any thread; after
the agent has ended they say nothing any more; what readers have from before a crash is not sent
again.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar, overload

import msgspec

from tokenwire.agents.approvals import Approval, denial, recorded_approval
from tokenwire.agents.engine import AgentEngine
from tokenwire.agents.forms import arguments_digest, check_name, encoded, plain, value_of
from tokenwire.agents.journal import Operation, digest_of
from tokenwire.agents.outlet import Source
from tokenwire.agents.streams import AgentStream
from tokenwire.agents.threads import in_thread
from tokenwire.errors import AgentError, InputError, StepError
from tokenwire.events.json_patch import diff, same
from tokenwire.events.message import Message
from tokenwire.events.model import (
    Agent,
    ApprovalAnswer,
    ApprovalRequest,
    Data,
    Event,
    RunProgress,
    SharedState,
    StepEnd,
    StepReset,
    StepStart,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
    ToolResult,
)
from tokenwire.events.principal import parts_of
from tokenwire.events.request import Request, request_of
from tokenwire.exits import is_by_signal
from tokenwire.run.expiry import expires_at
from tokenwire.run.plan_for import plan_for

__all__ = ["Approval", "RunContext"]

T = TypeVar("T")

#: Options of `RunContext.stream` that are not fields of its request.
_PLANNED = "registry tools stop_when output output_by deadlines retry limits".split()
#: Events that an agent may not send itself.
_RESERVED = frozenset(
    "run-start run-end run-claim run-wait checkpoint control heartbeat step-reset log-reset "
    "approval-request approval-answer".split()
)


class RunContext:
    """One run, as its agent sees it; the ``engine`` of the run makes it."""

    def __init__(self, engine: AgentEngine) -> None:
        plan = engine.plan
        #: For drivers of frameworks.
        self.engine = engine
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._closed = False
        self._shared: Any = engine.fold.shared
        #: The run's id.
        self.run: str = plan.run
        self.request: Request = plan.request
        #: The name of the principal who started the run, tenant included, as it is stored.
        self.principal: str = plan.principal
        self.thread: str | None = plan.thread
        self.metadata: dict[str, Any] = plan.metadata or {}
        #: The host's own object: ``Live(app=...)``.
        self.app: Any = plan.app

    @property
    def user(self) -> str:
        """The plain id of the principal who started the run, without its tenant."""
        return parts_of(self.principal)[0]

    @property
    def tenant(self) -> str | None:
        """The tenant of the principal; None without one."""
        return parts_of(self.principal)[1]

    @property
    def messages(self) -> list[Message]:
        """The conversation that the run began with."""
        return self.request.messages

    @property
    def prompt(self) -> str:
        """The text of the last message of the user."""
        users = [m for m in self.request.messages if m.role == "user"]
        return users[-1].text if users else ""

    @property
    def cancelled(self) -> bool:
        """Whether somebody stopped the run: finish soon."""
        return self.engine.inbox.cancelled is not None

    # --- to be heard -----------------------------------------------------------------------------

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """The progress of the run: ``fraction`` from 0 to 1 (None: unknown), and a ``message``.
        Raises `InputError` for a message that is no text."""
        if fraction is not None:
            fraction = min(1.0, max(0.0, float(fraction)))
        if message is not None and not isinstance(message, str):
            raise InputError(f"the message of a progress must be a text, not {message!r:.80}")
        self._say(RunProgress(fraction=fraction, message=message))

    def data(
        self,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,  # noqa: A002 - the event's own word
        transient: bool = False,
    ) -> None:
        """A fact ``name`` of the application with a JSON value as ``payload``; the same ``id``
        replaces; a ``transient`` one is no part of the message. Raises `InputError` for a value
        without a JSON form."""
        check_name(name, "data")
        if id is not None:
            check_name(id, "the id of data")
        self._say(Data(name=name, payload=plain(payload), id=id, transient=transient))

    def state(self, value: Any) -> None:
        """Replace the shared state by ``value``, a JSON value; readers receive the difference.
        Raises `InputError` for a value without a JSON form."""
        self._on_loop(self._share, plain(value))

    async def say(self, text: str) -> None:
        """Send ``text`` of the answer; the same as yielding it."""
        self._check_loop()
        if not self.engine.journal.is_replaying:
            self.engine.spoke()
            await self.engine.outlet.say(text)

    async def emit(self, *events: Event) -> None:
        """Send ``events`` of `tokenwire.events`; their part numbers are adapted to the run. An
        `Error` is how the run ends, after all else: its outcome is ``error``."""
        await self._emit(self.engine.outlet.own, list(events))

    def speaker(self, agent: Agent) -> Source:
        """A speaker for `emit_as`, named by ``agent``, with its own part numbers and ids."""
        source = self.engine.source(None)
        source.agent = agent
        return source

    async def emit_as(self, speaker: Source, events: list[Event]) -> None:
        """Send ``events`` of one ``speaker``."""
        await self._emit(speaker, events)

    # --- recorded work ---------------------------------------------------------------------------

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        *args: Any,
        idempotent: bool = False,
        **keywords: Any,
    ) -> Any:
        """Call ``function`` with ``args`` and ``keywords`` once, as the step ``name``: after a
        crash the recorded value is returned, and the function is not called again. The value must
        have a JSON form, and is returned in that form.

        A blocking function runs in a thread. ``idempotent``: whether it may be called again when a
        crash left it open; otherwise the run then ends as ``interrupted``. Raises `StepError` with
        the message of the function's exception, also when that is given from the record.
        """
        engine = self.engine
        check_name(name, "a step")
        self._check_loop()
        operation = await engine.enter("step", name, arguments_digest(name, args, keywords))
        if operation.is_finished:
            await self._close_step(operation)
            return value_of(operation)
        step = self._recorded_step(operation)
        attempt = 1
        if step:
            if not idempotent:
                await engine.interrupt(
                    "step_in_doubt",
                    f"step '{name}' was begun by a worker that was lost; whether it took effect is "
                    "unknown, so it is not done again",
                )
            attempt = next(s.attempt for s in engine.fold.steps if s.step == step) + 1
            engine.outlet.task(StepReset(step=step, attempt=attempt, reason="restart"))
        start = StepStart(
            step=step, kind="task", name=name, attempt=attempt, operation=operation.number
        )
        step = engine.outlet.task(start)
        await engine.outlet.put(engine.outlet.own, [], durable=True)
        return await self._perform(operation, step, function, args, keywords)

    async def _perform(
        self,
        operation: Operation,
        step: int,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> Any:
        engine = self.engine
        try:
            if inspect.iscoroutinefunction(function):
                value = await function(*args, **keywords)
            else:
                value = await in_thread(function, *args, **keywords)
                if inspect.isawaitable(value):
                    value = await value
            data = encoded(value)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # also SystemExit: it is this step that failed
            if is_by_signal(error):
                raise
            await engine.journal.fail(operation, str(error) or type(error).__name__)
            engine.outlet.task(StepEnd(step=step, status="error"))
            raise StepError(operation.error or "") from error
        await engine.journal.finish(operation, data)
        end = StepEnd(step=step, status="complete", terminal_seen=True, size=len(data))
        engine.outlet.task(end)
        return value_of(operation)

    def stream(
        self,
        prompt: Any = None,
        messages: Any = None,
        *,
        model: Any = None,
        visible: bool = True,
        name: str | None = None,
        **options: Any,
    ) -> AgentStream:
        """A model's answer, as `tokenwire.stream` gives it, sent to the readers while it is read:
        ``ctx.stream(prompt, model="openai:gpt-5")``, or the name of the ``model`` first and then
        the ``messages``. Without ``prompt`` or ``messages`` it is the conversation of the run.
        ``visible``: False for answers that nobody should read; they take no tools. ``name``: of the
        step, default the model's; ``options``: those of `tokenwire.stream`. Raises `InputError`,
        `UnknownModelError`."""
        if model is None:
            model, prompt = prompt, messages
        if not visible and options.get("tools") is not None:
            raise InputError("an answer that is not visible takes no tools")
        own = {name: options.pop(name) for name in _PLANNED if name in options}
        plan = self.engine.plan
        request = request_of(self.messages if prompt is None else prompt, **options)
        planned = plan_for(
            request,
            model,
            **{
                "run": plan.run,
                "registry": plan.registry,
                "deadlines": plan.deadlines,
                "retry": plan.retry,
                "limits": plan.limits,
                **own,
            },
        )
        planned.plan.belong_to(plan)
        return AgentStream(
            self.engine,
            planned,
            name=name or planned.plan.model,
            digest=digest_of(planned.plan.model, planned.plan.request, visible),
            visible=visible,
        )

    async def request_approval(
        self,
        name: str,
        arguments: Any = None,
        *,
        reason: str | None = None,
        timeout: float | None = None,
    ) -> Approval:
        """Wait for a person's decision, also across restarts of the server. The question appears as
        a call of the tool ``name`` with ``arguments`` on every wire; ``reason`` explains it.
        ``timeout``: seconds after which, without a decision, the result is not approved, with the
        reason ``expired`` (or the run's own, where that is shorter); the clock runs on while no
        process is there. Raises `InputError` for
        arguments without a JSON form."""
        engine = self.engine
        if timeout is not None and not timeout > 0:
            raise InputError(f"the timeout of an approval must be more than 0 s, not {timeout!r}")
        check_name(name, "an approval")
        self._check_loop()
        arguments = plain(arguments if arguments is not None else {})
        at = expires_at(timeout, engine.plan.limits.approval_timeout)
        expires = None if at is None else at / 1000
        operation = await engine.enter("approval", name, digest_of(arguments), expires=expires)
        call_id = f"approval_{operation.number}"
        approval_id = f"ap_{call_id}"
        tool = engine.fold.tools.get(call_id)
        if tool is None or tool.approval_id is None:
            await self._ask(operation, name, arguments, call_id, reason)
        elif tool.approved is not None:
            edited = tool.approval_arguments
            answer = recorded_approval(operation)
            by = answer.by if answer is not None else None
            return Approval(
                approved=tool.approved, arguments=edited, by=by, reason=tool.approval_reason
            )
        answer = recorded_approval(operation)
        if answer is None:
            reply = await engine.approvals.wait(approval_id, call_id, operation.expires)
            edited = reply.arguments if reply.arguments is not None else arguments
            answer = Approval(
                approved=reply.approved, arguments=edited, by=reply.by, reason=reply.reason
            )
            await engine.journal.finish(operation, msgspec.json.encode(answer))
        await self._resolve(call_id, name, answer, edited=answer.arguments != arguments)
        return answer

    # --- inside ----------------------------------------------------------------------------------

    def close(self) -> None:
        """The agent has ended: its threads are heard no more."""
        self._closed = True

    async def _ask(
        self, operation: Operation, name: str, arguments: Any, call_id: str, reason: str | None
    ) -> None:
        source = self.engine.source(operation.number)
        source.calls[call_id] = source.local[call_id] = call_id  # also if it was asked before
        text = msgspec.json.encode(arguments).decode()
        events: list[Event] = [
            StepStart(step=1, kind="agent", name=name),
            ToolCallStart(part=0, name=name, call_id=call_id, id_source="synthetic"),
            ToolCallDelta(part=0, text=text),
            ToolCallEnd(part=0, arguments=arguments, size=len(text.encode())),
            StepEnd(step=1, status="complete", terminal_seen=True),
            ApprovalRequest(
                approval_id=f"ap_{call_id}",
                call_id=call_id,
                name=name,
                arguments=arguments,
                reason=reason,
                expires=None if operation.expires is None else int(operation.expires * 1000),
            ),
        ]
        parts = self.engine.fold.parts.values()
        if any(part.attrs.get("call_id") == call_id for part in parts):
            events = events[-1:]  # a worker was lost between the call and its question
        await self.engine.outlet.put(source, events, durable=True)

    async def _resolve(self, call_id: str, name: str, answer: Approval, *, edited: bool) -> None:
        reply_event = ApprovalAnswer(
            approval_id=f"ap_{call_id}",
            call_id=call_id,
            approved=answer.approved,
            by=answer.by,
            reason=answer.reason,
            arguments=copy.deepcopy(answer.arguments) if edited else None,
        )
        end: Event = ToolResult(call_id=call_id, name=name, content={"approved": True})
        if not answer.approved:
            end = denial(call_id, name, answer.reason)
        await self.engine.outlet.put(self.engine.outlet.own, [reply_event, end], durable=True)

    async def _close_step(self, operation: Operation) -> None:
        """The end of a step whose value was stored when its worker was lost."""
        step = self._recorded_step(operation)
        if step in self.engine.order.tasks:
            failed = operation.error is not None
            status = "error" if failed else "complete"
            size = 0 if operation.value is None else len(operation.value.encode())
            self.engine.outlet.task(
                StepEnd(step=step, status=status, terminal_seen=not failed, size=size)
            )

    def _recorded_step(self, operation: Operation) -> int:
        steps = self.engine.fold.steps
        return next((s.step for s in steps if s.operation == operation.number), 0)

    async def _emit(self, source: Source, events: list[Event]) -> None:
        self._check_loop()
        if self._closed:
            return
        for event in events:
            if event.type in _RESERVED:
                raise InputError(f"an agent may not send '{event.type}'")
        events = self.engine.outlet.hold(events)  # also while the agent repeats itself
        if events and not self.engine.journal.is_replaying:
            self.engine.spoke()
            await self.engine.outlet.put(source, events)

    def _check_loop(self) -> None:
        if threading.get_ident() != self._thread:
            raise AgentError(
                "what the context gives to await belongs to the event loop of the run; from a "
                "thread call progress, data or state"
            )

    def _say(self, event: Event) -> None:
        self._on_loop(self._say_now, event)

    def _say_now(self, event: Event) -> None:
        engine = self.engine
        if self._closed or engine.journal.is_replaying:
            return
        if isinstance(event, Data) and engine.journal.was_sent(event):
            return
        engine.outlet.emit(engine.outlet.own, [event])

    def _share(self, value: Any) -> None:
        if self._closed or self.engine.journal.is_replaying:
            return
        if self._shared is None:
            event = SharedState(snapshot=value)
        elif same(self._shared, value):
            return
        else:
            patch = diff(self._shared, value)
            shorter = len(msgspec.json.encode(patch)) < len(msgspec.json.encode(value))
            event = SharedState(patch=patch) if shorter else SharedState(snapshot=value)
        self._shared = value
        self.engine.outlet.emit(self.engine.outlet.own, [event])

    @overload
    def _on_loop(self, function: Callable[[T], None], argument: T) -> None: ...
    @overload
    def _on_loop(self, function: Callable[[Any], None], argument: Any) -> None: ...
    def _on_loop(self, function: Callable[[Any], None], argument: Any) -> None:
        if threading.get_ident() == self._thread:
            function(argument)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, argument)
