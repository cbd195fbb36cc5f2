"""Tenants: what belongs to one of them is, for every other, what never was; on every route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from support.every_route import UNKNOWN, ag_ui_body, all_requests, requests_of, shape_of
from support.people import Person, people_server
from tokenwire import Principal
from tokenwire.server import Live

SECRET = "the-secret-of-acme"
#: Principals that differ from acme's ann in their tenant, their id, or both.
STRANGERS: dict[str, dict[str, Any]] = {
    "the same id in another tenant": {"name": "ann", "tenant": "globex"},
    "the same id in no tenant": {"name": "ann"},
    "both the other way round": {"name": "acme", "tenant": "ann"},
    "a text that looks like both": {"name": "acme/ann"},
    "the same tenant, another id": {"name": "bob", "tenant": "acme"},
}


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    with people_server() as found:
        yield found


@pytest.fixture(scope="module")
def ann(here: tuple[str, Live]) -> Person:
    return Person(here[0], "ann", tenant="acme")


@pytest.fixture(scope="module")
def owned(ann: Person) -> dict[str, str]:
    """What acme's ann has: two runs that wait, in one conversation, and a stream."""
    run, approval = ann.waiting(f"scenario:approval {SECRET}", thread="holidays-of-ann")
    tool_run, call = ann.waiting(f"scenario:tool {SECRET}", thread="holidays-of-ann")
    assert ann.ask("PUT", "/v1/threads/holidays-of-ann", {"title": SECRET}).status_code == 200
    text = {"content-type": "text/plain"}
    stream = ann.client.put("/ds/v1/stream/notes-of-ann", content=SECRET, headers=text)
    assert stream.status_code == 201
    subscription = {"type": "pull-wake", "pattern": "**", "wake_stream": "wakes"}
    made = ann.ask("PUT", "/ds/v1/stream/__ds/subscriptions/sub-of-ann", subscription)
    assert made.status_code == 201, made.text
    ag_ui = {"runId": "ag-run-of-ann", "threadId": "plans", **ag_ui_body(f"scenario:text {SECRET}")}
    assert ann.ask("POST", "/ag-ui", ag_ui).status_code == 200
    keyed = ann.ask(
        "POST", "/v1/runs", {"prompt": "scenario:text"}, **{"idempotency-key": "key-of-ann"}
    )
    assert keyed.status_code == 201
    return {
        "run": run,
        "tool_run": tool_run,
        "approval": approval,
        "call": call,
        "thread": "holidays-of-ann",
        "stream": "notes-of-ann",
        "subscription": "sub-of-ann",
        "ag_ui": "ag-run-of-ann",
        "key": "key-of-ann",
    }


def _rest(person: Person, thread: str) -> None:
    """Delete what runs in a conversation of one's own: a producer's run, of which nothing comes."""
    for run in person.ask("GET", f"/v1/threads/{thread}").json().get("runs", ()):
        if run["state"] == "running":
            assert person.ask("DELETE", f"/v1/runs/{run['id']}").status_code == 204


@pytest.mark.parametrize("stranger", STRANGERS)
def test_no_route_tells_a_stranger_anything(
    here: tuple[str, Live], ann: Person, owned: dict[str, str], stranger: str
) -> None:
    url, live = here
    other = Person(url, **STRANGERS[stranger])
    fresh = Person(url, f"nobody-{stranger}", tenant="elsewhere")
    before = ann.ask("GET", f"/v1/runs/{owned['run']}").json()
    streams = ann.client.get("/ds/v1/stream/notes-of-ann?offset=-1").text
    requests = all_requests(live)
    for route, method in requests:
        for (path, body), (unknown_path, unknown_body) in zip(
            requests_of(route, method, owned), requests_of(route, method, UNKNOWN), strict=True
        ):
            if path.startswith("/langgraph/threads/") and method == "POST":
                _rest(other, owned["thread"])  # a turn under way may be in the way of one only
                _rest(fresh, UNKNOWN["thread"])
            headers = {"idempotency-key": owned["key"]} if path == "/v1/runs" else {}
            got = other.ask(method, path, body, **headers)
            expected = fresh.ask(method, unknown_path, unknown_body)
            assert SECRET not in got.text, (method, path)
            shapes = shape_of(got, owned, other.name), shape_of(expected, UNKNOWN, fresh.name)
            assert shapes[0] == shapes[1], (method, path, got.text)
    assert len(requests) > 60
    assert ann.ask("GET", f"/v1/runs/{owned['run']}").json() == before
    assert ann.client.get("/ds/v1/stream/notes-of-ann?offset=-1").text == streams
    titles = [t.get("title") for t in ann.ask("GET", "/v1/threads").json()["threads"]]
    assert SECRET in titles
    assert "mine" not in titles


