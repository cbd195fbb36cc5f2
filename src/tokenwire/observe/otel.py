"""Facts as OpenTelemetry spans and metrics; `opentelemetry` is imported only on use.

Always true: a span or metric holds what a fact holds, so never content, unless the environment asks
for that; without an SDK set up by the application, nothing is measured and nothing is sent.

A model's run is a span ``chat``, an agent's run a span ``invoke_agent`` with its answers as
``chat`` below; tools are spans below the answer that called them. The first token, a retry, a
fallback and a takeover are events. A run's parent is the span that was current at its start.
OpenTelemetry's own instrumentation covers HTTP requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tokenwire.events.fold import Fold
from tokenwire.events.request import Request
from tokenwire.observe import tracing
from tokenwire.observe.facts import (
    AnswerEnded,
    AnswerStarted,
    ChunksCame,
    Fact,
    FellBack,
    FirstToken,
    Retried,
    RunEnded,
    RunLeft,
    RunStarted,
    TakenOver,
    ToolRan,
)
from tokenwire.observe.genai.names import (
    chat_labels,
    conclusion,
    failure_label,
    name_and_attributes,
    server_attributes,
)
from tokenwire.observe.genai.recorder import Recorder
from tokenwire.observe.hooks import observe
from tokenwire.observe.trace_context import TraceContext
from tokenwire.observe.tracing import Trace

__all__ = ["OpenTelemetryObserver", "start"]

#: Open spans; the oldest are ended first, as runs may end in another process.
_MOST_OPEN = 10_000
_NANO = 1_000_000_000
#: What is no failure of a worker that leaves a run.
_IN_ORDER = frozenset({"handed_over", "erased"})

_lock = threading.Lock()
_observer: OpenTelemetryObserver | None = None


class _OpenRun:
    """The spans of a run that has not ended: its own, its agent's answers by operation, and its
    running tools by operation and call. ``context``: in which it started; ``epoch``: of the
    takeover with which it came here, 0 without one."""

    __slots__ = ("answers", "context", "epoch", "span", "tools")

    def __init__(self, span: Any, context: Any, epoch: int = 0) -> None:
        self.span, self.context, self.epoch = span, context, epoch
        self.answers: dict[int, Any] = {}
        self.tools: dict[tuple[int | None, str | None], Any] = {}

    def end(self, at: int | None = None) -> None:
        for span in (*self.tools.values(), *self.answers.values(), self.span):
            span.end(at)


class OpenTelemetryObserver:
    """An observer and tracer on the given providers, default those of the process.

    ``send_to``: names of providers whose requests carry the trace's ids, ``*`` for all;
    ``baggage``: whether they and we take part in the caller's baggage as well; ``chunks``: whether
    the time of each chunk is measured, which costs some microseconds of each.
    """

    def __init__(
        self,
        *,
        tracer_provider: Any = None,
        meter_provider: Any = None,
        logger_provider: Any = None,
        send_to: Iterable[str] = (),
        baggage: bool = False,
        chunks: bool = False,
    ) -> None:
        from opentelemetry import metrics, trace

        self._trace = trace
        self._tracer = trace.get_tracer("tokenwire", tracer_provider=tracer_provider)
        self._content = Recorder(logger_provider)
        self._contexts = TraceContext(baggage=baggage)
        self._send_to = frozenset(send_to)
        self._make_metrics(metrics.get_meter("tokenwire", meter_provider=meter_provider))
        self._open: dict[str, _OpenRun] = {}
        self._handlers: dict[type[Fact], Callable[[Any], None]] = {
            RunStarted: self._run_started,
            AnswerStarted: self._answer_started,
            AnswerEnded: self._answer_ended,
            FirstToken: self._first_token,
            Retried: self._retried,
            FellBack: self._fell_back,
            TakenOver: self._taken_over,
            ToolRan: self._tool_ran,
            RunEnded: self._run_ended,
            RunLeft: self._run_left,
        }
        if chunks:
            self._handlers[ChunksCame] = self._chunks_came

    def _make_metrics(self, meter: Any) -> None:
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Time of a model's run or answer"
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of it, as reported"
        )
        self._agent_duration = meter.create_histogram(
            "gen_ai.invoke_agent.duration", "s", "Time of an agent's run"
        )
        self._tool_duration = meter.create_histogram(
            "gen_ai.execute_tool.duration", "s", "Time of a tool"
        )
        self._first = meter.create_histogram(
            "tokenwire.first_token.duration", "s", "Call to first visible event"
        )
        # The conventions' name for the same; the one above is that of earlier versions.
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Call to first visible event"
        )
        self._chunk = meter.create_histogram(
            "gen_ai.client.operation.time_per_output_chunk", "s", "Between chunks"
        )

    def __call__(self, fact: Fact) -> None:
        """Record one fact."""
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    # --- runs and answers ------------------------------------------------------------------------

    def _run_started(self, fact: RunStarted | TakenOver, trace: Trace | None = None) -> None:
        if fact.run in self._open:  # begun before it was stored, or taken over before its start
            return
        while len(self._open) >= _MOST_OPEN:
            self._open.pop(next(iter(self._open))).end()
        context = self._contexts.of(trace)
        epoch = fact.epoch if isinstance(fact, TakenOver) else 0
        self._open[fact.run] = _OpenRun(self._span(fact, context, trace=trace), context, epoch)

    def _answer_started(self, fact: AnswerStarted) -> None:
        run = self._open.get(fact.run)
        if run is None:
            return
        current = self._trace.get_current_span().get_span_context()
        # Below a span that the agent opened around it, if that is one of this trace.
        is_inside = current.trace_id == run.span.get_span_context().trace_id
        context = None if is_inside else self._trace.set_span_in_context(run.span)
        run.answers[fact.operation] = self._span(fact, context)

    def _span(
        self, fact: Any, context: Any, start: int | None = None, trace: Trace | None = None
    ) -> Any:
        """A span of a run or of an answer below ``context``'s, default the current one. ``trace``:
        of the run, where an earlier worker had a span of its own."""
        name, attributes = name_and_attributes(fact)
        is_chat = attributes["gen_ai.operation.name"] == "chat"
        earlier = self._contexts.earlier(trace)
        return self._tracer.start_span(
            name,
            context=context,
            kind=self._trace.SpanKind.CLIENT if is_chat else self._trace.SpanKind.INTERNAL,
            attributes=attributes,
            start_time=start,
            links=None if earlier is None else [self._trace.Link(earlier)],
        )

    def _current(self, run: str, operation: int | None) -> Any:
        """The span of an agent's answer or of the run; None without one."""
        entry = self._open.get(run)
        if entry is None:
            return None
        return entry.span if operation is None else entry.answers.get(operation, entry.span)

    def _first_token(self, fact: FirstToken) -> None:
        attributes = {"gen_ai.provider.name": fact.provider, "gen_ai.request.model": fact.model}
        self._first.record(fact.first_token_seconds, attributes)
        labels = {**attributes, "gen_ai.operation.name": "chat"}
        self._first_chunk.record(fact.first_token_seconds, labels)
        span = self._current(fact.run, fact.operation)
        if span is not None:  # after a fallback: that of the model which answered
            span.set_attribute("gen_ai.provider.name", fact.provider)
            span.set_attribute("gen_ai.response.time_to_first_chunk", fact.first_token_seconds)
            span.set_attributes(server_attributes(fact.address, fact.port))
            span.add_event("first token", {**attributes, "seconds": fact.first_token_seconds})

    def _chunks_came(self, fact: ChunksCame) -> None:
        labels = chat_labels(fact.model)
        for seconds in fact.chunk_gap_seconds:
            self._chunk.record(seconds, labels)

    def _retried(self, fact: Retried) -> None:
        attributes = {"error.type": fact.code, "failures": fact.failures, "pause": fact.pause}
        self._event(fact.run, "retry", {"gen_ai.request.model": fact.model, **attributes})

    def _fell_back(self, fact: FellBack) -> None:
        attributes = {"gen_ai.request.model": fact.model, "error.type": fact.code}
        self._event(fact.run, "fall back", attributes)

    def _taken_over(self, fact: TakenOver) -> None:
        self._left(fact.run, "fenced", fact.epoch - 1)  # where it was this process's before
        self._run_started(fact, fact.trace)
        self._event(fact.run, "taken over", {"epoch": fact.epoch, "how": fact.how})

    def _event(self, run: str, name: str, attributes: dict[str, Any]) -> None:
        entry = self._open.get(run)
        if entry is not None:
            entry.span.add_event(name, attributes)

    def _run_ended(self, fact: RunEnded) -> None:
        now = time.time_ns()
        entry = self._open.pop(fact.run, None)
        if entry is None:  # it started in another process
            context, start = self._contexts.of(fact.trace), now - int(fact.seconds * _NANO)
            entry = _OpenRun(self._span(fact, context, start, fact.trace), context)
        self._conclude(entry.span, fact)
        entry.end(now)
        if fact.agent is None:
            self._measure(fact)
            return
        labels = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": fact.agent}
        self._agent_duration.record(fact.seconds, {**labels, **failure_label(fact.code)})

    def _run_left(self, fact: RunLeft) -> None:
        self._left(fact.run, fact.why, fact.epoch)

    def _left(self, run: str, why: str, epoch: int) -> None:
        entry = self._open.get(run)
        if entry is None or entry.epoch > epoch:  # a later worker of this process has it
            return
        del self._open[run]
        entry.span.set_attribute("tokenwire.outcome", why)
        if why not in _IN_ORDER:
            self._fail(entry.span, why)
        entry.end()

    def _answer_ended(self, fact: AnswerEnded) -> None:
        now = time.time_ns()
        run = self._open.get(fact.run)
        span = None if run is None else run.answers.pop(fact.operation, None)
        if span is None:  # it started in another process
            start = now - int(fact.seconds * _NANO)
            context = None if run is None else self._trace.set_span_in_context(run.span)
            span = self._span(fact, context, start)
        self._conclude(span, fact)
        span.end(now)
        self._measure(fact)

    def _conclude(self, span: Any, fact: RunEnded | AnswerEnded) -> None:
        span.set_attributes(conclusion(fact))
        if fact.code:
            self._fail(span, fact.code)

    def _measure(self, fact: RunEnded | AnswerEnded) -> None:
        labels = chat_labels(fact.model)
        self._duration.record(fact.seconds, {**labels, **failure_label(fact.code)})
        for kind, count in ("input", fact.input_tokens), ("output", fact.output_tokens):
            if count or not fact.usage_unknown:  # else nobody knows how many
                self._tokens.record(count, {**labels, "gen_ai.token.type": kind})

    def _fail(self, span: Any, code: str) -> None:
        span.set_attribute("error.type", code)
        span.set_status(self._trace.StatusCode.ERROR, code)

    # --- tools -----------------------------------------------------------------------------------

    def _tool(self, above: Any, name: str, call: str | None, start: int | None = None) -> Any:
        labels = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name}
        return self._tracer.start_span(
            f"execute_tool {name}",
            context=None if above is None else self._trace.set_span_in_context(above),
            attributes=labels if call is None else {**labels, "gen_ai.tool.call.id": call},
            start_time=start,
        )

    def _tool_ran(self, fact: ToolRan) -> None:
        now = time.time_ns()
        run = self._open.get(fact.run)
        span = None if run is None else run.tools.pop((fact.operation, fact.call), None)
        if span is None:
            above = self._current(fact.run, fact.operation)
            start = now - int(fact.seconds * _NANO)
            span = self._tool(above, fact.name, fact.call, start)
        if fact.code != "ok":
            self._fail(span, fact.code)
        span.end(now)
        labels = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": fact.name}
        failed = {"error.type": fact.code} if fact.code != "ok" else {}
        self._tool_duration.record(fact.seconds, {**labels, **failed})

    @contextmanager
    def tool_span(
        self, run: str, operation: int | None, name: str, call: str, arguments: Any
    ) -> Iterator[None]:
        """See `tracing.Tracer`."""
        entry = self._open.get(run)
        if entry is None:
            yield
            return
        span = self._tool(self._current(run, operation), name, call)
        if self._content.on_spans:
            self._content.arguments(span, arguments)
        entry.tools[operation, call] = span
        try:
            with self._contexts.attached(span, entry.context):
                yield
        except BaseException:  # it is cancelled: nobody reports that it ran
            if entry.tools.pop((operation, call), None) is not None:
                self._fail(span, "cancelled")
                span.end()
            raise

    # --- what carries a trace on -----------------------------------------------------------------

    @property
    def captures_content(self) -> bool:
        """See `tracing.Tracer`."""
        return self._content.on_spans or self._content.on_events

    def capture(self, run: str, operation: int | None, request: Request, state: Fold) -> None:
        """See `tracing.Tracer`."""
        span = self._current(run, operation)
        if span is not None:
            self._content.answer(span, request, state)

    def capture_result(self, run: str, operation: int | None, call: str, content: Any) -> None:
        """See `tracing.Tracer`."""
        entry = self._open.get(run)
        span = None if entry is None else entry.tools.get((operation, call))
        if span is not None and self._content.on_spans:
            self._content.result(span, content)

    def open_run(self, fact: RunStarted, trace: Trace | None) -> Trace | None:
        """See `tracing.Tracer`."""
        self._run_started(fact, trace)
        entry = self._open[fact.run]
        return self._contexts.stored(entry.span, entry.context)

    def forget_run(self, run: str) -> None:
        """See `tracing.Tracer`."""
        self._open.pop(run, None)  # what is never ended is never exported

    def above(self) -> Trace | None:
        """See `tracing.Tracer`."""
        return self._contexts.above()

    def headers(self, run: str, operation: int | None, provider: str) -> dict[str, str]:
        """See `tracing.Tracer`."""
        span, entry = self._current(run, operation), self._open.get(run)
        if span is None or entry is None or not self._send_to & {provider, "*"}:
            return {}
        return self._contexts.headers(span, entry.context)

    def below(self, run: str, operation: int | None) -> AbstractContextManager[None]:
        """See `tracing.Tracer`."""
        entry = self._open.get(run)
        context = None if entry is None else entry.context
        return self._contexts.attached(self._current(run, operation), context)

    def caller_of(self, headers: dict[str, str]) -> AbstractContextManager[None]:
        """See `tracing.Tracer`."""
        return self._contexts.caller_of(headers)


def start(
    *, send_to: Iterable[str] = (), baggage: bool = False, chunks: bool = False
) -> OpenTelemetryObserver | None:
    """Start recording, once per process, as `OpenTelemetryObserver` says; None if `opentelemetry`
    is not installed."""
    global _observer
    with _lock:
        if _observer is None:
            try:
                _observer = OpenTelemetryObserver(send_to=send_to, baggage=baggage, chunks=chunks)
            except ModuleNotFoundError:
                return None
            observe(_observer)
            tracing.use(_observer)
        return _observer
