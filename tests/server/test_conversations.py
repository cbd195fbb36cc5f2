"""Conversations over HTTP: history on every wire, one turn at a time, the queue on every device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.server import AS_A, AS_B, KEYS, Site, site


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def ended(here: Site, run: str, **more: Any) -> dict[str, Any]:
    """The run, once it has ended."""
    here.frames(f"/v1/runs/{run}/events", **more)
    return here.client.get(f"/v1/runs/{run}", **more).json()


def given(here: Site, run: str) -> list[str]:
    """The texts of the people's messages that the model of a run was given."""
    messages = here.client.get(f"/v1/runs/{run}").json()["input"]
    return [_text(message["content"]) for message in messages if message["role"] == "user"]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(p.get("text", "") for p in content)


def turns(here: Site, thread: str) -> list[str]:
    page = here.client.get(f"/v1/threads/{thread}/turns").json()
    return [_text(turn["messages"][0]["content"]) for turn in page["turns"]]


def question(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "role": "user", "parts": [{"type": "text", "text": text}]}


def chat(here: Site, body: dict[str, Any], query: str = "history=thread") -> Any:
    return here.client.post(f"/api/chat?{query}", json=body)


def test_a_prompt_in_a_thread_continues_it(here: Site) -> None:
    first = here.start("one", thread="native")
    ended(here, first)
    second = here.start("two", thread="native")
    body = ended(here, second)
    assert given(here, second) == ["one", "two"]
    assert body["history"]["turns"] == [first]
    info = here.client.get(f"/v1/runs/{second}/info").json()
    assert info["history"] == {"turns": 1, "policy": "all", "parent": first}
    third = here.start("three", thread="native", history="none")
    ended(here, third)
    assert given(here, third) == ["three"]


def test_edit_regenerate_and_branches(here: Site) -> None:
    one = here.start("one", thread="tree")
    ended(here, one)
    two = here.start("two", thread="tree")
    ended(here, two)
    edited = here.start("better", thread="tree", replaces=two)
    ended(here, edited)
    assert given(here, edited) == ["one", "better"]
    again = here.client.post("/v1/runs", json={"thread": "tree", "replaces": two})
    assert again.status_code == 201
    ended(here, again.json()["id"])
    assert given(here, again.json()["id"]) == ["one", "two"]
    assert turns(here, "tree") == ["one", "two"]
    head = here.client.put("/v1/threads/tree/head", json={"run": edited}).json()
    assert head == {"thread": "tree", "queue": [], "head": edited}
    assert turns(here, "tree") == ["one", "better"]
    apart = here.start("apart", thread="tree", parent="")
    ended(here, apart)
    assert given(here, apart) == ["apart"]
    behind = here.start("behind", thread="tree", parent=one)
    ended(here, behind)
    assert given(here, behind) == ["one", "behind"]
    assert here.client.put("/v1/threads/tree/head", json={"run": "x" * 22}).status_code == 404
    both = {"thread": "tree", "prompt": "x", "parent": one, "replaces": two}
    assert here.client.post("/v1/runs", json=both).status_code == 400


def test_turns_are_read_in_pages(here: Site) -> None:
    runs = []
    for number in range(5):
        runs.append(here.start(f"q{number}", thread="pages"))
        ended(here, runs[-1])
    page = here.client.get("/v1/threads/pages/turns?limit=2").json()
    assert [turn["run"] for turn in page["turns"]] == runs[3:]
    assert page["turns"][1]["answer"][0]["role"] == "assistant"
    older = here.client.get(f"/v1/threads/pages/turns?limit=4&before={page['next']}").json()
    assert [turn["run"] for turn in older["turns"]] == runs[:3]
    assert "next" not in older
    assert here.client.get("/v1/threads/pages/turns?limit=0").status_code == 400