def test_each_tenant_has_names_of_its_own(here: tuple[str, Live]) -> None:
    """The same ids, keys, threads and client's run ids are different things in each tenant."""
    people = [Person(here[0], "eve", tenant="acme"), Person(here[0], "eve", tenant="globex")]
    people.append(Person(here[0], "eve"))
    runs: list[set[str]] = []
    for number, eve in enumerate(people):
        body = {"prompt": f"scenario:text number{number}", "thread": "one"}
        first = eve.ask("POST", "/v1/runs", body, **{"idempotency-key": "same"})
        again = eve.ask("POST", "/v1/runs", body, **{"idempotency-key": "same"})
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"]
        ag_ui = {"runId": "same", "threadId": "two", **ag_ui_body(f"scenario:text number{number}")}
        assert eve.ask("POST", "/ag-ui", ag_ui).status_code == 200
        stream = eve.client.put(
            "/ds/v1/stream/same", content=f"number{number}", headers={"content-type": "text/plain"}
        )
        assert stream.status_code == 201
        eve.ask("PUT", "/v1/threads/one", {"title": f"title{number}"})
        one = eve.ask("GET", "/v1/threads/one").json()
        two = eve.ask("GET", "/v1/threads/two").json()
        runs.append({run["id"] for run in [*one["runs"], *two["runs"]]})
        assert len(runs[-1]) == 2
    assert len(set.union(*runs)) == 6
    for number, eve in enumerate(people):
        threads = {t["thread"]: t["title"] for t in eve.ask("GET", "/v1/threads").json()["threads"]}
        assert threads == {"one": f"title{number}", "two": f"scenario:text number{number}"}
        assert eve.client.get("/ds/v1/stream/same?offset=-1").text == f"number{number}"


def test_answers_name_people_and_no_separators(ann: Person, owned: dict[str, str]) -> None:
    shown = ann.ask("GET", f"/v1/runs/{owned['run']}")
    assert shown.json()["principal"] == "ann"
    for path in (f"/v1/runs/{owned['run']}/info", "/v1/threads", "/v1/threads/holidays-of-ann"):
        assert "\\u001e" not in ann.ask("GET", path).text
    assert "\\u001e" not in shown.text


def test_the_metrics_are_not_for_tenants_and_name_nobody(
    here: tuple[str, Live], ann: Person, owned: dict[str, str]
) -> None:
    for person in STRANGERS.values():
        got = Person(here[0], **person).ask("GET", "/metrics")
        assert got.status_code == (403 if "tenant" in person else 200)
        for word in ("acme", "globex", '"ann', *owned.values()):
            assert word not in got.text


# --- sockets --------------------------------------------------------------------------------------


async def _talk(person: Person, path: str, *messages: Any) -> list[Any]:
    """What a socket answers to each message, up to its close."""
    heard: list[Any] = []
    address = person.url.replace("http", "ws", 1) + path
    async with (
        asyncio.timeout(60),
        connect(address, additional_headers=person.headers, proxy=None) as wire,
    ):
        for message in messages:
            await wire.send(json.dumps(message))
            heard.append(json.loads(await wire.recv()))
        if not messages:
            await wire.wait_closed()
            heard.append((wire.close_code, wire.close_reason))
    return heard


def _native(ids: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"op": "follow", "run": ids["run"]},
        {"op": "cancel", "run": ids["run"]},
        {"op": "approve", "run": ids["run"], "approval_id": ids["approval"], "approved": True},
        {"op": "tool", "run": ids["tool_run"], "call_id": ids["call"], "content": 1},
    ]


@pytest.mark.parametrize("stranger", STRANGERS)
def test_no_socket_tells_a_stranger_anything(
    here: tuple[str, Live], ann: Person, owned: dict[str, str], stranger: str
) -> None:
    other = Person(here[0], **STRANGERS[stranger], roles=["admin"])
    fresh = Person(here[0], "nobody", tenant="elsewhere")
    before = ann.ask("GET", f"/v1/runs/{owned['run']}").json()

    # No stranger has started one of that name.
    ag_ui = ag_ui_body("scenario:text") | {"runId": "ag-socket-of-ann", "threadId": "plans"}
    assert ann.ask("POST", "/ag-ui", ag_ui).status_code == 200

    async def compare(path: str, of: Any) -> None:
        got = await _talk(other, path.format(**owned), *of(owned))
        expected = await _talk(fresh, path.format(**UNKNOWN), *of(UNKNOWN))
        for said in (*got, *expected):
            if isinstance(said, dict) and isinstance(said.get("error"), dict):
                assert said["error"].pop("request_id")
        assert got == expected
        assert SECRET not in json.dumps(got)

    async def main() -> None:
        await compare("/ws", _native)
        resume = {"type": "resume", "requestId": "r1"}
        # Its own chat of that name has no run under way, whatever happens in ann's.
        await compare("/api/chat/ws", lambda ids: [{**resume, "id": f"{ids['thread']}"}])
        await compare("/ag-ui?runId=ag-socket-of-ann&offset=-1", lambda ids: [])
        stop = await _talk(
            other, "/ag-ui", {"type": "abort", "runId": "ag-socket-of-ann", "threadId": "plans"}
        )
        assert stop[0]["code"] == "unknown_run"

    asyncio.run(main())
    assert ann.ask("GET", f"/v1/runs/{owned['run']}").json() == before


def test_the_application_names_a_tenant_by_a_principal_only(here: tuple[str, Live]) -> None:
    """An id that holds what separates tenants from ids is refused, wherever it comes from."""
    url, _ = here
    forged = Principal("ann", tenant="acme").name
    assert Person(url, forged).ask("GET", "/v1/threads").status_code == 500
    for field in ({"id": forged}, {"id": "ann", "tenant": forged}, {"id": ""}):
        bad = Person(url, "x")
        bad.client.headers["x-who"] = json.dumps(field)
        got = bad.ask("GET", "/v1/threads")
        assert got.status_code == 500
        assert got.json()["error"]["message"] == (
            "the server cannot tell who you are; its log says why"
        )
