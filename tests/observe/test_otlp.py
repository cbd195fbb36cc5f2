"""What a backend receives: an OTLP collector in this process, which decodes the protobuf."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

import tokenwire
from support.telemetry import Telemetry, watched
from tokenwire.testing import ScriptedModel, call

exporters = pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    reason="needs opentelemetry-exporter-otlp-proto-http",
)


class Collector(ThreadingHTTPServer):
    """Takes ``POST /v1/traces`` as a collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1/traces"
        self.headers: list[Any] = []
        self.spans: list[Any] = []


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service

        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = service.ExportTraceServiceRequest.FromString(body)
        self.server.headers.append(self.headers)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans += [(scope.scope.name, span) for span in scope.spans]
        answer = service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def values(span: Any) -> dict[str, Any]:
    return {
        item.key: getattr(item.value, str(item.value.WhichOneof("value")))
        for item in span.attributes
    }


@tokenwire.tool
async def look(what: str) -> str:
    """Look."""
    return what


@tokenwire.agent
async def helper(ctx: tokenwire.RunContext) -> None:
    model = ScriptedModel([call("look", {"what": "a secret"})], ["Seen."])
    async with ctx.stream("x", model=model, tools=[look]) as answer:
        await answer.result()


def test_an_agents_run_arrives_over_http(collector: Collector) -> None:
    telemetry = Telemetry()
    exporter = exporters.OTLPSpanExporter(
        collector.url, headers={"authorization": "Basic a2V5cw=="}
    )
    telemetry.provider.add_span_processor(SimpleSpanProcessor(exporter))

    async def main() -> None:
        async with tokenwire.stream("x", model=helper) as run:
            await run.result()

    with watched(telemetry):
        asyncio.run(main())
    telemetry.provider.shutdown()
    assert {scope for scope, _ in collector.spans} == {"tokenwire"}
    spans = {values(span)["gen_ai.operation.name"]: span for _, span in collector.spans}
    run, chat, tool = spans["invoke_agent"], spans["chat"], spans["execute_tool"]
    assert len(collector.spans) == 3
    assert (chat.parent_span_id, tool.parent_span_id) == (run.span_id, chat.span_id)
    assert run.parent_span_id == b""
    assert {span.trace_id for span in spans.values()} == {run.trace_id}
    assert values(run)["gen_ai.agent.name"] == "helper"
    for span in (chat, run):  # the scripted model reports no tokens: that is not zero
        assert "gen_ai.usage.output_tokens" not in values(span)
        assert values(span)["tokenwire.usage_unknown"]
    assert [v.string_value for v in values(chat)["gen_ai.response.finish_reasons"].values] == [
        "stop"
    ]
    assert b"a secret" not in b"".join(span.SerializeToString() for _, span in collector.spans)
    assert {headers["authorization"] for headers in collector.headers} == {"Basic a2V5cw=="}