def test_use_chat_posts_everything_and_only_what_is_new_is_appended(here: Site) -> None:
    transcript = [question("m1", "one")]
    answer = chat(here, {"id": "ui", "messages": transcript})
    assert answer.status_code == 200
    first = answer.headers["tokenwire-run"]
    transcript = here.client.get("/v1/threads/ui?as=ui-messages").json()["messages"]
    transcript.append(question("m2", "two"))
    second = chat(here, {"id": "ui", "messages": transcript}).headers["tokenwire-run"]
    assert given(here, second) == ["one", "two"]
    # The same request once more is the same turn.
    assert chat(here, {"id": "ui", "messages": transcript}).headers["tokenwire-run"] == second
    # A device that has seen only the first turn.
    behind = [*transcript[:2], question("m3", "three")]
    third = chat(here, {"id": "ui", "messages": behind}).headers["tokenwire-run"]
    assert given(here, third) == ["one", "two", "three"]
    changed = [question("m1", "something else"), question("m4", "four")]
    refused = chat(here, {"id": "ui", "messages": changed})
    assert refused.status_code == 409
    assert refused.json()["error"]["code"] == "history_conflict"
    body = {"id": "ui", "messages": transcript, "trigger": "regenerate-message"}
    again = chat(here, body).headers["tokenwire-run"]
    assert again not in (first, second)
    assert given(here, again) == ["one", "two"]
    edit = [*transcript[:2], question("m2", "two, but better")]
    body = {"id": "ui", "messages": edit, "trigger": "submit-message", "messageId": "m2"}
    edited = chat(here, body).headers["tokenwire-run"]
    assert given(here, edited) == ["one", "two, but better"]


def test_wires_without_conversations_append_to_the_thread_of_the_query(here: Site) -> None:
    query = "history=thread&thread=openai"
    asked = [{"role": "user", "content": "one"}]
    bodies = {
        "/v1/chat/completions": {"model": "demo", "messages": asked},
        "/v1/responses": {"model": "demo", "input": "two"},
        "/v1/messages": {"model": "demo", "max_tokens": 100, "messages": asked},
    }
    runs = []
    for path, body in bodies.items():
        answer = here.client.post(f"{path}?{query}", json=body)
        assert answer.status_code == 200, answer.text
        runs.append(answer.headers["tokenwire-run"])
    assert given(here, runs[-1]) == ["one", "two", "one"]
    without = here.client.post("/v1/responses?history=thread", json=bodies["/v1/responses"])
    assert without.status_code == 400
    # A thread that would not be appended to is refused, each in its wire's own form.
    for path, body in bodies.items():
        for more in ("", "&history=none"):
            refused = here.client.post(f"{path}?thread=openai{more}", json=body)
            assert refused.status_code == 400, refused.text
            error = refused.json()["error"]
            assert error["type"] == "invalid_request_error"
            assert "'thread' needs 'history=thread'" in error["message"]
    both = {**bodies["/v1/responses"], "previous_response_id": f"resp_{runs[1]}"}
    refused = here.client.post(f"/v1/responses?{query}", json=both)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
    stored = here.client.get("/v1/threads/openai").json()["runs"]
    assert [run["id"] for run in stored] == runs[::-1]


def test_ag_ui_posts_everything_too(here: Site) -> None:
    def body(run: str, *messages: tuple[str, str]) -> dict[str, Any]:
        posted = [{"id": name, "role": "user", "content": text} for name, text in messages]
        more: dict[str, Any] = {"tools": [], "context": [], "state": {}, "forwardedProps": {}}
        return {"threadId": "ag", "runId": run, "messages": posted, **more}

    first = here.client.post("/ag-ui?history=thread", json=body("r1", ("m1", "one")))
    assert first.status_code == 200
    second = here.client.post("/ag-ui?history=thread", json=body("r2", ("m2", "two")))
    assert given(here, second.headers["tokenwire-run"]) == ["one", "two"]
    conflict = body("r3", ("m1", "else"), ("m3", "three"))
    assert here.client.post("/ag-ui?history=thread", json=conflict).status_code == 409


