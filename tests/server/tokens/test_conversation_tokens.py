"""A conversation's token and its turns, queue and head: its own ones, within its scopes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from server.tokens.test_attach_tokens import run_token, thread_token, waiting
from support.server import AS_A, AS_B, KEYS, Site, site, text_of


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(
        api_keys=KEYS,
        runs_per_principal=1000,
        starts_per_minute=10_000,
        starts_burst=1000,
        readers_per_principal=100,
        model=["demo"],
    ) as found:
        yield found


def queued(here: Site, thread: str, text: str, headers: dict[str, str]) -> str:
    body = {"prompt": text, "thread": thread, "while_busy": "queue"}
    answer = here.client.post("/v1/runs", json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def entries(answer: Any) -> list[tuple[str, str]]:
    assert answer.status_code == 200, answer.text
    return [(entry["id"], entry["text"]) for entry in answer.json()["queue"]]


def test_a_token_with_write_uses_the_queue_of_its_conversation(here: Site) -> None:
    write, read = thread_token(here, "line", "write"), thread_token(here, "line")
    here.start("scenario:stall", headers=AS_A, thread="line")
    one, two = (queued(here, "line", text, write) for text in ("one", "two"))
    queue = "/v1/threads/line/queue"
    for token in (read, write, AS_A):
        shown = entries(here.client.get(queue, headers=token))
        assert shown == [(one, "one"), (two, "two")]
        turns = here.client.get("/v1/threads/line/turns", headers=token)
        assert turns.status_code == 200, turns.text
    edited = here.client.put(f"{queue}/{one}", json={"prompt": "better"}, headers=write)
    assert entries(edited) == [(one, "better"), (two, "two")]
    dropped = here.client.delete(f"{queue}/{two}", headers=write)
    assert entries(dropped) == [(one, "better")]
    sent = here.client.post(f"{queue}/{one}/now", headers=write)
    assert sent.status_code in (201, 202), sent.text
    assert text_of(here.frames(f"/v1/runs/{one}/events", headers=read))
    head = here.client.put("/v1/threads/line/head", json={"run": one}, headers=write)
    assert head.json()["head"] == one


def test_a_turn_that_is_sent_at_once_denies_what_waits(here: Site) -> None:
    """As ``while_busy`` interrupt does, also by a token that may not approve."""
    waiting(here, thread="asked")
    write = thread_token(here, "asked", "write")
    turn = queued(here, "asked", "instead", write)
    sent = here.client.post(f"/v1/threads/asked/queue/{turn}/now", headers=write)
    assert sent.status_code in (201, 202), sent.text
    assert text_of(here.frames(f"/v1/runs/{turn}/events", headers=write))


def routes(thread: str, run: str) -> list[tuple[str, str, Any, bool]]:
    """Method, path, body, and whether it only reads."""
    one = f"/v1/threads/{thread}"
    return [
        ("GET", f"{one}/turns", None, True),
        ("GET", f"{one}/queue", None, True),
        ("PUT", f"{one}/head", {"run": run}, False),
        ("PUT", f"{one}/queue/{run}", {"prompt": "x"}, False),
        ("DELETE", f"{one}/queue/{run}", None, False),
        ("POST", f"{one}/queue/{run}/now", None, False),
    ]


def test_other_conversations_and_scopes_are_closed(here: Site) -> None:
    ended = here.start(headers=AS_A, thread="closed")
    here.frames(f"/v1/runs/{ended}/events", headers=AS_A)
    running = here.start("scenario:stall", headers=AS_A, thread="other")
    turn = queued(here, "other", "waits", AS_A)
    foreign = here.start("scenario:stall", headers=AS_B, thread="closed")
    hidden = queued(here, "closed", "b waits", AS_B)
    read, write = thread_token(here, "closed"), thread_token(here, "closed", "write")
    of_run = run_token(here, running, "write")
    for method, path, body, _ in routes("other", turn):
        for token in (write, of_run):
            answer = here.client.request(method, path, json=body, headers=token)
            assert answer.status_code == 404, (method, path, answer.text)
    for method, path, body, is_read in routes("closed", ended):
        answer = here.client.request(method, path, json=body, headers=read)
        assert answer.status_code == (200 if is_read else 403), (method, path, answer.text)
    for run in (turn, running, hidden, foreign):  # of elsewhere, by a path of its own conversation
        for method, path, body, is_read in routes("closed", run):
            if not is_read:
                answer = here.client.request(method, path, json=body, headers=write)
                assert answer.status_code == 404, (method, path, answer.text)
    shown = here.client.get("/v1/threads/closed/turns", headers=write).json()
    assert [one["run"] for one in shown["turns"]] == [ended]
    assert entries(here.client.get("/v1/threads/closed/queue", headers=write)) == []
    assert entries(here.client.get("/v1/threads/other/queue", headers=AS_A)) == [(turn, "waits")]
    assert entries(here.client.get("/v1/threads/closed/queue", headers=AS_B)) == [
        (hidden, "b waits")
    ]
    for run, headers in ((running, AS_A), (foreign, AS_B)):
        here.client.post(f"/v1/runs/{run}/cancel", headers=headers)
