"""Between two model calls: run the requested tools, wait for approvals and client tools.

Always true: the reader (and so the log) accepts a ``tool-start`` before its tool runs; a call
that has a result never runs again; every call ends in exactly one ``tool-result`` or
``tool-error``; an approval is valid only for the arguments that were displayed, and in its time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from typing import TYPE_CHECKING, Any

import msgspec

from tokenwire.errors import HookError
from tokenwire.events.fold import Fold, StepState
from tokenwire.events.model import (
    ApprovalAnswer,
    ApprovalRequest,
    Error,
    Event,
    RunWait,
    ToolError,
    ToolResult,
    ToolStart,
)
from tokenwire.observe import tracing
from tokenwire.observe.facts import ToolRan
from tokenwire.observe.hooks import report
from tokenwire.run.expiry import Expiry, Send, denied_call, expires_at
from tokenwire.run.hooks.hook import Hook
from tokenwire.run.hooks.tools import review, revise
from tokenwire.run.inbox import Inbox
from tokenwire.run.plan import Plan
from tokenwire.tools.calls.assemble import ToolCall, calls_of
from tokenwire.tools.calls.execute import Outcome, client_result, execute
from tokenwire.tools.check import check, refusal
from tokenwire.tools.context import CallScope

if TYPE_CHECKING:
    from tokenwire.tools.registry import Tool, ToolSet

__all__ = ["ToolPhase", "open_tools"]


_log = logging.getLogger("tokenwire.run")


def open_tools(fold: Fold) -> set[str]:
    """The names of tools that a run's last step called and that have no result yet."""
    if not fold.steps or fold.steps[-1].status != "complete":
        return set()
    finished = {call_id for call_id, tool in fold.tools.items() if tool.done}
    return {call.name for call in calls_of(fold, fold.steps[-1]) if call.call_id not in finished}