def test_the_queue_of_a_thread(here: Site) -> None:
    busy = here.start("scenario:stall", thread="line")
    answers = [
        here.client.post(
            "/v1/runs", json={"prompt": f"q{n}", "thread": "line", "while_busy": "queue"}
        )
        for n in range(3)
    ]
    assert [answer.status_code for answer in answers] == [202] * 3
    waiting = [answer.json() for answer in answers]
    assert waiting[0] | {"id": ""} == {
        "id": "",
        "state": "queued",
        "thread": "line",
        "position": 1,
        "while_busy": "queue",
        "queue": f"/v1/threads/line/queue/{waiting[0]['id']}",
    }
    first, second, third = (one["id"] for one in waiting)
    edited = here.client.put(waiting[0]["queue"], json={"prompt": "edited"}).json()
    assert [entry["text"] for entry in edited["queue"]] == ["edited", "q1", "q2"]
    left = here.client.delete(waiting[1]["queue"]).json()
    assert [entry["id"] for entry in left["queue"]] == [first, third]
    assert here.client.get("/v1/threads/line").json()["queue"] == left["queue"]
    assert here.client.delete(waiting[1]["queue"]).status_code == 404
    now = here.client.post(waiting[2]["queue"] + "/now")
    assert (now.status_code, now.json()["id"]) == (201, third)
    assert ended(here, busy)["state"] == "cancelled"
    ended(here, third)
    assert here.client.delete(waiting[2]["queue"]).status_code == 409
    rest = chat(here, {"id": "line", "messages": [question("m9", "last")]}, BUSY)
    assert rest.status_code == 200
    assert turns(here, "line") == ["scenario:stall", "q2", "edited", "last"]
    assert second not in here.client.get("/v1/threads/line").text


BUSY = "history=thread&while_busy=queue"


def test_a_busy_thread_refuses_or_is_interrupted(here: Site) -> None:
    busy = here.start("scenario:stall", thread="busy")
    body = {"prompt": "me too", "thread": "busy"}
    refused = here.client.post("/v1/runs", json={**body, "while_busy": "reject"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "thread_busy")
    on_wire = chat(
        here, {"id": "busy", "messages": [question("m1", "x")]}, "history=thread&while_busy=reject"
    )
    assert on_wire.status_code == 409
    beside = here.start("beside", thread="busy", while_busy="parallel")
    ended(here, beside)
    instead = here.start("instead", thread="busy", while_busy="interrupt")
    assert ended(here, busy)["state"] == "cancelled"
    ended(here, instead)
    without = here.client.post("/api/chat?while_busy=queue", json={"id": "x", "messages": []})
    assert without.status_code == 400


def test_the_servers_policies() -> None:
    with site(history="last:1", while_busy="reject") as here:
        for text in ("one", "two"):
            ended(here, here.start(text, thread="t"))
        run = here.start("scenario:stall", thread="t")
        assert given(here, run) == ["two", "scenario:stall"]
        answer = here.client.post("/v1/runs", json={"prompt": "x", "thread": "t"})
        assert answer.status_code == 409
        here.client.post(f"/v1/runs/{run}/cancel")


def test_the_rules_of_a_thread_come_before_the_servers_and_after_a_requests() -> None:
    with site(history="last:3", while_busy="reject") as here:
        path = "/v1/threads/ruled"
        rules = {"history": "last:1", "while_busy": "queue"}
        # Before its first run; a title stays as it is.
        assert here.client.put(path, json={"title": "Mine"}).status_code == 200
        named = here.client.put(path, json=rules).json()
        assert (named["rules"], named["title"]) == (rules, "Mine")
        for text in ("one", "two"):
            ended(here, here.start(text, thread="ruled"))
        busy = here.start("scenario:stall", thread="ruled")
        assert given(here, busy) == ["two", "scenario:stall"]
        body = {"prompt": "x", "thread": "ruled"}
        waits = here.client.post("/v1/runs", json=body)
        assert (waits.status_code, waits.json()["while_busy"]) == (202, "queue")
        assert (
            here.client.post("/v1/runs", json={**body, "while_busy": "reject"}).status_code == 409
        )
        beside = here.client.post("/v1/runs", json={**body, "while_busy": "parallel"}).json()
        assert beside["while_busy"] == "parallel"
        whole = here.client.post(
            "/v1/runs", json={**body, "while_busy": "parallel", "history": "all"}
        ).json()
        assert whole["history"]["policy"] == "all"
        shown = here.client.get(path).json()
        assert {name: shown[name] for name in (*rules, "rules")} == {**rules, "rules": rules}
        # One of them goes back to the server; the other stays.
        left = here.client.put(path, json={"while_busy": None}).json()
        assert left["rules"] == {"history": "last:1"}
        shown = here.client.get(path).json()
        assert (shown["history"], shown["while_busy"]) == ("last:1", "reject")
        assert here.client.post("/v1/runs", json=body).status_code == 409
        other = here.client.get("/v1/threads/other").json()
        assert (other["history"], other["while_busy"]) == ("last:3", "reject")
        assert "rules" not in other
        here.client.post(f"/v1/runs/{busy}/cancel")


def test_the_rule_of_a_thread_counts_on_other_wires_and_goes_with_it(here: Site) -> None:
    path = "/v1/threads/wires"
    assert here.client.put(path, json={"while_busy": "reject"}).status_code == 200
    busy = here.start("scenario:stall", thread="wires")
    body = {"id": "wires", "messages": [question("m1", "x")]}
    assert chat(here, body).status_code == 409
    here.client.put(path, json={"while_busy": "steer"})  # which this wire cannot say
    refused = chat(here, body)
    assert (refused.status_code, "thread_busy" in refused.text) == (409, True)
    here.client.post(f"/v1/runs/{busy}/cancel")
    ended(here, busy)
    assert here.client.delete(path).status_code == 204
    assert here.client.get(path).json()["while_busy"] == "parallel"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"history": "lots"},
        {"history": "thread"},
        {"history": "none"},
        {"history": 3},
        {"while_busy": "sometimes"},
        {"title": None},
        {"rules": {}},
    ],
)
def test_a_rule_that_there_is_not_is_refused_and_changes_nothing(
    here: Site, body: dict[str, Any]
) -> None:
    path = "/v1/threads/unruled"
    assert here.client.put(path, json=body).status_code == 400
    assert "rules" not in here.client.get(path).json()


