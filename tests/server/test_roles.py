"""Roles: what a principal may not do is refused with 403 on every wire, and nothing happens."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.routing import Route
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from support.people import Person, people_server
from tokenwire.server import Live

ROLES = ("read", "write", "approve", "admin")
#: What each role may do; everything is about ann's own runs.
MAY = {
    "none": set(),
    "read": {"read"},
    "write": {"read", "write"},
    "approve": {"read", "approve"},
    "write and approve": {"read", "write", "approve"},
    "admin": {"read", "write", "approve", "admin"},
}
GIVEN = {
    "none": [],
    "read": ["read"],
    "write": ["write"],
    "approve": ["approve"],
    "write and approve": ["write", "approve"],
    "admin": ["admin"],
}
RUN = "unknown-run-0123456789"
#: Per method and path, the role that the request needs; those that are not here are everybody's.
#: A route that is new must be added here.
NEEDED = {
    "GET /v1/runs/{run}": "read",
    "GET /v1/runs/{run}/info": "read",
    "GET /v1/runs/{run}/events": "read",
    "GET /v1/runs/{run}/wires/{wire}": "read",
    "GET /v1/threads": "read",
    "GET /v1/usage": "read",
    "GET /v1/runs/{run}/usage": "read",
    "GET /v1/threads/{thread}/usage": "read",
    **{
        f"{method} /v1/budgets{path}": "admin"
        for path in ("", "/{whose}", "/{whose}/{owner:path}")
        for method in ("GET", "PUT", "DELETE")
        if path or method == "GET"
    },
    "GET /v1/usage/principals": "admin",
    "GET /v1/usage/tenants": "admin",
    "GET /v1/threads/{thread}": "read",
    "GET /v1/models": "read",
    "GET /v1/models/{model:path}": "read",
    "GET /metrics": "admin",
    "GET /v1/probe": "read",
    "GET /api/chat/{chat}/stream": "read",
    "GET /ag-ui": "read",
    "GET /v1/responses/{response}": "read",
    "GET /ds/chat/{chat}/stream": "read",
    "POST /v1/runs": "write",
    "POST /v1/runs/{run}/cancel": "write",
    "POST /v1/runs/{run}/approvals/{approval}": "approve",
    "GET /v1/runs/{run}/approvals/{approval}/links": "approve",
    "POST /v1/runs/{run}/approvals/{approval}/links": "approve",
    "DELETE /v1/runs/{run}/approvals/{approval}/links": "approve",
    "DELETE /v1/runs/{run}/approvals/{approval}/links/{link}": "approve",
    "GET /v1/waiting": "read",
    "GET /v1/waiting/events": "read",
    "POST /v1/runs/{run}/tools/{call}": "write",
    "POST /v1/runs/{run}/attach-tokens": "read",
    "DELETE /v1/runs/{run}/attach-tokens": "read",
    "POST /v1/threads/{thread}/attach-tokens": "read",
    "DELETE /v1/threads/{thread}/attach-tokens": "read",
    "DELETE /v1/runs/{run}": "admin",
    "PUT /v1/threads/{thread}": "write",
    "DELETE /v1/threads/{thread}": "admin",
    "GET /v1/threads/{thread}/turns": "read",
    "GET /v1/threads/{thread}/events": "read",
    "POST /v1/threads/{thread}/typing": "write",
    "PUT /v1/threads/{thread}/head": "write",
    "GET /v1/threads/{thread}/queue": "read",
    "GET /v1/threads/{thread}/queue/{run}": "read",
    "PUT /v1/threads/{thread}/queue/{run}": "write",
    "DELETE /v1/threads/{thread}/queue/{run}": "write",
    "POST /v1/threads/{thread}/queue/{run}/now": "write",
    "GET /v1/threads/{thread}/members": "read",
    "PUT /v1/threads/{thread}/members/{principal:path}": "write",
    "DELETE /v1/threads/{thread}/members/{principal:path}": "write",
    "GET /v1/threads/{thread}/invites": "read",
    "POST /v1/threads/{thread}/invites": "write",
    "DELETE /v1/threads/{thread}/invites/{invite}": "write",
    "POST /v1/invites/accept": "read",
    "POST /v1/producers": "write",
    "GET /v1/producers/{run}": "write",
    "POST /v1/producers/{run}/events": "write",
    "POST /v1/producers/{run}/renew": "write",
    "POST /v1/producers/{run}/claim": "write",
    "POST /v1/producers/{run}/finish": "write",
    "GET /v1/producers/{run}/commands": "write",
    "POST /api/chat": "write",
    "POST /api/chat/{chat}/stop": "write",
    "POST /api/chat/{chat}/approval": "approve",
    "POST /ag-ui": "write",
    "POST /v1/chat/completions": "write",
    "POST /v1/responses": "write",
    "POST /v1/responses/{response}/cancel": "write",
    "DELETE /v1/responses/{response}": "admin",
    "POST /v1/messages": "write",
    "POST /v1/messages/count_tokens": "read",
    "POST /ds/chat": "write",
    "POST /a2a": "read",
    **{
        f"{method} {base}{path}": role
        for base in ("/a2a", "/a2a/{tenant:path}")
        for method, path, role in (
            ("POST", "/message:send", "write"),
            ("POST", "/message:stream", "write"),
            ("GET", "/tasks", "read"),
            ("GET", "/tasks/{task}", "read"),
            ("GET", "/tasks/{task}:subscribe", "read"),
            ("POST", "/tasks/{task}:subscribe", "read"),
            ("POST", "/tasks/{task}:cancel", "write"),
            ("GET", "/tasks/{task}/pushNotificationConfigs", "read"),
            ("POST", "/tasks/{task}/pushNotificationConfigs", "write"),
            ("GET", "/tasks/{task}/pushNotificationConfigs/{config}", "read"),
            ("DELETE", "/tasks/{task}/pushNotificationConfigs/{config}", "write"),
            ("GET", "/extendedAgentCard", "read"),
        )
    },
    **{
        f"{method} /langgraph{path}": role
        for method, path, role in (
            ("GET", "/info", "read"),
            ("POST", "/assistants/search", "read"),
            ("GET", "/assistants/{assistant:path}", "read"),
            ("POST", "/threads", "write"),
            ("POST", "/threads/search", "read"),
            ("GET", "/threads/{thread}", "read"),
            ("DELETE", "/threads/{thread}", "admin"),
            ("GET", "/threads/{thread}/state", "read"),
            ("POST", "/threads/{thread}/state/checkpoint", "read"),
            ("GET", "/threads/{thread}/state/{checkpoint}", "read"),
            ("POST", "/threads/{thread}/history", "read"),
            ("POST", "/threads/{thread}/stream/events", "read"),
            ("POST", "/threads/{thread}/commands", "write"),
            ("GET", "/threads/{thread}/runs", "read"),
            ("GET", "/threads/{thread}/runs/{run}", "read"),
            ("DELETE", "/threads/{thread}/runs/{run}", "admin"),
            ("GET", "/threads/{thread}/runs/{run}/join", "read"),
            ("POST", "/threads/{thread}/runs/{run}/cancel", "write"),
            *(
                (m, f"{base}{p}", r)
                for base in ("/runs", "/threads/{thread}/runs")
                for m, p, r in (
                    ("POST", "", "write"),
                    ("POST", "/stream", "write"),
                    ("POST", "/wait", "write"),
                    ("GET", "/{run}/stream", "read"),
                )
            ),
        )
    },
}
#: They have no end, but for ``?live=no``.
ENDLESS = ("/v1/threads/{thread}/events", "/v1/waiting/events", "/{thread}/stream/events")
#: They need it by name: whoever may do everything else is refused.
OPERATORS = ("/v1/budgets", "/v1/usage/principals", "/v1/usage/tenants")
BY_METHOD = {"GET": "read", "HEAD": "read", "DELETE": "admin"}
OPEN = {"/v1/approval-links/{token}", "/livez", "/healthz", "/v1/session", "/openapi.json", "/docs"}
OPEN |= {"/ds/v1/stream/__ds/jwks.json", "/.well-known/agent-card.json"}


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    with people_server() as found:
        yield found


@pytest.fixture(scope="module")
def owner(here: tuple[str, Live]) -> Person:
    return Person(here[0], "ann")


def _question(text: str) -> dict[str, Any]:
    return {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}


def _ag_ui(text: str, run: str, thread: str) -> dict[str, Any]:
    messages = [{"id": "m1", "role": "user", "content": text}]
    more: dict[str, Any] = {"tools": [], "context": [], "state": {}, "forwardedProps": {}}
    return {"runId": run, "threadId": thread, "messages": messages, **more}


def _needed(route: Route, method: str) -> str | None:
    """What the table says; Durable Streams' and sockets' methods say it themselves."""
    named = NEEDED.get(f"{'GET' if method == 'HEAD' else method} {route.path}")
    if named is not None or route.path in OPEN or method == "OPTIONS":
        return named
    if re.search(r"/subscriptions/\{name\}/(callback|ack|release)$", route.path):
        return None  # the route checks a token of its own
    assert route.path.startswith("/ds/v1/stream/"), f"{method} {route.path} needs which role?"
    return BY_METHOD.get(method, "write")


def _body(path: str, method: str) -> Any:
    if method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return None
    asked = [{"role": "user", "content": "scenario:text"}]
    bodies: dict[str, Any] = {
        "/v1/runs": {"prompt": "scenario:text"},
        "/v1/producers": {"prompt": "a question"},
        "/v1/producers/{run}/events": {"epoch": 1, "first": 2, "events": [{"type": "data"}]},
        "/v1/producers/{run}/renew": {"epoch": 1},
        "/v1/producers/{run}/finish": {"epoch": 1, "first": 2},
        "/v1/runs/{run}/approvals/{approval}": {"approved": True},
        "/v1/runs/{run}/tools/{call}": {"content": "sunny"},
        "/v1/threads/{thread}": {"title": "mine"},
        "/api/chat": {"id": "role-chat", "messages": [_question("scenario:text")]},
        "/api/chat/{chat}/approval": {"approvalId": "ap_1", "approved": True},
        "/v1/chat/completions": {"model": "demo", "messages": asked},
        "/v1/responses": {"model": "demo", "input": "scenario:text"},
        "/v1/messages": {"model": "demo", "max_tokens": 100, "messages": asked},
        "/v1/messages/count_tokens": {"model": "demo", "messages": asked},
        "/ds/chat": {"id": "role-chat", "messages": [_question("scenario:text")]},
        "/langgraph/threads/{thread}/commands": {
            "id": 1,
            "method": "run.start",
            "params": {"input": {"messages": [{"type": "human", "content": "scenario:text"}]}},
        },
        "/langgraph/threads/{thread}/stream/events": {"channels": ["values"]},
    }
    if path.endswith(("/message:send", "/message:stream")):
        return {"message": {"messageId": "role-message", "parts": [{"text": "scenario:text"}]}}
    return bodies.get(path, {})


@pytest.mark.parametrize("who", GIVEN)
def test_every_route_needs_its_role(here: tuple[str, Live], who: str) -> None:
    url, live = here
    person, free = Person(url, f"p-{who}", roles=GIVEN[who]), Person(url, f"free-{who}")
    operator = Person(url, f"operator-{who}", roles=["admin"])
    seen: set[str] = set()
    for group, routes in live.server.wires.items():
        for route in routes:
            if group == "page" or not isinstance(route, Route):
                continue
            for method in sorted(route.methods or ()):
                needed = _needed(route, method)
                seen.add(f"{method} {route.path}")
                path = re.sub(r"\{\w+(:path)?\}", RUN, route.path)
                if route.path.endswith(ENDLESS):
                    path += "?live=no"
                body = _body(route.path, method)
                if route.path == "/ag-ui" and body is not None:
                    body = _ag_ui("scenario:text", f"run-{who}", "t")
                got = person.ask(method, path, body)
                if needed is None or needed in MAY[who]:
                    expected = free.ask(method, path, body)
                    if path.startswith(OPERATORS):
                        assert expected.status_code == 403, (method, path)
                        expected = operator.ask(method, path, body)
                    assert got.status_code == expected.status_code, (method, path, got.text)
                    assert got.status_code != 403
                    continue
                assert got.status_code == 403, (method, path)
                if method != "HEAD":
                    assert f"needs the role '{needed}'" in got.text, got.text
    assert seen >= set(NEEDED)
    if "write" not in MAY[who]:
        everything = Person(url, f"p-{who}")
        assert everything.ask("GET", "/v1/threads").json()["threads"] == []


def test_the_refusal_has_a_code_on_each_wire(here: tuple[str, Live]) -> None:
    reader = Person(here[0], "ann", roles=["read"])
    native = reader.ask("POST", "/v1/runs", {"prompt": "hi"}).json()["error"]
    assert (native["code"], native["role"]) == ("role_required", "write")
    openai = reader.ask("POST", "/v1/chat/completions", {"model": "demo", "messages": []})
    assert openai.json()["error"]["code"] == "role_required"
    assert openai.json()["error"]["type"] == "permission_error"
    anthropic = reader.ask("POST", "/v1/messages", {})
    assert anthropic.json()["error"]["type"] == "permission_error"


def _answered(call: str, tool: str, **more: Any) -> dict[str, Any]:
    """An assistant's message in which a person's page has filled in something."""
    part = {"type": f"tool-{tool}", "toolCallId": call, "input": {"path": "/x", "city": "x"}}
    return {"role": "assistant", "parts": [part | more]}


@pytest.fixture(scope="module")
def waiting(owner: Person) -> dict[str, str]:
    """Runs of ann that wait: for an approval and for a tool of the client, on two wires."""
    run, approval = owner.waiting("scenario:approval", thread="role-approval")
    tool_run, call = owner.waiting("scenario:tool", thread="role-tool")
    asked = owner.ask("POST", "/ag-ui", _ag_ui("scenario:approval", "ag-1", "role-ag-ui"))
    interrupt = re.search(r'"(ap_call_[A-Za-z0-9]+)"', asked.text)
    assert interrupt is not None, asked.text
    return {
        "run": run,
        "approval": approval,
        "tool_run": tool_run,
        "call": call,
        "interrupt": interrupt[1],
    }


def _approvals(ids: dict[str, str]) -> list[tuple[str, str, Any]]:
    """Every request that approves."""
    call = ids["approval"].removeprefix("ap_")
    approved = {"id": ids["approval"], "approved": True}
    part = {"state": "approval-responded", "approval": approved}
    message = {"id": ids["run"], **_answered(call, "delete_file", **part)}
    resume = [{"interruptId": ids["interrupt"], "status": "resolved"}]
    chat = "role-approval"
    return [
        ("POST", f"/v1/runs/{ids['run']}/approvals/{ids['approval']}", {"approved": True}),
        ("POST", f"/api/chat/{chat}/approval", {"approvalId": ids["approval"], "approved": True}),
        ("POST", "/api/chat", {"id": chat, "messages": [_question("x"), message]}),
        ("POST", "/ag-ui", _ag_ui("x", "ag-2", "role-ag-ui") | {"resume": resume}),
    ]


def _results(ids: dict[str, str]) -> list[tuple[str, str, Any]]:
    """Every request that brings a tool's result."""
    output = {"state": "output-available", "output": "sunny"}
    message = {"id": ids["tool_run"], **_answered(ids["call"], "get_weather", **output)}
    ag_ui = _ag_ui("x", "ag-3", "role-tool")
    ag_ui["messages"].append(
        {"id": "m2", "role": "tool", "toolCallId": ids["call"], "content": "sunny"}
    )
    return [
        ("POST", f"/v1/runs/{ids['tool_run']}/tools/{ids['call']}", {"content": "sunny"}),
        ("POST", "/api/chat", {"id": "role-tool", "messages": [_question("x"), message]}),
        ("POST", "/ag-ui", ag_ui),
    ]