class ToolPhase:
    """The tool calls of one run, step by step. ``tools``: those that its principal may use;
    ``send``: gives the run a decision of its own."""

    def __init__(
        self, plan: Plan, tools: ToolSet | None, inbox: Inbox, fold: Fold, send: Send
    ) -> None:
        self._plan, self._inbox, self._fold = plan, inbox, fold
        self._tools = tools
        self._expiry = Expiry(plan.run, fold, send)
        #: Calls of the step that still need a result.
        self.pending: dict[str, ToolCall] = {}
        #: The step has calls that are ours to answer.
        self.called = False
        #: Every call of the step has its result; the next model call will carry them.
        self.all_answered = False
        #: The run must end after this phase: a call is for the caller, or in doubt.
        self.stop = False
        #: A lost worker had started this non-idempotent call; its outcome is unknown.
        self.in_doubt: str | None = None
        self._events: list[Event] = []
        self._receipts: list[asyncio.Future[None]] = []
        #: Approvals that have an answer, which the fold may not contain yet.
        self._answered_approvals: set[str] = set()
        self._wake: asyncio.Event = asyncio.Event()
        #: Why the run must end as an error: a hook failed.
        self.failure: HookError | None = None
        #: Calls that a hook has decided about, or their outcome without running.
        self._decisions: list[ToolCall | ToolResult | ToolError] = []
        self._before: Hook | None = plan.hooks.before_tool if plan.hooks is not None else None
        self._after: Hook | None = plan.hooks.after_tool if plan.hooks is not None else None
        self._scope = CallScope(
            run=plan.run,
            thread=plan.thread,
            principal=plan.principal,
            metadata=plan.metadata or {},
            app=plan.app,
        )
        #: Calls that a lost worker had started.
        self._restarted: set[str] = set()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(plan.limits.parallel)

    def look(self, step: StepState) -> None:
        """Load the calls of a finished step."""
        finished = {c for c, tool in self._fold.tools.items() if tool.done}
        calls = [c for c in calls_of(self._fold, step) if c.executor != "provider"]
        self.pending = {c.call_id: c for c in calls if c.call_id not in finished}
        self.called = bool(calls)
        self.all_answered = self.called and not self.pending
        if any(self._is_callers(c) for c in self.pending.values()):
            # The caller executes this tool: the answer ends here, with its calls.
            self.pending = {}

    def refuse(self, code: str, message: str) -> list[Event]:
        """A ``tool-error`` for every pending call; none of them may run any more."""
        calls, self.pending = list(self.pending.values()), {}
        return [
            ToolError(call_id=c.call_id, code=code, message=message, name=c.name) for c in calls
        ]

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """Run the pending calls; ends when each has its result, or at a stop or cancel."""
        try:
            first, starts = self._sort()
            if first:
                yield first
            if self.stop:
                return
            self._start(starts)
            while self.pending and self._inbox.cancelled is None and self.failure is None:
                if not self._running:
                    waiting = self._waiting_for()
                    if not waiting:
                        break
                    if self._fold.waiting != waiting.pending:
                        yield [waiting]
                starts = []
                await self._until_something()
                batch, receipts = self._drain()
                batch.extend(self._decided(starts))
                for command in self._inbox.take():
                    batch.extend(self._apply(command, starts))
                if batch:
                    yield batch
                for receipt in receipts:
                    if not receipt.done():
                        receipt.set_result(None)
                self._start(starts)
            batch, _ = self._drain()
            if batch:
                yield batch
            if self._inbox.cancelled is not None or self.failure is not None:
                self.stop = True
                yield await self._stop_tools()
        finally:
            for task in self._running.values():
                task.cancel()

    # --- sorting -------------------------------------------------------------------------------

    def _sort(self) -> tuple[list[Event], list[ToolCall]]:
        """First events of the phase, and the calls that may start at once."""
        events: list[Event] = []
        starts: list[ToolCall] = []
        count = sum(1 for t in self._fold.tools.values() if t.started or t.done)
        for call in list(self.pending.values()):
            state = self._fold.tools.get(call.call_id)
            count += 1
            refused = self._refusal(call, count)
            if refused is not None:
                events.append(refused)
                del self.pending[call.call_id]
                continue
            tool = self._tool(call)
            if tool is None:
                continue  # a tool of the request's own: the client sends the result
            if state is not None and state.started:
                if not state.idempotent:
                    return [*events, self._doubt(call)], []
                self._restarted.add(call.call_id)
                starts.append(self._edited(call, state.arguments))
            elif state is not None and state.approved:
                self._allowed(self._edited(call, state.approval_arguments), starts)
            elif state is not None and state.approval_id is not None:
                self.pending[call.call_id] = self._edited(call, state.approval_arguments)
            elif self._before is not None and self._runs_here(tool, call):
                self._task(call, self._review(self._before, tool, call))
            else:
                events.extend(self._admit(tool, call, starts))
        return events, starts

    def _admit(self, tool: Tool, call: ToolCall, starts: list[ToolCall]) -> list[Event]:
        """A call that is to run as it stands: the question to a person, or its start."""
        self.pending[call.call_id] = call
        if tool.asks(call.arguments if isinstance(call.arguments, dict) else {}):
            return [self._ask(tool, call)]
        self._allowed(call, starts)
        return []

    def _decided(self, starts: list[ToolCall]) -> list[Event]:
        """What the decisions of ``before_tool`` lead to."""
        decisions, self._decisions = self._decisions, []
        events: list[Event] = []
        for decision in decisions:
            self._running.pop(decision.call_id, None)
            tool = self._tool(decision) if isinstance(decision, ToolCall) else None
            if isinstance(decision, ToolCall) and tool is not None:
                events.extend(self._admit(tool, decision, starts))
            elif not isinstance(decision, ToolCall):
                self.pending.pop(decision.call_id, None)
                events.append(decision)
        return events

    def _allowed(self, call: ToolCall, starts: list[ToolCall]) -> None:
        """A call that may run: here, or where its client is, which is waited for."""
        tool = self._tool(call)
        self.pending[call.call_id] = call
        if tool is not None and self._runs_here(tool, call):
            starts.append(call)

    def _runs_here(self, tool: Tool, call: ToolCall) -> bool:
        return tool.executor == "server" and call.executor != "client"

    def _refusal(self, call: ToolCall, count: int) -> ToolError | None:
        """Why a call may not run at all, as what the model will see."""
        code = message = ""
        if not call.runnable:
            code, message = "invalid_arguments", call.error or "the call is not complete"
        elif count > self._plan.limits.calls:
            code = "too_many"
            message = f"this run may call at most {self._plan.limits.calls} tools"
        elif self._tool(call) is None and not self._is_clients(call):
            code, message = "unknown_tool", f"unknown tool '{call.name}'"
        if not code and self._tools is not None and self._tool(call) is not None:
            # Validate first: no approval and no client call for arguments that cannot run.
            checked = check(self._tools, call, principal=self._plan.principal)
            return checked if isinstance(checked, ToolError) else None
        if not code:
            return None
        return ToolError(call_id=call.call_id, code=code, message=message, name=call.name)

    def _tool(self, call: ToolCall) -> Tool | None:
        return self._tools.get(call.name) if self._tools is not None else None

    def _is_callers(self, call: ToolCall) -> bool:
        """Whether the tool is one of the request's own, which we neither run nor wait for."""
        if self._tool(call) is not None:
            return False
        specs = {s.name: s for s in self._plan.request.tools or []}
        if call.name not in specs:
            return self._tools is None
        return specs[call.name].executor == "server"

    def _is_clients(self, call: ToolCall) -> bool:
        specs = {s.name: s for s in self._plan.request.tools or []}
        return call.name in specs and specs[call.name].executor == "client"

    def _ask(self, tool: Tool, call: ToolCall) -> ApprovalRequest:
        return ApprovalRequest(
            approval_id=f"ap_{call.call_id}",
            call_id=call.call_id,
            name=call.name,
            arguments=call.arguments,
            expires=expires_at(tool.approval_timeout, self._plan.limits.approval_timeout),
        )

    def _doubt(self, call: ToolCall) -> Error:
        self.stop, self.in_doubt = True, call.call_id
        return Error(
            scope="tool",
            code="tool_in_doubt",
            message=f"a lost worker had started '{call.name}'; whether it took effect is "
            "unknown, so it is not started again",
        )

    # --- running -------------------------------------------------------------------------------

    def _start(self, calls: list[ToolCall]) -> None:
        for call in calls:
            self._task(call, self._run(call))

    def _task(self, call: ToolCall, work: Coroutine[Any, Any, None]) -> None:
        name = f"tool '{call.name}' of run {self._plan.run}"
        self._running[call.call_id] = asyncio.create_task(work, name=name)

    async def _review(self, hook: Hook, tool: Tool, call: ToolCall) -> None:
        """Let ``before_tool`` decide about a call."""
        async with self._gate:
            try:
                self._decisions.append(await review(hook, tool, call, self._scope))
            except HookError as error:
                self.failure = error
            except Exception as error:
                self.failure = hook.failure(self._plan.run, error)
        # It stays among the running ones until the decision is taken: it waits for no client.
        self._wake.set()

    async def _revised(self, tool: Tool, call: ToolCall, outcome: Outcome) -> Outcome:
        hook = self._after
        if hook is None:
            return outcome
        restart = call.call_id in self._restarted
        try:
            return await revise(hook, tool, call, outcome, self._scope, restart=restart)
        except HookError as error:
            self.failure = error
            raise
        except Exception as error:
            self.failure = hook.failure(self._plan.run, error)
            raise self.failure from None

    async def _run(self, call: ToolCall) -> None:
        tools = self._tools
        if tools is None:
            return
        begun, plan = time.monotonic(), self._plan
        async with self._gate:
            try:
                with tracing.tool_span(
                    plan.run, plan.operation, call.name, call.call_id, call.arguments
                ):
                    outcome = await execute(
                        tools,
                        call,
                        emit=self._emit,
                        principal=plan.principal,
                        scope=self._scope,
                        after=self._revised if self._after is not None else None,
                    )
            except HookError as error:  # the call has its end; the run is about to have its own
                outcome = refusal(call, error.code, error.message)
            except Exception:  # an internal fault must not leave the call without its end
                _log.exception("run %s: the call of '%s' failed inside", self._plan.run, call.name)
                outcome = refusal(call, "exception", "internal error; see the server's log")
                self._emit(outcome)
        code = outcome.code if isinstance(outcome, ToolError) else "ok"
        seconds = time.monotonic() - begun
        content = outcome.message if isinstance(outcome, ToolError) else outcome.content
        tracing.capture_result(plan.run, plan.operation, call.call_id, content)
        report(ToolRan(plan.run, call.name, code, seconds, plan.operation, call.call_id))
        self.pending.pop(call.call_id, None)
        self._running.pop(call.call_id, None)
        self._wake.set()

    def _emit(self, event: Event) -> asyncio.Future[None] | None:
        """Queue a tool's event. For a ``tool-start`` the returned future resolves once the reader
        has it."""
        self._events.append(event)
        self._wake.set()
        if not isinstance(event, ToolStart):
            return None
        receipt: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receipts.append(receipt)
        return receipt

    def _drain(self) -> tuple[list[Event], list[asyncio.Future[None]]]:
        events, receipts = self._events, self._receipts
        self._events, self._receipts = [], []
        self._wake.clear()
        return events, receipts

    async def _stop_tools(self) -> list[Event]:
        """Cancel running tools; returns their last events and an error for every other call."""
        code, why = "cancelled", "the run was cancelled"
        if self._inbox.cancelled is None and self.failure is not None:
            code, why = self.failure.code, "the run ended with an error"
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=2.0)
        events, _ = self._drain()
        ended = {e.call_id for e in events if isinstance(e, ToolResult | ToolError)}
        events += [
            ToolError(
                call_id=call.call_id,
                code=code,
                message=f"{why} before this call had a result",
                name=call.name,
            )
            for call in self.pending.values()
            if call.call_id not in ended
        ]
        return events

    async def _until_something(self) -> None:
        """Wait for an event of a tool, a command, a cancel, or the end of an approval's time."""
        if self._events:
            return
        sources = {
            asyncio.ensure_future(self._wake.wait()),
            asyncio.ensure_future(self._inbox.wait()),
        }
        try:
            seconds = self._expiry.seconds(self.pending)
            await asyncio.wait(sources, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if seconds is not None:
                await self._expiry.end_due(self.pending)
        finally:
            for source in sources:
                source.cancel()

    # --- waiting -------------------------------------------------------------------------------

    def _waiting_for(self) -> RunWait | None:
        approvals: list[str] = []
        clients: list[str] = []
        for call in self.pending.values():
            state = self._fold.tools.get(call.call_id)
            if state is not None and state.approval_id and state.approved is None:
                approvals.append(state.approval_id)
            elif call.call_id not in self._running:
                clients.append(call.call_id)
        if approvals:
            return RunWait(reason="approval", pending=[*approvals, *clients])
        return RunWait(reason="client_tool", pending=clients) if clients else None

    def _apply(self, command: Any, starts: list[ToolCall]) -> list[Event]:
        """One command's events; calls that may start now are added to ``starts``."""
        if isinstance(command, ToolResult | ToolError):
            return self._clients_answer(command)
        if not isinstance(command, ApprovalAnswer):
            return [command]
        call = self.pending.get(command.call_id)
        state = self._fold.tools.get(command.call_id)
        if call is None or state is None or command.approval_id != state.approval_id:
            return []
        if command.approval_id in self._answered_approvals:
            return []
        self._answered_approvals.add(command.approval_id)
        if state.approved is not None:
            return []  # the first answer won
        if not command.approved:
            del self.pending[command.call_id]
            return [command, denied_call(call.call_id, call.name, command)]
        self._allowed(self._edited(call, command.arguments), starts)
        return [command]

    def _clients_answer(self, answer: ToolResult | ToolError) -> list[Event]:
        """The result of a client tool, if the run is waiting for that call."""
        call = self.pending.get(answer.call_id)
        state = self._fold.tools.get(answer.call_id)
        asked = state is not None and state.approval_id is not None and not state.approved
        if call is None or answer.call_id in self._running or asked:
            return []
        tool = self._tool(call)
        if tool is not None and tool.executor == "server":
            return []  # only the server reports results of its own tools
        del self.pending[answer.call_id]
        answer.name = call.name
        if tool is not None and isinstance(answer, ToolResult):
            return [client_result(tool, call, answer)]
        return [answer]

    def _edited(self, call: ToolCall, arguments: Any) -> ToolCall:
        if arguments is None or arguments == call.arguments:
            return call
        text = msgspec.json.encode(arguments).decode()
        return msgspec.structs.replace(call, arguments=arguments, arguments_text=text)