def test_what_waits_is_its_principals_own() -> None:
    with site(api_keys=KEYS) as here:
        busy = here.start("scenario:stall", thread="same", headers=AS_A)
        body = {"prompt": "mine", "thread": "same", "while_busy": "queue"}
        waiting = here.client.post("/v1/runs", json=body, headers=AS_A).json()
        path = waiting["queue"]
        assert here.client.get("/v1/threads/same/queue", headers=AS_B).json()["queue"] == []
        for answer in (
            here.client.put(path, json={"prompt": "not mine"}, headers=AS_B),
            here.client.delete(path, headers=AS_B),
            here.client.post(path + "/now", headers=AS_B),
            here.client.put("/v1/threads/same/head", json={"run": busy}, headers=AS_B),
            here.client.get(f"/v1/threads/same/turns?before={busy}", headers=AS_B),
        ):
            assert answer.status_code == 404
        assert here.client.get("/v1/threads/same/turns", headers=AS_B).json()["turns"] == []
        assert here.client.delete(path, headers=AS_A).status_code == 200
        here.client.post(f"/v1/runs/{busy}/cancel", headers=AS_A)


def test_a_turn_that_waits_is_read_whole(here: Site) -> None:
    busy = here.start("scenario:stall", thread="whole")
    picture = {"type": "file", "media_type": "image/png", "data": "QUFB", "name": "cat.png"}
    content = [picture, {"type": "text", "text": "w" * 400}]
    body = {"thread": "whole", "messages": [{"role": "user", "content": content}]}
    waits = here.client.post("/v1/runs?history=thread&while_busy=queue", json=body).json()
    entry = here.client.get(waits["queue"]).json()
    assert entry["messages"] == [{"role": "user", "content": content}]
    assert (entry["id"], entry["position"], entry["edits"]) == (waits["id"], 1, 0)
    assert len(entry["text"]) == 200
    assert here.client.get(f"/v1/threads/whole/queue/{busy}").status_code == 409
    here.client.put(waits["queue"], json={"prompt": "short"}).raise_for_status()
    assert here.client.get(waits["queue"]).json()["messages"][0]["content"] == "short"
    here.client.delete(waits["queue"]).raise_for_status()
    assert here.client.get(waits["queue"]).status_code == 404
    here.client.post(f"/v1/runs/{busy}/cancel", json={}).raise_for_status()
