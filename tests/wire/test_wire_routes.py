"""The routes of other people's wires: coming back, answering (bad input: test_bad_input.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.node import serving


def ui(prompt: str, chat: str = "chat-1", **more: Any) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": prompt}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message", **more}


CHAT: dict[str, Any] = {"model": "demo", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


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
        "POST",
        f"{url}/api/chat",
        json=ui("scenario:approval", chat="ask", compat="common"),
        timeout=20,
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


def test_a_run_of_ag_ui_is_read_under_its_clients_name(url: str) -> None:
    """Whoever looks at it later, and wherever in it they begin."""
    client_run = "run-of-a.client:1"
    body: dict[str, Any] = {
        "threadId": "t-names",
        "runId": client_run,
        "messages": [{"id": "m", "role": "user", "content": "scenario:text"}],
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
    }
    live = httpx.post(f"{url}/ag-ui", json=body)
    assert live.status_code == 200, live.text
    run = live.headers["tokenwire-run"]
    for wire in ("ag-ui", "tanstack"):
        later = httpx.get(f"{url}/v1/runs/{run}/wires/{wire}").text
        assert later.count(f'"runId":"{client_run}"') == live.text.count(f'"{client_run}"') == 2
        names = [line[4:] for line in later.splitlines() if line.startswith("id: ")]
        rest = httpx.get(f"{url}/v1/runs/{run}/wires/{wire}", headers={"last-event-id": names[-2]})
        assert f'"runId":"{client_run}"' in rest.text
    own = httpx.post(
        f"{url}/v1/runs", json={"prompt": "scenario:text", "metadata": {"ag_ui_run": 7}}
    )
    name = own.json()["id"]
    assert f'"runId":"{name}"' in httpx.get(f"{url}/v1/runs/{name}/wires/ag-ui").text
