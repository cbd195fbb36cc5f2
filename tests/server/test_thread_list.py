"""The list of conversations as it changes: for its reader, and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import connect

from support.people import Person, people_server
from support.postgres import postgres_server
from support.redis import redis_server
from support.server import AS_A, AS_B, KEYS, Site, site
from support.threads import Follower, list_of, seen


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(heartbeat=0.2) as found:
        yield found


@pytest.fixture(scope="module")
def people() -> Iterator[str]:
    with people_server() as (url, _):
        yield url


def shows(thread: str, **fields: Any) -> Callable[[Follower], bool]:
    """The newest entry of a conversation has these fields; None: it has none of this name."""

    def holds(follower: Follower) -> bool:
        entry = current(follower).get(thread)
        return entry is not None and all(entry.get(k) == v for k, v in fields.items())

    return holds


def lacks(thread: str) -> Callable[[Follower], bool]:
    return lambda follower: thread not in current(follower)


def current(follower: Follower) -> dict[str, dict[str, Any]]:
    """The list as its reader has it."""
    entries: dict[str, dict[str, Any]] = {}
    for event in follower.events:
        if event["type"] == "snapshot":
            entries = {entry["thread"]: entry for entry in event["threads"]}
        elif event["type"] == "thread":
            entries[event["thread"]] = event["entry"]
        elif event["type"] == "thread-gone":
            entries.pop(event["thread"], None)
    return entries


def listed(client: Any, **headers: Any) -> dict[str, dict[str, Any]]:
    answer = client.get("/v1/threads", **headers).json()
    return {entry["thread"]: entry for entry in answer["threads"]}


def test_a_snapshot_and_then_what_changes(here: Site) -> None:
    here.frames(f"/v1/runs/{here.start('one', thread='list-1')}/events")
    with list_of(here.client) as device:
        device.until(seen("snapshot"))
        assert device.events[0]["threads"] == here.client.get("/v1/threads").json()["threads"]
        here.start("first question", thread="list-2")
        device.until(shows("list-2", title="first question", state=None))
        held = here.start("scenario:stall", thread="list-2")
        device.until(shows("list-2", state="running"))
        body = {"thread": "list-2", "prompt": "later", "while_busy": "queue"}
        here.client.post("/v1/runs", json=body).raise_for_status()
        device.until(shows("list-2", queue=1))
        here.client.put("/v1/threads/list-2", json={"title": "Named"}).raise_for_status()
        device.until(shows("list-2", title="Named"))
        assert current(device) == listed(here.client)
        here.client.post(f"/v1/runs/{held}/cancel").raise_for_status()
        device.until(shows("list-2", queue=None, state=None))
        assert device.events[-1]["at"] > 1e12
        here.client.put("/v1/threads/list-3", json={"title": "Before a run"}).raise_for_status()
        device.until(shows("list-3", title="Before a run"))
        here.client.delete("/v1/threads/list-1").raise_for_status()
        device.until(lacks("list-1"))
        assert device.events[-1]["type"] == "thread-gone"
        assert set(device.events[-1]) == {"type", "at", "thread"}
        cursors = [cursor for cursor in device.cursors if cursor]
        assert len(set(cursors)) == len(cursors) == len(device.events)
    # A client that knows the list up to any event has the rest, and the same list at its end.
    for index, cursor in enumerate(cursors):
        with list_of(here.client, after=cursor) as again:
            again.events = [*device.events[: index + 1]]
            again.until(lambda it: current(it) == listed(here.client))
            assert again.types("snapshot", "reset") == ["snapshot"]


def test_what_waits_for_a_person_is_shown(here: Site) -> None:
    with list_of(here.client) as device:
        device.until(seen("snapshot"))
        run = here.start("scenario:approval", thread="list-waits")
        device.until(shows("list-waits", state="waiting"))
        [approval] = here.client.get(f"/v1/runs/{run}").json()["waiting"]
        path = f"/v1/runs/{run}/approvals/{approval}"
        here.client.post(path, json={"approved": False}).raise_for_status()
        device.until(shows("list-waits", state=None))


def test_pages_instead_of_a_stream(here: Site) -> None:
    page = here.client.get("/v1/threads?live=no").json()
    assert [item["event"]["type"] for item in page["events"]] == ["snapshot"]
    after = page["next"]
    assert here.client.get(f"/v1/threads?live=no&after={after}").json()["events"] == []
    here.client.put("/v1/threads/paged", json={"title": "One"}).raise_for_status()
    page = here.client.get(f"/v1/threads?live=long-poll&after={after}").json()
    assert [item["event"]["thread"] for item in page["events"]] == ["paged"]
    assert page["events"][-1]["cursor"] == page["next"]


def test_what_is_no_reading_is_refused(here: Site) -> None:
    for query in ("live=maybe", "live=sse&limit=3", "live=no&before=x", "live=no&x=1"):
        assert here.client.get(f"/v1/threads?{query}").status_code == 400, query
    for cursor in ("x", "5", "1-xyz"):
        answer = here.client.get(f"/v1/threads?live=no&after={cursor}")
        assert answer.status_code == 400, cursor
        assert answer.json()["error"]["code"] == "bad_cursor"


def test_a_cursor_that_is_not_the_lists_is_answered_with_a_reset(here: Site) -> None:
    here.client.put("/v1/threads/reset", json={"title": "One"}).raise_for_status()
    foreign = here.client.get("/v1/threads/reset/events?live=no").json()["next"]
    own = here.client.get("/v1/threads?live=no").json()["next"]
    for cursor in (foreign, f"999-{own.partition('-')[2]}"):
        page = here.client.get(f"/v1/threads?live=no&after={cursor}").json()
        types = [item["event"]["type"] for item in page["events"]]
        assert types == ["reset", "snapshot"], cursor
        assert page["events"][0]["event"]["reason"] == "unknown"
        assert "cursor" not in page["events"][0]


def test_each_has_a_list_of_their_own(people: str) -> None:
    ann, bob = Person(people, "ann"), Person(people, "bob")
    stranger = Person(people, "ann", tenant="other")
    with (
        list_of(ann.client) as hers,
        list_of(bob.client) as his,
        list_of(stranger.client) as elsewhere,
    ):
        for device in (hers, his, elsewhere):
            device.until(seen("snapshot"))
        ann.start("secret", thread="trip")
        hers.until(shows("trip", title="secret", state=None))
        added = ann.ask("PUT", "/v1/threads/trip/members/bob", {"role": "read"}).json()
        shared = added["id"]
        his.until(shows(shared, role="read", members=2, title="secret"))
        hers.until(shows("trip", role="own", members=2, id=shared))
        ann.ask("PUT", "/v1/threads/trip/members/bob", {"role": "write"}).raise_for_status()
        his.until(shows(shared, role="write"))
        assert current(his) == listed(bob.client)
        ann.ask("DELETE", "/v1/threads/trip/members/bob").raise_for_status()
        his.until(lacks(shared))
        hers.until(shows("trip", members=1))
        heard = len(his.events)
        # What comes now, a removed member does not hear of: the next is of bob's own.
        ann.ask("PUT", "/v1/threads/trip", {"title": "more secret"}).raise_for_status()
        hers.until(shows("trip", title="more secret"))
        bob.ask("PUT", "/v1/threads/own", {"title": "mine"}).raise_for_status()
        his.until(shows("own", title="mine"))
        assert {e["thread"] for e in his.events[heard:]} == {"own"}
        stranger.ask("PUT", "/v1/threads/trip", {"title": "another"}).raise_for_status()
        elsewhere.until(shows("trip", title="another"))
        assert [e["thread"] for e in elsewhere.events if e["type"] != "snapshot"] == ["trip"]
        for device in (his, elsewhere):
            assert "more secret" not in str(device.events)
        assert "trip" not in str([e.get("thread") for e in his.events])


def test_whoever_comes_back_after_a_removal_hears_that_it_is_gone(people: str) -> None:
    eva, finn = Person(people, "eva"), Person(people, "finn")
    eva.start("one", thread="gone")
    shared = eva.ask("PUT", "/v1/threads/gone/members/finn", {"role": "read"}).json()["id"]
    with list_of(finn.client) as his:
        his.until(shows(shared))
        eva.ask("PUT", "/v1/threads/gone", {"title": "before"}).raise_for_status()
        his.until(shows(shared, title="before"))
        cursor = his.cursor
    eva.ask("PUT", "/v1/threads/gone", {"title": "while away"}).raise_for_status()
    eva.ask("DELETE", "/v1/threads/gone/members/finn").raise_for_status()
    with list_of(finn.client, after=cursor) as again:
        again.until(seen("thread-gone"))
        assert again.events[-1]["thread"] == shared
        assert "while away" not in str(again.events)


def test_what_is_erased_leaves_the_lists_of_all_members(people: str) -> None:
    gus, hal = Person(people, "gus"), Person(people, "hal")
    gus.start("one", thread="both")
    shared = gus.ask("PUT", "/v1/threads/both/members/hal", {"role": "read"}).json()["id"]
    with list_of(gus.client) as one, list_of(hal.client) as other:
        one.until(shows("both"))
        other.until(shows(shared))
        gus.ask("DELETE", "/v1/threads/both").raise_for_status()
        one.until(lacks("both"))
        other.until(lacks(shared))


def test_on_the_socket_the_list_is_followed_beside_conversations(here: Site) -> None:
    address = here.url.replace("http", "ws") + "/ws"
    items: list[dict[str, Any]] = []
    with connect(address) as socket:

        def say(**message: Any) -> None:
            socket.send(json.dumps(message))

        def until(condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            while True:
                message = json.loads(socket.recv(timeout=40))
                if message["op"] == "threads":
                    items.extend(message["events"])
                if condition(message):
                    return message

        say(op="follow-threads", id=1)
        until(lambda _: any(item["event"]["type"] == "snapshot" for item in items))
        here.client.put("/v1/threads/sock", json={"title": "one"}).raise_for_status()
        until(lambda _: items[-1]["event"].get("thread") == "sock")
        say(op="follow-threads", id=2)
        assert until(lambda it: it.get("id") == 2)["error"]["code"] == "conflict"
        say(op="unfollow-threads", id=3)
        assert until(lambda it: it.get("id") == 3)["op"] == "ok"
        say(op="follow-threads", id=4, after="nonsense")
        assert until(lambda it: it.get("id") == 4)["error"]["code"] == "bad_cursor"
        here.client.put("/v1/threads/sock", json={"title": "two"}).raise_for_status()
        say(op="follow-threads", id=5, after=items[-1]["cursor"])
        until(lambda _: items[-1]["event"].get("entry", {}).get("title") == "two")
        assert [item["event"]["type"] for item in items].count("snapshot") == 1


def test_a_token_for_one_conversation_does_not_open_the_list() -> None:
    with site(api_keys=KEYS) as here:
        here.start("one", thread="mine", headers=AS_A)
        path = "/v1/threads/mine/attach-tokens"
        token = here.client.post(path, json={}, headers=AS_A).json()["token"]
        given = {"authorization": f"Bearer {token}"}
        assert here.client.get("/v1/threads/mine", headers=given).status_code == 200
        for query in ("", "?live=no", "?live=sse"):
            assert here.client.get(f"/v1/threads{query}", headers=given).status_code == 403
        address = here.url.replace("http", "ws") + "/ws"
        with connect(address, additional_headers=given) as socket:
            socket.send(json.dumps({"op": "follow-threads", "id": 1}))
            answer = json.loads(socket.recv(timeout=40))
            assert (answer["op"], answer["error"]["code"]) == ("error", "forbidden")


@pytest.mark.parametrize(
    "kind",
    [
        "sqlite",
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("postgres", marks=pytest.mark.postgres),
    ],
)
def test_two_processes_have_one_list(kind: str, tmp_path: Any) -> None:
    with ExitStack() as stack:
        url = f"sqlite:{tmp_path}/log.db"
        if kind == "redis":
            url = stack.enter_context(redis_server()).url
        elif kind == "postgres":
            url = stack.enter_context(postgres_server()).url
        one, two = (stack.enter_context(site(store=url, api_keys=KEYS)) for _ in range(2))
        with (
            list_of(two.client, headers=AS_A) as device,
            list_of(one.client, headers=AS_A) as other,
            list_of(two.client, headers=AS_B) as foreign,
        ):
            for follower in (device, other, foreign):
                follower.until(seen("snapshot"))
            one.start("of one", thread="t1", headers=AS_A)
            two.start("of two", thread="t2", headers=AS_A)
            for follower in (device, other):
                follower.until(shows("t1", title="of one", state=None))
                follower.until(shows("t2", title="of two", state=None))
            one.start("of b", thread="t1", headers=AS_B)
            foreign.until(shows("t1", title="of b"))
            assert "of one" not in str(foreign.events)
