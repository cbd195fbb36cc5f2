"""A run whose events an agent makes: the engine beside `run.loop.Loop`.

Always true: what comes out has passed `events.order`; the run ends in exactly one ``run-end``,
whatever the agent does; a cancel is written before what it causes, and reaches the agent and all of
its model calls at once; an agent that waits for a person after a restart is not run before there is
an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Protocol

from tokenwire.agents.approvals import Approvals
from tokenwire.agents.clock import WorkClock
from tokenwire.agents.journal import Journal, Operation
from tokenwire.agents.outlet import Outlet, Source
from tokenwire.agents.resumption import last_failure, voids
from tokenwire.errors import (
    AgentError,
    DeadlineError,
    OrderError,
    ReplayError,
    StepError,
    TokenwireError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import (
    ApprovalAnswer,
    Error,
    Event,
    RunBudget,
    RunOutcome,
    StepStart,
)
from tokenwire.events.order import Order, closing
from tokenwire.events.reasons import INCOMPLETE_REASONS
from tokenwire.exits import guarded_tasks, is_by_signal
from tokenwire.observe import tracing
from tokenwire.observe.endings import run_ended
from tokenwire.observe.hooks import report
from tokenwire.run.call.reading import Sink
from tokenwire.run.call.spending import BUDGET, Gate
from tokenwire.run.coalesce import merge
from tokenwire.run.conversation import CONVERSATION
from tokenwire.run.engine import Abandon, AgentWork, Setup, stop_work
from tokenwire.run.failure import failed_end
from tokenwire.run.inbox import Command

__all__ = ["AgentEngine"]

_log = logging.getLogger("tokenwire.agents")

#: Seconds that a cancelled agent gets to clean up.
GRACE = 1.0
#: What agents have begun, and runs that end here stop.
_stops: set[asyncio.Task[None]] = set()


class Stream(Protocol):
    """A model's answer that the agent has open."""

    def command(self, command: Command) -> bool:
        """Pass a command on, if it is for this answer; whether it is."""
        ...

    def leave(self) -> None:
        """Return after the running tools."""
        ...


