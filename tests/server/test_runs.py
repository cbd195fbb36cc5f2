"""The native routes, end to end: a real server, the simulator, real bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from support.server import Reading, Site, simulator, site, text_of, types_of
from tokenwire.framing.sse import SSEDecoder


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as found:
        yield found


def wait_for_state(here: Site, run: str, *states: str) -> dict:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        shown = here.client.get(f"/v1/runs/{run}").json()
        if shown["state"] in states:
            return shown
        time.sleep(0.02)
    raise AssertionError(f"still {shown['state']}")


def test_a_run_is_created_followed_and_shown(here: Site) -> None:
    answer = here.client.post("/v1/runs", json={"prompt": "scenario:text"})
    assert answer.status_code == 201
    run = answer.json()["id"]
    assert answer.headers["location"] == f"/v1/runs/{run}"
    frames = here.frames(f"/v1/runs/{run}/events")
    assert [int(f.id.partition("-")[0]) for f in frames] == list(range(1, len(frames) + 1))
    assert types_of(frames)[0] == "run-start"
    assert types_of(frames)[-1] == "run-end"
    shown = here.client.get(f"/v1/runs/{run}").json()
    assert shown["state"] == "complete"
    assert shown["cursor"] == frames[-1].id
    assert shown["message"]["content"][0]["text"] == text_of(frames)
    assert "```python" in text_of(frames)


def test_an_event_stream_reader_gets_the_answer_at_once(here: Site) -> None:
    with here.client.stream(
        "POST",
        "/v1/runs",
        json={"prompt": "scenario:text"},
        headers={"accept": "text/event-stream"},
    ) as answer:
        assert answer.status_code == 201
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["location"] == f"/v1/runs/{answer.headers['tokenwire-run']}"
        assert "no-store" in answer.headers["cache-control"]
        assert "no-transform" in answer.headers["cache-control"]
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in answer.headers
        body = answer.read()
    assert b"\r" not in body
    assert body.startswith(b": ok\nretry: 1000\n\n")
    assert types_of(SSEDecoder().feed(body))[-1] == "run-end"


def test_resuming_at_every_cursor_equals_one_uninterrupted_read(here: Site) -> None:
    run = here.start("scenario:reasoning")
    whole = here.frames(f"/v1/runs/{run}/events")
    for number, frame in enumerate(whole, 1):
        by_header = {"last-event-id": frame.id}
        again = here.frames(f"/v1/runs/{run}/events", headers=by_header)
        assert again == whole[number:]
    by_query = here.frames(f"/v1/runs/{run}/events?after={whole[3].id}")
    assert by_query == whole[4:]
    assert here.frames(f"/v1/runs/{run}/events?after=4") == whole[4:]


def test_cutting_a_live_stream_and_coming_back_loses_and_repeats_nothing(here: Site) -> None:
    run = here.start("scenario:slow")
    got: list[tuple[str, bytes]] = []
    last = ""
    for cut in (2, 7, 1, 30, 3, 10_000):
        taken, headers = 0, {"last-event-id": last} if last else {}
        with here.client.stream("GET", f"/v1/runs/{run}/events", headers=headers) as answer:
            decoder = SSEDecoder()
            for piece in answer.iter_raw():
                frames = decoder.feed(piece)[: cut - taken]
                taken += len(frames)
                got += [(frame.id, frame.data) for frame in frames]
                if taken >= cut:
                    break
        last = got[-1][0]
    whole = here.frames(f"/v1/runs/{run}/events")
    assert got == [(f.id, f.data) for f in whole]
    assert text_of(whole) == "".join(f"{n} " for n in range(1, 91))


def test_many_readers_of_one_run_get_the_same(here: Site) -> None:
    run = here.start("scenario:slow")
    readers = [
        Reading.get(here.port, f"/v1/runs/{run}/events", "Connection: close") for _ in range(20)
    ]
    bodies = {SSE_body(reader.rest()) for reader in readers}
    for reader in readers:
        reader.close()
    assert len(bodies) == 1
    assert b"run-end" in bodies.pop()


def SSE_body(answer: bytes) -> bytes:  # noqa: N802
    """A chunked body joined, whatever the chunks were."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size, 16)
        body, rest = body + rest[:count], rest[count + 2 :]
    return body


