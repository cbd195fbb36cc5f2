"""Every route of a server with requests about given things: for tests of who may see and do what.

Always true: a route that is new is among them, with an empty body unless it is named here.
"""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.routing import Route

from tokenwire.server import Live

__all__ = ["UNKNOWN", "ag_ui_body", "all_requests", "requests_of", "shape_of"]

#: What nobody has.
UNKNOWN = {
    "run": "unknown-run-0123456789",
    "tool_run": "unknown-tool-run-01234",
    "approval": "ap_unknown",
    "call": "call_unknown",
    "thread": "unknown-thread",
    "stream": "unknown-stream",
    "subscription": "unknown-subscription",
    "ag_ui": "unknown-ag-ui-run",
    "key": "unknown-key",
}


def ag_ui_body(prompt: str) -> dict[str, Any]:
    return {
        "messages": [{"id": "m1", "role": "user", "content": prompt}],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
    }


#: They start runs of the stranger's own, whose state the other answers would tell: they come last.
STARTS = (
    "/v1/producers",
    "/v1/runs",
    "/api/chat",
    "/ag-ui",
    "/ds/chat",
    "/v1/responses",
    "/v1/messages",
    "/a2a",
    "/a2a/message:send",
    "/a2a/message:stream",
    "/a2a/{tenant:path}/message:send",
    "/a2a/{tenant:path}/message:stream",
    "/langgraph/runs",
    "/langgraph/runs/stream",
    "/langgraph/runs/wait",
    "/langgraph/threads/{thread}/commands",
    "/langgraph/threads/{thread}/runs",
    "/langgraph/threads/{thread}/runs/stream",
    "/langgraph/threads/{thread}/runs/wait",
)


#: What they say is of the server, and differs from call to call.
_NOBODYS = ("/metrics", "/v1/probe")


def all_requests(live: Live) -> list[tuple[Route, str]]:
    """Every route of every wire with each of its methods."""
    pairs = [
        (route, method)
        for group, routes in live.server.wires.items()
        for route in routes
        if group != "page" and isinstance(route, Route) and route.path not in _NOBODYS
        for method in sorted((route.methods or set()) - {"OPTIONS"})
    ]
    return sorted(pairs, key=lambda pair: pair[1] == "POST" and pair[0].path in STARTS)


def requests_of(route: Route, method: str, ids: dict[str, str]) -> list[tuple[str, Any]]:
    """Requests of one route about these things: paths with their bodies."""
    path = re.sub(r"\{(\w+)(:path)?\}", lambda m: "{" + m[1] + "}", route.path)
    values = {
        **ids,
        "response": f"resp_{ids['run']}",
        "task": ids["run"],
        "tenant": "demo",
        "assistant": "demo",
        "checkpoint": ids["run"],
        "chat": ids["thread"],
        "path": ids["stream"],
        "name": ids["subscription"],
        "model": "demo",
        "wire": "ui-7",
        "principal": ids.get("principal", "eve"),
        "invite": ids.get("invite", "unknown-invite"),
        "whose": "principal",
        "owner": ids.get("principal", "eve"),
        "link": "unknown-link",
        "config": "unknown-config",
        "token": "unknown-token",
    }
    filled = path.format(**values)
    if path == "/ag-ui" and method == "GET":
        return [
            (f"/ag-ui?runId={ids['ag_ui']}&offset=-1", None),
            (f"/ag-ui?threadId={ids['thread']}", None),
        ]
    if path == "/v1/threads":
        return [(filled, None), (filled + "?live=no", None)]
    if path.startswith("/a2a") and path.endswith("/tasks"):
        filled += f"?contextId={ids['thread']}"
    if path.endswith("/tools/{call}"):
        filled = path.format(run=ids["tool_run"], call=ids["call"])
    if path in ("/v1/chat/completions", "/v1/messages"):
        filled += f"?history=thread&thread={ids['thread']}"
    if path.endswith("/events") and (method == "GET" or "/stream/" in path):  # else endless
        filled += "?live=no"
    return [(filled, body) for body in _bodies(path, method, ids)]


