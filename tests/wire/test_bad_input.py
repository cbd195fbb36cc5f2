"""What should not be asked, over every wire: the wire's own error and status, nothing started,
nothing lost.

Frames of WebSockets: test_ws_ui.py, test_server_websocket.py, test_tanstack_ways.py; the streams
under ``/ds``: test_durable_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.server import AS_A, AS_B, KEYS, Site, site

DEEP = b'{"id":"x","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
JSON = {"content-type": "application/json"}


def ui(prompt: str = "x", chat: str = "chat-1", **more: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": prompt}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", **more}


def ag_ui(prompt: str = "x", run: str = "run-1", **more: Any) -> dict[str, Any]:
    messages = [{"id": "u1", "role": "user", "content": prompt}]
    return {"threadId": "thread-1", "runId": run, "messages": messages, **more}


def said(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "x"}, {"role": role, "content": content, **more}]
    }


def a2a(**more: Any) -> dict[str, Any]:
    return {"message": {"messageId": "m-1", "parts": [{"text": "x"}], **more}}


CHAT: dict[str, Any] = {"model": "demo", **said("user")}
CLAUDE = {**CHAT, "max_tokens": 100}
ASKED: dict[str, Any] = {"model": "demo", "input": "x"}
LOOSE_RESULT = {"type": "tool_result", "tool_use_id": "a\nb", "content": "x"}
LANGGRAPH: dict[str, Any] = {"input": {"messages": [{"type": "human", "content": "x"}]}}
GOOD: dict[str, Any] = {
    "/v1/runs": {"prompt": "x"},
    "/api/chat": ui(),
    "/ag-ui": ag_ui(),
    "/v1/chat/completions": CHAT,
    "/v1/responses": ASKED,
    "/v1/messages": CLAUDE,
    "/ds/chat": ui(),
    "/a2a/message:send": a2a(),
    "/a2a/message:stream": a2a(messageId="m-2"),
    "/langgraph/threads/bad-1/runs/stream": LANGGRAPH,
    "/langgraph/runs/wait": LANGGRAPH,
}
BAD: dict[str, list[Any]] = {
    "/v1/runs": [
        {},
        {"prompt": "x", "base_url": "http://10.0.0.1"},
        {"prompt": "x", "thread": "a\nb"},
        {"prompt": "x", "model": "../other"},
        {"prompt": "x", "max_tokens": "many"},
        said("robot"),
        said("tool", [{"type": "tool-result", "content": "x"}]),
        said("tool", [{"type": "tool-result", "call_id": "a\nb", "content": "x"}]),
    ],
    "/api/chat": [
        {},
        ui(chat="a\nb"),
        ui(chat=""),
        {"messages": ui()["messages"]},
        {"id": "x", "messages": []},
        {"id": "x", "messages": "hello"},
        {"id": "x", "messages": [{"id": "m", "role": "robot", "parts": []}]},
        {"id": "x", "messages": [{"id": "m", "role": "user", "parts": [{"type": "z"}]}]},
        ui(base_url="http://10.0.0.1"),
        ui(api_key="k"),
        ui(model="../other"),
        ui(compat="9"),
    ],
    "/ag-ui": [
        {},
        {"threadId": "t"},
        {"threadId": "t", "messages": ag_ui()["messages"]},
        {"runId": "r", "messages": ag_ui()["messages"]},
        ag_ui(run="a b"),
        ag_ui(run="a\nb"),
        ag_ui(threadId="a\nb"),
        ag_ui(messages=[{"id": "1", "role": "robot", "content": "x"}]),
        ag_ui(messages=[{"id": "1", "role": "tool", "content": "x"}]),
    ],
    "/v1/chat/completions": [
        {"messages": []},
        {**CHAT, "n": 3},
        {**CHAT, "api_key": "x"},
        {**CHAT, "api_base": "http://x"},
        {**CHAT, "temperature": "hot"},
        {**CHAT, "temperature": 9},
        {**CHAT, "tools": [{"type": "function", "function": {}}]},
        {**CHAT, **said("robot")},
        {**CHAT, **said("tool")},
        {**CHAT, **said("tool", tool_call_id="a\nb")},
        {**CHAT, **said("assistant", tool_calls=[{"type": "function", "function": {"name": "f"}}])},
    ],
    "/v1/responses": [
        {"model": "demo"},
        {**ASKED, "api_key": "x"},
        {**ASKED, "input": [{"type": "unheard_of"}]},
        {**ASKED, "input": said("robot")["messages"]},
        {**ASKED, "input": [{"type": "function_call_output", "output": "x"}]},
        {**ASKED, "input": [{"type": "function_call_output", "call_id": "a\nb", "output": "x"}]},
        {**ASKED, "previous_response_id": "resp_none"},
        {**ASKED, "previous_response_id": "resp_a\nb"},
    ],
    "/v1/messages": [
        CHAT,
        {**CLAUDE, "max_tokens": 0},
        {**CLAUDE, "api_key": "x"},
        {**CLAUDE, **said("robot")},
        {**CLAUDE, **said("system")},
        {**CLAUDE, **said("user", [{"type": "tool_result", "content": "x"}])},
        {**CLAUDE, **said("user", [LOOSE_RESULT])},
    ],
    "/ds/chat": [
        {"id": "x"},
        ui(chat="a\nb"),
        ui(base_url="http://10.0.0.1"),
        {"messages": ui()["messages"]},
        {"id": "x", "messages": [{"id": "m", "role": "robot", "parts": []}]},
    ],
    "/a2a/message:send": [
        {},
        {"message": {"parts": [{"text": "x"}]}},
        a2a(role="robot"),
        a2a(parts=[]),
        a2a(parts="x"),
        a2a(parts=[{"z": 1}]),
        a2a(contextId="a\nb"),
        {**a2a(), "base_url": "http://10.0.0.1"},
        {**a2a(), "metadata": {"api_key": "k"}},
        {**a2a(), "tenant": "../other"},
    ],
    "/a2a/message:stream": [{}, a2a(parts=[{}])],
    "/langgraph/threads/bad-1/runs/stream": [
        {},
        {"input": {"messages": "x", "todo": []}},
        {"input": {"messages": [{"type": "robot", "content": "x"}]}},
        {"input": {"messages": [{"type": "human", "content": [{"type": "video_note"}]}]}},
        {"input": {"messages": [{"type": "tool", "content": "x"}]}},
        {**LANGGRAPH, "stream_mode": ["values", "debug"]},
        {**LANGGRAPH, "stream_mode": "events"},
        {**LANGGRAPH, "multitask_strategy": "rollback"},
        {**LANGGRAPH, "on_disconnect": "wait"},
        {**LANGGRAPH, "interrupt_before": "*"},
        {**LANGGRAPH, "webhook": "https://10.0.0.1/"},
        {**LANGGRAPH, "config": {"configurable": {"model": "x"}}},
        {**LANGGRAPH, "config": {"base_url": "http://10.0.0.1"}},
        {**LANGGRAPH, "checkpoint": {"checkpoint_ns": "tools:1"}},
        {**LANGGRAPH, "command": {"resume": True}},
        {"command": {"goto": "node"}},
        {"command": {}},
        {**LANGGRAPH, "assistant_id": "../other"},
        {**LANGGRAPH, "api_key": "k"},
    ],
    "/langgraph/runs/wait": [{}, {"command": {"resume": 1}}, {**LANGGRAPH, "checkpoint_id": "x"}],
}


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """A server with a run that is the same after all of it."""
    with site() as found:
        kept = f"/v1/runs/{found.start('scenario:tool')}/events"
        before = found.frames(kept)
        yield found
        assert found.frames(kept) == before


@pytest.fixture(scope="module")
def locked() -> Iterator[Site]:
    with site(api_keys=KEYS, bad_attach_per_minute=1000) as found:
        yield found


def form_is_right(path: str, answer: httpx.Response) -> None:
    """The error is in the form of the path's wire."""
    told = answer.json()
    error = told["error"]
    assert isinstance(error["message"], str)
    assert "\n" not in error["message"]
    if path.startswith("/v1/messages"):
        assert told["type"] == "error"
        assert set(error) == {"type", "message"}
    elif path.startswith(("/v1/chat", "/v1/responses", "/v1/models")):
        assert set(error) == {"message", "type", "param", "code"}
    elif path.startswith("/langgraph/"):
        assert told["detail"] == told["message"] == error["message"]
        assert error["request_id"] == answer.headers["x-request-id"]
    elif path.startswith("/a2a/"):
        assert set(error) == {"code", "status", "message", "details"}
        assert error["code"] == answer.status_code
    else:
        assert error["code"]
        assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("path", BAD)