def test_closing_the_connection_does_not_stop_the_run(here: Site) -> None:
    run = here.start("scenario:slow")
    reading = Reading.get(here.port, f"/v1/runs/{run}/events")
    reading.until(b"text-delta")
    reading.close()
    assert text_of(here.frames(f"/v1/runs/{run}/events")).endswith("89 90 ")


def test_a_run_that_stops_with_its_last_reader_does(here: Site) -> None:
    run = here.start("scenario:stall", on_disconnect="stop")
    reading = Reading.get(here.port, f"/v1/runs/{run}/events")
    reading.until(b"text-delta")
    reading.close()
    wait_for_state(here, run, "cancelled")


def test_cancel_ends_the_run_for_every_reader(here: Site) -> None:
    run = here.start("scenario:stall")
    reading = Reading.get(here.port, f"/v1/runs/{run}/events")
    reading.until(b"text-delta")
    answer = here.client.post(f"/v1/runs/{run}/cancel", json={"reason": "enough"})
    assert answer.status_code == 202
    assert b'"outcome":"cancelled"' in reading.rest()
    assert here.client.get(f"/v1/runs/{run}").json()["state"] == "cancelled"
    assert here.client.post(f"/v1/runs/{run}/cancel").status_code == 202


def test_the_provider_is_let_go_within_a_second_of_a_cancel(here: Site) -> None:
    run = here.start("scenario:stall")
    Reading.get(here.port, f"/v1/runs/{run}/events").until(b"text-delta")
    record = simulator().newest("stall")
    started = time.monotonic()
    here.client.post(f"/v1/runs/{run}/cancel")
    while record.disconnected_at is None and time.monotonic() < started + 5:
        time.sleep(0.01)
    assert record.disconnected_at is not None


def test_an_approval_is_answered(here: Site) -> None:
    run = here.start("scenario:approval")
    reading = Reading.get(here.port, f"/v1/runs/{run}/events")
    seen = reading.until(b"run-wait").decode()
    approval = json.loads(seen.split('"approval_id":')[1].split(",")[0])
    assert here.client.get(f"/v1/runs/{run}").json()["state"] == "waiting"
    wrong = here.client.post(f"/v1/runs/{run}/approvals/nope", json={"approved": True})
    assert wrong.status_code == 404
    path = f"/v1/runs/{run}/approvals/{approval}"
    assert here.client.post(path, json={}).status_code == 400
    assert here.client.post(path, json={"approved": False}).status_code == 202
    assert b"run-end" in reading.rest()
    assert here.client.post(path, json={"approved": True}).status_code == 409


def test_a_tool_of_the_client_is_answered(here: Site) -> None:
    tool = {"name": "get_weather", "parameters": {"type": "object"}}
    with site() as other:
        other.app.state.runs.worker.tools = None
        run = other.start("scenario:tool", tools=[tool])
        reading = Reading.get(other.port, f"/v1/runs/{run}/events")
        seen = reading.until(b"run-wait").decode()
        call = json.loads(seen.split('"pending":[')[1].split("]")[0].split(",")[0])
        path = f"/v1/runs/{run}/tools/{call}"
        assert other.client.post(path, json={"content": {"sky": "clear"}}).status_code == 202
        assert b"run-end" in reading.rest()
        assert other.client.post(path, json={"content": 1}).status_code == 409


def test_delete_erases_the_run(here: Site) -> None:
    run = here.start("scenario:text")
    here.frames(f"/v1/runs/{run}/events")
    assert here.client.delete(f"/v1/runs/{run}").status_code == 204
    assert here.client.get(f"/v1/runs/{run}").status_code == 404
    assert here.client.get(f"/v1/runs/{run}/events").status_code == 404


