"""The routes of other people's wires: bad input, isolation, coming back, answering."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from node_support import serving

KEYS = ["ann:0123456789abcdef-ann", "bob:0123456789abcdef-bob"]
DEEP = '{"id":"x","messages":' + "[" * 100_000 + "]" * 100_000 + "}"


def ui(prompt: str, chat: str = "chat-1", **more: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": prompt}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", **more}


def ag_ui(prompt: str, run: str = "run-1", **more: Any) -> dict[str, Any]:
    messages = [{"id": "u1", "role": "user", "content": prompt}]
    return {"threadId": "thread-1", "runId": run, "messages": messages, **more}


CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}
GOOD: dict[str, Any] = {
    "/api/chat": ui("Hello"),
    "/ag-ui": ag_ui("Hello"),
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"model": "demo", "input": "Hello"},
    "/v1/messages": {**CHAT, "max_tokens": 100},
    "/ds/chat": ui("Hello"),
}
BAD: list[tuple[str, Any]] = [
    ("/api/chat", {}),
    ("/api/chat", ui("x", chat="a\nb")),
    ("/api/chat", ui("x", chat="")),
    ("/api/chat", {"id": "x", "messages": []}),
    ("/api/chat", {"id": "x", "messages": "hello"}),
    ("/api/chat", {"id": "x", "messages": [{"id": "m", "role": "robot", "parts": []}]}),
    ("/api/chat", {"id": "x", "messages": [{"id": "m", "role": "user", "parts": [{"type": "z"}]}]}),
    ("/api/chat", ui("x", base_url="http://10.0.0.1")),
    ("/api/chat", ui("x", api_key="k")),
    ("/api/chat", ui("x", model="../other")),
    ("/api/chat", ui("x", compat="9")),
    ("/ag-ui", {"threadId": "t"}),
    ("/ag-ui", ag_ui("x", run="a b")),
    ("/ag-ui", ag_ui("x", messages=[{"id": "1", "role": "tool", "content": "x"}])),
    ("/v1/chat/completions", {"messages": []}),
    ("/v1/chat/completions", {**CHAT, "n": 3}),
    ("/v1/chat/completions", {**CHAT, "api_base": "http://x"}),
    ("/v1/chat/completions", {**CHAT, "temperature": "hot"}),
    ("/v1/chat/completions", {**CHAT, "temperature": 9}),
    ("/v1/chat/completions", {**CHAT, "tools": [{"type": "function", "function": {}}]}),
    ("/v1/chat/completions", {**CHAT, "messages": [{"role": "tool", "content": "x"}]}),
    ("/v1/responses", {"model": "demo"}),
    ("/v1/responses", {"model": "demo", "input": [{"type": "unheard_of"}]}),
    ("/v1/responses", {"model": "demo", "input": "x", "previous_response_id": "resp_none"}),
    ("/v1/messages", CHAT),
    ("/v1/messages", {**CHAT, "max_tokens": 0}),
    ("/v1/messages", {**CHAT, "max_tokens": 5, "messages": [{"role": "system", "content": "x"}]}),
    ("/ds/chat", {"id": "x"}),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


@pytest.fixture(scope="module")
def locked() -> Iterator[str]:
    with serving(api_keys=KEYS) as server:
        yield server.url


def form_is_right(path: str, answer: httpx.Response) -> None:
    told = answer.json()
    if path == "/v1/messages":
        assert told["type"] == "error"
        assert set(told["error"]) == {"type", "message"}
    elif path.startswith("/v1/"):
        assert set(told["error"]) == {"message", "type", "param", "code"}
    else:
        assert told["error"]["code"]
        assert told["error"]["request_id"]


def stats(url: str) -> int:
    found = 0
    for thread in ("chat-1", "x", "thread-1", "t"):
        found += len(httpx.get(f"{url}/v1/threads/{thread}").json()["runs"])
    return found


@pytest.mark.parametrize(("path", "body"), BAD)
def test_bad_input_has_the_wires_own_error_and_starts_nothing(
    url: str, path: str, body: Any
) -> None:
    before = stats(url)
    answer = httpx.post(url + path, json=body)
    assert answer.status_code == 400, answer.text
    form_is_right(path, answer)
    assert stats(url) == before


@pytest.mark.parametrize("path", GOOD)
def test_bodies_that_are_no_json_or_too_much(url: str, path: str) -> None:
    kind = {"content-type": "application/json"}
    for content, status in (
        (b"{", 400),
        (b"[]", 400),
        (DEEP.encode(), 400),
        (b'{"a":1,"a":2}', 400),
        (b'{"id":"' + b"x " * (1 << 20) + b'"}', 413),
        (b'{"id":"' + b"x" * (10 << 20) + b'"}', 413),  # as long as no files may be
    ):
        answer = httpx.post(url + path, content=content, headers=kind)
        assert answer.status_code == status, (content[:20], answer.text)
        form_is_right(path, answer)
    answer = httpx.post(url + path, content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415


@pytest.mark.parametrize("path", GOOD)
def test_a_key_is_needed_where_keys_are_on(locked: str, path: str) -> None:
    answer = httpx.post(locked + path, json=GOOD[path])
    assert answer.status_code == 401
    form_is_right(path, answer)


@pytest.mark.parametrize("path", GOOD)
def test_other_sites_pages_may_not_ask(url: str, path: str) -> None:
    answer = httpx.post(url + path, json=GOOD[path], headers={"origin": "https://evil.example"})
    assert answer.status_code == 403
    form_is_right(path, answer)


def test_a_foreign_run_is_an_unknown_run(locked: str) -> None:
    def as_(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer 0123456789abcdef-{name}"}

    made = httpx.post(
        f"{locked}/v1/responses", json={"model": "demo", "input": "Hello"}, headers=as_("ann")
    ).json()
    run = made["id"].removeprefix("resp_")
    httpx.post(f"{locked}/api/chat", json=ui("Hello", chat="ann-chat"), headers=as_("ann"))
    httpx.post(f"{locked}/ag-ui", json=ag_ui("Hello", run="ann-run"), headers=as_("ann"))
    for path in (
        f"/v1/responses/{made['id']}",
        f"/v1/responses/{made['id']}?stream=true",
        f"/ds/v1/stream/runs/{run}",
        f"/ds/v1/stream/runs/{run}.ui",
        "/ag-ui?runId=ann-run&offset=-1",
    ):
        mine = httpx.get(locked + path, headers=as_("ann"), timeout=20)
        theirs = httpx.get(locked + path, headers=as_("bob"))
        unknown = httpx.get(
            locked + path.replace(run, "A" * 22).replace("ann-run", "no-run"), headers=as_("bob")
        )
        assert mine.status_code == 200, path
        assert theirs.status_code == unknown.status_code == 404, path
        one, other = theirs.json()["error"], unknown.json()["error"]
        assert one["message"] == other["message"]
    assert httpx.get(f"{locked}/api/chat/ann-chat/stream", headers=as_("bob")).status_code == 204
    hydrated = httpx.get(f"{locked}/ag-ui?threadId=thread-1", headers=as_("bob")).json()
    assert hydrated == {"messages": [], "activeRun": None, "interrupts": None}


def test_every_id_of_a_ui_stream_is_a_place_to_come_back_to(url: str) -> None:
    whole = httpx.post(f"{url}/api/chat", json=ui("scenario:tool", chat="places"), timeout=20).text
    ids = [line[4:] for line in whole.split("\n") if line.startswith("id: ")]
    for place in (ids[0], ids[len(ids) // 2], ids[-2]):
        rest = httpx.get(
            f"{url}/api/chat/places/stream", headers={"last-event-id": place}, timeout=20
        )
        assert rest.status_code == 200
        tail = whole.split(f"id: {place}\n")[1].split("\n\n", 1)[1]
        # The rest of the chunks is the same; open text goes on under another id.
        want = [json.loads(d[6:])["type"] for d in tail.split("\n") if d.startswith("data: {")]
        got = [json.loads(d[6:])["type"] for d in rest.text.split("\n") if d.startswith("data: {")]
        assert got[-len(want) :] == want
        assert len(got) - len(want) <= 2
    for bad in ("nonsense", "12-ffffffffffffffff", "999999", "1.5.5"):
        answer = httpx.get(f"{url}/api/chat/places/stream", headers={"last-event-id": bad})
        assert answer.status_code == 400, bad


def test_common_approvals_are_a_data_part_and_a_route(url: str) -> None:
    with httpx.stream(
        "POST", f"{url}/api/chat", json=ui("scenario:approval", chat="ask"), timeout=20
    ) as answer:
        chunks: list[Any] = []
        for line in answer.iter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            chunks.append(chunk)
            if chunk["type"] == "data-approval" and "approved" not in chunk["data"]:
                told = httpx.post(
                    f"{url}/api/chat/ask/approval",
                    json={"approvalId": chunk["data"]["approvalId"], "approved": True},
                )
                assert told.status_code == 202
                again = httpx.post(
                    f"{url}/api/chat/ask/approval",
                    json={"approvalId": chunk["data"]["approvalId"], "approved": False},
                )
                assert again.status_code in (404, 409)
    assert chunks[-1]["type"] == "finish"
    assert any(c["type"] == "tool-output-available" for c in chunks)


def test_an_idempotency_key_starts_one_run(url: str) -> None:
    headers = {"idempotency-key": "one-run-please"}
    first = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers, timeout=20)
    second = httpx.post(f"{url}/v1/chat/completions", json=CHAT, headers=headers, timeout=20)
    assert first.json() == second.json()
    other = {**CHAT, "temperature": 0.5}
    third = httpx.post(f"{url}/v1/chat/completions", json=other, headers=headers)
    assert third.status_code == 422


def test_a_chat_stream_is_read_again_by_key_and_last_event_id(url: str) -> None:
    headers = {"idempotency-key": "chat-again"}
    body = {**CHAT, "stream": True}
    whole = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=20).text
    ids = [line[4:] for line in whole.split("\n") if line.startswith("id: ")]
    middle = ids[len(ids) // 2]
    rest = httpx.post(
        f"{url}/v1/chat/completions",
        json=body,
        headers={**headers, "last-event-id": middle},
        timeout=20,
    ).text
    assert rest.split("\n", 1)[1] == whole.split(f"id: {middle}\n")[1].split("\n\n", 1)[1]
