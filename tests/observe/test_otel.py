"""OpenTelemetry: what a run looks like in spans and metrics, read back from the SDK."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind

import tokenwire
from support.server import site
from support.telemetry import Telemetry, watched
from tokenwire.errors import ConfigError
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.observe import facts, hooks, otel
from tokenwire.observe.endings import run_ended
from tokenwire.observe.genai import names, recorder
from tokenwire.observe.prometheus import PrometheusObserver
from tokenwire.server.app import create_app
from tokenwire.server.settings import Settings
from tokenwire.testing import ScriptedModel, call


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    with watched(made):
        yield made


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
    assert run.attributes["gen_ai.provider.name"] == "demo"
    assert run.kind is SpanKind.CLIENT
    assert tool.kind is SpanKind.INTERNAL
    assert [event.name for event in run.events] == ["retry", "first token"]
    assert telemetry.sums() == {
        ("gen_ai.client.operation.duration", ""): 3.0,
        ("gen_ai.client.operation.time_to_first_chunk", ""): 0.25,
        ("gen_ai.client.token.usage", "input"): 10,
        ("gen_ai.client.token.usage", "output"): 20,
        ("gen_ai.execute_tool.duration", ""): 2.0,
        ("tokenwire.first_token.duration", ""): 0.25,
    }


def test_a_failed_run_and_one_that_began_elsewhere(telemetry: Telemetry) -> None:
    hooks.report(facts.RunEnded("r2", "other", "error", "network", 1.5, 7))
    (span,) = telemetry.spans().values()
    assert span.end_time - span.start_time == 1_500_000_000
    assert span.attributes["error.type"] == "network"
    assert not span.status.is_ok


def test_a_run_has_its_conversation_and_why_and_what_its_model_used(telemetry: Telemetry) -> None:
    events: list[m.Event] = [
        m.RunStart(run="r3", time=0, thread="t1"),
        m.StepStart(step=1, attempt=1, provider="p", dialect="d", model="m"),
        m.Usage(input_tokens=10, output_tokens=7, cached_input_tokens=4, reasoning_tokens=5),
        m.Finish(reason="tool_calls"),
        m.StepEnd(step=1, status="complete"),
        m.RunEnd(outcome="incomplete"),
    ]
    hooks.report(facts.RunStarted("r3", "m", "t1"))
    hooks.report(run_ended("r3", "m", fold(events), 1.0, thread="t1"))
    hooks.report(facts.RunEnded("r4", "n", "complete", None, 1.0, 3, thread="t2"))
    spans = telemetry.spans()
    attributes = spans["chat m"].attributes
    assert attributes["gen_ai.conversation.id"] == "t1"
    assert attributes["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert attributes["gen_ai.usage.cache_read.input_tokens"] == 4
    assert attributes["gen_ai.usage.reasoning.output_tokens"] == 5
    assert "gen_ai.usage.cache_creation.input_tokens" not in attributes  # nobody reported it
    # One that began elsewhere, of a model that reports nothing.
    attributes = spans["chat n"].attributes
    assert attributes["gen_ai.conversation.id"] == "t2"
    assert not [name for name in attributes if "cache" in name or "finish" in name]


def test_runs_without_end_make_room(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otel, "_MOST_OPEN", 2)
    for number in range(3):
        hooks.report(facts.RunStarted(f"r{number}", f"m{number}"))
    assert list(telemetry.spans()) == ["chat m0"]


def test_a_real_run_below_the_span_of_its_caller(telemetry: Telemetry) -> None:
    async def main() -> None:
        with telemetry.provider.get_tracer("app").start_as_current_span("request"):
            async with tokenwire.stream("scenario:text?rate=300", model="demo") as run:
                await run.result()

    asyncio.run(main())
    spans = telemetry.spans()
    run = spans["chat demo"]
    assert run.parent.span_id == spans["request"].context.span_id
    assert [event.name for event in run.events] == ["first token"]
    assert run.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    shown = run.to_json()
    assert "scenario" not in shown  # neither the prompt nor the answer


def test_an_agents_run_has_its_answers_below_and_their_tools_below_them(
    telemetry: Telemetry,
) -> None:
    counted = PrometheusObserver()
    stop = hooks.observe(counted)

    @tokenwire.tool
    async def look(what: str) -> str:
        """Look."""
        return what

    @tokenwire.agent
    async def helper(ctx: tokenwire.RunContext) -> None:
        turns = ScriptedModel([call("look", {"what": "secret"})], ["Seen."])
        async with ctx.stream("x", model=turns, tools=[look]) as answer:
            await answer.result()
        async with ctx.stream("y", model="demo") as answer:
            await answer.result()

    async def main() -> None:
        async with tokenwire.stream("x", model=helper) as run:
            await run.result()

    try:
        asyncio.run(main())
    finally:
        stop()
    spans = telemetry.spans()
    run, tool = spans["invoke_agent helper"], spans["execute_tool look"]
    answers = [span for name, span in spans.items() if name.startswith("chat ")]
    assert len(answers) == 2
    assert all(span.parent.span_id == run.context.span_id for span in answers)
    (caller,) = [span for span in answers if span.context.span_id == tool.parent.span_id]
    assert caller.name != "chat demo"
    assert tool.attributes["gen_ai.tool.call.id"]
    assert run.kind is SpanKind.INTERNAL
    assert run.attributes["gen_ai.agent.name"] == "helper"
    for name in ("input", "output"):
        used = f"gen_ai.usage.{name}_tokens"
        assert run.attributes[used] == sum(span.attributes.get(used, 0) for span in answers)
        total = telemetry.sums()["gen_ai.client.token.usage", name]
        assert total == run.attributes[used]  # counted once
    # The scripted model reports none: that is not zero.
    assert used not in caller.attributes
    assert caller.attributes["tokenwire.usage_unknown"]
    assert spans["chat demo"].attributes["gen_ai.usage.output_tokens"] > 0
    assert "secret" not in "".join(span.to_json() for span in spans.values())
    # One run for those who count runs, with each token once.
    text = counted.text().decode()
    assert re.findall(r"tokenwire_runs_ended_total{.*} (.*)", text) == ["1.0"]
    (written,) = re.findall(r'tokenwire_tokens_total{kind="output",.*} (.*)', text)
    assert float(written) == run.attributes["gen_ai.usage.output_tokens"]


def test_an_answer_that_its_agent_left_ends_with_the_run(telemetry: Telemetry) -> None:
    hooks.report(facts.RunStarted("r1", "a", agent="a"))
    hooks.report(facts.AnswerStarted("r1", 1, "m"))
    hooks.report(facts.RunEnded("r1", "a", "cancelled", None, 1.0, 5, agent="a"))
    assert set(telemetry.spans()) == {"chat m", "invoke_agent a"}
    assert telemetry.observer._open == {}


@pytest.mark.parametrize(
    ("header", "is_below"),
    [("00-" + "ab" * 16 + "-" + "cd" * 8 + "-01", True), ("00-zz-\xff-01", False), (None, False)],
)
def test_a_run_of_a_server_is_below_the_span_of_who_asked_for_it(
    telemetry: Telemetry, header: str | None, is_below: bool
) -> None:
    headers: Any = {} if header is None else {"traceparent": header.encode("latin-1")}
    with site() as here:
        body = {"model": "demo", "prompt": "Hello"}
        started = here.client.post("/v1/runs", json=body, headers=headers)
        assert started.is_success, started.text
        deadline = time.monotonic() + 45
        while "chat demo" not in telemetry.spans() and time.monotonic() < deadline:
            time.sleep(0.02)
    run = telemetry.spans()["chat demo"]
    if is_below:
        assert format(run.context.trace_id, "032x") == "ab" * 16
        assert format(run.parent.span_id, "016x") == "cd" * 8
    else:
        assert run.parent is None


def test_a_run_that_is_taken_over_has_one_span_with_the_rest_below(telemetry: Telemetry) -> None:
    hooks.report(facts.TakenOver("r1", 2, "go-on", "a", "t1", "a"))
    hooks.report(facts.RunStarted("r1", "a", "t1", "a"))  # nothing of it was in the log
    hooks.report(facts.ToolRan("r1", "look", "ok", 0.1))
    hooks.report(facts.RunEnded("r1", "a", "complete", None, 1.0, 5, thread="t1", agent="a"))
    hooks.report(facts.TakenOver("r2", 3, "interrupted", "m"))
    hooks.report(facts.RunEnded("r2", "m", "interrupted", None, 9.0, 5))
    assert len(telemetry.exporter.get_finished_spans()) == 3
    spans = telemetry.spans()
    run = spans["invoke_agent a"]
    assert spans["execute_tool look"].parent.span_id == run.context.span_id
    assert run.attributes["gen_ai.conversation.id"] == "t1"
    for span in (run, spans["chat m"]):
        assert [event.name for event in span.events] == ["taken over"]
    assert telemetry.observer._open == {}


#: Names of `opentelemetry-util-genai` 1.3b0 that the package of all names does not have yet.
NEWER = {
    "gen_ai.client.inference.operation.details",
    "gen_ai.execute_tool.duration",
    "gen_ai.invoke_agent.duration",
    "gen_ai.request.reasoning.level",
    "gen_ai.usage.cache_write.input_tokens",
}


def names_used() -> set[str]:
    sources = [inspect.getsource(module) for module in (otel, recorder, names)]
    return set(re.findall(r'"(gen_ai\.[a-z_.]+)"', "".join(sources)))


def constants(module: Any) -> set[str]:
    return {value for value in vars(module).values() if str(value).startswith("gen_ai.")}


def test_every_name_of_the_conventions_is_one_of_theirs() -> None:
    known = constants(gen_ai_attributes) | constants(gen_ai_metrics) | NEWER
    used = names_used()
    assert len(used) >= 9
    assert used <= known


def test_the_page_says_which_names_are_recorded() -> None:
    page = Path(__file__).parents[2] / "docs" / "guide" / "observability.md"
    rows = re.findall(r"^\| `(gen_ai\.[a-z_.]+)`.*\| (yes|no)\b", page.read_text(), re.MULTILINE)
    used = names_used()
    assert {name for name, recorded in rows if recorded == "yes"} == used
    assert {name for name, recorded in rows if recorded == "no"} & used == set()


@pytest.mark.parametrize("installed", [True, False])
def test_the_setting_switches_it_on(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: Any) -> None:
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
