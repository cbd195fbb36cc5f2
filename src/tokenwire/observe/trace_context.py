"""W3C trace contexts: taken from a request, stored with a run, sent with a request.

Always true: what a caller sent is only an id to be below; a header that is not one changes nothing;
a span that an instrumentation of the host has opened already stays the current one; baggage is
neither taken nor sent unless that was asked for, and never stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tokenwire.observe.tracing import Trace

__all__ = ["TraceContext"]

_NAMES = ("traceparent", "tracestate")


class TraceContext:
    """The contexts of OpenTelemetry's API; ``baggage``: whether that is passed on too."""

    def __init__(self, *, baggage: bool = False) -> None:
        from opentelemetry import context, trace
        from opentelemetry.baggage.propagation import W3CBaggagePropagator
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._context, self._trace = context, trace
        self._format = TraceContextTextMapPropagator()
        self._baggage = W3CBaggagePropagator() if baggage else None

    @contextmanager
    def caller_of(self, headers: Mapping[str, str]) -> Iterator[None]:
        """Put what follows below the span of who sent ``headers``."""
        if self._trace.get_current_span().get_span_context().is_valid:
            yield
            return
        context = self._format.extract(headers, self._context.get_current())
        if self._baggage is not None:
            context = self._baggage.extract(headers, context)
        token = self._context.attach(context)
        try:
            yield
        finally:
            self._context.detach(token)

    @contextmanager
    def attached(self, span: Any, base: Any) -> Iterator[None]:
        """Make ``span`` the current one, with what else ``base`` has; nothing without a span."""
        if span is None:
            yield
            return
        current = self._context.get_current()
        if self._baggage is not None and base is not None:
            from opentelemetry import baggage

            for name, value in baggage.get_all(base).items():
                current = baggage.set_baggage(name, value, current)
        token = self._context.attach(self._trace.set_span_in_context(span, current))
        try:
            yield
        finally:
            self._context.detach(token)

    def of(self, trace: Trace | None) -> Any:
        """The context that a run is below: the stored one, or else the current one."""
        if trace is None:
            return self._context.get_current()
        return self._format.extract({name: trace.get(name, "") for name in _NAMES})

    def earlier(self, trace: Trace | None) -> Any:
        """The context of the span that an earlier worker had of the run; None without one."""
        if trace is None or "span" not in trace:
            return None
        context = self._format.extract({"traceparent": trace["span"]})
        span = self._trace.get_current_span(context).get_span_context()
        return span if span.is_valid else None

    def above(self) -> Trace:
        """The current span, as it is stored with a run that begins later; empty without one: who
        starts that run has nothing to do with it."""
        carrier: Trace = {}
        self._format.inject(carrier)
        return carrier

    def stored(self, span: Any, context: Any) -> Trace | None:
        """What is stored with the run of ``span``, which is below ``context``."""
        trace: Trace = {}
        self._format.inject(trace, context)
        own: Trace = {}
        self._format.inject(own, self._trace.set_span_in_context(span))
        if "traceparent" in own:
            trace["span"] = own["traceparent"]
        return trace or None

    def headers(self, span: Any, context: Any) -> Trace:
        """The headers of a request that is made below ``span``."""
        carrier: Trace = {}
        self._format.inject(carrier, self._trace.set_span_in_context(span))
        if self._baggage is not None:
            self._baggage.inject(carrier, context)
        return carrier
