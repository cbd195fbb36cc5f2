"""Quotas: held over processes that share a store, by principal and by tenant, and by their own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.people import Person, people_server
from support.process import Process, serving
from support.redis import need_redis, redis_server
from tokenwire.server import Live
from tokenwire.server.settings import Settings

STALL = "scenario:stall"


def refusal(answer: httpx.Response) -> str:
    """Which limit a start met."""
    assert answer.status_code == 429, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    error = answer.json()["error"]
    assert error["code"] == "busy"
    return error["limit"]


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[str, Live]]:
    with people_server(
        settings=Settings(runs_per_principal=50, starts_per_minute=6000, starts_burst=10)
    ) as found:
        yield found


def start(person: Person, prompt: str = "scenario:text", **more: Any) -> httpx.Response:
    return person.ask("POST", "/v1/runs", {"prompt": prompt, **more})


def ended(person: Person, run: str) -> None:
    """Wait for a run's end."""
    assert "run-end" in person.ask("GET", f"/v1/runs/{run}/events").text


def test_a_principal_brings_limits_of_its_own(here: tuple[str, Live]) -> None:
    two = Person(here[0], "two", limits={"runs": 2})
    runs = [start(two, STALL).json()["id"] for _ in range(2)]
    assert refusal(start(two)) == "runs_per_principal"
    free = Person(here[0], "another")
    assert start(free).status_code == 201
    assert two.ask("POST", f"/v1/runs/{runs[0]}/cancel", {}).status_code == 202
    ended(two, runs[0])
    assert start(two, STALL).status_code == 201
    assert refusal(start(two)) == "runs_per_principal"
    assert two.ask("DELETE", f"/v1/runs/{runs[1]}").status_code == 204
    assert start(two).status_code == 201


@pytest.mark.parametrize("number", [0, 1])
def test_starts_of_a_principal(here: tuple[str, Live], number: int) -> None:
    slow = Person(here[0], f"slow-{number}", limits={"starts_per_minute": number})
    for _ in range(10 * number):
        assert start(slow).status_code == 201
    assert refusal(start(slow)) == "starts_per_minute"


def test_a_tenant_shares_its_limits(here: tuple[str, Live]) -> None:
    limits = {"runs": 3}
    people = [
        Person(here[0], name, tenant="small", tenant_limits=limits) for name in ("ann", "bob")
    ]
    other = Person(here[0], "ann", tenant="large", tenant_limits=limits)
    started = [start(person, STALL).json()["id"] for person in (*people, people[0])]
    for person in people:
        assert refusal(start(person)) == "runs_per_tenant"
    assert start(other).status_code == 201
    assert start(Person(here[0], "small")).status_code == 201
    people[0].ask("POST", f"/v1/runs/{started[0]}/cancel", {})
    ended(people[0], started[0])
    assert start(people[1]).status_code == 201


def test_runs_that_wait_are_counted_by_themselves(here: tuple[str, Live]) -> None:
    person = Person(here[0], "waits", limits={"runs": 1, "waiting_runs": 2})
    first = person.waiting("scenario:approval")
    person.waiting("scenario:approval")
    assert refusal(start(person)) == "waiting_runs_per_principal"
    answer = {"approved": True}
    run, approval = first
    assert person.ask("POST", f"/v1/runs/{run}/approvals/{approval}", answer).status_code == 202
    ended(person, run)
    assert start(person).status_code == 201


def test_tokens_of_a_day(here: tuple[str, Live]) -> None:
    person = Person(here[0], "spends", limits={"tokens_per_day": 1})
    run = start(person).json()["id"]
    ended(person, run)
    got = start(person)
    assert refusal(got) == "tokens_per_day"
    assert int(got.headers["retry-after"]) <= 86_401
    # Who erases what it spent has spent it.
    thrifty = Person(here[0], "erases", limits={"tokens_per_day": 1})
    run = start(thrifty, thread="t").json()["id"]
    ended(thrifty, run)
    assert thrifty.ask("DELETE", f"/v1/runs/{run}").status_code == 204
    assert refusal(start(thrifty)) == "tokens_per_day"
    other = Person(here[0], "erases-threads", limits={"tokens_per_day": 1})
    ended(other, start(other, thread="t").json()["id"])
    assert other.ask("DELETE", "/v1/threads/t").status_code == 204
    assert refusal(start(other)) == "tokens_per_day"
    none = Person(here[0], "none", limits={"tokens_per_day": 0})
    assert refusal(start(none)) == "tokens_per_day"


