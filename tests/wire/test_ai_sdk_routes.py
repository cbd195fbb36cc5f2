"""The AI SDK's routes beyond the chat class: coming back to the right run, settings, releases."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.node import serving


def ui(prompt: str, chat: str, **more: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": prompt}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", **more}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


def ids_of(text: str) -> list[str]:
    return [line[4:] for line in text.split("\n") if line.startswith("id: ")]


def chunks_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]


def post(url: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    answer = httpx.post(f"{url}/api/chat", json=body, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_place_belongs_to_its_run_though_the_chat_has_gone_on(url: str) -> None:
    first = post(url, ui("scenario:text?rate=300", "two-tabs"))
    post(url, ui("scenario:length", "two-tabs"))  # another tab asks something meanwhile
    ids = ids_of(first.text)
    place = ids[len(ids) // 2]
    rest = httpx.get(f"{url}/api/chat/two-tabs/stream", headers={"last-event-id": place})
    assert rest.headers["tokenwire-run"] == first.headers["tokenwire-run"]
    assert chunks_of(rest.text)[-1] == chunks_of(first.text)[-1]
    foreign = ids_of(post(url, ui("scenario:text?rate=300", "elsewhere")).text)[4]
    answer = httpx.get(f"{url}/api/chat/two-tabs/stream", headers={"last-event-id": foreign})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_cursor")
    nothing = httpx.get(f"{url}/api/chat/never-was/stream", headers={"last-event-id": foreign})
    assert nothing.status_code == 204


def test_who_comes_back_is_told_as_at_first(url: str) -> None:
    whole = post(url, ui("scenario:length", "an-old-page", compat="5")).text
    assert "finishReason" not in chunks_of(whole)[-1]
    place = ids_of(whole)[3]
    again = {"last-event-id": place}
    rest = httpx.get(f"{url}/api/chat/an-old-page/stream", headers=again)
    assert chunks_of(rest.text)[-1] == chunks_of(whole)[-1]
    newer = httpx.get(f"{url}/api/chat/an-old-page/stream?compat=7", headers=again)
    assert chunks_of(newer.text)[-1]["finishReason"] == "length"


def test_how_to_answer_is_said_apart_from_the_applications_own_fields(url: str) -> None:
    how = {"temperature": 0.5, "max_tokens": 400, "metadata": {"tenant": "a"}}
    answer = post(url, ui("Hello", "how", tokenwire=how, temperature="hot", metadata=7))
    run = httpx.get(f"{url}/v1/runs/{answer.headers['tokenwire-run']}").json()
    assert run["metadata"]["tenant"] == "a"
    for wrong, field in (
        ({"temperature": 9}, "tokenwire.temperature"),
        ({"base_url": "http://10.0.0.1"}, "tokenwire.base_url"),
        ({"on_disconnect": "explode"}, "tokenwire.on_disconnect"),
        ("x", "tokenwire"),
    ):
        bad = httpx.post(f"{url}/api/chat", json=ui("Hello", "how-not", tokenwire=wrong))
        assert (bad.status_code, bad.json()["error"]["field"]) == (400, field)
    assert httpx.get(f"{url}/v1/threads/how-not").json()["runs"] == []


def test_the_same_key_is_the_same_run(url: str) -> None:
    body = ui("scenario:text?rate=300", "once")
    first = post(url, body, **{"idempotency-key": "once-1"})
    second = post(url, body, **{"idempotency-key": "once-1"})
    assert first.headers["tokenwire-run"] == second.headers["tokenwire-run"]
    assert first.text == second.text
    other = httpx.post(
        f"{url}/api/chat", json=ui("Other", "once"), headers={"idempotency-key": "once-1"}
    )
    assert other.status_code == 422


def test_a_chat_of_another_wire_is_read_here_too(url: str) -> None:
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "scenario:stall", "thread": "native"})
    run = made.json()["id"]
    with httpx.stream("GET", f"{url}/api/chat/native/stream", timeout=30) as answer:
        assert answer.headers["tokenwire-run"] == run
        lines = answer.iter_lines()
        assert any('"text-delta"' in line for line in lines)
    assert httpx.post(f"{url}/api/chat/native/stop").status_code == 202
    for _ in range(200):
        if httpx.post(f"{url}/api/chat/native/stop").status_code == 204:
            break
        time.sleep(0.05)
    assert httpx.get(f"{url}/v1/runs/{run}").json()["state"] == "cancelled"
