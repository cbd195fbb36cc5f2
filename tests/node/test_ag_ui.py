"""@ag-ui/client against the server: every event verified and reduced by the package, no warning."""

from __future__ import annotations

from collections.abc import Iterator
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


def agent(url: str, case: str, prompt: str) -> Any:
    told = run_node("ag_ui.mjs", url, case, prompt)
    assert told["warnings"] == []
    return told


def assistant_text(told: Any) -> str:
    return "".join(m.get("content") or "" for m in told["messages"] if m["role"] == "assistant")


@pytest.mark.parametrize(
    "scenario", ["text", "reasoning", "tool", "tools", "progress", "length", "refusal"]
)
def test_every_kind_of_event_is_taken(url: str, scenario: str) -> None:
    told = agent(url, "plain", f"scenario:{scenario}?rate=300")
    assert told["errors"] == []
    assert told["seen"][0] == "RUN_STARTED"
    assert told["seen"][-1] == "RUN_FINISHED"
    assert assistant_text(told)
    if scenario == "tool":
        result = next(m for m in told["messages"] if m["role"] == "tool")
        assert '"city":"Paris"' in result["content"]
    if scenario == "reasoning":
        assert any(m["role"] == "reasoning" for m in told["messages"])


@pytest.mark.parametrize("scenario", ["error", "cut"])
def test_a_broken_answer_is_a_run_error(url: str, scenario: str) -> None:
    told = agent(url, "plain", f"scenario:{scenario}")
    assert told["seen"][-1] == "RUN_ERROR"
    assert told["errors"]


def test_a_conversation_of_two_turns(url: str) -> None:
    told = agent(url, "two_turns", "Hello")
    assert told["errors"] == []
    assert told["seen"].count("RUN_FINISHED") == 2


@pytest.mark.parametrize("case", ["approval", "denial"])
def test_interrupts_are_answered(url: str, case: str) -> None:
    told = agent(url, case, "scenario:approval")
    assert told["errors"] == []
    assert told["seen"].count("RUN_STARTED") == told["seen"].count("RUN_FINISHED") == 2
    result = next(m for m in told["messages"] if m["role"] == "tool")
    assert ("deleted" in result["content"]) == (case == "approval")
    runs = httpx.get(f"{url}/v1/threads/{told['thread']}").json()["runs"]
    assert [run["state"] for run in runs] == ["complete"], "one run, gone on with"


def test_an_answer_that_comes_after_a_cancel_starts_nothing(url: str) -> None:
    told = agent(url, "late", "scenario:approval")
    assert told["errors"] == []
    result = next(m for m in told["messages"] if m["role"] == "tool")
    assert "cancelled" in result["content"]
    runs = httpx.get(f"{url}/v1/threads/{told['thread']}").json()["runs"]
    assert [run["state"] for run in runs] == ["cancelled"]


def test_a_tool_that_the_client_runs(url: str) -> None:
    told = agent(url, "client_tool", "Please locate me.")
    assert told["errors"] == []
    assert told["seen"].count("RUN_FINISHED") == 2
    runs = httpx.get(f"{url}/v1/threads/{told['thread']}").json()["runs"]
    assert [run["state"] for run in runs] == ["complete"]


def test_a_bad_request_starts_nothing(url: str) -> None:
    thread = "thread-that-never-was"
    bad = [
        {},
        {"threadId": thread, "runId": "r", "messages": [{"role": "robot", "id": "x"}]},
        {"threadId": f"{thread}\nevil", "runId": "r", "messages": []},
        {"threadId": thread, "runId": "r", "messages": [], "forwardedProps": {"base_url": "x"}},
    ]
    for body in bad:
        answer = httpx.post(f"{url}/ag-ui", json=body)
        assert answer.status_code == 400, body
        assert answer.json()["error"]["code"] == "bad_request"
    assert httpx.get(f"{url}/v1/threads/{thread}").json()["runs"] == []