def test_a_repeated_request_counts_once_and_frees_nothing(here: tuple[str, Live]) -> None:
    person = Person(here[0], "repeats", limits={"runs": 2})
    body = {
        "runId": "r1",
        "threadId": "t",
        "tools": [],
        "context": [],
        "state": {},
        "forwardedProps": {},
        "messages": [{"id": "m1", "role": "user", "content": STALL}],
    }
    for _ in range(3):
        with person.client.stream("POST", "/ag-ui", json=body) as answer:
            assert answer.status_code == 200
            next(answer.iter_bytes())
    key = {"idempotency-key": "k"}
    for _ in range(2):
        got = person.ask("POST", "/v1/runs", {"prompt": STALL}, **key)
        assert got.status_code in (200, 201, 429)
    assert refusal(start(person)) == "runs_per_principal"


# --- over processes -------------------------------------------------------------------------------

KEY_A, KEY_B = "a-key-of-ann-that-is-long", "a-key-of-bob-that-is-long"
AS_A, AS_B = ({"authorization": f"Bearer {key}"} for key in (KEY_A, KEY_B))


def post(process: Process, path: str, body: Any, headers: dict[str, str]) -> httpx.Response:
    return httpx.post(process.url + path, json=body, headers=headers, timeout=30)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_workers_of_one_store_hold_one_limit(tmp_path: Path, kind: str) -> None:
    flags = [
        *("--limit", "runs_per_principal=2", "--limit", "starts_per_minute=1"),
        *("--limit", "starts_burst=4"),
    ]
    with ExitStack() as stack:
        store = f"sqlite:{tmp_path}/runs.db"
        if kind == "redis":
            need_redis()
            store = f"redis://127.0.0.1:{stack.enter_context(redis_server()).port}"
        env = {"TOKENWIRE_STORE": store, "TOKENWIRE_API_KEYS": f"ann:{KEY_A},bob:{KEY_B}"}
        one, two = (stack.enter_context(serving(tmp_path, *flags, **env)) for _ in range(2))
        stall = {"prompt": STALL}
        runs = [post(process, "/v1/runs", stall, AS_A).json()["id"] for process in (one, two)]
        for process in (one, two):
            assert refusal(post(process, "/v1/runs", stall, AS_A)) == "runs_per_principal"
        # A minute has one start beside the burst, however many workers there are.
        quick = {"prompt": "scenario:text?rate=10000"}
        for number in range(4):
            process = (one, two)[number % 2]
            made = post(process, "/v1/runs", quick, AS_B)
            assert made.status_code == 201, made.text
            events = f"{process.url}/v1/runs/{made.json()['id']}/events"
            assert "run-end" in httpx.get(events, headers=AS_B, timeout=30).text
        got = post(one, "/v1/runs", quick, AS_B)
        assert refusal(got) == "starts_per_minute"
        # A worker is killed: its run goes on elsewhere and counts, until it is over.
        one.process.send_signal(signal.SIGKILL)
        one.process.wait(30)
        assert refusal(post(two, "/v1/runs", stall, AS_A)) == "runs_per_principal"
        for run in runs:
            assert post(two, f"/v1/runs/{run}/cancel", {}, AS_A).status_code == 202
        deadline = time.monotonic() + 60
        got = post(two, "/v1/runs", stall, AS_A)
        while got.status_code == 429 and time.monotonic() < deadline:
            assert refusal(got) == "runs_per_principal"
            time.sleep(0.2)
            got = post(two, "/v1/runs", stall, AS_A)
        assert got.status_code == 201, json.dumps(got.json())


@pytest.mark.parametrize(
    "path",
    [
        "/v1/runs",
        "/v1/chat/completions",
        "/v1/runs in a thread",
        "/api/chat?history=thread by its message",
    ],
)
def test_a_start_that_comes_again_is_not_refused(here: tuple[str, Live], path: str) -> None:
    """A reader on a bad network sends its start again and again, and is not told to wait for what
    it has used up itself."""
    person = Person(
        here[0], "comes-back-" + "".join(filter(str.isalpha, path)), limits={"starts_per_minute": 1}
    )
    body: dict[str, Any] = {"prompt": STALL}
    if "completions" in path:
        message = {"role": "user", "content": STALL}
        body = {"model": "demo", "messages": [message], "stream": True}
    elif "thread" in path:
        body["thread"] = "trip"
    route = path.partition(" ")[0]

    def post(key: str) -> tuple[int, str]:
        headers = {"idempotency-key": key}
        if "by its message" in path:
            message = {"id": key, "role": "user", "parts": [{"type": "text", "text": STALL}]}
            headers, body["id"], body["messages"] = {}, "by-message", [message]
        with person.client.stream("POST", route, json=body, headers=headers) as answer:
            return answer.status_code, answer.headers.get("tokenwire-run", "")

    status, run = post("first")
    assert status in (200, 201)
    others = [post(f"more-{number}") for number in range(12)]
    assert [status for status, _ in others].count(429) >= 2, "all starts are used up"
    for _ in range(15):
        assert post("first")[1] == run
    assert post("new")[0] == 429
