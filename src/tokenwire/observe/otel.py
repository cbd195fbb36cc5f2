"""Facts as OpenTelemetry spans and metrics; `opentelemetry` is imported only on use.

Always true: a span or metric holds what a fact holds, so never content; without an SDK set up by
the application, nothing is measured and nothing is sent.

A run is a span, its tools are spans below it, and the first token, a retry, a fallback and a
takeover are events of the run's span. Its parent is the span that was current at the run's start.
OpenTelemetry's own instrumentation covers HTTP requests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from tokenwire.observe.facts import (
    Fact,
    FellBack,
    FirstToken,
    Retried,
    RunEnded,
    RunStarted,
    TakenOver,
    ToolRan,
)
from tokenwire.observe.hooks import observe

__all__ = ["OpenTelemetryObserver", "start"]

#: Open spans; the oldest are ended first, as runs may end in another process.
_MOST_OPEN = 10_000
_NANO = 1_000_000_000

_lock = threading.Lock()
_observer: OpenTelemetryObserver | None = None


class OpenTelemetryObserver:
    """An observer on the given providers, default those of the process."""

    def __init__(self, *, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        from opentelemetry import metrics, trace

        self._trace = trace
        self._tracer = trace.get_tracer("tokenwire", tracer_provider=tracer_provider)
        meter = metrics.get_meter("tokenwire", meter_provider=meter_provider)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Time of a run"
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of a run, as reported"
        )
        self._first = meter.create_histogram(
            "tokenwire.first_token.duration", "s", "Call to first visible event"
        )
        self._open: dict[str, Any] = {}
        self._handlers: dict[type[Fact], Callable[[Any], None]] = {
            RunStarted: self._run_started,
            FirstToken: self._first_token,
            Retried: self._retried,
            FellBack: self._fell_back,
            TakenOver: self._taken_over,
            ToolRan: self._tool_ran,
            RunEnded: self._run_ended,
        }

    def __call__(self, fact: Fact) -> None:
        """Record one fact."""
        handler = self._handlers.get(type(fact))
        if handler is not None:
            handler(fact)

    def _run_started(self, fact: RunStarted) -> None:
        while len(self._open) >= _MOST_OPEN:
            self._open.pop(next(iter(self._open))).end()
        self._open[fact.run] = self._span(fact.run, fact.model)

    def _span(self, run: str, model: str, start: int | None = None) -> Any:
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": model,
            "tokenwire.run": run,
        }
        return self._tracer.start_span(f"chat {model}", attributes=attributes, start_time=start)

    def _first_token(self, fact: FirstToken) -> None:
        attributes = {"gen_ai.provider.name": fact.provider, "gen_ai.request.model": fact.model}
        self._first.record(fact.first_token_seconds, attributes)
        self._event(fact.run, "first token", {**attributes, "seconds": fact.first_token_seconds})

    def _retried(self, fact: Retried) -> None:
        attributes = {"error.type": fact.code, "failures": fact.failures, "pause": fact.pause}
        self._event(fact.run, "retry", {"gen_ai.request.model": fact.model, **attributes})

    def _fell_back(self, fact: FellBack) -> None:
        attributes = {"gen_ai.request.model": fact.model, "error.type": fact.code}
        self._event(fact.run, "fall back", attributes)

    def _taken_over(self, fact: TakenOver) -> None:
        self._event(fact.run, "taken over", {"epoch": fact.epoch, "how": fact.how})

    def _event(self, run: str, name: str, attributes: dict[str, Any]) -> None:
        span = self._open.get(run)
        if span is not None:
            span.add_event(name, attributes)

    def _tool_ran(self, fact: ToolRan) -> None:
        now = time.time_ns()
        above = self._open.get(fact.run)
        span = self._tracer.start_span(
            f"execute_tool {fact.name}",
            context=None if above is None else self._trace.set_span_in_context(above),
            attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": fact.name},
            start_time=now - int(fact.seconds * _NANO),
        )
        if fact.code != "ok":
            self._fail(span, fact.code)
        span.end(now)

    def _run_ended(self, fact: RunEnded) -> None:
        now = time.time_ns()
        span = self._open.pop(fact.run, None)
        if span is None:  # it started in another process
            span = self._span(fact.run, fact.model, now - int(fact.seconds * _NANO))
        span.set_attributes(
            {
                "gen_ai.usage.input_tokens": fact.input_tokens,
                "gen_ai.usage.output_tokens": fact.output_tokens,
                "tokenwire.outcome": fact.outcome,
                "tokenwire.events": fact.events,
            }
        )
        failed = {"error.type": fact.code} if fact.code else {}
        if fact.code:
            self._fail(span, fact.code)
        span.end(now)
        labels = {"gen_ai.operation.name": "chat", "gen_ai.request.model": fact.model}
        self._duration.record(fact.seconds, {**labels, **failed})
        self._tokens.record(fact.input_tokens, {**labels, "gen_ai.token.type": "input"})
        self._tokens.record(fact.output_tokens, {**labels, "gen_ai.token.type": "output"})

    def _fail(self, span: Any, code: str) -> None:
        span.set_attribute("error.type", code)
        span.set_status(self._trace.StatusCode.ERROR, code)


def start() -> OpenTelemetryObserver | None:
    """Start recording, once per process; None if `opentelemetry` is not installed."""
    global _observer
    with _lock:
        if _observer is None:
            try:
                _observer = OpenTelemetryObserver()
            except ModuleNotFoundError:
                return None
            observe(_observer)
        return _observer