def _states(owner: Person, ids: dict[str, str]) -> list[Any]:
    runs = [owner.ask("GET", f"/v1/runs/{ids[name]}").json() for name in ("run", "tool_run")]
    threads = [
        owner.ask("GET", f"/v1/threads/{name}").json()
        for name in ("role-approval", "role-tool", "role-ag-ui")
    ]
    return [runs, threads]


@pytest.mark.parametrize("who", ["none", "read", "write", "approve"])
def test_who_may_not_decide_decides_nothing(
    here: tuple[str, Live], owner: Person, waiting: dict[str, str], who: str
) -> None:
    person = Person(here[0], "ann", roles=GIVEN[who])
    before = _states(owner, waiting)
    refused = [] if who == "approve" else _approvals(waiting)
    refused += [] if who == "write" else _results(waiting)
    for method, path, body in refused:
        got = person.ask(method, path, body)
        assert got.status_code == 403, (path, got.text)
        assert got.json()["error"]["code"] == "role_required"
    assert _states(owner, waiting) == before


def test_who_may_decides(here: tuple[str, Live], owner: Person) -> None:
    """The same requests, by those who may: so the refusals above are for their roles alone."""
    url, _ = here
    approver, writer = (Person(url, "ann", roles=[role]) for role in ("approve", "write"))
    for number in range(4):
        run, approval = owner.waiting("scenario:approval", thread="role-approval")
        asked = owner.ask("POST", "/ag-ui", _ag_ui("scenario:approval", f"d{number}", "role-ag-ui"))
        found = re.search(r'"(ap_call_[A-Za-z0-9]+)"', asked.text)
        assert found is not None
        ids = {"run": run, "approval": approval, "interrupt": found[1]}
        method, path, body = _approvals(ids)[number]
        if path == "/ag-ui":
            body = {**body, "runId": f"d{number}-again"}
        got = approver.ask(method, path, body)
        assert got.status_code in (200, 202), (path, got.text)
        if path != "/ag-ui":
            _wait_for(owner, run)
    for number in range(3):
        run, call = owner.waiting("scenario:tool", thread="role-tool")
        method, path, body = _results({"tool_run": run, "call": call})[number]
        if path == "/ag-ui":
            body = {**body, "runId": "tools-again"}
        got = writer.ask(method, path, body)
        assert got.status_code in (200, 202), (path, got.text)
        _wait_for(owner, run)