class AgentEngine:
    """One run of the agent ``name``, which is ``work``. Use `batches` once."""

    def __init__(
        self,
        name: str,
        work: Callable[[AgentEngine], Awaitable[None]],
        setup: Setup,
        *,
        title: str = "agent",
        abandon: Abandon | None = None,
    ) -> None:
        self.name, self._work, self._setup = name, work, setup
        self._abandon = abandon
        self._title = f"{title} '{name}'"
        self.plan, self.http, self.inbox = setup.plan, setup.http, setup.inbox
        self.order = setup.order or Order()
        self.fold = setup.fold or Fold()
        self._leaving = False
        #: Whether a framework's loop is under way, which no other worker can go on with as it is.
        self.in_turn = False
        self.sink: Sink | None = None
        self.journal = Journal(setup.documents)
        self.outlet = Outlet(self.order, self.fold, most_steps=setup.plan.limits.steps, name=name)
        self.streams: dict[int, Stream] = {}
        #: Commands for answers that the agent has not opened again after a takeover.
        self._early: list[Command] = []
        self.approvals = Approvals(setup.plan.run, self.fold, self.outlet, setup.send)
        self._start = time.monotonic()
        self._base = max(0, int(time.time() * 1000) - self.fold.time) if self.fold.time else 0
        self._cancel_written = self.fold.cancel_requested
        self._failure: BaseException | None = None
        self._interrupted: str | None = None
        self._last_stream: Fold | None = None
        self._task: asyncio.Task[None] | None = None
        self._history: list[Event] | None = None
        self._gate = Gate(setup.plan.allowance, self.inbox)
        self._clock = WorkClock(lambda: bool(self.fold.waiting), self.expire)

    @property
    def leaving(self) -> bool:
        """Whether the run stops before its next operation, for another worker."""
        return self._leaving

    @leaving.setter
    def leaving(self, value: bool) -> None:
        self._leaving = value
        for stream in self.streams.values():
            stream.leave()

    # --- the owner's side ------------------------------------------------------------------------

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """All events, in batches; the last batch holds ``run-end``."""
        try:
            async with aclosing(self._body()) as body:
                async for batch in body:
                    yield batch
        except TokenwireError as error:
            yield self.fail(error)
        except Exception as error:
            yield self.fail(self._safe(error))
        self.report_end(self.fold)

    def fail(self, error: TokenwireError) -> list[Event]:
        """The events that end the run because of ``error``."""
        self.outlet.closed = True
        return self._seal(failed_end(self.order, self.fold, error))

    def make_up(self) -> None:
        """The fold is never behind."""

    def report_end(self, state: Fold) -> None:
        """Report the run's end to observers."""
        if state.outcome is None:
            return
        plan, seconds = self.plan, time.monotonic() - self._start
        tracing.capture(plan.run, None, plan.request, state)
        report(run_ended(plan.run, plan.model, state, seconds, thread=plan.thread, agent=self.name))

    async def send(self, answer: ApprovalAnswer) -> None:
        """Give the run a decision of its own, as a person would. Raises `LogError`."""
        await self._setup.send(answer)

    # --- the agent's side ------------------------------------------------------------------------

    def earlier(self) -> list[Event]:
        """The events that an earlier worker recorded."""
        if self._history is None:
            self._history = self._setup.events() if self._setup.events is not None else []
        return self._history

    def source(self, operation: int | None, *, name: str | None = None) -> Source:
        """A speaker of its own."""
        return Source(operation=operation, name=name)

    async def enter(
        self, kind: str, name: str, digest: str, *, expires: float | None = None
    ) -> Operation:
        """The operation that the agent asks for, which ``expires`` if it is a new one; its own text
        before it is over."""
        await self._refuse_when_over(kind, name)
        try:
            operation = await self.journal.enter(kind, name, digest, expires=expires)
        except ReplayError as error:
            await self.interrupt(error.code, error.message)
            raise
        await self._refuse_when_over(kind, name)  # a cancel that came meanwhile
        if not operation.recorded:
            self.outlet.close_own()
        if self.leaving:
            await asyncio.Event().wait()  # another worker goes on from here
        return operation

    async def _refuse_when_over(self, kind: str, name: str) -> None:
        """Nothing is begun by code that goes on after the run's end, or that ignores a stop."""
        if self.inbox.cancelled is not None:
            await asyncio.sleep(0.1)  # a loop that swallows its cancel must not hold up the others
            raise asyncio.CancelledError
        if self.outlet.closed or self._task is None or self._task.done():
            raise AgentError(f"{kind} '{name[:80]}' was asked for after the end of the run")

    async def interrupt(self, reason: str, message: str) -> None:
        """End the run as interrupted; does not return to the agent."""
        _log.warning("run %s of %s: %s", self.plan.run, self._title, message)
        self.outlet.emit(self.outlet.own, [Error(scope="internal", code=reason, message=message)])
        self._interrupted = reason
        if self._task is not None:
            self._task.cancel()
        await asyncio.Event().wait()

    def fail_with(self, error: BaseException) -> None:
        """End the run with a failure that its agent must not swallow: a limit, a lost log."""
        self._failure = self._failure or error
        if self._task is not None:
            self._task.cancel()

    def stream_ended(self, fold: Fold) -> None:
        """A model's answer is over. A tool that nobody knows the outcome of ends the run."""
        self._last_stream = fold
        if fold.outcome == "incomplete" and fold.end_reason == BUDGET:
            self.inbox.stop(BUDGET)  # what the agent would make of it needs a model as well
            self.outlet.wake()
        if fold.outcome == "interrupted":
            self._interrupted = fold.end_reason or "interrupted"
            if self._task is not None:
                self._task.cancel()

    @property
    def is_over(self) -> bool:
        """Whether the run ends here, and no other worker goes on with it."""
        stopped = self.inbox.cancelled is not None or self._interrupted is not None
        return stopped or self._failure is not None

    def spoke(self) -> None:
        """The agent says something itself: how its last model call ended is not the end."""
        self._last_stream = None

    # --- the body --------------------------------------------------------------------------------

    async def _body(self) -> AsyncGenerator[list[Event], None]:
        plan = self.plan
        if self.order.state == "new":
            report(plan.started())
            yield self._seal([plan.run_start(time.time())])
        else:
            await self.journal.load(self.fold, self.earlier())
            self.outlet.failure = last_failure(self.earlier())
            resets = [] if CONVERSATION in self.journal.others else voids(self.fold, self.journal)
            if resets:
                yield self._seal(resets)
            if self.fold.waiting:
                await self._until_answer()
            if self.inbox.ends_calls and self._abandon is not None:
                self._stop_earlier(self._abandon)
        listener = asyncio.create_task(self._listen())
        try:
            refusal = await self._gate.begin(None, None)
            if refusal:
                yield self._seal(refusal)
            if not self.inbox.ends_calls:
                self._task = asyncio.create_task(
                    self._run(), name=f"{self._title} of run {plan.run}"
                )
            async with aclosing(self._pumped()) as pumped:
                async for batch in pumped:
                    yield batch
        finally:
            listener.cancel()
            await self._stop_task()
        batch = self._closing()
        if batch:
            yield batch

    def _stop_earlier(self, abandon: Abandon) -> None:
        """The agent is not run again: what it has begun elsewhere is stopped, beside the end."""
        plan, others = self.plan, dict(self.journal.others)
        work = AgentWork(self.name, plan.run, self.http, plan.deadlines, others)
        task = asyncio.create_task(stop_work(abandon, work))
        _stops.add(task)
        task.add_done_callback(_stops.discard)

    async def _pumped(self) -> AsyncGenerator[list[Event], None]:
        """What the agent and its streams say, until it is over."""
        outlet, task = self.outlet, self._task
        if task is None:
            return
        task.add_done_callback(lambda _: outlet.wake())
        self._clock.start(self.plan.deadlines.total)
        try:
            while not task.done() and self.inbox.cancelled is None and self._failure is None:
                await outlet.wait()
                events, futures = outlet.take()
                if events:
                    yield self._seal(merge(events), is_own=False)
                outlet.written(futures)
                if self._gate.is_due:
                    events = await self._gate.look()
                    if events:
                        yield self._seal(events)
                if self.inbox.stopped is not None and not self._is_in_tool:
                    break
        finally:
            self._clock.stop()
        await self._stop_task()
        events, futures = outlet.take()
        if events:
            yield self._seal(merge(events), is_own=False)
        outlet.written(futures)
        outlet.closed = True

    @property
    def _is_in_tool(self) -> bool:
        """Whether a tool is under way, which is to end before the run is stopped."""
        return any(tool.started and not tool.done for tool in self.fold.tools.values())

    def disarm(self) -> None:
        """From now on the run's own deadline does not hold."""
        self._clock.stop()

    def expire(self) -> None:
        """The deadline has passed."""
        total = self.plan.deadlines.total
        message = f"the {self._title.partition(' ')[0]} did not end in time"
        self.fail_with(DeadlineError(message, which="total", seconds=total))
        self.outlet.wake()

    async def _run(self) -> None:
        try:
            with guarded_tasks(self._task_exited), tracing.below(self.plan.run):
                await self._work(self)
        except SystemExit as error:  # asyncio would stop the whole loop for it
            raise self._exit_error(error) from error
        except (Exception, asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # such as KeyboardInterrupt, which would end the loop too
            if is_by_signal(error):
                raise
            raise RuntimeError(f"the code raised {type(error).__name__}") from error
        self.journal.check_end()

    def _task_exited(self, error: BaseException) -> BaseException:
        """A task that the agent created raised an exit: the run ends, and nothing else."""
        failure = self._exit_error(error)
        self.fail_with(failure)
        self.outlet.wake()
        return failure

    def _exit_error(self, error: BaseException | None) -> AgentError:
        what = "called exit" if isinstance(error, SystemExit) else f"raised {type(error).__name__}"
        return AgentError(f"{self._title} {what}; only its run ends")

    async def _stop_task(self) -> None:
        task = self._task
        if task is None or task.done():
            return
        task.cancel()
        await asyncio.wait([task], timeout=GRACE)
        if not task.done():
            _log.warning(
                "run %s: %s goes on after its cancel; it is left behind",
                self.plan.run,
                self._title,
            )

    async def _listen(self) -> None:
        inbox = self.inbox
        while inbox.cancelled is None:
            await inbox.wait()
            for command in inbox.take():
                if isinstance(command, ApprovalAnswer):
                    self.approvals.answer(command)
                passed = [stream.command(command) for stream in list(self.streams.values())]
                if not any(passed):
                    self._early.append(command)
        self.outlet.wake()

    def opened(self, operation: int, stream: Stream) -> None:
        """The agent has opened a model's answer: it receives the commands that came before."""
        self.streams[operation] = stream
        self._early = [command for command in self._early if not stream.command(command)]

    # --- the end ---------------------------------------------------------------------------------

    def _closing(self) -> list[Event]:
        failure = self._failure
        task = self._task
        if failure is None and task is not None and task.done() and not task.cancelled():
            failure = task.exception()
        is_over = self.inbox.cancelled is not None or self._interrupted is not None
        if not is_over and isinstance(failure, ReplayError):
            self._interrupted = failure.code
            error = Error(scope="internal", code=failure.code, message=failure.message)
            return self._ended("interrupted", failure.code, [error])
        if self.inbox.cancelled is not None:
            return self._ended("cancelled", self.inbox.cancelled.reason)
        if self._interrupted is not None:
            return self._ended("interrupted", self._interrupted)
        if self.inbox.stopped is not None and (task is None or task.cancelled()):
            return self._ended("incomplete", self.inbox.stopped)
        if failure is not None:
            if isinstance(failure, StepError):
                # Its message is that of the user's exception, and not for readers.
                self._safe(failure)
                if isinstance(failure.__cause__, SystemExit):
                    return self.fail(self._exit_error(failure.__cause__))
                return self.fail(StepError(f"a step of {self._title} failed; see the server's log"))
            is_safe = isinstance(failure, TokenwireError)
            return self.fail(failure if is_safe else self._safe(failure))
        if task is not None and task.cancelled():
            return self.fail(AgentError(f"{self._title} was cancelled from within"))
        held, logged = self.outlet.held, self.outlet.failure
        if held is not None:
            held.seq, held.after_output = 0, bool(self.fold.parts)
            return self._ended("error", held.code, [held])
        last = self._last_stream
        if last is not None and last.outcome in ("incomplete", "error"):
            return self._ended(last.outcome, last.end_reason)
        if logged is not None:
            return self._ended("error", logged.code)
        own = self.fold.last_step
        if last is None and own is not None and own.kind == "agent" and own.finish is not None:
            # What the agent itself says of its answer: cut is not complete.
            reason = own.finish["reason"]
            if reason in INCOMPLETE_REASONS:
                return self._ended("incomplete", reason)
        return self._ended("complete", self.fold.finish_reason)

    def _ended(
        self, outcome: RunOutcome, reason: str | None, before: list[Event] | None = None
    ) -> list[Event]:
        whole = outcome == "complete"
        status = outcome if outcome in ("complete", "cancelled", "error") else "incomplete"
        events = closing(self.order, part="complete" if whole else "truncated", step=status)
        end = self.fold.end(outcome, reason)
        return self._seal([*(before or []), *events, end])

    def _is_repeated(self, event: Event) -> bool:
        budget = self.fold.budget
        if budget is None or not isinstance(event, RunBudget):
            return False
        return (budget["name"], budget["left"]) == (event.name, event.left)

    def _safe(self, error: BaseException) -> TokenwireError:
        _log.error("run %s: %s failed", self.plan.run, self._title, exc_info=error)
        return AgentError(f"{self._title} failed; see the server's log")

    def _seal(self, events: list[Event], *, is_own: bool = True) -> list[Event]:
        """Number, time, check and fold events; a cancel comes before what it causes. Where the
        agent said what may not follow, its run fails; what came before is returned."""
        cancelled = self.inbox.cancelled
        if cancelled is not None and self._cancel_written and not is_own:
            # No step begins after a cancel, whatever the agent says in its clean-up.
            starts = (n for n, event in enumerate(events) if isinstance(event, StepStart))
            events = events[: next(starts, len(events))]
        elif cancelled is not None and not self._cancel_written and events:
            self._cancel_written = True
            # Nothing comes before the start, not even a cancel that was quicker.
            first = 1 if self.order.state == "new" else 0
            begun = first if is_own else max(first, _steps_begun(events))
            events = [*events[:begun], cancelled, *events[begun:]]
        # A stream inside and the run itself find out that nothing is left.
        events = [event for event in events if not self._is_repeated(event)]
        t = self._base + int((time.monotonic() - self._start) * 1000)
        check, apply = self.order.check, self.fold.apply
        for number, event in enumerate(events):
            event.t = t
            try:
                check(event)
            except OrderError as error:
                if is_own:
                    raise
                self.fail_with(error)
                events = events[:number]
                break
            apply(event)
        self._gate.count(events)
        self._clock.look()
        return events

    async def _until_answer(self) -> None:
        """Until there is an answer or a cancel, or an approval expires."""
        states = [self.fold.approvals.get(name) for name in self.fold.waiting]
        times = [a.expires / 1000 for a in states if a is not None and a.expires is not None]
        times += [] if self.journal.next_expiry is None else [self.journal.next_expiry]
        seconds = max(0.0, min(times) - time.time()) if times else None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.inbox.wait()


def _steps_begun(events: list[Event]) -> int:
    """How many of ``events`` come before the end of the last start of a step."""
    starts = [number for number, event in enumerate(events, 1) if isinstance(event, StepStart)]
    return starts[-1] if starts else 0
