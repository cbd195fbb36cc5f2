"""A cursor that the server never gave is refused at every door of events, in the wire's own form;
one that says "from the start" is clear."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from support.server import Site, site
from tokenwire.wire.catalogue import WIRES

BAD = ["1.5", "2.0", "1-.1", "0.1", "999999", "999999.3", "1-ffffffffffffffff", "x", "1.", "1e5"]
BAD += ["18446744073709551617", "1-", "4-zz", "1,5", "٣", "1-0.1.1"]


@pytest.fixture(scope="module")
def here() -> Iterator[tuple[Site, str]]:
    with site() as found:
        body = {"model": "demo", "prompt": "scenario:text"}
        run = found.client.post("/v1/runs", json=body).json()["id"]
        chat = {"id": "c1", "messages": [{"id": "u", "role": "user", "parts": [TEXT]}]}
        assert found.client.post("/api/chat", json=chat).status_code == 200
        while found.client.get(f"/v1/runs/{run}").json()["state"] == "running":
            pass
        yield found, run


TEXT = {"type": "text", "text": "scenario:text"}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask"}
DOORS: dict[str, Any] = {
    "/v1/runs/{run}/events": None,
    **{f"/v1/runs/{{run}}/wires/{wire}": None for wire in WIRES},
    "/api/chat/c1/stream": None,
    "/ag-ui?runId={run}": None,
    "/a2a/tasks/{run}:subscribe": None,
    "/a2a": CALL,
}


def ask(here: tuple[Site, str], door: str, cursor: str) -> Any:
    found, run = here
    headers = [(b"last-event-id", cursor.encode())]
    body = DOORS[door]
    if body is not None:
        body = {**body, "params": {"id": run}}
    method = "GET" if body is None else "POST"
    return found.client.request(method, door.format(run=run), json=body, headers=headers)


@pytest.mark.parametrize("door", DOORS)
def test_a_cursor_that_nobody_was_given_is_refused(here: tuple[Site, str], door: str) -> None:
    for cursor in BAD:
        answer = ask(here, door, cursor)
        value = answer.json()
        if door == "/a2a":
            assert (answer.status_code, value["error"]["code"]) == (200, -32602), cursor
        else:
            assert answer.status_code == 400, (cursor, answer.text)
        assert "bad_cursor" in answer.text, (cursor, answer.text)


@pytest.mark.parametrize("door", DOORS)
def test_before_the_first_event_is_the_whole(here: tuple[Site, str], door: str) -> None:
    answer = ask(here, door, "0")
    assert answer.status_code == 200
    assert "Hello" in answer.text.replace("\\u0048", "H")
    assert answer.text.count("event") or answer.text.count("data:") > 3