def _wait_for(owner: Person, run: str) -> None:
    """Until it has ended, as complete."""
    owner.ask("GET", f"/v1/runs/{run}/events")
    assert owner.ask("GET", f"/v1/runs/{run}").json()["state"] == "complete"


# --- sockets --------------------------------------------------------------------------------------


async def _talk(person: Person, path: str, *messages: Any) -> list[Any]:
    heard: list[Any] = []
    address = person.url.replace("http", "ws", 1) + path
    async with (
        asyncio.timeout(60),
        connect(address, additional_headers=person.headers, proxy=None) as wire,
    ):
        for message in messages:
            await wire.send(json.dumps(message))
            heard.append(json.loads(await wire.recv()))
    return heard


def test_sockets_hold_the_same_rules(
    here: tuple[str, Live], owner: Person, waiting: dict[str, str]
) -> None:
    url, _ = here
    reader, approver = (Person(url, "ann", roles=[role]) for role in ("read", "approve"))
    before = _states(owner, waiting)

    async def main() -> None:
        run, tool_run = waiting["run"], waiting["tool_run"]
        commands: list[tuple[dict[str, Any], str]] = [
            ({"op": "start", "request": {"prompt": "scenario:text"}}, "write"),
            ({"op": "cancel", "run": run}, "write"),
            (
                {"op": "approve", "run": run, "approval_id": waiting["approval"], "approved": True},
                "approve",
            ),
            ({"op": "tool", "run": tool_run, "call_id": waiting["call"], "content": 1}, "write"),
        ]
        said = await _talk(reader, "/ws", *(command for command, _ in commands))
        for answer, (_, role) in zip(said, commands, strict=True):
            assert answer["op"] == "error"
            assert answer["error"]["code"] == "role_required"
            assert answer["error"]["role"] == role
        chat = "role-approval"
        for path, body in [
            ("/api/chat/ws", _approvals(waiting)[2][2]),
            ("/api/chat/ws", {"id": "role-new", "messages": [_question("scenario:text")]}),
            ("/api/chat/ws", _results(waiting)[1][2]),
        ]:
            frame = {"type": "send", "requestId": "r1", **body}
            (said_ui,) = await _talk(reader, path, frame)
            assert said_ui["type"] == "error", chat
            assert "needs the role" in said_ui["errorText"]
        for body in [
            _approvals(waiting)[3][2],
            _results(waiting)[2][2],
            _ag_ui("scenario:text", "ag-9", "role-new"),
            {"type": "abort", "runId": "ag-1", "threadId": "role-ag-ui"},
        ]:
            (said_ag,) = await _talk(reader, "/ag-ui", body)
            assert (said_ag["type"], said_ag["code"]) == ("RUN_ERROR", "role_required")
        (followed,) = await _talk(approver, "/ws", {"op": "follow", "run": run})
        assert followed["op"] in ("ok", "events")
        nobody = Person(url, "ann", roles=[])
        for path in ("/ws", "/api/chat/ws", "/ag-ui"):
            with pytest.raises(InvalidStatus) as refused:
                await _talk(nobody, path)
            assert refused.value.response.status_code == 403

    asyncio.run(main())
    assert _states(owner, waiting) == before
    assert owner.ask("GET", "/v1/threads/role-new").json()["runs"] == []
