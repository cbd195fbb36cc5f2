"""OpenTelemetry: what a run looks like in spans and metrics, read back from the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tokenwire.errors import ConfigError
from tokenwire.observe import facts, hooks, otel
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings


class Telemetry:
    def __init__(self) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.observer = otel.OpenTelemetryObserver(
            tracer_provider=self.provider, meter_provider=MeterProvider([self.reader])
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


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    stop = hooks.observe(made.observer)
    yield made
    stop()


def test_a_run_is_a_span_with_its_tools_below(telemetry: Telemetry) -> None:
    hooks.report(facts.RunStarted("r1", "demo"))
    hooks.report(facts.Retried("r1", "demo", "demo", "overloaded", 1, 0.5))
    hooks.report(facts.FirstToken("r1", "demo", "demo", 0.25))
    hooks.report(facts.ToolRan("r1", "get_weather", "tool_timeout", 2.0))
    hooks.report(facts.RunEnded("r1", "demo", "complete", None, 3.0, 9, 10, 20))
    spans = telemetry.spans()
    run, tool = spans["chat demo"], spans["execute_tool get_weather"]
    assert tool.parent.span_id == run.context.span_id
    assert tool.end_time - tool.start_time == 2_000_000_000
    assert tool.attributes["error.type"] == "tool_timeout"
    assert not tool.status.is_ok
    assert run.status.is_ok
    assert run.attributes["gen_ai.usage.output_tokens"] == 20
    assert [event.name for event in run.events] == ["retry", "first token"]
    assert telemetry.sums() == {
        ("gen_ai.client.operation.duration", ""): 3.0,
        ("gen_ai.client.token.usage", "input"): 10,
        ("gen_ai.client.token.usage", "output"): 20,
        ("tokenwire.first_token.duration", ""): 0.25,
    }


def test_a_failed_run_and_one_that_began_elsewhere(telemetry: Telemetry) -> None:
    hooks.report(facts.RunEnded("r2", "other", "error", "network", 1.5, 7))
    (span,) = telemetry.spans().values()
    assert span.end_time - span.start_time == 1_500_000_000
    assert span.attributes["error.type"] == "network"
    assert not span.status.is_ok


def test_runs_without_end_make_room(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "_MOST_OPEN", 2)
    for number in range(3):
        hooks.report(facts.RunStarted(f"r{number}", f"m{number}"))
    assert list(telemetry.spans()) == ["chat m0"]


def test_a_real_run_below_the_span_of_its_caller(telemetry: Telemetry) -> None:
    import tokenwire

    async def main() -> None:
        with telemetry.provider.get_tracer("app").start_as_current_span("request"):
            async with tokenwire.stream("scenario:text?rate=300", model="demo") as run:
                await run.result()

    asyncio.run(main())
    spans = telemetry.spans()
    run = spans["chat demo"]
    assert run.parent.span_id == spans["request"].context.span_id
    assert [event.name for event in run.events] == ["first token"]
    shown = run.to_json()
    assert "scenario" not in shown  # neither the prompt nor the answer


@pytest.mark.parametrize("installed", [True, False])
def test_the_setting_switches_it_on(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise ModuleNotFoundError("opentelemetry")

    told: list[hooks.Observer] = []
    monkeypatch.setattr(otel, "_observer", None)
    monkeypatch.setattr(otel, "observe", told.append)
    if not installed:
        monkeypatch.setattr(otel, "OpenTelemetryObserver", missing)
    app = create_app(Settings(otel=True))

    async def main() -> None:
        await app.startup()
        await app.shutdown()

    if installed:
        asyncio.run(main())
        assert told == [otel._observer]
        return
    with pytest.raises(ConfigError, match=r"tokenwire\[otel\]"):
        asyncio.run(main())
