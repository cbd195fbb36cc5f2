"""A conversation as it happens: snapshot, feed, its runs' events, cut anywhere; who may read it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import connect

from support.people import Person, people_server
from support.raw_client import until_true
from support.redis import redis_server
from support.server import AS_A, AS_B, KEYS, Site, site
from support.threads import following, pages, seen


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(heartbeat=0.2) as found:
        yield found


def of_runs(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The events of each run."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event["type"] == "run-event":
            runs.setdefault(event["run"], []).append(event["event"])
    return runs


def log_of(here: Site, run: str) -> list[dict[str, Any]]:
    page = here.client.get(f"/v1/runs/{run}/events?live=no").json()
    return [item["event"] for item in page["events"]]


def test_a_snapshot_and_then_what_happens(here: Site) -> None:
    first = here.start("one", thread="feed")
    here.frames(f"/v1/runs/{first}/events")
    with following(here.client, "feed") as device:
        device.until(seen("snapshot"))
        snapshot = device.events[0]
        assert (snapshot["thread"], snapshot["head"], snapshot["running"]) == ("feed", first, [])
        assert (snapshot["title"], snapshot["queue"]) == ("one", [])
        second = here.start("two", thread="feed")
        device.until(seen("run-ended"))
        here.client.put("/v1/threads/feed", json={"title": "Named"}).raise_for_status()
        device.until(seen("title"))
        here.client.put("/v1/threads/feed/head", json={"run": first}).raise_for_status()
        device.until(seen("head"))
        stored = [e for e in device.events if e["type"] not in ("snapshot", "presence")]
        assert [e["type"] for e in stored] == ["run-started", "run-ended", "title", "head"]
        assert (stored[0]["run"], stored[0]["parent"]) == (second, first)
        assert (stored[1]["run"], stored[1]["outcome"]) == (second, "complete")
        assert (stored[2]["title"], stored[3]["run"]) == ("Named", first)
        cursors = [c for c in device.cursors if c]
        assert len(set(cursors)) == len(cursors)
    for index, cursor in enumerate(cursors):
        assert pages(here.client, "feed", cursor) == stored[index:]


def test_the_queue_on_another_device(here: Site) -> None:
    with following(here.client, "queue") as device:
        busy = here.start("scenario:stall", thread="queue")
        device.until(seen("run-started"))
        body = {"thread": "queue", "prompt": "later", "while_busy": "queue"}
        waits = here.client.post("/v1/runs", json=body).json()
        device.until(seen("turn-queued"))
        assert device.events[-1]["turn"] == waits["id"]
        with following(here.client, "queue") as other:
            other.until(seen("snapshot"))
            [entry] = other.events[0]["queue"]
            assert (entry["turn"], entry["text"], entry["position"]) == (waits["id"], "later", 1)
            assert [run["run"] for run in other.events[0]["running"]] == [busy]
        path = f"/v1/threads/queue/queue/{waits['id']}"
        here.client.put(path, json={"prompt": "changed"}).raise_for_status()
        device.until(seen("turn-changed"))
        here.client.delete(path).raise_for_status()
        device.until(seen("turn-withdrawn"))
        here.client.post(f"/v1/runs/{busy}/cancel", json={}).raise_for_status()
        device.until(seen("run-ended"))
        assert device.events[-1]["outcome"] == "cancelled"


def test_an_approval_is_seen_and_its_answer_too(here: Site) -> None:
    with following(here.client, "asks") as device:
        run = here.start("scenario:approval", thread="asks")
        device.until(seen("run-waiting"))
        [approval] = device.events[-1]["approvals"]
        path = f"/v1/runs/{run}/approvals/{approval['approval']}"
        here.client.post(path, json={"approved": True}).raise_for_status()
        device.until(seen("run-ended"))
        kinds = ("run-started", "run-waiting", "approval", "run-resumed", "run-ended")
        told = device.types(*kinds)
        assert sorted(told) == sorted(kinds)
        [decision] = [e for e in device.events if e["type"] == "approval"]
        assert (decision["run"], decision["decision"]) == (run, "approved")
        assert decision["call"] == approval["call"]


def test_cut_at_every_event_each_run_comes_once(here: Site) -> None:
    with following(here.client, "whole", runs="full") as device:
        device.until(seen("snapshot"))
        runs = [here.start("scenario:tool", thread="whole"), here.start("b", thread="whole")]
        waiting = here.start("scenario:approval", thread="whole")
        device.until(seen("run-waiting"))
        approval = next(e for e in device.events if e["type"] == "run-waiting")["approvals"][0]
        path = f"/v1/runs/{waiting}/approvals/{approval['approval']}"
        here.client.post(path, json={"approved": True}).raise_for_status()
        device.until(seen("run-ended", 3))
        items = [(c, e) for c, e in zip(device.cursors, device.events, strict=True) if c]
    whole = of_runs([event for _, event in items])
    assert whole == {run: log_of(here, run) for run in [*runs, waiting]}
    order = [(e["type"], e["run"]) for _, e in items if "run" in e]
    for run in whole:
        mine = [kind for kind, name in order if name == run]
        assert (mine[0], mine[-1]) == ("run-started", "run-ended"), mine
    for index, (cursor, _) in enumerate(items):
        rest = pages(here.client, "whole", cursor, runs="full")
        seen_runs = of_runs([event for _, event in items[: index + 1]])
        for run, events in of_runs(rest).items():
            seen_runs[run] = seen_runs.get(run, []) + events
        assert seen_runs == whole, cursor
        feed = [event for _, event in items[index + 1 :] if event["type"] != "run-event"]
        assert [event for event in rest if event["type"] != "run-event"] == feed


@pytest.mark.parametrize("every", [1, 3, 7])
def test_a_device_that_is_cut_again_and_again_while_it_happens(here: Site, every: int) -> None:
    thread = f"cuts-{every}"
    items: list[dict[str, Any]] = []
    with following(here.client, thread, runs="full") as first:
        cursor = first.until(seen("snapshot")).cursor
    runs = [here.start(f"{n}", thread=thread) for n in range(3)]

    def is_over() -> bool:
        return [e["type"] for e in items].count("run-ended") == len(runs)

    while not is_over():
        with following(here.client, thread, after=cursor, runs="full") as device:
            device.until(lambda it: sum(c is not None for c in it.cursors) >= 1)
            stored = [
                (c, e) for c, e in zip(device.cursors, device.events, strict=True) if c is not None
            ]
            # Of what arrived together some is thrown away, as a tab that is closed does.
            items += [event for _, event in stored[:every]]
            cursor = stored[:every][-1][0]
    assert of_runs(items) == {run: log_of(here, run) for run in runs}
    assert [e["run"] for e in items if e["type"] == "run-started"] == runs


def test_a_cursor_that_is_not_the_feeds_is_answered_with_a_reset(here: Site) -> None:
    with following(here.client, "other") as other:
        foreign = other.until(seen("snapshot")).cursor
    with following(here.client, "mine") as device:
        mine = device.until(seen("snapshot")).cursor
        number, _, check = mine.partition("-")
    for cursor in (foreign, f"{number}-{'0' * 16}", f"{int(number) + 900}-{check}"):
        with following(here.client, "mine", after=cursor) as device:
            device.until(seen("snapshot"))
            assert device.events[0]["type"] == "reset"
            assert device.events[0]["reason"] == "unknown"
    for cursor in ("x", "1", "1-2", f"{mine}~nope", f"{mine}~{'r' * 20}:x", "9" * 5000):
        answer = here.client.get("/v1/threads/mine/events", params={"after": cursor})
        assert answer.status_code == 400, cursor
        assert answer.json()["error"]["code"] == "bad_cursor", answer.text
    # A place in a run of another conversation opens none.
    run = here.start("secret", thread="other")
    here.frames(f"/v1/runs/{run}/events")
    forged = {"after": f"{mine}~{run}:0", "runs": "full", "live": "no"}
    page = here.client.get("/v1/threads/mine/events", params=forged)
    assert run not in page.text
    assert [item["event"]["type"] for item in page.json()["events"][:2]] == ["reset", "snapshot"]
    many = "".join(f"~{'r' * 20}{n:02}:0" for n in range(17))
    answer = here.client.get("/v1/threads/mine/events", params={"after": mine + many})
    assert answer.status_code == 400
    answer = here.client.get("/v1/threads/mine/events?live=never")
    assert answer.status_code == 400
    assert here.client.get("/v1/threads/mine/events?runs=some").status_code == 400
    assert here.client.get("/v1/threads/mine/events?what=1").status_code == 400
    assert here.client.get("/v1/threads/a b/events").status_code == 400


def test_a_cursor_without_runs_begins_a_stream_with_runs_anew(here: Site) -> None:
    path = "/v1/threads/widened/events"
    cursor = here.client.get(path, params={"live": "no"}).json()["next"]
    run = here.start("one", thread="widened")
    with following(here.client, "widened", after=cursor) as device:
        device.until(lambda it: len(it.types("run-ended", "title")) == 2)
    for place in (cursor, f"999999-{'0' * 16}"):
        params = {"live": "no", "runs": "full", "after": place}
        page = here.client.get(path, params=params).json()
        events = [item["event"] for item in page["events"]]
        assert [event["type"] for event in events] == ["reset", "snapshot"]
        assert events[0]["reason"] == "unknown"
        assert events[1]["turns"] == [{"run": run, "state": "complete"}]
    # What the snapshot's cursor says of runs counts, and a stream without runs takes it as well.
    for query in ({"runs": "full"}, {}):
        assert pages(here.client, "widened", page["next"], **query) == []


def test_an_erased_conversation_sends_its_reader_off_and_begins_anew(here: Site) -> None:
    run = here.start("one", thread="erased")
    here.frames(f"/v1/runs/{run}/events")
    with following(here.client, "erased") as device:
        cursor = device.until(seen("snapshot")).cursor
        here.client.delete("/v1/threads/erased").raise_for_status()
        device.rest()
        assert device.events[-1]["type"] == "reconnect"
        assert device.events[-1]["reason"] == "gone"
    with following(here.client, "erased", after=cursor) as device:
        device.until(seen("snapshot"))
        assert [e["type"] for e in device.events[:2]] == ["reset", "snapshot"]
        assert (device.events[1]["head"], device.events[1]["title"]) == (None, None)
        here.start("two", thread="erased")
        device.until(seen("run-ended"))


def test_a_run_that_is_erased_is_told(here: Site) -> None:
    here.start("one", thread="less")
    with following(here.client, "less", runs="full") as device:
        run = here.start("scenario:stall", thread="less")
        device.until(lambda it: any(e.get("run") == run for e in it.events))
        here.client.delete(f"/v1/runs/{run}").raise_for_status()
        device.until(seen("run-erased"))
        assert device.events[-1]["run"] == run


def test_a_long_poll_waits_for_something(here: Site) -> None:
    path = "/v1/threads/polled/events"
    page = here.client.get(path, params={"live": "long-poll"}).json()
    cursor = page["next"]
    assert page["events"][0]["event"]["type"] == "snapshot"
    run = here.start("one", thread="polled")
    kinds: list[str] = []
    while "run-ended" not in kinds:
        params = {"live": "long-poll", "after": cursor}
        page = here.client.get(path, params=params).json()
        kinds += [item["event"]["type"] for item in page["events"] if "cursor" in item]
        cursor = page["next"]
    assert sorted(kinds) == ["run-ended", "run-started", "title"], run


def test_a_long_poll_ends_when_its_time_is_up() -> None:
    with site(long_poll_timeout=0.3) as short:
        path = "/v1/threads/quiet/events"
        cursor = short.client.get(path, params={"live": "no"}).json()["next"]
        page = short.client.get(path, params={"live": "long-poll", "after": cursor}).json()
        assert (page["events"], page["next"]) == ([], cursor)


def test_principals_are_apart_and_typing_and_presence_pass() -> None:
    with site(api_keys=KEYS) as keyed:
        a = {"headers": AS_A}
        with following(keyed.client, "talk", **a) as device:  # type: ignore[arg-type]
            device.until(seen("presence"))
            assert device.events[-1]["principals"] == ["a"]
            assert device.cursors[-1] is None
            foreign = device.cursor
            keyed.client.post("/v1/threads/talk/typing", headers=AS_B).raise_for_status()
            keyed.client.post("/v1/threads/talk/typing", headers=AS_A).raise_for_status()
            device.until(seen("typing"))
            assert device.events[-1]["by"] == "a"
            keyed.start("mine", thread="talk", headers=AS_A)
            device.until(seen("run-ended"))
            assert {e["by"] for e in device.events if e["type"] == "run-started"} == {"a"}
        b = {"headers": AS_B}
        with following(keyed.client, "talk", after=foreign, **b) as device:  # type: ignore[arg-type]
            device.until(seen("presence"))
            assert [e["type"] for e in device.events[:2]] == ["reset", "snapshot"]
            assert device.events[1]["head"] is None
        assert keyed.client.get("/v1/threads/talk/events").status_code == 401


def test_a_server_that_stops_asks_to_come_back(here: Site) -> None:
    with site(max_age=0.3) as old, following(old.client, "age") as device:
        device.rest()
        assert device.events[-1]["type"] == "reconnect"
        assert device.events[-1]["reason"] == "max_age"


def test_a_reader_of_many_turns_reads_no_more_than_one_of_few(here: Site) -> None:
    with following(here.client, "long") as device:
        device.until(seen("snapshot"))
        for number in range(30):
            run = here.start(f"{number}", thread="long")
            here.frames(f"/v1/runs/{run}/events")
        device.until(seen("run-ended", 30))
    with following(here.client, "long") as late:
        late.until(seen("snapshot"))
        assert len(late.events[0]["turns"]) == 20


def test_readers_are_counted_and_given_back(here: Site) -> None:
    def open_connections() -> int:
        return len(here.app.state.connections)

    until_true(lambda: open_connections() == 0)
    with following(here.client, "count") as device:
        device.until(seen("snapshot"))
        assert open_connections() == 1
    until_true(lambda: open_connections() == 0)
    until_true(lambda: not here.app.state.runs.worker.feeds.followed())


def test_members_follow_and_a_removal_ends_their_streams() -> None:
    with people_server() as (url, _):
        ann, bob = Person(url, "ann"), Person(url, "bob")
        ann.start("one", thread="trip")
        with following(ann.client, "trip") as owner:
            owner.until(seen("presence"))
            added = ann.ask("PUT", "/v1/threads/trip/members/bob", {"role": "write"})
            shared = added.json()["id"]
            owner.until(seen("member-joined"))
            assert owner.events[-1]["principal"] == "bob"
            with following(bob.client, shared, runs="full") as member:
                member.until(seen("presence"))
                assert member.events[0]["members"] == {"ann": "own", "bob": "write"}
                owner.until(lambda it: it.events[-1].get("principals") == ["ann", "bob"])
                bob.ask("POST", f"/v1/threads/{shared}/typing").raise_for_status()
                owner.until(seen("typing"))
                assert owner.events[-1]["by"] == "bob"
                run = bob.start("two", thread=shared)
                member.until(lambda it: it.events[-1].get("outcome") == "complete")
                started = [e for e in member.events if e.get("run") == run]
                assert (started[0]["type"], started[0]["by"]) == ("run-started", "bob")
                assert {e["thread"] for e in member.events if "thread" in e} == {shared}
                ann.ask("DELETE", "/v1/threads/trip/members/bob").raise_for_status()
                member.rest()
            assert bob.ask("GET", f"/v1/threads/{shared}/events?live=no").status_code == 404
            assert bob.ask("POST", f"/v1/threads/{shared}/typing").status_code == 404
            owner.until(seen("member-left"))


def test_on_the_socket_a_conversation_is_followed_beside_runs(here: Site) -> None:
    address = here.url.replace("http", "ws") + "/ws"
    with connect(address) as socket:

        def say(**message: Any) -> None:
            socket.send(json.dumps(message))

        items: list[dict[str, Any]] = []

        def until(kind: str) -> None:
            while all(item["event"]["type"] != kind for item in items):
                message = json.loads(socket.recv(timeout=40))
                assert message["op"] in ("ok", "thread", "started"), message
                items.extend(message.get("events", []))

        say(op="follow-thread", id=1, thread="sock", runs="full")
        until("snapshot")
        run = here.start("one", thread="sock")
        until("run-ended")
        assert of_runs([item["event"] for item in items]) == {run: log_of(here, run)}
        say(op="typing", id=2, thread="sock")
        until("typing")
        say(op="follow-thread", id=3, thread="sock")
        while (answer := json.loads(socket.recv(timeout=40)))["op"] != "error":
            pass
        assert answer["error"]["code"] == "conflict"
        say(op="unfollow-thread", id=4, thread="sock")
        while (answer := json.loads(socket.recv(timeout=40))).get("id") != 4:
            pass
        cursor = next(item["cursor"] for item in items if "cursor" in item)
        say(op="follow-thread", id=5, thread="sock", after=cursor, runs="full")
        items.clear()
        until("run-ended")
        assert of_runs([item["event"] for item in items]) == {run: log_of(here, run)}


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_two_processes_tell_one_conversation(kind: str, tmp_path: Any) -> None:
    with ExitStack() as stack:
        url = f"sqlite:{tmp_path}/log.db"
        if kind == "redis":
            url = stack.enter_context(redis_server()).url
        one, two = (stack.enter_context(site(store=url, api_keys=KEYS)) for _ in range(2))
        with (
            following(two.client, "both", runs="full", headers=AS_A) as device,  # type: ignore[arg-type]
            following(one.client, "both", headers=AS_A) as other,  # type: ignore[arg-type]
        ):
            device.until(seen("presence"))
            other.until(seen("presence"))
            run = one.start("one", thread="both", headers=AS_A)
            device.until(seen("run-ended"))
            mine = [e["event"] for e in device.events if e["type"] == "run-event"]
            page = two.client.get(f"/v1/runs/{run}/events?live=no", headers=AS_A).json()
            assert mine == [item["event"] for item in page["events"]]
            assert device.types("run-started", "run-ended") == ["run-started", "run-ended"]
            one.client.post("/v1/threads/both/typing", headers=AS_A).raise_for_status()
            device.until(seen("typing"))
            waits = two.start("scenario:stall", thread="both", headers=AS_A)
            other.until(lambda it: any(e.get("run") == waits for e in it.events))