def test_bad_input_has_the_wires_own_error_and_starts_nothing(here: Site, path: str) -> None:
    before = here.runs_started
    for body in BAD[path]:
        answer = here.client.post(path, json=body)
        assert answer.status_code == 400, (body, answer.text)
        form_is_right(path, answer)
    assert here.runs_started == before
    answer = here.client.post(path, json=GOOD[path])
    assert answer.is_success, answer.text
    assert here.runs_started == before + 1


@pytest.mark.parametrize("path", GOOD)
def test_bodies_that_are_no_json_or_too_much(here: Site, path: str) -> None:
    before = here.runs_started
    for content, status in (
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (DEEP, 400),
        (b'{"a":1,"a":2}', 400),
        (b'{"id":"' + b"x " * (1 << 20) + b'"}', 413),
        (b'{"id":"' + b"x" * (10 << 20) + b'"}', 413),  # as long as no files may be
    ):
        answer = here.client.post(path, content=content, headers=JSON)
        assert answer.status_code == status, (content[:20], answer.text)
        form_is_right(path, answer)
    answer = here.client.post(path, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    form_is_right(path, answer)
    assert here.runs_started == before


@pytest.mark.parametrize("path", GOOD)
def test_strangers_start_nothing(here: Site, locked: Site, path: str) -> None:
    before = here.runs_started, locked.runs_started
    unknown = locked.client.post(path, json=GOOD[path])
    assert unknown.status_code == 401
    form_is_right(path, unknown)
    foreign = here.client.post(path, json=GOOD[path], headers={"origin": "https://evil.example"})
    assert foreign.status_code == 403
    form_is_right(path, foreign)
    assert (here.runs_started, locked.runs_started) == before


#: Reads and commands of a run; `{run}` is its id, `{chat}` and `{own}` are the client's own names.
READS = [
    "/v1/runs/{run}",
    "/v1/runs/{run}/events",
    "/v1/runs/{run}/events?live=no",
    "/v1/runs/{run}/wires/ui",
    "/v1/responses/resp_{run}",
    "/v1/responses/resp_{run}?stream=true",
    "/ds/v1/stream/runs/{run}",
    "/ds/v1/stream/runs/{run}.ui",
    "/ag-ui?runId={own}&offset=-1",
    "/a2a/tasks/{run}",
    "/langgraph/runs/{run}/stream",
]
COMMANDS = [
    ("/v1/runs/{run}/cancel", {}),
    ("/v1/runs/{run}/approvals/a", {"approved": True}),
    ("/v1/runs/{run}/tools/c", {"content": 1}),
    ("/v1/runs/{run}/attach-tokens", {}),
    ("/v1/responses/resp_{run}/cancel", {}),
    ("/api/chat/{chat}/approval", {"approvalId": "a", "approved": True}),
    ("/a2a/tasks/{run}:cancel", {}),
    ("/langgraph/threads/a-thread/runs/{run}/cancel", {}),
]


def test_a_foreign_run_is_an_unknown_run(locked: Site) -> None:
    client = locked.client
    run = locked.start("x", headers=AS_A)
    client.post("/api/chat", json=ui(chat="a-chat"), headers=AS_A)
    client.post("/ag-ui", json=ag_ui(run="a-run"), headers=AS_A)
    stalled = locked.start("scenario:stall", headers=AS_A)
    theirs = {"run": run, "chat": "a-chat", "own": "a-run"}
    before = locked.runs_started
    for path in READS:
        mine = client.get(path.format(**theirs), headers=AS_A)
        assert mine.status_code == 200, path
        asked = [theirs, {"run": "A" * 22, "own": "no-run"}, {"run": "a%0Ab", "own": "a%0Ab"}]
        answers = [client.get(path.format(**names), headers=AS_B) for names in asked]
        assert [a.status_code for a in answers] == [404, 404, 404], path
        assert len({a.json()["error"]["message"] for a in answers}) == 1, path
        form_is_right(path, answers[0])
    for path, body in COMMANDS:
        for names in ({**theirs, "run": stalled}, {"run": "A" * 22, "chat": "a%0Ab"}):
            answer = client.post(path.format(**names), json=body, headers=AS_B)
            assert answer.status_code == 404, path
            form_is_right(path, answer)
    for path in ("/api/chat/a-chat/stream", "/ds/chat/a-chat/stream"):
        assert client.get(path, headers=AS_B).status_code == 204
    assert client.post("/api/chat/a-chat/stop", headers=AS_B, json={}).status_code == 204
    hydrated = client.get("/ag-ui?threadId=thread-1", headers=AS_B).json()
    assert hydrated == {"messages": [], "activeRun": None, "interrupts": None}
    for path in (f"/v1/runs/{run}", f"/v1/responses/resp_{run}"):
        assert client.delete(path, headers=AS_B).status_code == 404
    assert client.get(f"/v1/runs/{run}", headers=AS_A).json()["state"] == "complete"
    assert client.get(f"/v1/runs/{stalled}", headers=AS_A).json()["state"] == "running"
    assert locked.runs_started == before
    client.post(f"/v1/runs/{stalled}/cancel", json={}, headers=AS_A)
