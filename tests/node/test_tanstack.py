"""TanStack AI's chat client against the server's AG-UI route."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import httpx
import pytest

from support.node import need_node, run_node, serving

pytestmark = pytest.mark.node


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    need_node()
    with serving() as server:
        yield server.url


def client(url: str, case: str, prompt: str) -> Any:
    told = run_node("tanstack.mjs", url, case, prompt)
    assert (told["errors"], told["warnings"]) == ([], [])
    return told


def runs_of(url: str, thread: str) -> list[str]:
    return [r["state"] for r in httpx.get(f"{url}/v1/threads/{thread}").json()["runs"]]


@pytest.mark.parametrize("scenario", ["text", "reasoning", "tool", "tools", "length"])
def test_every_kind_of_event_is_taken(url: str, scenario: str) -> None:
    told = client(url, "plain", f"scenario:{scenario}?rate=300")
    assert told["chunks"][-1] == "RUN_FINISHED"
    assert told["text"]
    if scenario == "tool":
        parts = told["messages"][-1]["parts"]
        call = next(p for p in parts if p["type"] == "tool-call")
        assert call["output"]["city"] == "Paris"


def test_a_cut_is_mended_by_the_same_post_without_a_second_run(url: str) -> None:
    whole = client(url, "plain", "scenario:slow?rate=90")
    told = client(url, "cut", "scenario:slow?rate=90")
    assert told["posts"] == 2
    assert told["text"] == whole["text"]
    # How many pieces a text comes in is the server's business; their order is not.
    assert [kind for kind, _ in groupby(told["chunks"])] == [
        kind for kind, _ in groupby(whole["chunks"])
    ]
    assert runs_of(url, told["threadId"]) == ["complete"]


def test_an_approval_goes_on_with_the_same_run(url: str) -> None:
    told = client(url, "approval", "scenario:approval")
    assert told["posts"] == 2
    assert runs_of(url, told["threadId"]) == ["complete"]


def test_another_page_finds_and_joins_the_run(url: str) -> None:
    told = client(url, "join", "scenario:slow?rate=12")
    assert told["joined"] == told["text"]
    assert told["seen"][0] == "RUN_STARTED"
    assert told["seen"][-1] == "RUN_FINISHED"
    assert told["later"]["activeRun"] is None
    assert [m["role"] for m in told["later"]["messages"]] == ["user", "assistant"]
    assert told["later"]["messages"][1]["parts"][0]["content"] == told["text"]


def test_a_reloaded_page_shows_the_conversation_once(url: str) -> None:
    told = client(url, "reload", "scenario:slow")
    assert told["text"] == client(url, "plain", "scenario:slow?rate=90")["text"]
    assert [m["role"] for m in told["messages"]] == ["user", "assistant"]
    assert runs_of(url, told["threadId"]) == ["complete"]


def test_a_reloaded_page_asks_for_the_approval_again(url: str) -> None:
    told = client(url, "reload", "scenario:approval")
    assert told["metadata"]["toolName"] == "delete_file"
    assert told["metadata"]["input"] == {"path": "report.txt"}
    assert runs_of(url, told["threadId"]) == ["complete"]


def test_every_event_has_an_id_of_its_own(url: str) -> None:
    body = {
        "threadId": "ids",
        "runId": "run-ids",
        "messages": [{"id": "u", "role": "user", "content": "scenario:reasoning"}],
    }
    answer = httpx.post(f"{url}/ag-ui", json=body, headers={"x-run-id": "run-ids"}, timeout=30)
    lines = answer.text.split("\n")
    ids = [line for line in lines if line.startswith("id: ")]
    data = [line for line in lines if line.startswith("data: ")]
    assert len(ids) == len(data) == len(set(ids))
    for number, line in enumerate(lines):
        if line.startswith("id: "):
            assert lines[number + 1].startswith("data: ")
    # Coming back after any of them gives exactly the rest, byte for byte.
    for number in (0, 1, len(ids) // 2, len(ids) - 2):
        after = ids[number].removeprefix("id: ")
        again = httpx.post(
            f"{url}/ag-ui",
            json=body,
            headers={"x-run-id": "run-ids", "last-event-id": after},
            timeout=30,
        )
        rest = answer.text.split(ids[number] + "\n")[1].split("\n\n", 1)[1]
        assert again.text.split("\n\n", 1)[1] == rest
    assert runs_of(url, "ids") == ["complete"]