def test_a_thread_lists_its_runs_and_the_active_one(here: Site) -> None:
    first = here.start("scenario:text", thread="chat-1")
    here.frames(f"/v1/runs/{first}/events")
    second = here.start("scenario:stall", thread="chat-1")
    shown = here.client.get("/v1/threads/chat-1").json()
    assert [run["id"] for run in shown["runs"]] == [second, first]
    assert shown["active"] == second
    here.client.post(f"/v1/runs/{second}/cancel")
    assert here.client.get("/v1/threads/none").json() == {
        "thread": "none",
        "active": None,
        "runs": [],
        "history": "all",
        "while_busy": "parallel",
    }


def test_threads_are_listed_named_and_erased() -> None:
    with site() as here:
        client = here.client
        for thread in ("one", "two", "one-more"):
            run = here.start("scenario:text", thread=thread)
        assert client.put("/v1/threads/one", json={"title": "First"}).status_code == 200
        listed = client.get("/v1/threads").json()["threads"]
        assert [t["thread"] for t in listed] == ["one-more", "two", "one"]
        assert listed[-1]["title"] == "First"
        assert client.get("/v1/threads/one").json()["title"] == "First"
        assert client.delete("/v1/threads/one-more").status_code == 204
        assert client.get(f"/v1/runs/{run}").status_code == 404
        here.start("scenario:text", thread="one")
        listed = client.get("/v1/threads").json()["threads"]
        assert [t["thread"] for t in listed] == ["one", "two"]
        assert client.put("/v1/threads/one", json={"title": 5}).status_code == 400
        assert client.put("/v1/threads/a b", json={"title": "x"}).status_code == 400


def test_s21_runs_are_erased_after_their_retention() -> None:
    with site(retention=0.5) as here:
        run = here.start("scenario:text")
        here.frames(f"/v1/runs/{run}/events")
        end = time.monotonic() + 40
        while (status := here.client.get(f"/v1/runs/{run}").status_code) == 200:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert status in (404, 410)


def test_head_requests_start_nothing_and_end(here: Site) -> None:
    before = here.runs_started
    run = here.start("scenario:stall")
    assert here.client.head("/chat/stream?prompt=x").status_code == 405
    assert here.client.head(f"/v1/runs/{run}/events").status_code == 200
    assert here.client.head("/").status_code == 200
    here.client.delete(f"/v1/runs/{run}")
    assert here.runs_started <= before + 1


