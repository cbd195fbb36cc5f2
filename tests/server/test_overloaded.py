"""A server that is late: new runs are refused in every wire's form, and nothing else is."""

from __future__ import annotations

import json
import math
import re
import socket
import time
from typing import Any

import pytest

from support.server import AS_A, KEYS, Reading, Site, site, text_of
from tokenwire.server.edge.auth import Auth

USER = {"role": "user", "content": "x"}
TEXT = {"role": "user", "parts": [{"type": "text", "text": "x"}]}
#: A start on each wire, and where its error has the text.
STARTS: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "native": ("/v1/runs", {"prompt": "x"}, ["error", "message"]),
    "chat": ("/v1/chat/completions", {"messages": [USER], "stream": True}, ["error", "message"]),
    "responses": ("/v1/responses", {"input": "x"}, ["error", "message"]),
    "anthropic": (
        "/v1/messages",
        {"messages": [USER], "max_tokens": 10, "stream": True},
        ["error", "message"],
    ),
    "ui": ("/api/chat", {"id": "c-1", "messages": [{"id": "m-1", **TEXT}]}, ["error", "message"]),
    "ag-ui": (
        "/ag-ui",
        {"threadId": "t-1", "runId": "r-1", "messages": [{"id": "m-1", **USER}], "tools": []}
        | {"context": [], "state": {}, "forwardedProps": {}},
        ["error", "message"],
    ),
    "a2a": (
        "/a2a/message:send",
        {"message": {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "x"}]}},
        ["error", "message"],
    ),
}
SENTENCE = re.compile(
    r"the server is overloaded: it is \S+ s late, and starts no more runs above 0.25 s "
    r"\(max_lag\); try again in [2-5] s"
)
#: Late for longer than any test takes: it falls by itself, a fifth each 0.1 s.
LATE = 1e30


def overload(here: Site) -> None:
    assert here.client.get("/livez").status_code == 200  # from now on a connection is open
    connections = here.app.state.connections
    connections.lag, connections.overload._since = LATE, -math.inf
    end = time.monotonic() + 30
    while not connections.overload.is_on:  # the ticker looks ten times a second
        assert time.monotonic() < end
        time.sleep(0.01)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def recover(here: Site) -> None:
    here.app.state.connections.lag = 0.0


