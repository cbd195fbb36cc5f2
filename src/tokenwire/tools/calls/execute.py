"""Run tool calls: bounded, timed, contained.

Always true: `execute` gives exactly one outcome a call and never raises but for its own
cancellation; whatever a tool does (hang, exit, end its thread, return too much) stays inside;
``tool-start`` has been taken by ``emit`` before the tool runs; nothing of a call is emitted after
its outcome.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final

from tokenwire.errors import TokenwireError
from tokenwire.events.model import (
    Event,
    ToolError,
    ToolOutput,
    ToolProgress,
    ToolResult,
    ToolStart,
)
from tokenwire.tools.calls.assemble import ToolCall
from tokenwire.tools.calls.outcome import BadResult, error_text, json_value
from tokenwire.tools.calls.running import Failed, Finished, Job, Slots, run_tool
from tokenwire.tools.check import ToolLimits, check, refusal
from tokenwire.tools.context import CallScope, Progress, ToolContext
from tokenwire.tools.per_call import with_values
from tokenwire.tools.registry import MODEL, Tool, ToolSet

__all__ = ["After", "Emit", "Outcome", "client_result", "execute"]

Outcome = ToolResult | ToolError
#: Takes an event on the event loop. What it returns, if awaitable, is awaited; for ``tool-start``
#: before the tool runs, so that a log can have it first.
Emit = Callable[[Event], Awaitable[Any] | None]
#: Takes what a tool returned, and returns what is to be seen of it.
After = Callable[[Tool, ToolCall, Outcome], Awaitable[Outcome]]

#: A loop that reports each turn must not fill the log: after so many reports only those count that
#: bring the bar further by a step that can be seen.
_MAX_REPORTS: Final = 500
_LEAST_STEP: Final = 0.002


async def execute(
    tools: ToolSet,
    call: ToolCall,
    *,
    emit: Emit,
    principal: str = "",
    limits: ToolLimits | None = None,
    scope: CallScope | None = None,
    after: After | None = None,
) -> Outcome:
    """Run one call and return its outcome, which was emitted as well. ``scope``: what the tool's
    context says of its run; ``after``: replaces what a tool returned before it is emitted, and
    what it raises is raised once the call has its end.

    Cancelling the task that awaits this cancels the tool, emits its ``tool-error`` with code
    ``cancelled``, and raises ``CancelledError`` again.
    """
    limits = limits or ToolLimits()
    tool = check(tools, call, principal=principal)
    if isinstance(tool, ToolError):
        await _emit(emit, tool)
        return tool
    if tool.function is None:
        error = refusal(call, "unknown_tool", f"{call.name!r} does not run on the server")
        await _emit(emit, error)
        return error
    return await _run(tool, call, emit, limits, scope or CallScope(principal=principal), after)


async def _run(
    tool: Tool,
    call: ToolCall,
    emit: Emit,
    limits: ToolLimits,
    scope: CallScope,
    after: After | None,
) -> Outcome:
    # Pieces of a result that is to be looked at first must not be seen before it.
    voice = _Voice(call, emit, tool.output_cap, is_quiet=after is not None)
    context = ToolContext(call.call_id, say=voice.say, scope=scope)
    slots = Slots.of(tool)
    if not await slots.take(tool.timeout):
        error = refusal(
            call, "busy", f"{tool.concurrency} calls of '{tool.name}' are still running"
        )
        await _emit(emit, error)
        return error
    try:
        arguments = tool.bind(call.arguments)
        await _emit(emit, _start_of(tool, call))
    except BaseException:
        slots.give()
        raise
    job = Job(
        **_bound(tool, arguments, context),
        context=context,
        say=voice.say,
        timeout=tool.timeout,
        grace=limits.grace,
        cap=tool.output_cap,
    )
    try:
        ended = await run_tool(job, slots)
        await voice.end()
        outcome = _outcome(tool, call, ended, voice, limits)
        if after is not None:
            outcome = await after(tool, call, outcome)
    except asyncio.CancelledError:
        await voice.end()
        await _emit(emit, refusal(call, "cancelled", "the run was cancelled"))
        raise
    except TokenwireError as error:  # of ``after``: what it should have looked at stays unseen
        await _emit(emit, refusal(call, error.code, "the result is withheld: " + error.message))
        raise
    await _emit(emit, outcome)
    return outcome


def _outcome(
    tool: Tool, call: ToolCall, ended: Finished | Failed, voice: _Voice, limits: ToolLimits
) -> Outcome:
    if voice.overflowed:
        message = f"the result is larger than {tool.output_cap} bytes; ask for less"
        return refusal(call, "oversize", message)
    if isinstance(ended, Failed):
        if ended.error is None:
            return refusal(call, "timeout", f"'{tool.name}' did not finish in {tool.timeout:g} s")
        if isinstance(ended.error, BadResult):
            return refusal(call, ended.error.code, str(ended.error))
        return refusal(call, "exception", error_text(ended.error, limits.error_text))
    try:
        content = json_value(ended.value, tool.output_cap)
    except BadResult as error:
        return refusal(call, error.code, str(error))
    except Exception as error:  # a result whose own methods are broken
        return refusal(call, "bad_result", error_text(error, limits.error_text))
    return ToolResult(call_id=call.call_id, name=call.name, content=content)


def client_result(tool: Tool, call: ToolCall, answer: ToolResult) -> Outcome:
    """A client tool's result, within the tool's own cap."""
    try:
        json_value(answer.content, tool.output_cap)
    except BadResult as error:
        return refusal(call, error.code, str(error))
    return answer


def _start_of(tool: Tool, call: ToolCall) -> ToolStart:
    return ToolStart(
        call_id=call.call_id,
        name=call.name,
        step=call.step,
        arguments=call.arguments,
        idempotent=tool.idempotent,
    )


def _bound(tool: Tool, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    kwargs = dict(arguments)
    args = [kwargs.pop(MODEL)] if MODEL in kwargs else []
    name = tool.signature.context
    if name is not None:
        kwargs[name] = context
    function = tool.function
    if function is not None and tool.signature.values:
        function = with_values(function, tool.signature.values, context)
    return {"function": function, "args": args, "kwargs": kwargs}


class _Voice:
    """Turns a tool's reports and text, from any thread, into events on the event loop.

    Reports that arrive before the loop handles them go out together, pieces of text as one, so that
    a tool with many small pieces floods neither the loop nor the log.
    """

    def __init__(self, call: ToolCall, emit: Emit, cap: int, *, is_quiet: bool = False) -> None:
        self._call = call
        self._emit = emit
        #: Only progress is emitted, and no text of it.
        self._is_quiet = is_quiet
        self._room = cap
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        #: Not emitted yet: reports, and runs of pieces of text.
        self._queue: list[Progress | list[str]] = []
        self._waits = False  # a call of `_tell` is on its way
        self._over = False
        self._reports = 0
        self._furthest = -1.0
        self._unsent: list[asyncio.Future[Any]] = []
        self.overflowed = False

    def say(self, what: Progress | str) -> None:
        """Emit it soon. May be called from any thread."""
        with self._lock:
            if self._over or self.overflowed:
                return
            self._keep(what)
            if self._waits:
                return
            self._waits = True
        try:
            self._loop.call_soon_threadsafe(self._tell)
        except RuntimeError:  # the loop is closed
            return

    def _keep(self, what: Progress | str) -> None:
        last = self._queue[-1] if self._queue else None
        if isinstance(what, str):
            self._room -= len(what)
            self.overflowed = self._room < 0
            if isinstance(last, list):
                last.append(what)
            elif what:
                self._queue.append([what])
        elif isinstance(last, Progress) and len(self._queue) > _MAX_REPORTS:
            self._queue[-1] = what
        else:
            self._queue.append(what)

    async def end(self) -> None:
        """Emit the rest, then nothing more; the sink has accepted all when this returns."""
        self._tell()
        with self._lock:
            self._over = True
        if self._unsent:
            await asyncio.gather(*self._unsent, return_exceptions=True)

    def _tell(self) -> None:
        with self._lock:
            if self._over:
                return
            queue, self._queue = self._queue, []
            self._waits = False
        for what in queue:
            if isinstance(what, Progress):
                self._report_progress(what)
            elif not self.overflowed and not self._is_quiet:
                text = "".join(what).encode("utf-8", "replace").decode()
                self._send(ToolOutput(call_id=self._call.call_id, text=text))

    def _report_progress(self, progress: Progress) -> None:
        fraction = _fraction(progress.fraction)
        self._reports += 1
        if self._reports > _MAX_REPORTS and (fraction or 0.0) < self._furthest + _LEAST_STEP:
            return
        self._furthest = max(self._furthest, fraction or 0.0)
        message = None if progress.message is None else str(progress.message)[:500]
        if self._is_quiet:
            message = None
        self._send(ToolProgress(call_id=self._call.call_id, fraction=fraction, message=message))

    def _send(self, event: Event) -> None:
        waiting = self._emit(event)
        if waiting is not None and inspect.isawaitable(waiting):
            self._unsent.append(asyncio.ensure_future(waiting))


def _fraction(value: Any) -> float | None:
    if not isinstance(value, int | float) or value != value:
        return None
    return min(1.0, max(0.0, float(value)))


async def _emit(emit: Emit, event: Event) -> None:
    waiting = emit(event)
    if waiting is not None and inspect.isawaitable(waiting):
        await waiting
