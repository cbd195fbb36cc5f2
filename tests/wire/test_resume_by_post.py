"""``Last-Event-ID`` on a POST: it resumes, or it is refused; it never starts anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from support.server import AS_A, AS_B, KEYS, Site, site


def ui(prompt: str, chat: str) -> dict[str, Any]:
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": prompt}]}
    return {"id": chat, "messages": [message], "trigger": "submit-message"}


ASKED = [{"role": "user", "content": "scenario:text"}]
#: Path -> a body; ``{n}`` makes names that no other test uses.
BODIES: dict[str, dict[str, Any]] = {
    "/v1/runs": {"prompt": "scenario:text"},
    "/v1/chat/completions": {"model": "demo", "messages": ASKED, "stream": True},
    "/v1/responses": {"model": "demo", "input": "scenario:text", "stream": True},
    "/v1/messages": {"model": "demo", "max_tokens": 99, "messages": ASKED, "stream": True},
    "/api/chat": ui("scenario:text", "resume-ui-{n}"),
    "/ag-ui": {
        "threadId": "resume-{n}",
        "runId": "resume-run-{n}",
        "messages": [{"id": "m1", "role": "user", "content": "scenario:text"}],
    },
}
PATHS = list(BODIES)


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(
        api_keys=KEYS, starts_per_minute=10_000, starts_burst=1000, runs_per_principal=100
    ) as found:
        yield found


def body_of(path: str, name: str) -> dict[str, Any]:
    body = dict(BODIES[path])
    for field in ("id", "threadId", "runId"):
        if field in body:
            body[field] = body[field].replace("{n}", name)
    return body


def post(here: Site, path: str, name: str, headers: dict[str, str], as_: Any = AS_A) -> Any:
    if path == "/v1/runs":
        headers = {"accept": "text/event-stream", **headers}
    return here.client.post(path, json=body_of(path, name), headers={**as_, **headers})


def started(here: Site) -> int:
    """Runs that there are; a run that is named again counts once."""
    return len(here.app.state.store._logs)  # type: ignore[attr-defined]


def ids(text: str) -> list[str]:
    return [line[4:] for line in text.split("\n") if line.startswith("id: ")]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "last", ["nonsense", "12-ffffffffffffffff", "999999", "1.5.5", "gone-run-of-somebody:3-00"]
)
def test_what_cannot_be_resumed_is_refused_before_anything_starts(
    here: Site, path: str, last: str
) -> None:
    before = started(here)
    answer = post(here, path, "never", {"last-event-id": last})
    assert answer.status_code == 400, answer.text
    key = {"idempotency-key": f"new-{path}-{last}"}
    answer = post(here, path, "never", {"last-event-id": last, **key})
    assert answer.status_code == 400, answer.text
    assert started(here) == before
    # The key is not used up: the same request without the id starts the run.
    assert post(here, path, "never", key).is_success
    assert started(here) <= before + 1


@pytest.mark.parametrize("path", PATHS)
def test_a_key_and_an_id_resume(here: Site, path: str) -> None:
    key = {"idempotency-key": f"resume{path}"}
    whole = post(here, path, "by-key", key).text
    places = ids(whole)
    before = started(here)
    middle = places[len(places) // 2]
    rest = post(here, path, "by-key", {**key, "last-event-id": middle})
    assert rest.is_success, rest.text
    assert ids(rest.text) == places[places.index(middle) + 1 :]
    wrong = post(here, path, "by-key", {**key, "last-event-id": "2-ffffffffffffffff"})
    assert wrong.status_code == 400
    assert started(here) == before


@pytest.mark.parametrize("path", [p for p in PATHS if p != "/ag-ui"])
def test_an_id_that_names_its_run_resumes_it_for_its_principal_alone(here: Site, path: str) -> None:
    first = post(here, path, "by-run", {})
    run, places = first.headers["tokenwire-run"], ids(first.text)
    before = started(here)
    middle = places[len(places) // 2]
    rest = post(here, path, "by-run", {"last-event-id": f"{run}:{middle}"})
    assert rest.is_success, rest.text
    assert rest.headers["tokenwire-run"] == run
    assert ids(rest.text) == places[places.index(middle) + 1 :]
    foreign = post(here, path, "by-run", {"last-event-id": f"{run}:{middle}"}, AS_B)
    assert foreign.status_code == 400
    assert started(here) == before


@pytest.mark.parametrize("path", ["/api/chat", "/ag-ui"])
def test_what_else_the_request_names_is_enough(here: Site, path: str) -> None:
    whole = post(here, path, "by-name", {}).text
    places = ids(whole)
    before = started(here)
    middle = places[len(places) // 2]
    rest = post(here, path, "by-name", {"last-event-id": middle})
    assert rest.is_success, rest.text
    assert ids(rest.text) == places[places.index(middle) + 1 :]
    assert post(here, path, "by-name", {"last-event-id": middle}, AS_B).status_code == 400
    assert started(here) == before


def test_a_pointer_to_a_stream_starts_nothing_either(here: Site) -> None:
    body = ui("scenario:text", "resume-pointer")
    first = here.client.post("/ds/chat", json=body, headers=AS_A)
    assert first.status_code == 201
    run = first.headers["tokenwire-run"]
    while here.client.get(f"/v1/runs/{run}/info", headers=AS_A).json()["state"] == "running":
        time.sleep(0.01)
    page = here.client.get(f"/v1/runs/{run}/events?live=no", headers=AS_A).json()
    cursor = page["events"][2]["cursor"]
    before = started(here)
    for last in ("nonsense", cursor, "12-ffffffffffffffff", f"{run}:2-ffffffffffffffff"):
        answer = here.client.post("/ds/chat", json=body, headers={**AS_A, "last-event-id": last})
        assert answer.status_code == 400, last
    named = {"last-event-id": f"{run}:{cursor}"}
    again = here.client.post("/ds/chat", json=body, headers={**AS_A, **named})
    assert (again.status_code, again.headers["tokenwire-run"]) == (200, run)
    assert here.client.post("/ds/chat", json=body, headers={**AS_B, **named}).status_code == 400
    assert started(here) == before


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
def test_a_whole_answer_with_an_id_starts_nothing_either(here: Site, path: str) -> None:
    before = started(here)
    body = {**BODIES[path], "stream": False}
    answer = here.client.post(path, json=body, headers={**AS_A, "last-event-id": "3-00"})
    assert answer.status_code == 400
    assert started(here) == before
