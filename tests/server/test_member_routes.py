"""Every route about a conversation of several people, by the role of who asks: the least role that
may, those below it, strangers, and other tenants."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from support.every_route import UNKNOWN, all_requests, requests_of, shape_of
from support.people import Person, people_server
from tokenwire.server import Live

RANK = ("read", "write", "approve", "own")
#: What each request of a route about a conversation, or a run of it, needs at least: one for each
#: that `requests_of` makes. ``None``: it is about no conversation; ``starter``: for whoever began
#: the run alone. A route that is new must be added here.
NEEDED: dict[str, tuple[str | None, ...]] = {
    "GET /v1/runs/{run}": ("read",),
    "GET /v1/runs/{run}/info": ("read",),
    "GET /v1/runs/{run}/events": ("read",),
    "GET /v1/runs/{run}/wires/{wire}": ("read",),
    "POST /v1/runs/{run}/attach-tokens": ("read",),
    "DELETE /v1/runs/{run}/attach-tokens": ("read",),
    "POST /v1/runs": ("write",),
    "POST /v1/runs/{run}/cancel": ("write",),
    "POST /v1/runs/{run}/tools/{call}": ("write",),
    "POST /v1/runs/{run}/approvals/{approval}": ("approve",),
    "POST /v1/runs/{run}/approvals/{approval}/links": ("approve",),
    "GET /v1/runs/{run}/approvals/{approval}/links": ("approve",),
    "DELETE /v1/runs/{run}/approvals/{approval}/links": ("approve",),
    "DELETE /v1/runs/{run}/approvals/{approval}/links/{link}": ("approve",),
    "GET /v1/waiting": (None,),  # what waits for the caller
    "GET /v1/waiting/events": (None,),
    "DELETE /v1/runs/{run}": ("own",),
    "GET /v1/threads": (None, None),
    "GET /v1/usage": (None,),
    "GET /v1/usage/principals": (None,),  # for operators alone
    "GET /v1/usage/tenants": (None,),
    "GET /v1/budgets": (None,),
    **{
        f"{method} /v1/budgets/{path}": (None,)
        for method in ("GET", "PUT", "DELETE")
        for path in ("{whose}", "{whose}/{owner:path}")
    },
    "GET /v1/runs/{run}/usage": ("read",),
    "GET /v1/threads/{thread}/usage": ("read",),
    "GET /v1/threads/{thread}": ("read",),
    "PUT /v1/threads/{thread}": ("write",),
    "DELETE /v1/threads/{thread}": ("own",),
    "GET /v1/threads/{thread}/turns": ("read",),
    "GET /v1/threads/{thread}/events": ("read",),
    "POST /v1/threads/{thread}/typing": ("write",),
    "PUT /v1/threads/{thread}/head": ("write",),
    "GET /v1/threads/{thread}/queue": ("read",),
    "GET /v1/threads/{thread}/queue/{run}": ("read",),
    "PUT /v1/threads/{thread}/queue/{run}": ("write",),
    "DELETE /v1/threads/{thread}/queue/{run}": ("write",),
    "POST /v1/threads/{thread}/queue/{run}/now": ("write",),
    "GET /v1/threads/{thread}/members": ("read",),
    "PUT /v1/threads/{thread}/members/{principal:path}": ("own",),
    "DELETE /v1/threads/{thread}/members/{principal:path}": ("own",),
    "GET /v1/threads/{thread}/invites": ("own",),
    "POST /v1/threads/{thread}/invites": ("own",),
    "DELETE /v1/threads/{thread}/invites/{invite}": ("own",),
    "POST /v1/threads/{thread}/attach-tokens": ("read",),
    "DELETE /v1/threads/{thread}/attach-tokens": ("read",),
    "POST /v1/invites/accept": (None,),
    "GET /ag-ui": (None, "read"),  # the first by the client's own name for a run
    "POST /ag-ui": ("write", "approve"),
    "POST /api/chat": ("approve", "write"),
    "POST /api/chat/{chat}/stop": ("write",),
    "POST /api/chat/{chat}/approval": ("approve",),
    "GET /api/chat/{chat}/stream": ("read",),
    "POST /ds/chat": ("write",),
    "GET /ds/chat/{chat}/stream": ("read",),
    "GET /ds/v1/stream/runs/{run}": ("read",),
    "POST /v1/chat/completions": ("write",),
    "POST /v1/messages": ("write",),
    "POST /v1/messages/count_tokens": (None,),
    "POST /v1/responses": ("read",),  # it quotes a run, and starts one of one's own
    "GET /v1/responses/{response}": ("read",),
    "POST /v1/responses/{response}/cancel": ("write",),
    "DELETE /v1/responses/{response}": ("own",),
    "POST /v1/producers": ("write",),
    "GET /v1/producers/{run}": ("starter",),
    "GET /v1/producers/{run}/commands": ("starter",),
    "POST /v1/producers/{run}/claim": ("starter",),
    "POST /v1/producers/{run}/events": ("starter",),
    "POST /v1/producers/{run}/finish": ("starter",),
    "POST /v1/producers/{run}/renew": ("starter",),
    "POST /a2a": ("write", "approve", "read", "write"),
    **{
        f"{method} {base}{path}": roles
        for base in ("/a2a", "/a2a/{tenant:path}")
        for method, path, roles in (
            ("POST", "/message:send", ("write", "approve")),
            ("POST", "/message:stream", ("write", "approve")),
            ("GET", "/tasks", ("read",)),
            ("GET", "/tasks/{task}", ("read",)),
            ("GET", "/tasks/{task}:subscribe", ("read",)),
            ("POST", "/tasks/{task}:subscribe", ("read",)),
            ("POST", "/tasks/{task}:cancel", ("write",)),
            ("GET", "/tasks/{task}/pushNotificationConfigs", ("read",)),
            ("POST", "/tasks/{task}/pushNotificationConfigs", ("read",)),
            ("GET", "/tasks/{task}/pushNotificationConfigs/{config}", ("read",)),
            ("DELETE", "/tasks/{task}/pushNotificationConfigs/{config}", ("read",)),
            ("GET", "/extendedAgentCard", (None,)),
        )
    },
    **{
        f"{method} /langgraph{path}": roles
        for method, path, roles in (
            ("GET", "/info", (None,)),
            ("POST", "/assistants/search", (None,)),
            ("GET", "/assistants/{assistant:path}", (None,)),
            ("POST", "/threads", ("read",)),
            ("POST", "/threads/search", (None,)),
            ("GET", "/threads/{thread}", ("read",)),
            ("DELETE", "/threads/{thread}", ("own",)),
            ("GET", "/threads/{thread}/state", ("read",)),
            ("POST", "/threads/{thread}/state/checkpoint", ("read",)),
            ("GET", "/threads/{thread}/state/{checkpoint}", ("read",)),
            ("POST", "/threads/{thread}/history", ("read",)),
            ("POST", "/threads/{thread}/stream/events", ("read",)),
            ("POST", "/threads/{thread}/commands", ("approve", "write")),
            ("GET", "/threads/{thread}/runs", ("read",)),
            ("GET", "/threads/{thread}/runs/{run}", ("read",)),
            ("DELETE", "/threads/{thread}/runs/{run}", ("own",)),
            ("GET", "/threads/{thread}/runs/{run}/join", ("read",)),
            ("GET", "/threads/{thread}/runs/{run}/stream", ("read",)),
            ("POST", "/threads/{thread}/runs/{run}/cancel", ("write",)),
            ("POST", "/threads/{thread}/runs", ("approve", "write")),
            ("POST", "/threads/{thread}/runs/stream", ("approve", "write")),
            ("POST", "/threads/{thread}/runs/wait", ("approve", "write")),
            ("POST", "/runs", (None,)),
            ("POST", "/runs/stream", (None,)),
            ("POST", "/runs/wait", (None,)),
            ("GET", "/runs/{run}/stream", ("read",)),
        )
    },
    "GET /v1/models": (None,),
    "GET /v1/models/{model:path}": (None,),
}
#: They are about no conversation, whatever is below them.
ELSEWHERE = ("/ds/v1/stream/__ds/", "/ds/v1/stream/{path", "/v1/session", "/livez", "/healthz")
ELSEWHERE += ("/docs", "/.well-known/", "/openapi.json", "/v1/approval-links/", "/v1/probe")
#: They end what others need, or come after its end.
LAST = tuple(f"POST /langgraph/threads/{{thread}}/runs{path}" for path in ("/stream", "/wait", ""))
LAST += ("POST /langgraph/threads/{thread}/commands",)  # what waits is superseded
LAST += ("POST /v1/runs/{run}/cancel", "POST /v1/responses/{response}/cancel")
LAST += ("POST /langgraph/threads/{thread}/runs/{run}/cancel",)
LAST += ("POST /a2a/tasks/{task}:cancel", "POST /a2a/{tenant:path}/tasks/{task}:cancel")
LAST += tuple(
    f"{method} {base}/tasks/{{task}}:subscribe"
    for base in ("/a2a", "/a2a/{tenant:path}")
    for method in ("GET", "POST")
)
LAST += ("GET /v1/runs/{run}/wires/{wire}",)  # which is a stream up to the end of the run
LAST += ("POST /api/chat/{chat}/stop", "DELETE /v1/runs/{run}", "DELETE /v1/responses/{response}")
LAST += ("DELETE /langgraph/threads/{thread}/runs/{run}",)
LAST += ("DELETE /v1/threads/{thread}", "DELETE /langgraph/threads/{thread}")
#: What is gone with the run, a line before; and a link that was never made.
NOT_THERE = ("DELETE /v1/responses/{response}",)
NOT_THERE += ("DELETE /langgraph/threads/{thread}/runs/{run}",)
NOT_THERE += ("DELETE /langgraph/threads/{thread}",)
NOT_THERE += ("DELETE /v1/runs/{run}/approvals/{approval}/links/{link}",)
NOBODYS = {**UNKNOWN, "thread": "thr_" + "a" * 25}


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    with people_server() as running:
        yield running


@functools.cache
def member(url: str, name: str) -> Person:
    return Person(url, name, tenant="acme")


def conversation(url: str, name: str) -> dict[str, str]:
    """A conversation of ann with a member of each role, and two runs that wait: its things."""
    ann = member(url, "ann")
    tool_run, call = ann.waiting("scenario:tool", thread=name)
    run, approval = ann.waiting("scenario:approval the-secret", thread=name)
    for role in RANK:
        added = ann.ask("PUT", f"/v1/threads/{name}/members/m-{role}", {"role": role})
        assert added.status_code == 200, added.text
    invite = ann.ask("POST", f"/v1/threads/{name}/invites", {"role": "read"}).json()["invite"]
    ids = {"run": run, "approval": approval, "tool_run": tool_run, "call": call}
    thread = added.json()["id"]
    return {**UNKNOWN, **ids, "thread": thread, "invite": invite, "principal": "m-guest"}


def requests(live: Live, ids: dict[str, str]) -> Iterator[tuple[str, str | None, str, Any]]:
    """Route, needed role, path and body of every request about a conversation."""
    for route, method in all_requests(live):
        if method == "HEAD" or route.path.startswith(ELSEWHERE):
            continue
        if route.path == "/ds/v1/stream/runs/{run}" and method != "GET":
            continue  # it cannot be written
        name = f"{method} {route.path}"
        assert name in NEEDED, f"{name} needs which role in a conversation?"
        asked = requests_of(route, method, ids)
        assert len(asked) == len(NEEDED[name]), name
        for needed, (path, body) in zip(NEEDED[name], asked, strict=True):
            if needed is not None:
                yield name, needed, path, body


def test_whoever_may_not_is_refused_and_nothing_happens(here: tuple[str, Live]) -> None:
    url, live = here
    ids, ann = conversation(url, "refusals"), member(here[0], "ann")
    seen = [ann.ask("GET", f"/v1/threads/refusals{part}").json() for part in ("", "/members")]
    for name, needed, path, body in requests(live, ids):
        below = RANK if needed == "starter" else RANK[: RANK.index(str(needed))]
        for role in below:
            got = member(url, f"m-{role}").ask(name.split()[0], path, body)
            if needed == "starter":  # as for a run that never was
                assert got.status_code == 404, (name, role, got.text)
                continue
            assert got.status_code == 403, (name, role, got.text)
            error = got.json()["error"]
            assert needed in error["message"], (name, role, got.text)
            assert error.get("role", needed) == needed
    after = [ann.ask("GET", f"/v1/threads/refusals{part}").json() for part in ("", "/members")]
    assert after == seen
    for run in (ids["run"], ids["tool_run"]):
        assert ann.ask("GET", f"/v1/runs/{run}").json()["state"] == "waiting"


def test_to_strangers_and_other_tenants_it_never_was(here: tuple[str, Live]) -> None:
    url, live = here
    ids = conversation(url, "strange")
    strangers = [Person(url, "zoe", tenant="acme"), Person(url, "m-own", tenant="globex")]
    strangers += [Person(url, "m-own"), Person(url, "M-OWN", tenant="acme")]
    fresh = Person(url, "nobody", tenant="elsewhere")
    unknown = list(requests(live, {**NOBODYS, "principal": "m-guest"}))
    for (name, _, path, body), (_, _, unknown_path, unknown_body) in zip(
        requests(live, ids), unknown, strict=True
    ):
        expected = shape_of(
            fresh.ask(name.split()[0], unknown_path, unknown_body), NOBODYS, fresh.name
        )
        for stranger in strangers:
            got = stranger.ask(name.split()[0], path, body)
            assert "the-secret" not in got.text, (name, stranger.name)
            assert shape_of(got, ids, stranger.name) == expected, (name, stranger.name, got.text)


def test_the_least_role_that_may_does_it(here: tuple[str, Live]) -> None:
    """So the refusals above are for the roles alone."""
    url, live = here
    ids = conversation(url, "permitted")

    def order(item: tuple[str, str | None, str, Any]) -> tuple[int, int, bool]:
        is_last = LAST.index(item[0]) + 1 if item[0] in LAST else 0
        # Approvals while the run that waits for one is the newest, and active.
        place = ("read", "approve", "write", "own").index(str(item[1]))
        return is_last, place, item[0] != "POST /api/chat/{chat}/approval"

    asked = [item for item in requests(live, ids) if item[1] != "starter"]
    done: set[str] = set()
    for name, needed, path, body in sorted(asked, key=order):
        got = member(url, f"m-{needed}").ask(name.split()[0], path, body)
        if name in NOT_THERE:
            assert got.status_code in (404, 410), (name, got.text)
            continue
        assert got.status_code < 500, (name, got.text)
        assert got.status_code not in (401, 403, 404, 410), (
            name,
            needed,
            got.status_code,
            got.text,
        )
        done.add(name)
    assert len(done) > 40
    assert member(url, "m-own").ask("GET", f"/v1/threads/{ids['thread']}").status_code == 404
