"""The stored conversation for the AI SDK: read by a page that is loaded, and continued by a request
that has the last message alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.node import serving
from support.server import site


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


def message(text: str, name: str) -> dict[str, Any]:
    return {"id": name, "role": "user", "parts": [{"type": "text", "text": text}]}


def post(url: str, chat: str, **body: Any) -> list[dict[str, Any]]:
    """The chunks of the answer."""
    reply = httpx.post(f"{url}/api/chat", json={"id": chat, **body}, timeout=30)
    assert reply.status_code == 200, reply.text
    lines = [line for line in reply.text.split("\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in lines]


def stored(url: str, chat: str, **query: str) -> dict[str, Any]:
    query = {"as": "ui-messages", **query}
    reply = httpx.get(f"{url}/v1/threads/{chat}", params=query)
    assert reply.status_code == 200, reply.text
    return reply.json()


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return ["".join(part.get("text", "") for part in one["parts"]) for one in messages]


def input_of(url: str, chat: str) -> list[Any]:
    run = httpx.get(f"{url}/v1/threads/{chat}").json()["runs"][0]["id"]
    found = httpx.get(f"{url}/v1/runs/{run}").json()["input"]
    return [(one["role"], one.get("id")) for one in found]


def test_a_last_message_alone_continues_the_stored_conversation(url: str) -> None:
    post(url, "alone", message=message("One", "u1"))
    post(url, "alone", message=message("Two", "u2"))
    post(url, "alone", messages=[message("Three", "u3")])
    shown = stored(url, "alone")
    assert [one["role"] for one in shown["messages"]] == ["user", "assistant"] * 3
    assert texts(shown["messages"])[::2] == ["One", "Two", "Three"]
    assert all(texts(shown["messages"])[1::2])
    assert "active" not in shown
    roles = [role for role, _ in input_of(url, "alone")]
    assert roles == ["user", "assistant", "user", "assistant", "user"]


def test_a_stored_message_that_comes_again_takes_its_own_place(url: str) -> None:
    post(url, "again", message=message("One", "u1"))
    post(url, "again", message=message("Two", "u2"))
    regenerated = {"trigger": "regenerate-message"}
    post(url, "again", message=message("Two", "u2"), **regenerated)
    assert [name for role, name in input_of(url, "again") if role == "user"] == ["u1", "u2"]
    post(url, "again", messages=[message("Another one", "u1")])
    assert input_of(url, "again") == [("user", "u1")]
    assert texts(stored(url, "again")["messages"])[0] == "Another one"


def test_the_same_request_under_the_same_key_is_the_same_run(url: str) -> None:
    body = {"id": "key", "message": message("One", "u1")}
    headers = {"idempotency-key": "history-1"}
    runs = {
        httpx.post(f"{url}/api/chat", json=body, headers=headers).headers["tokenwire-run"]
        for _ in range(2)
    }
    assert len(runs) == 1


def test_what_a_tool_said_stands_in_its_call(url: str) -> None:
    chunks = post(url, "tools", message=message("scenario:tool", "u1"))
    call = next(c for c in chunks if c["type"] == "tool-input-available")
    output = next(c for c in chunks if c["type"] == "tool-output-available")
    for _ in range(2):  # of the newest run, then as history of the next one
        answer = stored(url, "tools")["messages"][1]
        tool = next(p for p in answer["parts"] if p["type"].startswith("tool-"))
        assert tool["type"] == f"tool-{call['toolName']}"
        assert (tool["state"], tool["input"], tool["output"]) == (
            "output-available",
            call["input"],
            output["output"],
        )
        assert [p["type"] for p in answer["parts"]].count("step-start") == 2
        post(url, "tools", message=message("Thanks", "u2"))


def test_a_page_reads_the_log_of_each_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with site() as here:
        for text in ("one", "two", "three", "four"):
            run = here.start(text, thread="once")
            here.client.get(f"/v1/runs/{run}/events")
        store, reads = here.app.state.store, Counter[str]()
        read = store.read

        async def counted(log: str, **more: Any) -> Any:
            reads[log] += 1
            return await read(log, **more)

        monkeypatch.setattr(store, "read", counted)
        query = {"as": "ui-messages"}
        page = here.client.get("/v1/threads/once", params=query).json()["messages"]
        assert len(page) == 8
        assert len(reads) == 4
        assert set(reads.values()) == {1}


@pytest.mark.parametrize("compat", ["5", "common", "6", "7", ""])
def test_an_approval_is_asked_for_again_and_its_answer_goes_to_the_same_run(
    url: str, compat: str
) -> None:
    chat = f"approval-{compat}"
    post(url, chat, message=message("scenario:approval", "u1"), compat="6")
    shown = stored(url, chat, **({"compat": compat} if compat else {}))
    answer = shown["messages"][-1]
    assert answer["role"] == "assistant"
    assert shown["active"] == answer["metadata"]["tokenwire"]["run"]
    tool = next(p for p in answer["parts"] if p["type"].startswith("tool-"))
    if compat in ("5", "common"):
        data = next(p for p in answer["parts"] if p["type"] == "data-approval")
        assert tool["state"] == "input-available"
        assert data["data"]["toolCallId"] == tool["toolCallId"]
        return
    assert tool["state"] == "approval-requested"
    tool |= {
        "state": "approval-responded",
        "approval": {"id": tool["approval"]["id"], "approved": False, "reason": "not now"},
    }
    chunks = post(url, chat, message=answer)
    assert chunks[-1]["type"] == "finish"
    runs = httpx.get(f"{url}/v1/threads/{chat}").json()["runs"]
    assert [run["id"] for run in runs] == [shown["active"]]
    after = stored(url, chat, **({"compat": compat} if compat else {}))
    tool = next(p for p in after["messages"][-1]["parts"] if p["type"].startswith("tool-"))
    assert tool["state"] == "output-denied"
    assert tool["approval"]["approved"] is False


@pytest.mark.parametrize("query", ["", "?history=thread"])
def test_durable_chat_answers_the_run_that_waits(url: str, query: str) -> None:
    chat = f"durable-approval-{len(query)}"
    post(url, chat, message=message("scenario:approval", "u1"), compat="6")
    shown = stored(url, chat, compat="6")
    answer = shown["messages"][-1]
    tool = next(p for p in answer["parts"] if p["type"].startswith("tool-"))
    tool |= {
        "state": "approval-responded",
        "approval": {"id": tool["approval"]["id"], "approved": True},
    }
    said = httpx.post(f"{url}/ds/chat{query}", json={"id": chat, "messages": shown["messages"]})
    assert (said.status_code, shown["active"] in said.headers["location"]) == (200, True)
    httpx.get(f"{url}/v1/runs/{shown['active']}/events", timeout=60)  # until it ends
    runs = httpx.get(f"{url}/v1/threads/{chat}").json()["runs"]
    assert [(run["id"], run["state"]) for run in runs] == [(shown["active"], "complete")]


def test_an_answer_that_is_being_written_is_left_to_its_stream(url: str) -> None:
    httpx.post(f"{url}/v1/runs", json={"prompt": "scenario:stall", "thread": "writing"})
    shown = stored(url, "writing")
    assert [one["role"] for one in shown["messages"]] == ["user"]
    assert shown["active"]
    httpx.post(f"{url}/api/chat/writing/stop")


def test_a_failed_answer_says_so(url: str) -> None:
    post(url, "failed", message=message("scenario:error", "u1"))
    answer = stored(url, "failed")["messages"][-1]
    assert answer["metadata"]["tokenwire"]["outcome"] == "error"
    assert answer["metadata"]["tokenwire"]["error"]


def test_a_conversation_is_read_in_pages(url: str) -> None:
    for number in range(3):
        post(url, "pages", message=message(f"Question {number}", f"u{number}"))
    whole = stored(url, "pages")["messages"]
    newest = stored(url, "pages", limit="4")
    assert newest["messages"] == whole[2:]
    older = stored(url, "pages", limit="4", before=newest["page"]["cursor"])
    assert older["messages"] == whole[:2]
    assert older["page"] == {"truncated": False}
    assert len({one["id"] for one in whole}) == 6


def test_what_is_asked_wrongly_is_refused(url: str) -> None:
    for query in (
        {"as": "html"},
        {"as": "ui-messages", "limit": "x"},
        {"as": "ui-messages", "compat": "9"},
    ):
        assert httpx.get(f"{url}/v1/threads/wrong", params=query).status_code == 400
    nothing = stored(url, "nobody-asked-here")
    assert nothing["messages"] == []
