"""A run from its first event to its last: model, tools, model again, until there is an answer.

Always true: what comes out has passed `events.order`; the run ends in exactly one ``run-end``,
whatever fails; text passes through in the batch in which it came; a cancel is written into the
stream before what it causes; a loop can go on from the events of an earlier one (`Order`, `Fold`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Literal

from tokenwire.errors import CancelledRunError, ConfigError, InputError, TokenwireError
from tokenwire.events.fold import Fold, StepState
from tokenwire.events.model import (
    ApprovalAnswer,
    Event,
    Heartbeat,
    PartAttr,
    PartDelta,
    RunEnd,
    StepEnd,
    ToolCallStart,
)
from tokenwire.events.order import Order, closing
from tokenwire.events.reasons import INCOMPLETE_REASONS
from tokenwire.events.request import Request
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.express import NO, Taken
from tokenwire.observe import tracing
from tokenwire.observe.endings import answer_ended, run_ended
from tokenwire.observe.facts import AnswerStarted, ChunksCame, FirstToken
from tokenwire.observe.hooks import report
from tokenwire.observe.request_facts import host_and_port
from tokenwire.providers.base import Call, Target
from tokenwire.run.call.attempt import Answer
from tokenwire.run.call.lane import Seat
from tokenwire.run.call.reading import Sink
from tokenwire.run.call.recover import recover
from tokenwire.run.call.spending import Gate
from tokenwire.run.call.unseen import Again, Failed, start_of
from tokenwire.run.coalesce import MOST_TEXT, is_followed, merge
from tokenwire.run.expiry import Send
from tokenwire.run.failure import failed_end, public_error, run_outcome
from tokenwire.run.gaps import ChunkGaps
from tokenwire.run.inbox import Inbox
from tokenwire.run.plan import Plan
from tokenwire.run.step_request import earlier_calls, own_call_id, step_request
from tokenwire.run.tool_phase import ToolPhase
from tokenwire.tools.rules import verdict

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.tools.registry import ToolSet

__all__ = ["Loop"]

_log = logging.getLogger("tokenwire.run")

#: Events that may carry the id of a call.
_NAMES_CALLS = frozenset({ToolCallStart, PartAttr})


class _SinkFailure(Exception):
    """The sink failed; the error belongs to the caller of `Loop.batches`, not to the run."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Loop:
    """One run's engine. Use `batches` once."""

    #: See `tokenwire.run.engine.Engine`.
    in_turn = False

    __slots__ = (
        "_answers",
        "_base",
        "_called",
        "_cancel_written",
        "_clock",
        "_earlier",
        "_gaps",
        "_gate",
        "_make_up",
        "_out_of_steps",
        "_phase",
        "_send",
        "_start",
        "_stopped",
        "_target",
        "_then",
        "_tools",
        "_wall",
        "fold",
        "http",
        "inbox",
        "leaving",
        "order",
        "plan",
        "sink",
    )

    def __init__(
        self,
        plan: Plan,
        http: HttpClient,
        inbox: Inbox,
        *,
        order: Order | None = None,
        fold: Fold | None = None,
        send: Send | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.plan, self.http, self.inbox = plan, http, inbox
        self._send = send or self._to_inbox
        self.order = order or Order()
        self.fold = fold or Fold()
        self._clock, self._wall = clock, wall
        self._start = clock()
        # A loop that resumes from earlier events keeps their time line.
        self._base = max(0, int(wall() * 1000) - self.fold.time) if self.fold.time else 0
        self._cancel_written = self.fold.cancel_requested
        #: The tools that this principal may use; the model sees no others.
        self._tools: ToolSet | None = (
            plan.tools.allowed(plan.principal) if plan.tools is not None else None
        )
        self._earlier = earlier_calls(plan.request)
        self._gate = Gate(plan.allowance, inbox)
        self._called: float | None = None
        self._target: Target | None = None
        self._gaps = ChunkGaps()
        self._phase: ToolPhase | None = None
        #: What comes after the step, or the phase, that is under way.
        self._then: Literal["go-on", "end", "leave"] = "go-on"
        self._out_of_steps = self._stopped = False
        #: Whether this loop called a model: an answer that is read from the log has its end there.
        self._answers = False
        #: Set it to return after the running tools, without ending the run: another worker
        #: continues it.
        self.leaving = False
        #: Where plain deltas may go instead of through `batches`; see `tokenwire.express`.
        self.sink: Sink | None = None
        self._make_up: Callable[[], None] | None = None

    async def batches(self) -> AsyncGenerator[list[Event], None]:
        """All events that `sink` does not take, in batches; the last batch holds ``run-end``.
        Raises what `Sink.settle` raises."""
        first: Sequence[Event] = ()  # of the next batch, so that a store writes both at once
        try:
            if self.order.state == "new":
                self._report_start()
                first = self._stamp([self.plan.run_start(self._wall())])
            step, has_called = self._unfinished(), False
            while self._then == "go-on" and (has_called or self.inbox.cancelled is None):
                batches = self._model() if step is None else self._between(step)
                try:  # (`aclosing` would be there for as long as the answer lasts)
                    async for batch in batches:
                        ready, first = [*first, *batch] if first else batch, ()
                        joins = is_followed(ready, self.fold)
                        if joins and not self._gate.delays(ready, self.fold):
                            first = ready
                        else:
                            yield ready
                        del batch, ready  # as would what was said last
                finally:
                    await batches.aclose()
                has_called = step is None
                step = self.fold.steps[-1] if has_called and self.fold.steps else None
            if self._then != "leave":
                yield [*first, *self._end(self._phase and self._phase.in_doubt)]
        except _SinkFailure as failure:
            raise failure.error from None
        except Exception as error:
            yield [*first, *self.fail(public_error(error, self.plan.run))]
        self.report_end(self.fold)

    def _report_start(self) -> None:
        plan = self.plan
        if plan.operation is None:
            report(plan.started())
        else:
            report(AnswerStarted(plan.run, plan.operation, plan.model, plan.request_facts()))

    async def _to_inbox(self, answer: ApprovalAnswer) -> None:
        self.inbox.put(answer)

    def make_up(self) -> None:
        """See `tokenwire.run.engine.Engine`."""
        if self._make_up is not None:
            self._make_up()

    def report_end(self, state: Fold) -> None:
        """Report the run's end to observers; called once, by whoever wrote the end."""
        if state.outcome is None:
            return
        plan, seconds = self.plan, self._clock() - self._start
        run, model, thread, operation = plan.run, plan.model, plan.thread, plan.operation
        if operation is None or self._answers:
            tracing.capture(run, operation, plan.request, state)
        if operation is None:
            report(run_ended(run, model, state, seconds, thread=thread))
        elif self._answers:
            report(answer_ended(run, operation, model, state, seconds, thread=thread))

    # --- between two calls -----------------------------------------------------------------------

    async def _between(self, step: StepState) -> AsyncGenerator[list[Event], None]:
        """What follows a step: its tools, and what people said meanwhile."""
        self._then = "end"
        if step.status != "complete":
            return
        # Made when a step has ended: while a plain answer is written it would only take room.
        phase = self._phase = self._phase or ToolPhase(
            self.plan, self._tools, self.inbox, self.fold, self._send
        )
        phase.look(step)
        if not phase.pending and not phase.all_answered and not self._paused(step):
            if steers := self._steers(step):
                yield self._stamp(steers)
            if self._is_steered(step):
                self._then = "go-on"
            return
        over = self._over(step) if phase.pending or phase.all_answered else None
        if over is not None:
            if phase.pending:
                yield self._stamp(phase.refuse(*over))
            return
        if phase.pending:
            async with aclosing(phase.batches()) as events:
                async for batch in events:
                    yield self._stamp(batch)
            if phase.failure is not None and self.inbox.cancelled is None:
                raise phase.failure
            if phase.stop:
                return
            if self.leaving:
                self._then = "leave"
                return
        if phase.called and self._stops():
            return
        if steers := self._steers(step):
            yield self._stamp(steers)
        self._then = "go-on"

    def _over(self, step: StepState) -> tuple[str, str] | None:
        """Why the calls of a step may not run: the code and the message of their errors."""
        if self.inbox.stopped is not None:
            return self.inbox.stopped, "the budget is used up"
        if step.step >= self.plan.limits.steps:
            # The last request forbade further calls, and the model calls again all the same.
            self._out_of_steps = True
            return "too_many", f"the run reached its limit of {step.step} steps"
        return None

    def _steers(self, step: StepState) -> list[Event]:
        """What people said during ``step`` and is not in the log yet, where another step may
        follow. What is left when the run ends is not taken: it becomes a turn of its own."""
        steers, self.inbox.steers = self.inbox.steers or [], None
        is_whole = step.finish is None or step.finish["reason"] not in INCOMPLETE_REASONS
        if step.step >= self.plan.limits.steps or not is_whole or self.inbox.ends_calls:
            return []
        ids = {steer.id for steer in self.fold.steers}
        return [steer for steer in steers if steer.id is not None and steer.id not in ids]

    def _is_steered(self, step: StepState) -> bool:
        """Whether the model has not answered yet what a person said after ``step``."""
        return any(steer.step == step.step for steer in self.fold.steers)

    def _stops(self) -> bool:
        """Whether the caller's rule ends the run, now that the step's calls have their results."""
        rule = self.plan.stop_when
        if rule is None:
            return False
        try:
            self._stopped = verdict(rule(self.fold))
        except (Exception, *EXITS) as error:
            if is_by_signal(error):
                raise
            _log.exception("run %s: its 'stop_when' failed", self.plan.run)
            raise ConfigError(
                "the run's 'stop_when' failed: it must be a plain function that returns a bool; "
                "the server's log has the exception"
            ) from error
        return self._stopped

    def _paused(self, step: StepState) -> bool:
        """Whether the provider paused a long turn of its own tools: the next request returns its
        output unchanged, and the provider continues."""
        paused = step.finish is not None and step.finish["reason"] == "pause"
        return paused and step.step < self.plan.limits.steps and self.inbox.stopped is None

    def _unfinished(self) -> StepState | None:
        """The last step, when an earlier worker was lost after the end of that step."""
        if self.fold.steps and self.fold.steps[-1].status != "open":
            return self.fold.steps[-1]
        return None

    async def _model(self) -> AsyncGenerator[list[Event], None]:
        """One model call, from ``step-start`` to ``step-end``."""
        number = len(self.fold.steps) + 1
        refusal = await self._gate.begin(self._request(number), self.plan.candidates[0][1])
        if refusal:
            self._then = "end"
            yield self._stamp(refusal)
            return
        number, start, first_call = start_of(number, self.fold.steps, self.plan.candidates[0])
        yield self._stamp(start)  # at once: no cancel comes in between
        self._called, self._answers = self._clock(), True
        attempts = self._attempts(number, first_call)
        del refusal, start, first_call  # what is held here, is so for as long as the answer lasts
        answer: Answer | None = None
        try:
            try:
                async for news in attempts:
                    if isinstance(news, Answer):
                        answer = news
                        del news
                        break
                    if ready := await self._unseen(news, number):
                        yield ready
                    if ready := await self._due():
                        yield ready
            finally:
                await attempts.aclose()
            del attempts
            while answer is not None and (batch := await answer.next()) is not None:
                if ready := self._stamp(merge(batch)):
                    yield ready
                if ready := await self._due():
                    yield ready
                del batch, ready
        except CancelledRunError:
            status = "incomplete" if self.inbox.cancelled is None else "cancelled"
            yield self._stamp([StepEnd(step=number, status=status)])
        finally:
            if answer is not None:
                await answer.aclose()
        self._make_up = None  # the lane has this loop
        if ready := self._gate.estimate():
            yield self._stamp(ready)

    def _attempts(
        self, number: int, first_call: Callable[[Target], Call | None] | None
    ) -> AsyncGenerator[Answer | Failed | Again, None]:
        plan = self.plan
        return recover(
            self.http,
            plan.candidates,
            self._request(number),
            deadlines=plan.deadlines,
            inbox=self.inbox,
            step=number,
            first_part=self.order.next_part,
            policy=plan.retry,
            run=plan.run,
            operation=plan.operation,
            calls=self._calls,
            first_call=first_call,
            express=self if self.sink is not None else None,
        )

    async def _due(self) -> list[Event]:
        """What budgets have to say by now."""
        return self._stamp(await self._gate.look()) if self._gate.is_due else []

    async def _unseen(self, news: Failed | Again, number: int) -> list[Event]:
        """What readers and budgets hear of an attempt that nobody saw, or of the next one. Raises
        `LogError`."""
        if isinstance(news, Failed):
            return [*self._stamp(news.events), *self._stamp(self._gate.estimate())]
        refusal = await self._gate.begin(self._request(number), news.target)
        if refusal or self.inbox.ends_calls:
            return self._stamp(refusal)
        return self._stamp(news.events(number, self.fold.steps[-1].attempt + 1))

    # --- the express way, see `tokenwire.express` ------------------------------------------------

    def take(self, events: list[Event]) -> Taken:
        """Deltas of open parts, straight to the sink."""
        sink = self.sink
        if sink is None or not sink.ready or self.inbox.ends_calls or self._gate.is_due:
            return NO
        if len(events) > 1 or len(events[0].text) > MOST_TEXT:  # type: ignore[attr-defined]
            events = merge(events)
        now = self._clock()
        self.seal(events, now)
        self._tell(self._gaps.chunk(now))
        return sink.take(events)

    async def settle(self) -> None:
        """Let the sink write what it took."""
        if self.sink is None:
            return
        try:
            await self.sink.settle()
        except Exception as error:
            raise _SinkFailure(error) from error

    def seat(self, make_up: Callable[[], None]) -> Seat | None:
        """What a lane needs to go on from the newest event; see `run.call.lane`."""
        left = self._gate.remaining
        if self.sink is None or self._clock is not time.monotonic or left <= 0:
            return None
        self._make_up = make_up
        return Seat(self.order.seq, self._base, self._start, self.sink, left)

    def catch_up(self, delta: PartDelta, times: list[float]) -> None:
        """The sink has had ``delta`` already, in pieces."""
        self.order.seq = delta.seq
        self.fold.apply(delta)  # type: ignore[arg-type]
        self._gate.count([delta])
        self._tell(self._gaps.chunks(times))

    def seal(self, events: list[Event], now: float) -> None:
        """Number, time, check and fold events, on both ways."""
        t = self._base + int((now - self._start) * 1000)
        check, apply = self.order.check, self.fold.apply
        for event in events:
            if type(event) in _NAMES_CALLS:
                own_call_id(event, self.fold, self._earlier)  # type: ignore[arg-type]
            event.t = t
            check(event)
            apply(event)
        self._gate.count(events)

    # --- one model call --------------------------------------------------------------------------

    def _request(self, number: int) -> Request:
        """The request of a step: the conversation so far, with all results."""
        own = self._tools.specs() if self._tools is not None else []
        last = number >= self.plan.limits.steps
        return step_request(self.plan.request, self.fold.history(), own, last=last)

    # --- ends ----------------------------------------------------------------------------------

    def _end(self, in_doubt: str | None = None) -> list[Event]:
        outcome, reason = run_outcome(
            self.fold,
            self.inbox,
            in_doubt=in_doubt is not None,
            out_of_steps=self._out_of_steps,
            by_rule=self._stopped,
        )
        # A step that an earlier owner left open, where a cancel came before it restarted.
        closed = self._stamp(closing(self.order, part="truncated", step="cancelled"))
        end = self.fold.end(outcome, reason, is_calling=bool(closed))
        return [*closed, *self._stamp([end])]

    def fail(self, error: TokenwireError) -> list[Event]:
        """The end of a run that failed: close what is open, say why, end."""
        if isinstance(error, InputError):
            _log.info("run %s was refused: %s", self.plan.run, error.code)
        return self._stamp(failed_end(self.order, self.fold, error))

    def _stamp(self, events: list[Event]) -> list[Event]:
        """Number, time and fold events; heartbeats are dropped."""
        cancelled = self.inbox.cancelled
        if cancelled is not None and not self._cancel_written and events:
            self._cancel_written = True
            # Nothing comes before the start, not even a cancel that was quicker.
            first = 1 if self.order.state == "new" else 0
            events = [*events[:first], cancelled, *events[first:]]
        ready = [event for event in events if type(event) is not Heartbeat]
        if not ready:
            return ready
        now = self._clock()
        self.seal(ready, now)
        if self._called is not None and self.order.next_part:
            self._first_token()
        if isinstance(ready[-1], PartDelta):
            self._tell(self._gaps.chunk(now))
        elif isinstance(ready[-1], StepEnd | RunEnd):
            self._tell(self._gaps.end())
        return ready

    def _tell(self, gaps: list[float] | None) -> None:
        if gaps:
            report(ChunksCame(self.plan.run, self.plan.model, tuple(gaps)))

    def _calls(self, target: Target) -> None:
        """The model that is called now."""
        self._target = target

    def _first_token(self) -> None:
        target = self._target or self.plan.candidates[0][1]
        seconds = self._clock() - (self._called or 0.0)
        self._called = None
        run, operation = self.plan.run, self.plan.operation
        where = host_and_port(target.base_url)
        report(FirstToken(run, target.provider, target.model, seconds, operation, *where))
