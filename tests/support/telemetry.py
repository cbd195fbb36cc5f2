"""An observer on OpenTelemetry's genuine SDK, whose spans, metrics and events stay in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenwire.observe import hooks, otel, tracing


class Telemetry:
    def __init__(self, **options: Any) -> None:
        self.logs = InMemoryLogRecordExporter()
        logs = LoggerProvider()
        logs.add_log_record_processor(SimpleLogRecordProcessor(self.logs))
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = otel.OpenTelemetryObserver(
            tracer_provider=self.provider,
            meter_provider=MeterProvider([self.reader]),
            logger_provider=logs,
            **options,
        )

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def sums(self) -> dict[tuple[str, str], float]:
        """(metric, kind of token) -> the sum of what was recorded."""
        found: dict[tuple[str, str], float] = {}
        data: Any = self.reader.get_metrics_data()
        for metric in data.resource_metrics[0].scope_metrics[0].metrics:
            for point in metric.data.data_points:
                found[metric.name, point.attributes.get("gen_ai.token.type", "")] = point.sum
        return found


@contextmanager
def watched(made: Telemetry) -> Iterator[Telemetry]:
    stops = hooks.observe(made.observer), tracing.use(made.observer)
    try:
        yield made
    finally:
        for stop in stops:
            stop()
