"""Turns that wait in a conversation's queue: the application's check and the quotas hold for them
as for any other start."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.people import Person, people_server
from tokenwire import StartRequest
from tokenwire.server import Live

STALL = "scenario:stall"


def check_words(start: StartRequest) -> None:
    """The check of an application: forbidden words, and one that it replaces."""
    text = start.messages[-1].text
    if "forbidden" in text:
        start.refuse("no such words", code="words")
    start.metadata["seen"] = [*start.metadata.get("seen", []), text]
    if "secret" in text:
        start.messages = text.replace("secret", "---")


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    with people_server(before_start=check_words) as found:
        yield found


def queued(person: Person, thread: str, prompt: str) -> tuple[str, str]:
    """A run under way in ``thread``, and a turn that waits for its end."""
    first = person.start(STALL, thread=thread)
    answer = person.ask("POST", "/v1/runs", turn(thread, prompt))
    assert answer.status_code == 202, answer.text
    return first, answer.json()["id"]


def turn(thread: str, prompt: str) -> dict[str, Any]:
    return {"prompt": prompt, "thread": thread, "history": "thread", "while_busy": "queue"}


def edit(person: Person, thread: str, run: str, prompt: str) -> httpx.Response:
    return person.ask("PUT", f"/v1/threads/{thread}/queue/{run}", {"prompt": prompt})


def ended(person: Person, run: str) -> dict[str, Any]:
    """The run, once it has begun and ended."""
    for _ in range(600):
        answer = person.ask("GET", f"/v1/runs/{run}/events")
        if answer.status_code == 200:
            assert "run-end" in answer.text
            return person.ask("GET", f"/v1/runs/{run}").json()
        assert answer.status_code == 404, answer.text
        time.sleep(0.1)
    raise AssertionError("the turn never began")


def test_an_edit_is_checked_as_the_first_words_were(here: tuple[str, Live]) -> None:
    ann = Person(here[0], "ann")
    first, run = queued(ann, "words", "good")
    refused = edit(ann, "words", run, "forbidden")
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "words"
    waiting = ann.ask("GET", "/v1/threads/words/queue").json()["queue"]
    assert [entry["text"] for entry in waiting] == ["good"]
    for prompt, shown in (("a secret", "a ---"), ("two secrets", "two ---s")):
        listed = edit(ann, "words", run, prompt).json()["queue"]
        assert [entry["text"] for entry in listed] == [shown]
    assert edit(ann, "words", run, "forbidden").status_code == 403
    ann.ask("POST", f"/v1/runs/{first}/cancel", {})
    body = ended(ann, run)
    asked = [m["content"] for m in body["input"] if m["role"] == "user"]
    assert "two ---s" in str(asked[-1])
    assert "forbidden" not in str(body)
    # As if the last words had been the first: each check saw the request as it came.
    assert body["metadata"]["seen"] == ["two secrets"]


@pytest.mark.parametrize("tenant", [None, "acme"])
def test_the_tokens_of_a_turn_that_waited_count(here: tuple[str, Live], tenant: str | None) -> None:
    limits: dict[str, Any] = {"tokens_per_day": 1}
    whose: dict[str, Any] = {"limits": limits}
    if tenant is not None:
        whose = {"tenant": tenant, "tenant_limits": limits}
    bob = Person(here[0], "bob", **whose)
    first, run = queued(bob, "tokens", "scenario:text")
    bob.ask("POST", f"/v1/runs/{first}/cancel", {})
    ended(bob, run)
    answer = bob.ask("POST", "/v1/runs", {"prompt": "scenario:text"})
    assert answer.status_code == 429, answer.text
    name = "tokens_per_day" if tenant is None else "tokens_per_tenant"
    assert answer.json()["error"]["limit"] == name


def test_a_turn_that_waited_is_at_work_like_any_run(here: tuple[str, Live]) -> None:
    eve = Person(here[0], "eve", limits={"runs": 2})
    first, run = queued(eve, "work", STALL)
    # It waits, and does not count: another run may start.
    ended(eve, eve.start("scenario:text"))
    sent = eve.ask("POST", f"/v1/threads/work/queue/{run}/now", {})
    assert sent.status_code in (201, 202)
    for _ in range(600):
        if eve.ask("GET", f"/v1/runs/{run}").status_code == 200:
            break
        time.sleep(0.1)
    assert "run-end" in eve.ask("GET", f"/v1/runs/{first}/events").text
    eve.start(STALL)
    answer = eve.ask("POST", "/v1/runs", {"prompt": STALL})
    assert answer.json()["error"]["limit"] == "runs_per_principal"