def shape(value: Any) -> Any:
    """What is the same in each refusal."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items() if key != "request_id"}
    return "SENTENCE" if isinstance(value, str) and SENTENCE.fullmatch(value) else type(value)


@pytest.mark.parametrize("wire", list(STARTS))
def test_a_start_is_refused_in_the_form_of_its_wire(wire: str) -> None:
    path, body, place = STARTS[wire]
    with site(max_lag=0.25) as here:
        if wire in ("chat", "responses", "anthropic"):
            body = body | {"model": here.app.state.model}
        overload(here)
        # An origin of its own is what only the application knows.
        own = {"origin": f"http://127.0.0.1:{here.port}"}
        answers = [here.client.post(path, json=body, headers=more) for more in ({}, own)]
        assert here.app.state.limits.refused["max_lag"] == 2
        for answer in answers:
            assert answer.status_code == 503
            assert 2 <= int(answer.headers["retry-after"]) <= 5
            assert answer.headers["content-type"].startswith("application/")
            assert answer.headers["cache-control"] == "no-store, no-transform"
            assert len(answer.headers["x-request-id"]) == 16
            text = answer.json()
            for name in place:
                text = text[name]
            assert SENTENCE.fullmatch(text)
        early, late = answers
        assert shape(early.json()) == shape(late.json())
        usual = {"connection", "date"}
        assert set(early.headers) - usual == set(late.headers) - usual
        ids = {answer.headers["x-request-id"] for answer in answers}
        again = here.client.post(path, json=body)
        ids.add(again.headers["x-request-id"])
        assert len(ids) == 3
        if "request_id" in again.text:
            assert again.headers["x-request-id"] in again.text
        assert here.runs_started == 0
        recover(here)
        assert here.client.post(path, json=body).status_code in (200, 201)


@pytest.mark.parametrize("wire", list(STARTS))
def test_a_late_server_asks_for_a_key_first(wire: str) -> None:
    """Who has none hears nothing of how late it is, on any wire; who has one is refused for it."""
    path, body, _ = STARTS[wire]
    with site(max_lag=0.25, api_keys=KEYS) as here:
        if wire in ("chat", "responses", "anthropic"):
            body = body | {"model": here.app.state.model}
        overload(here)
        for headers in ({}, bearer("wrong"), {"x-api-key": "wrong"}, {"authorization": "Basic x"}):
            answer = here.client.post(path, json=body, headers=headers)
            assert answer.status_code == 401, (headers, answer.text)
            assert "overload" not in answer.text
            assert "retry-after" not in answer.headers
        assert here.app.state.limits.refused["max_lag"] == 0
        assert here.client.post(path, json=body, headers=AS_A).status_code == 503


def test_a_key_that_the_application_took_needs_no_further_question() -> None:
    """A crowd with a good key is refused where that costs least."""
    auth = Auth(verify={"good": "ada"}.get)
    with site(auth=auth) as here:
        assert not auth.knows({b"x-api-key": b"good"})
        for key, status in (("good", 201), ("bad", 401)):
            answer = here.client.post("/v1/runs", json={"prompt": "x"}, headers=bearer(key))
            assert answer.status_code == status
        assert auth.knows({b"authorization": b"Bearer good"})
        assert auth.knows({b"x-api-key": b"good"})
        assert not auth.knows({b"x-api-key": b"bad"})
        assert not auth.knows({})


def test_what_runs_goes_on_and_can_be_read_and_stopped() -> None:
    with site(max_lag=0.25) as here:
        run = here.start("scenario:stall")
        key = {"idempotency-key": "k-1"}
        first = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=key)
        overload(here)
        reading = Reading.get(here.port, f"/v1/runs/{run}/events")
        reading.until(b"text-delta")
        assert here.client.get(f"/v1/runs/{run}").status_code == 200
        again = here.client.post("/v1/runs", json={"prompt": "scenario:text"}, headers=key)
        assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
        assert text_of(here.frames(f"/v1/runs/{first.json()['id']}/events"))
        assert here.client.post(f"/v1/runs/{run}/cancel").status_code < 300
        assert b"run-end" in reading.until(b"run-end")
        assert here.client.post("/v1/runs", json={"prompt": "x"}).status_code == 503
        assert here.runs_started == 2


def test_a_turn_waits_behind_the_one_under_way_and_a_first_one_is_refused() -> None:
    with site(max_lag=0.25) as here:
        body = {"prompt": "scenario:stall", "thread": "t-1", "while_busy": "queue"}
        first = here.client.post("/v1/runs", json=body)
        assert first.status_code == 201
        overload(here)
        assert here.client.post("/v1/runs", json=body | {"prompt": "next"}).status_code == 202
        assert here.client.post("/v1/runs", json=body | {"thread": "t-2"}).status_code == 503
        assert here.runs_started == 1


@pytest.mark.parametrize("where", ["request", "conversation", "server"])
def test_a_turn_beside_the_one_under_way_is_refused_as_any_start(where: str) -> None:
    """With the rule ``parallel`` of the request, of its conversation, or of the server."""
    own = {"while_busy": "queue"} if where == "conversation" else {}
    with site(max_lag=0.25, **own) as here:
        body = {"prompt": "scenario:stall", "thread": "t-1", "history": "thread"}
        assert here.client.post("/v1/runs", json=body).status_code == 201
        if where == "conversation":
            rule = {"while_busy": "parallel"}
            assert here.client.put("/v1/threads/t-1", json=rule).is_success
        if where == "request":
            body["while_busy"] = "parallel"
        overload(here)
        assert here.client.post("/v1/runs", json=body | {"prompt": "next"}).status_code == 503
        assert here.runs_started == 1
        recover(here)
        assert here.client.post("/v1/runs", json=body | {"prompt": "next"}).status_code == 201


def test_a_turn_waits_whose_conversation_its_token_names() -> None:
    with site(max_lag=0.25, api_keys=KEYS) as here:
        path = "/v1/threads/t-1/attach-tokens"
        answer = here.client.post(path, json={"scopes": ["write"]}, headers=AS_A)
        token = answer.json()["token"]
        body = {"prompt": "scenario:stall", "while_busy": "queue"}
        assert here.client.post("/v1/runs", json=body, headers=AS_A | bearer(token)).is_success
        overload(here)
        for headers in (bearer(token), {"x-api-key": token}):
            answer = here.client.post("/v1/runs", json=body, headers=headers)
            assert (answer.status_code, answer.json()["thread"]) == (202, "t-1")
        new = {"prompt": "x"}
        assert here.client.post("/v1/runs", json=new, headers=AS_A).status_code == 503


def test_a_turn_waits_whose_conversation_is_named_in_escapes() -> None:
    with site(max_lag=0.25) as here:
        body = {"prompt": "scenario:stall", "thread": "t-1", "while_busy": "queue"}
        assert here.client.post("/v1/runs", json=body).status_code == 201
        overload(here)
        for name in (r"\u0074hread", r"t\u0068read", r"threa\u0064"):
            text = json.dumps(body).replace("thread", name)
            headers = {"content-type": "application/json"}
            answer = here.client.post("/v1/runs", content=text, headers=headers)
            assert answer.status_code == 202, name


def test_health_and_metrics_say_so() -> None:
    pytest.importorskip("prometheus_client")
    with site(max_lag=0.25, metrics=True) as here:
        assert here.client.get("/healthz").json()["status"] == "ok"
        assert "tokenwire_overloaded 0\n" in here.client.get("/metrics").text
        overload(here)
        assert here.client.post("/v1/runs", json={"prompt": "x"}).status_code == 503
        health = here.client.get("/healthz")
        assert (health.status_code, health.json()["status"]) == (200, "overloaded")
        page = here.client.get("/metrics").text
        assert "tokenwire_overloaded 1\n" in page
        assert "tokenwire_starts_refused_overloaded 1\n" in page


def test_what_comes_before_a_request_is_answered_and_a_late_body_is_waited_for() -> None:
    with site(max_lag=0.25) as here:
        overload(here)
        body = json.dumps({"prompt": "x"}).encode()
        head = (
            f"POST /v1/runs HTTP/1.1\r\nhost: 127.0.0.1:{here.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode()
        get = f"GET /livez HTTP/1.1\r\nhost: 127.0.0.1:{here.port}\r\n".encode()
        both = here.raw(get + b"\r\n" + head + body + get + b"connection: close\r\n\r\n")
        assert both.index(b"HTTP/1.1 200") < both.index(b"HTTP/1.1 503")
        with socket.create_connection(("127.0.0.1", here.port), 30) as sock:
            sock.sendall(head + body[:3])
            assert here.client.get("/livez").status_code == 200  # in a later turn of the loop
            sock.sendall(body[3:])
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 503")
        assert here.runs_started == 0