def test_the_same_idempotency_key_starts_one_run(here: Site) -> None:
    key = {"idempotency-key": "k-1"}
    before = here.runs_started
    body = {"prompt": "scenario:text"}
    first = here.client.post("/v1/runs", json=body, headers=key)
    again = here.client.post("/v1/runs", json=body, headers=key)
    other = here.client.post("/v1/runs", json={"prompt": "scenario:slow"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert other.status_code == 422
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    here.frames(f"/v1/runs/{first.json()['id']}/events")
    assert here.runs_started == before + 1


def test_posting_again_with_the_key_and_a_cursor_resumes(here: Site) -> None:
    headers = {"idempotency-key": "k-2", "accept": "text/event-stream"}
    body = {"prompt": "scenario:text"}
    whole = here.frames("/v1/runs", method="POST", json=body, headers=headers)
    again = {**headers, "last-event-id": whole[9].id}
    assert here.frames("/v1/runs", method="POST", json=body, headers=again) == whole[10:]
    fresh = {**again, "idempotency-key": "k-3"}
    started = here.runs_started
    assert here.client.post("/v1/runs", json=body, headers=fresh).status_code == 400
    assert here.runs_started == started


def test_long_poll_pages_join_to_the_whole(here: Site) -> None:
    run = here.start("scenario:slow")
    after, found = "", []
    while True:
        page = here.client.get(
            f"/v1/runs/{run}/events", params={"live": "long-poll", "after": after}
        ).json()
        found += page["events"]
        after = page["next"]
        if page["closed"]:
            break
    whole = here.frames(f"/v1/runs/{run}/events")
    assert [e["cursor"] for e in found] == [f.id for f in whole]
    assert [e["event"] for e in found] == [json.loads(f.data) for f in whole]
    page = here.client.get(f"/v1/runs/{run}/events?live=no&after={whole[-2].id}").json()
    assert [e["event"]["type"] for e in page["events"]] == ["run-end"]
    assert page["closed"] is True


def test_a_long_poll_ends_without_news() -> None:
    with site(long_poll_timeout=0.2, heartbeat=0.2) as here:
        run = here.start("scenario:stall")
        Reading.get(here.port, f"/v1/runs/{run}/events").until(b"text-delta")
        after = "0"
        while True:
            page = here.client.get(
                f"/v1/runs/{run}/events", params={"live": "long-poll", "after": after}
            ).json()
            after = page["next"]
            if not page["events"]:
                break
        assert page == {"events": [], "next": after, "closed": False}


def test_a_quiet_stream_gets_heartbeats_and_then_a_planned_reconnect() -> None:
    with site(heartbeat=0.1, max_age=1.0) as here:
        run = here.start("scenario:stall")
        reading = Reading.get(here.port, f"/v1/runs/{run}/events")
        reading.until(b": keep-alive\n\n")
        seen = reading.rest()
        assert b'data: {"type":"reconnect","after_ms":1000,"reason":"max_age"}\n\n' in seen
        last = [f.id for f in SSEDecoder().feed(SSE_body(seen))][-1]
        assert last
        again = Reading.get(here.port, f"/v1/runs/{run}/events", f"Last-Event-ID: {last}")
        again.until(b": keep-alive")
        assert b"text-delta" not in again.seen


def test_first_bytes_come_before_the_model_says_anything(here: Site) -> None:
    run = here.start("scenario:slow")
    reading = Reading.get(here.port, f"/v1/runs/{run}/events")
    assert b": ok\nretry: 1000\n\n" in reading.until(b": ok\nretry: 1000\n\n")
    reading.close()


@pytest.mark.parametrize(
    ("after", "status", "code"),
    [
        ("999999", 400, "bad_cursor"),
        ("3-0000000000000000", 400, "bad_cursor"),
        ("nonsense", 400, "bad_cursor"),
        ("1e9", 400, "bad_cursor"),
        ("-5", 400, "bad_cursor"),
    ],
)
def test_a_wrong_cursor_is_refused(here: Site, after: str, status: int, code: str) -> None:
    run = here.start("scenario:text")
    here.frames(f"/v1/runs/{run}/events")
    answer = here.client.get(f"/v1/runs/{run}/events", params={"after": after})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_the_cursor_of_another_run_is_refused(here: Site) -> None:
    one, two = here.start("scenario:text"), here.start("scenario:text")
    frames = here.frames(f"/v1/runs/{one}/events")
    here.frames(f"/v1/runs/{two}/events")
    answer = here.client.get(f"/v1/runs/{two}/events", headers={"last-event-id": frames[5].id})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "bad_cursor"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": "x", "base_url": "http://169.254.169.254"}, "base_url"),
        ({"prompt": "x", "api_key": "k"}, "api_key"),
        ({"prompt": "x", "extra_body": {}}, "extra_body"),
        ({"prompt": "x", "extra": {"model": "dear"}}, "extra"),
        ({"prompt": 5}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "messages": []}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "color": 1}]}, "messages[0].color"),
        ({"prompt": "x", "temperature": 3}, "temperature"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "thread": "a b"}, "thread"),
        ({"prompt": "x", "on_disconnect": "explode"}, "on_disconnect"),
    ],
)
def test_a_bad_field_is_named(here: Site, body: dict, field: str) -> None:
    before = here.runs_started
    answer = here.client.post("/v1/runs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["field"] == field
    assert here.runs_started == before


@pytest.mark.parametrize("model", ["../x", "gpt-99", "http://169.254.169.254/v1#m", ""])
def test_a_model_that_is_not_served_is_refused(here: Site, model: str) -> None:
    answer = here.client.post("/v1/runs", json={"prompt": "x", "model": model})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unknown_model"
    assert "demo" in answer.json()["error"]["message"]


def test_what_was_not_found_is_named(here: Site) -> None:
    run = here.client.post("/v1/runs", json={"prompt": "Hello"}).json()["id"]
    for method, path, body, what in (
        ("GET", f"/v1/runs/{'x' * 22}", None, "run"),
        ("GET", f"/v1/runs/{'x' * 22}/info", None, "run"),
        ("DELETE", f"/v1/runs/{'x' * 22}", None, "run"),
        ("POST", f"/v1/runs/{run}/approvals/ap_none", {"approved": True}, "approval"),
        ("POST", f"/v1/runs/{run}/tools/call_none", {"content": 1}, "tool_call"),
    ):
        answer = here.client.request(method, path, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["what"]) == (404, "unknown_run", what)
        assert error["message"].endswith(f"no such {what.replace('_', ' ')}")


def test_unknown_runs_and_paths_are_404_and_wrong_methods_405(here: Site) -> None:
    for run in ("a" * 22, "..%2f..%2fetc", "x" * 500):
        assert here.client.get(f"/v1/runs/{run}").status_code == 404
        assert here.client.get(f"/v1/runs/{run}/events").status_code == 404
        assert here.client.post(f"/v1/runs/{run}/cancel").status_code == 404
    assert here.client.get("/v1/none").json()["error"]["code"] == "not_found"
    assert here.client.get("/v1/runs/").status_code == 404
    wrong = here.client.put("/v1/runs", json={})
    assert wrong.status_code == 405
    assert "POST" in wrong.headers["allow"]


def test_models_health_metrics_and_the_page_answer(here: Site) -> None:
    listed = here.client.get("/v1/models").json()
    assert [m["id"] for m in listed["data"]] == ["demo"]
    assert here.client.get("/healthz").json()["status"] == "ok"
    assert here.client.get("/livez").json()["status"] == "ok"
    assert "tokenwire_requests_total" in here.client.get("/metrics").text
    page = here.client.get("/")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["content-security-policy"] or "make" in page.text


def test_an_event_source_that_has_the_last_event_is_told_to_stop_coming(here: Site) -> None:
    run = here.start("scenario:empty")
    frames = here.frames(f"/v1/runs/{run}/events")
    over = here.client.get(f"/v1/runs/{run}/events", headers={"last-event-id": frames[-1].id})
    assert over.status_code == 204
    before = here.client.get(f"/v1/runs/{run}/events", headers={"last-event-id": frames[-2].id})
    assert before.status_code == 200
    # A live run with nothing new yet is another thing: its reader waits.
    live = here.start("scenario:stall")
    reading = Reading.get(here.port, f"/v1/runs/{live}/events?after=1")
    reading.until(b"text-delta")
    reading.close()


@pytest.mark.parametrize("cursor", ["9999", "9999-0123456789abcdef"])
def test_a_cursor_beyond_the_end_says_what_to_do(here: Site, cursor: str) -> None:
    run = here.start("scenario:empty")
    tail = len(here.frames(f"/v1/runs/{run}/events"))
    for how in ("", "&live=no", "&live=long-poll"):
        answer = here.client.get(f"/v1/runs/{run}/events?after={cursor}{how}")
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["reason"], error["tail"]) == (
            "bad_cursor",
            "beyond_tail",
            tail,
        )
        assert "read again from the start" in error["message"]


def test_what_cannot_be_a_run_is_unknown_like_any_other(here: Site) -> None:
    answers = [here.client.get(f"/v1/runs/{run}") for run in ("A" * 22, "A" * 300, "~", "..a")]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1


@pytest.mark.parametrize("body", [{"prompt": ""}, {"messages": [{"role": "user"}]}])
def test_an_empty_question_is_not_asked(here: Site, body: dict) -> None:
    before = here.runs_started
    answer = here.client.post("/v1/runs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "the prompt is empty"
    assert here.runs_started == before


def test_the_bounds_of_a_run_are_settings() -> None:
    with site(run_events=20, run_steps=1) as small:
        frames = small.frames(f"/v1/runs/{small.start('scenario:slow')}/events")
        (error,) = [e for e in map(json.loads, (f.data for f in frames)) if e["type"] == "error"]
        assert error["code"] == "log_limit"
        assert len(frames) < 40
        frames = small.frames(f"/v1/runs/{small.start('scenario:tool')}/events")
        # In the last step that it may have, a model is asked to answer without tools.
        assert types_of(frames).count("step-start") == 1
        assert "tool-start" not in types_of(frames)