def _bodies(path: str, method: str, ids: dict[str, str]) -> list[Any]:
    if method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        return [None]
    answered = {
        "id": ids["run"],
        "role": "assistant",
        "parts": [
            {
                "type": "tool-delete_file",
                "toolCallId": ids["approval"].removeprefix("ap_"),
                "state": "approval-responded",
                "input": {"path": "x"},
                "approval": {"id": ids["approval"], "approved": True},
            }
        ],
    }
    question = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "scenario:text"}]}
    asked = [{"role": "user", "content": "scenario:text"}]
    decided = {"approvalId": ids["approval"], "approved": True}
    messages = [
        {"message": {"messageId": "m1", "contextId": ids["thread"], "parts": [{"text": "hi"}]}},
        {"message": {"messageId": "m2", "taskId": ids["run"], "parts": [{"data": decided}]}},
    ]
    if path.endswith(("/message:send", "/message:stream")):
        return messages
    if path.startswith("/langgraph/") and path.endswith(("/runs", "/runs/stream", "/runs/wait")):
        asked_here = {"messages": [{"type": "human", "content": "scenario:text"}]}
        said: list[Any] = [{"input": asked_here, "multitask_strategy": "reject"}]
        answered_here = {"command": {"resume": {ids["approval"]: {"approved": True}}}}
        return said if "{thread}" not in path else [answered_here, *said]
    if path.endswith("/commands"):
        answer_here = {"interrupt_id": ids["approval"], "response": {"approved": True}}
        asked_here = {"messages": [{"type": "human", "content": "scenario:text"}]}
        started = {"assistant_id": "demo", "input": asked_here, "multitask_strategy": "reject"}
        return [
            {"id": 1, "method": "input.respond", "params": {**answer_here, "namespace": []}},
            {"id": 2, "method": "run.start", "params": started},
        ]
    budgets = {"budgets": [{"period": "day", "unit": "tokens", "most": 10**9}]}
    bodies: dict[str, list[Any]] = {
        "/langgraph/threads": [{"thread_id": ids["thread"]}],
        "/langgraph/threads/{thread}/stream/events": [{"channels": ["values", "messages"]}],
        "/langgraph/threads/{thread}/state/checkpoint": [
            {"checkpoint": {"checkpoint_id": ids["run"]}}
        ],
        "/a2a": [
            {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": messages[0]},
            {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": messages[1]},
            {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": ids["run"]}},
            {"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": ids["run"]}},
        ],
        "/a2a/tasks/{task}/pushNotificationConfigs": [{"url": "https://hooks.example/"}],
        "/a2a/{tenant}/tasks/{task}/pushNotificationConfigs": [{"url": "https://hooks.example/"}],
        "/v1/runs": [{"prompt": "scenario:text", "thread": ids["thread"]}],
        "/v1/producers": [{"prompt": "a question", "thread": ids["thread"]}],
        "/v1/producers/{run}/events": [
            {"epoch": 1, "first": 2, "events": [{"type": "data", "name": "n"}]}
        ],
        "/v1/producers/{run}/renew": [{"epoch": 1}],
        "/v1/producers/{run}/finish": [{"epoch": 1, "first": 2}],
        "/v1/threads/{thread}/head": [{"run": ids["run"]}],
        "/v1/threads/{thread}/queue/{run}": [{"prompt": "mine"}],
        "/v1/runs/{run}/approvals/{approval}": [{"approved": True}],
        "/v1/runs/{run}/tools/{call}": [{"content": "sunny"}],
        "/v1/threads/{thread}": [{"title": "mine"}],
        "/v1/threads/{thread}/members/{principal}": [{"role": "read"}],
        "/v1/threads/{thread}/invites": [{"role": "write"}],
        "/v1/budgets/{whose}": [budgets],
        "/v1/budgets/{whose}/{owner}": [budgets],
        "/v1/invites/accept": [{"token": "invite_unknown"}],
        "/v1/session": [{"key": "x" * 20}],
        "/api/chat": [
            {"id": ids["thread"], "messages": [question, answered]},
            {"id": ids["thread"], "message": question},
        ],
        "/api/chat/{chat}/approval": [{"approvalId": ids["approval"], "approved": True}],
        "/ag-ui": [
            {"runId": ids["ag_ui"], "threadId": ids["thread"], **ag_ui_body("scenario:text")},
            {
                "runId": "another-run",
                "threadId": ids["thread"],
                **ag_ui_body("scenario:text"),
                "resume": [{"interruptId": ids["approval"], "status": "resolved"}],
            },
        ],
        "/v1/chat/completions": [{"model": "demo", "messages": asked}],
        "/v1/responses": [
            {"model": "demo", "input": "hi", "previous_response_id": f"resp_{ids['run']}"}
        ],
        "/v1/messages": [{"model": "demo", "max_tokens": 100, "messages": asked}],
        "/v1/messages/count_tokens": [{"model": "demo", "messages": asked}],
        "/ds/chat": [{"id": ids["thread"], "messages": [question]}],
        "/ds/v1/stream/__ds/subscriptions/{name}/streams": [{"streams": [ids["stream"]]}],
        "/ds/v1/stream/__ds/subscriptions/{name}/claim": [{"worker": "w1"}],
    }
    return bodies.get(path, [{}])


def shape_of(answer: Any, ids: dict[str, str], me: str) -> tuple[int, str]:
    """An answer without what the request itself said, the id of who sent it, and what is new every
    time."""
    text = answer.text.replace(json.dumps(me), '"<me>"')
    for name, value in ids.items():
        text = text.replace(value, f"<{name}>")
    text = re.sub(r"[A-Za-z0-9_-]{16,}", "<new>", text)
    text = re.sub(r"\d+(\.\d+)?", "<number>", text)
    return answer.status_code, text
