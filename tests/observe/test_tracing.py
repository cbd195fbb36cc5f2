"""Trace contexts: into providers and tools, across doors, queues and takeovers; with the SDK."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.trace import SpanKind

import tokenwire
from support.raw_provider import RawProvider, closing, raw_provider
from support.spine import QUICK, read_all, request_of, run_async, simulator
from support.telemetry import Telemetry, watched
from tokenwire.errors import CancelledRunError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.observe import facts, hooks, tracing
from tokenwire.providers.base import Dialect, Target
from tokenwire.providers.http.client import HttpClient
from tokenwire.providers.openai.chat import DIALECT
from tokenwire.relay.runs import Runs
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop
from tokenwire.run.plan import Plan
from tokenwire.testing import ScriptedModel, call

TRACE, PARENT = "ab" * 16, "cd" * 8
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
    b'data: {"id":"chatcmpl-7","model":"m-2026","choices":[{"index":0,"delta":'
    b'{"role":"assistant","content":"Hi"}}]}\n\n'
    b'data: {"id":"chatcmpl-7","model":"m-2026","choices":[{"index":0,"delta":{},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)
REFUSAL = b"HTTP/1.1 401 Who\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with watched(Telemetry()) as made:
        yield made


def spans_of(telemetry: Telemetry, prefix: str) -> list[Any]:
    spans = telemetry.exporter.get_finished_spans()
    return [span for span in spans if span.name.startswith(prefix)]


def id_of(span: Any) -> tuple[str, str]:
    context = span.get_span_context()
    return format(context.trace_id, "032x"), format(context.span_id, "016x")


# --- to providers --------------------------------------------------------------------------------


def target(provider: RawProvider, name: str, **more: Any) -> tuple[Dialect, Target]:
    base = provider.url + "/v1"
    return DIALECT, Target(provider=name, dialect="openai-chat", model=name, base_url=base, **more)


async def answer(*candidates: tuple[Dialect, Target], **options: Any) -> None:
    request = Request(messages=[user("Hello")], **options)
    plan = Plan(run="r1", request=request, candidates=list(candidates), model="m", retry=QUICK)
    http = HttpClient()
    try:
        async for _ in Loop(plan, http, Inbox()).batches():
            pass
    finally:
        await http.aclose()


def header(provider: RawProvider, name: str, number: int = -1) -> list[str]:
    found = re.findall(rb"(?im)^" + name.encode() + rb": (.*?)\r$", provider.requests[number])
    return [value.decode() for value in found]


def test_no_provider_gets_the_ids_unless_it_is_named(telemetry: Telemetry) -> None:
    async def main() -> None:
        async with raw_provider(closing(ANSWER)) as provider:
            for options in ({}, {"send_to": ["another"]}, {"send_to": ["p"]}, {"send_to": ["*"]}):
                with watched(Telemetry(**options)) as made:
                    with made.provider.get_tracer("app").start_as_current_span("request"):
                        token = context.attach(baggage.set_baggage("user", "ada"))
                        await answer(target(provider, "p"))
                        context.detach(token)
                (chat,) = spans_of(made, "chat")
                sent = header(provider, "traceparent")
                if options.get("send_to") in (["p"], ["*"]):
                    assert [value[:-3] for value in sent] == ["00-" + "-".join(id_of(chat))]
                    assert chat.parent.span_id == made.spans()["request"].context.span_id
                else:
                    assert sent == []
                assert header(provider, "baggage") == []

    asyncio.run(main())


def test_baggage_goes_where_it_was_asked_for_and_a_configured_header_wins() -> None:
    async def main() -> None:
        async with raw_provider(closing(ANSWER)) as provider:
            with watched(Telemetry(send_to=["p"], baggage=True)):
                token = context.attach(baggage.set_baggage("user", "ada"))
                await answer(target(provider, "p", headers={"Traceparent": "mine"}))
                context.detach(token)
            assert header(provider, "traceparent") == ["mine"]
            assert header(provider, "baggage") == ["user=ada"]

    asyncio.run(main())


def test_after_a_fallback_the_provider_is_the_one_that_answered(telemetry: Telemetry) -> None:
    async def main() -> int:
        async with raw_provider(closing(REFUSAL)) as first, raw_provider(closing(ANSWER)) as second:
            await answer(target(first, "p"), target(second, "q"))
            assert len(first.requests) == len(second.requests) == 1
            return int(second.url.rpartition(":")[2])

    port = asyncio.run(main())
    (span,) = spans_of(telemetry, "chat")
    assert [event.name for event in span.events] == ["fall back", "first token"]
    assert span.attributes["gen_ai.provider.name"] == "q"
    assert span.attributes["server.port"] == port


def test_a_span_says_what_was_asked_for_and_what_answered(telemetry: Telemetry) -> None:
    async def main() -> None:
        async with raw_provider(closing(ANSWER)) as provider:
            await answer(target(provider, "p"), temperature=0.5, max_tokens=7, seed=1, top_p=0.5)
            port = int(provider.url.rpartition(":")[2])
        (span,) = spans_of(telemetry, "chat")
        expected = {
            "gen_ai.provider.name": "p",
            "gen_ai.request.temperature": 0.5,
            "gen_ai.request.max_tokens": 7,
            "gen_ai.request.seed": 1,
            "gen_ai.request.top_p": 0.5,
            "gen_ai.request.stream": True,
            "gen_ai.output.type": "text",
            "gen_ai.response.id": "chatcmpl-7",
            "gen_ai.response.model": "m-2026",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 2,
            "server.address": "127.0.0.1",
            "server.port": port,
        }
        assert {name: span.attributes.get(name) for name in expected} == expected
        assert span.attributes["gen_ai.response.time_to_first_chunk"] > 0
        assert "gen_ai.request.reasoning.level" not in span.attributes

    asyncio.run(main())


def test_a_model_that_cannot_be_reached_is_named_with_its_error(telemetry: Telemetry) -> None:
    lost = Target(provider="p", dialect="openai-chat", model="m", base_url="http://127.0.0.1:9/v1")
    asyncio.run(answer((DIALECT, lost)))
    (span,) = spans_of(telemetry, "chat")
    assert span.attributes["error.type"] == "network"
    assert span.attributes["gen_ai.provider.name"] == "p"
    assert span.attributes["server.port"] == 9
    assert "gen_ai.response.id" not in span.attributes
    assert "gen_ai.response.model" not in span.attributes


# --- into tools and agents -----------------------------------------------------------------------


def mark() -> str:
    return format(trace.get_current_span().get_span_context().span_id, "016x")


@tokenwire.tool
async def in_a_coroutine() -> str:
    """..."""
    return await asyncio.create_task(_inner())


async def _inner() -> str:
    return mark()


@tokenwire.tool
def in_a_thread() -> str:
    """..."""
    return mark()


@tokenwire.tool
def in_a_generator() -> Iterator[str]:
    """..."""
    yield mark()


@tokenwire.tool
async def in_an_async_generator() -> AsyncIterator[str]:
    """..."""
    yield mark()


TOOLS = [in_a_coroutine, in_a_thread, in_a_generator, in_an_async_generator]


def test_the_current_span_of_a_tool_is_its_own(telemetry: Telemetry) -> None:
    seen: dict[str, str] = {}

    async def main() -> None:
        model = ScriptedModel([call(tool.name) for tool in TOOLS], ["Done."])
        async with tokenwire.stream("x", model=model, tools=TOOLS) as run:
            await run.result()
            seen.update({tool.name: tool.content for tool in run.state.tools.values()})
        assert mark() == "0" * 16

    asyncio.run(main())
    assert len(seen) == len(TOOLS)
    for name, inside in seen.items():
        assert id_of(telemetry.spans()[f"execute_tool {name}"])[1] == inside, name


def test_what_an_agent_opens_is_between_its_span_and_its_answers(telemetry: Telemetry) -> None:
    tracer = telemetry.provider.get_tracer("app")

    @tokenwire.agent
    async def helper(ctx: tokenwire.RunContext) -> None:
        with tracer.start_as_current_span("plan"):
            async with ctx.stream("x", model=ScriptedModel(["One."])) as answer:
                await answer.result()
        async with ctx.stream("y", model=ScriptedModel(["Two."])) as answer:
            await answer.result()

    async def main() -> None:
        async with tokenwire.stream("x", model=helper) as run:
            await run.result()

    asyncio.run(main())
    run, plan = telemetry.spans()["invoke_agent helper"], telemetry.spans()["plan"]
    assert plan.parent.span_id == run.context.span_id
    first, second = sorted(spans_of(telemetry, "chat"), key=lambda span: span.start_time)
    assert first.parent.span_id == plan.context.span_id
    assert second.parent.span_id == run.context.span_id


def test_a_tool_that_is_cancelled_has_its_end(telemetry: Telemetry) -> None:
    started = asyncio.Event()

    @tokenwire.tool
    async def wait() -> None:
        """..."""
        started.set()
        await asyncio.Event().wait()

    async def main() -> None:
        async with tokenwire.stream("x", model=ScriptedModel([call("wait")]), tools=[wait]) as run:
            reading = asyncio.ensure_future(run.result())
            await started.wait()
            run.cancel()
            with pytest.raises(CancelledRunError):
                await reading

    asyncio.run(main())
    tool = telemetry.spans()["execute_tool wait"]
    assert tool.attributes["error.type"] == "cancelled"
    assert tool.end_time is not None


def test_an_mcp_server_is_told_the_span_of_its_tool(telemetry: Telemetry) -> None:
    """By the package ``mcp`` itself: what it needs of us is that the tool's span is the current
    one. Its server runs the function below what the request says."""
    pytest.importorskip("mcp")
    from mcp.server import MCPServer

    from tokenwire.tools.mcp import mcp_tools

    server = MCPServer("inner", log_level="ERROR")

    @server.tool()
    def meta() -> str:
        return "-".join(id_of(trace.get_current_span()))

    async def main() -> str:
        async with mcp_tools(server) as tools:
            model = ScriptedModel([call("meta")], ["Done."])
            async with tokenwire.stream("x", model=model, tools=tools) as run:
                await run.result()
                return str(next(iter(run.state.tools.values())).content)

    told = asyncio.run(main())
    assert told == "-".join(id_of(telemetry.spans()["execute_tool meta"]))


def test_a_tracer_that_fails_is_removed_and_the_run_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        captures_content = True

        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("broken")

    async def main() -> str:
        model = ScriptedModel([call("in_a_thread")], ["Done."])
        async with tokenwire.stream("x", model=model, tools=TOOLS) as run:
            return (await run.result()).text

    stop = tracing.use(Broken())  # type: ignore[arg-type]
    try:
        assert asyncio.run(main()) == "Done."
        assert tracing.open_run(facts.RunStarted("r", "m"), None) is None
        assert caplog.text.count("a tracer failed and was removed") == 1
    finally:
        stop()


def test_time_per_chunk_is_measured_only_where_it_was_asked_for(telemetry: Telemetry) -> None:
    with watched(Telemetry(chunks=True)) as counted:
        hooks.report(facts.ChunksCame("r", "m", (0.25, 0.5)))
        hooks.report(facts.RunEnded("r", "m", "complete", None, 1.0, 3))
    name = ("gen_ai.client.operation.time_per_output_chunk", "")
    assert counted.sums()[name] == 0.75
    assert name not in telemetry.sums()


# --- across a takeover ---------------------------------------------------------------------------


class OneModel:
    def __init__(self, url: str) -> None:
        self._url = url

    def resolve(self, _: str) -> tuple[Dialect, Target]:
        base = self._url + "/v1"
        return DIALECT, Target(provider="demo", dialect="openai-chat", model="demo", base_url=base)


async def worker(url: str, path: Path, owner: str) -> Runs:
    runs = Runs(SQLiteStore(str(path)), registry=OneModel(url), retry=QUICK, lease=0.6, owner=owner)
    await runs.open()
    return runs


def caller() -> Any:
    remote = trace.SpanContext(
        int(TRACE, 16), int(PARENT, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(remote))


def test_the_span_of_a_takeover_links_to_that_of_the_fenced_worker(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async def main() -> str:
        async with simulator(rate=60.0) as server:
            first = await worker(server.url, tmp_path / "log.db", "elsewhere:1:a")
            token = context.attach(caller())
            info = await first.start(request_of("scenario:text"), model="m0")
            context.detach(token)
            follower = await first.follow(info.id)
            while "text-delta" not in {e.type for _, e in (await follower.next()).events()}:
                pass
            follower.close()
            assert first._tender is not None
            first._tender.cancel()  # it renews no more, but its run goes on
            zombie = first.owned[info.id].task
            second = await worker(server.url, tmp_path / "log.db", "elsewhere:2:b")
            await asyncio.wait_for(read_all(second, info.id), 60)
            await asyncio.wait([zombie], timeout=60)
            assert zombie.done()
            assert first.worker.http is not None
            await first.worker.http.aclose()
            await first.store.close()
            await second.aclose()
            return info.id

    run = run_async(main())
    old, new = sorted(spans_of(telemetry, "chat"), key=lambda span: span.start_time)
    assert old.attributes["tokenwire.run"] == new.attributes["tokenwire.run"] == run
    assert old.attributes["error.type"] == old.attributes["tokenwire.outcome"] == "fenced"
    assert not old.status.is_ok
    assert old.links == ()
    assert new.attributes["tokenwire.outcome"] == "complete"
    assert new.status.is_ok
    (link,) = new.links
    assert link.context.span_id == old.context.span_id
    assert link.context.trace_id == old.context.trace_id
    # Both are below who asked.
    for span in (old, new):
        assert (id_of(span)[0], format(span.parent.span_id, "016x")) == (TRACE, PARENT)
    assert telemetry.observer._open == {}


def test_a_worker_that_stops_hands_its_span_over_in_order(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    async def main() -> None:
        async with simulator(rate=60.0) as server:
            first = await worker(server.url, tmp_path / "log.db", "elsewhere:1:a")
            info = await first.start(request_of("scenario:text"), model="m0")
            await first.aclose()
            second = await worker(server.url, tmp_path / "log.db", "elsewhere:2:b")
            await asyncio.wait_for(read_all(second, info.id), 60)
            await second.aclose()

    run_async(main())
    old, new = sorted(spans_of(telemetry, "chat"), key=lambda span: span.start_time)
    assert old.attributes["tokenwire.outcome"] == "handed_over"
    assert old.status.is_ok
    assert "error.type" not in old.attributes
    assert [link.context.span_id for link in new.links] == [old.context.span_id]
    assert new.parent is None
    assert telemetry.observer._open == {}


def test_what_a_store_has_of_a_trace_may_be_anything(telemetry: Telemetry) -> None:
    """Of an earlier version, or of none at all."""
    for number, stored in enumerate((None, {}, {"span": "nonsense"}, {"traceparent": "\xff"})):
        hooks.report(facts.TakenOver(f"r{number}", 2, "go-on", "m", trace=stored))
        hooks.report(facts.RunEnded(f"r{number}", "m", "complete", None, 1.0, 3, trace=stored))
    spans = telemetry.exporter.get_finished_spans()
    assert len(spans) == 4
    assert all(span.links == () and span.parent is None for span in spans)


def test_the_late_word_of_a_fenced_worker_does_not_end_the_span_of_the_next(
    telemetry: Telemetry,
) -> None:
    hooks.report(facts.RunStarted("r", "m"))
    hooks.report(facts.TakenOver("r", 2, "go-on", "m"))
    hooks.report(facts.RunLeft("r", "fenced", 1))
    hooks.report(facts.TakenOver("r", 3, "go-on", "m"))
    hooks.report(facts.RunLeft("r", "fenced", 2))
    hooks.report(facts.RunEnded("r", "m", "complete", None, 1.0, 3))
    hooks.report(facts.RunLeft("r", "store", 3))
    outcomes = [s.attributes["tokenwire.outcome"] for s in spans_of(telemetry, "chat")]
    assert outcomes == ["fenced", "fenced", "complete"]
    assert all(span.kind is SpanKind.CLIENT for span in spans_of(telemetry, "chat"))
