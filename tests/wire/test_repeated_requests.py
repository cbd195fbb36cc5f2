"""``Idempotency-Key`` where the server adds the conversation that it stores: the same request is
the same run, though the conversation has moved on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from support.node import serving


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


def message(text: str, name: str | None) -> dict[str, Any]:
    named = {"id": name} if name is not None else {}
    return {**named, "role": "user", "parts": [{"type": "text", "text": text}]}


def chat(url: str, chat_id: str, key: str | None, **body: Any) -> httpx.Response:
    headers = {"idempotency-key": key} if key is not None else {}
    body = {"id": chat_id, **body}
    return httpx.post(f"{url}/api/chat", json=body, headers=headers, timeout=30)


def run_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return reply.headers["tokenwire-run"]


def runs_in(url: str, thread: str) -> list[str]:
    return [run["id"] for run in httpx.get(f"{url}/v1/threads/{thread}").json()["runs"]]


@pytest.mark.parametrize("alone", ["message", "messages"])
@pytest.mark.parametrize("name", ["u1", None])
def test_a_last_message_alone_comes_again(url: str, name: str | None, alone: str) -> None:
    chat_id = f"again-{name}-{alone}"

    def body(text: str, own: str | None) -> dict[str, Any]:
        one = message(text, own)
        return {"message": one} if alone == "message" else {"messages": [one]}

    before = run_of(chat(url, chat_id, None, **body("Before", None)))
    first = run_of(chat(url, chat_id, f"k-{chat_id}", **body("One", name)))
    # The run is now a part of the stored conversation.
    assert run_of(chat(url, chat_id, f"k-{chat_id}", **body("One", name))) == first
    later = run_of(chat(url, chat_id, f"l-{chat_id}", **body("Two", None)))
    assert run_of(chat(url, chat_id, f"k-{chat_id}", **body("One", name))) == first
    assert runs_in(url, chat_id) == [later, first, before]


def test_another_message_under_the_same_key_is_refused(url: str) -> None:
    first = run_of(chat(url, "other", "key-of-other", message=message("One", None)))
    for body in (
        {"message": message("Another", None)},
        {"messages": [message("One", None), message("Two", None)]},
        {"message": message("One", None), "system": "Be brief."},
        {"message": message("One", None), "tokenwire": {"temperature": 0.5}},
    ):
        reply = chat(url, "other", "key-of-other", **body)
        assert reply.status_code == 422, body
        assert reply.json()["error"]["code"] == "idempotency_key_reused"
    assert runs_in(url, "other") == [first]


def test_one_that_is_being_written_comes_again(url: str) -> None:
    body = {"message": message("scenario:stall", None)}
    with httpx.Client(timeout=30) as client:
        headers = {"idempotency-key": "key-of-writing"}
        request = {"json": {"id": "writing-again", **body}, "headers": headers}
        with (
            client.stream("POST", f"{url}/api/chat", **request) as first,
            client.stream("POST", f"{url}/api/chat", **request) as second,
        ):
            assert first.status_code == second.status_code == 200
            assert first.headers["tokenwire-run"] == second.headers["tokenwire-run"]
            httpx.post(f"{url}/api/chat/writing-again/stop")


def test_many_at_once_are_one_run(url: str) -> None:
    run_of(chat(url, "at-once", None, message=message("Before", None)))

    def ask(_: int) -> str:
        return run_of(chat(url, "at-once", "key-at-once", message=message("One", None)))

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(ask, range(8)))) == 1
    assert len(runs_in(url, "at-once")) == 2


def test_a_response_after_one_that_was_being_written_comes_again(url: str) -> None:
    """What the first request continued has grown since."""
    path = f"{url}/v1/responses"
    body = {"model": "demo", "input": "scenario:slow", "background": True}
    previous = httpx.post(path, json=body, timeout=30).json()["id"]
    body = {"model": "demo", "input": "And then?", "previous_response_id": previous}
    headers = {"idempotency-key": "key-of-response"}
    first = httpx.post(path, json=body, headers=headers, timeout=30)
    assert httpx.post(f"{path}/{previous}/cancel", timeout=30).status_code == 200
    again = httpx.post(path, json=body, headers=headers, timeout=30)
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first.json()["id"]
    httpx.delete(f"{path}/{previous}")
    again = httpx.post(path, json=body, headers=headers, timeout=30)
    assert again.json().get("id") == first.json()["id"], again.text
    other = httpx.post(path, json={**body, "input": "Else?"}, headers=headers, timeout=30)
    assert other.status_code == 422


def test_a_pointer_to_a_durable_stream_comes_again(url: str) -> None:
    def ask(text: str, key: str) -> httpx.Response:
        body = {"id": "pointers", "message": message(text, None)}
        headers = {"idempotency-key": key}
        return httpx.post(f"{url}/ds/chat", json=body, headers=headers, timeout=30)

    def is_over(run: str) -> bool:
        return httpx.get(f"{url}/v1/runs/{run}/info").json()["state"] == "complete"

    runs = []
    for number in (1, 2):
        first = ask(f"Question {number}", f"pointer-{number}")
        assert first.status_code == 201
        runs.append(first.headers["tokenwire-run"])
        while not is_over(runs[-1]):
            time.sleep(0.02)
    again = ask("Question 1", "pointer-1")
    assert (again.status_code, again.headers["tokenwire-run"]) == (200, runs[0])
    assert ask("Another", "pointer-1").status_code == 422
    # The last message alone continues the stored conversation here as well.
    asked = httpx.get(f"{url}/v1/runs/{runs[1]}").json()["input"]
    assert [one["role"] for one in asked] == ["user", "assistant", "user"]
