"""A caller's trace context counts over every wire; a malformed one counts for nothing."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.sync.client import connect

from support.every_route import ag_ui_body
from support.server import Site, site
from support.telemetry import Telemetry, watched

PROMPT = "scenario:text"
ASKED = [{"role": "user", "content": PROMPT}]
QUESTION = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": PROMPT}]}


def a2a() -> dict[str, Any]:
    return {"message": {"messageId": secrets.token_hex(8), "parts": [{"text": PROMPT}]}}


def ag_ui() -> dict[str, Any]:
    ids = {"threadId": secrets.token_hex(8), "runId": secrets.token_hex(8)}
    return {**ids, **ag_ui_body(PROMPT)}


def rpc() -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": a2a()}


def send() -> dict[str, Any]:
    chat = {"id": secrets.token_hex(8), "messages": [QUESTION]}
    return {"type": "send", "requestId": "r1", "trigger": "submit-message", **chat}


DOORS: dict[str, Any] = {
    "/v1/runs": lambda: {"prompt": PROMPT},
    "/v1/chat/completions": lambda: {"model": "demo", "messages": ASKED},
    "/v1/responses": lambda: {"model": "demo", "input": PROMPT},
    "/v1/messages": lambda: {"model": "demo", "max_tokens": 100, "messages": ASKED},
    "/api/chat": lambda: {"id": secrets.token_hex(8), "messages": [QUESTION]},
    "/ag-ui": ag_ui,
    "/a2a": rpc,
    "/a2a/message:send": a2a,
    "/a2a/message:stream": a2a,
    "/ds/chat": lambda: {"id": secrets.token_hex(8), "messages": [QUESTION]},
    "/chat/stream": None,
}
SOCKETS: dict[str, Any] = {
    "/ws": lambda: {"op": "start", "request": {"prompt": PROMPT}},
    "/ag-ui": ag_ui,
    "/api/chat/ws": send,
}
MALFORMED = ("", "nonsense", "00-" + "0" * 32 + "-" + "cd" * 8 + "-01", "ff-1-2-3", "x" * 5_000)


@pytest.fixture(scope="module")
def telemetry() -> Iterator[Telemetry]:
    with watched(Telemetry()) as made:
        yield made


@pytest.fixture(scope="module")
def here(telemetry: Telemetry) -> Iterator[Site]:
    with site(while_busy="queue") as made:
        yield made


def span_of(telemetry: Telemetry, trace: str) -> Any:
    """The one run in this trace, when it has ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for span in telemetry.exporter.get_finished_spans():
            if format(span.get_span_context().trace_id, "032x") == trace:
                return span
        time.sleep(0.02)
    raise AssertionError(f"no span of the trace {trace}")


def traced() -> tuple[str, str, dict[str, str]]:
    trace, parent = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace}-{parent}-01", "tracestate": "vendor=1"}
    return trace, parent, headers


def check(telemetry: Telemetry, trace: str, parent: str) -> None:
    span = span_of(telemetry, trace)
    assert span.name == "chat demo"
    assert format(span.parent.span_id, "016x") == parent
    assert span.get_span_context().trace_state.get("vendor") == "1"


def ask(here: Site, path: str, headers: dict[str, str]) -> None:
    body = DOORS[path]
    if body is None:
        answer = here.client.get(path, params={"prompt": PROMPT}, headers=headers)
    else:
        more = {"a2a-version": "1.0"} if path.startswith("/a2a") else {}
        answer = here.client.post(path, json=body(), headers={**headers, **more})
    assert answer.is_success, answer.text


@pytest.mark.parametrize("path", DOORS)
def test_over_http(here: Site, telemetry: Telemetry, path: str) -> None:
    trace, parent, headers = traced()
    ask(here, path, headers)
    check(telemetry, trace, parent)


@pytest.mark.parametrize("path", SOCKETS)
def test_over_a_websocket(here: Site, telemetry: Telemetry, path: str) -> None:
    trace, parent, headers = traced()
    address = here.url.replace("http", "ws", 1) + path
    with connect(address, proxy=None, additional_headers=headers) as socket:
        socket.send(json.dumps(SOCKETS[path]()))
        check(telemetry, trace, parent)


def test_a_turn_that_waits_in_a_queue_keeps_it(here: Site, telemetry: Telemetry) -> None:
    def turn(headers: dict[str, str], prompt: str) -> Any:
        body = {"prompt": prompt, "thread": "queued", "history": "thread"}
        answer = here.client.post("/v1/runs", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer

    first_trace, first, headers = traced()
    turn(headers, "scenario:slow?rate=100")
    trace, parent, headers = traced()
    assert turn(headers, PROMPT).status_code == 202
    turn({}, PROMPT)  # without one: not of the trace of who was before it
    check(telemetry, first_trace, first)
    check(telemetry, trace, parent)
    deadline = time.monotonic() + 60
    while len(of_thread(telemetry)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [span.parent is None for span in of_thread(telemetry)] == [False, False, True]


def of_thread(telemetry: Telemetry) -> list[Any]:
    return [
        span
        for span in telemetry.exporter.get_finished_spans()
        if span.attributes.get("gen_ai.conversation.id") == "queued"
    ]


def test_a_run_that_is_produced_outside_is_below_who_opened_it(
    here: Site, telemetry: Telemetry
) -> None:
    trace, parent, headers = traced()
    body = {"prompt": "a question", "model": "mine"}
    run = here.client.post("/v1/producers", json=body, headers=headers).json()["run"]
    end = here.client.post(f"/v1/producers/{run}/finish", json={"epoch": 1, "first": 2})
    assert end.is_success, end.text
    span = span_of(telemetry, trace)
    assert (span.name, format(span.parent.span_id, "016x")) == ("chat mine", parent)


@pytest.mark.parametrize("value", MALFORMED)
def test_a_malformed_one_is_ignored(here: Site, telemetry: Telemetry, value: str) -> None:
    before = len(telemetry.exporter.get_finished_spans())
    ask(here, "/v1/chat/completions", {"traceparent": value, "tracestate": "=,,"})
    deadline = time.monotonic() + 60
    while len(telemetry.exporter.get_finished_spans()) == before and time.monotonic() < deadline:
        time.sleep(0.02)
    (span,) = telemetry.exporter.get_finished_spans()[before:]
    assert span.parent is None
    assert span.attributes["tokenwire.outcome"] == "complete"
