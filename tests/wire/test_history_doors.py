"""Every door whose client posts its whole transcript: what is known is not appended again, and what
differs is refused in the words of that door.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from websockets.sync.client import connect

from support.server import Site, site

QUERY = "history=thread"


class Said(NamedTuple):
    """What a door answered: the ``run``, or the text of the refusal, and an HTTP status if it has
    one."""

    run: str | None
    text: str = ""
    status: int | None = None


Message = tuple[str, str, str]
Door = Callable[[Site, str, str, list[Message], str], Said]


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(durable_streams="read", chat_get="on") as found:
        yield found


def ui(messages: list[Message]) -> list[dict[str, Any]]:
    return [
        {"id": name, "role": role, "parts": [{"type": "text", "text": text}]}
        for name, role, text in messages
    ]


def run_of(answer: Any) -> Said:
    return Said(answer.headers.get("tokenwire-run"), answer.text, answer.status_code)


def ai_sdk(here: Site, thread: str, turn: str, messages: list[Message], query: str) -> Said:
    body = {"id": thread, "messages": ui(messages)}
    return run_of(here.client.post(f"/api/chat?{query}", json=body))


def durable(here: Site, thread: str, turn: str, messages: list[Message], query: str) -> Said:
    body = {"id": thread, "messages": ui(messages)}
    said = run_of(here.client.post(f"/ds/chat?{query}", json=body))
    if said.run is not None:
        here.client.get(f"/v1/runs/{said.run}/events")
    return said


def ai_sdk_socket(here: Site, thread: str, turn: str, messages: list[Message], query: str) -> Said:
    frame = {"type": "send", "requestId": turn, "id": thread, "messages": ui(messages)}
    run = None
    with connect(f"{here.url.replace('http', 'ws', 1)}/api/chat/ws?{query}", proxy=None) as socket:
        socket.send(json.dumps(frame))
        while True:
            told = json.loads(socket.recv(timeout=60))
            if told["type"] == "error":
                return Said(None, told["errorText"])
            if told["type"] == "end":
                return Said(run)
            facts = told.get("chunk", {}).get("messageMetadata", {})
            run = facts.get("tokenwire", {}).get("run", run)


def ag_ui_body(thread: str, turn: str, messages: list[Message]) -> dict[str, Any]:
    posted = [{"id": name, "role": role, "content": text} for name, role, text in messages]
    more: dict[str, Any] = {"tools": [], "context": [], "state": {}, "forwardedProps": {}}
    return {"threadId": thread, "runId": f"{thread}-{turn}", "messages": posted, **more}


def ag_ui(here: Site, thread: str, turn: str, messages: list[Message], query: str) -> Said:
    answer = here.client.post(f"/ag-ui?{query}", json=ag_ui_body(thread, turn, messages))
    return run_of(answer)


def ag_ui_socket(here: Site, thread: str, turn: str, messages: list[Message], query: str) -> Said:
    with connect(f"{here.url.replace('http', 'ws', 1)}/ag-ui?{query}", proxy=None) as socket:
        socket.send(json.dumps(ag_ui_body(thread, turn, messages)))
        while True:
            told = json.loads(socket.recv(timeout=60))
            if told.get("type") == "RUN_ERROR":
                return Said(None, json.dumps(told))
            if told.get("chunk", {}).get("type") == "RUN_FINISHED":
                break
    return Said(here.client.get(f"/v1/threads/{thread}").json()["runs"][0]["id"])


DOORS: dict[str, Door] = {
    "ai-sdk": ai_sdk,
    "ai-sdk-socket": ai_sdk_socket,
    "durable": durable,
    "ag-ui": ag_ui,
    "ag-ui-socket": ag_ui_socket,
}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> str:
    return request.param


def given(here: Site, run: str | None) -> list[str]:
    messages = here.client.get(f"/v1/runs/{run}").json()["input"]
    return [str(message["content"]) for message in messages if message["role"] == "user"]


def shown_answer(here: Site, thread: str, door: str) -> Message:
    """The newest answer, as a client of that door has it."""
    if door.startswith("ag-ui"):
        page = here.client.get("/ag-ui", params={"threadId": thread}).json()
        message = page["messages"][-1]
        text = "".join(part.get("content", "") for part in message["parts"])
        return message["id"], "assistant", text
    query = {"as": "ui-messages"}
    message = here.client.get(f"/v1/threads/{thread}", params=query).json()["messages"][-1]
    return message["id"], "assistant", "".join(part.get("text", "") for part in message["parts"])


def test_only_what_is_new_is_appended(here: Site, door: str) -> None:
    say, thread = DOORS[door], f"new-{door}"
    first = say(here, thread, "1", [("m1", "user", "one")], QUERY)
    assert given(here, first.run) == ["one"]
    answer = shown_answer(here, thread, door)
    transcript = [("m1", "user", "one"), answer, ("m2", "user", "two")]
    second = say(here, thread, "2", transcript, QUERY)
    assert given(here, second.run) == ["one", "two"]
    roles = [m["role"] for m in here.client.get(f"/v1/runs/{second.run}").json()["input"]]
    assert roles == ["user", "assistant", "user"]
    # A device that has nothing but the new message, and one that has no answers.
    third = say(here, thread, "3", [("m3", "user", "three")], QUERY)
    assert given(here, third.run) == ["one", "two", "three"]
    bare = [(f"m{n}", "user", text) for n, text in enumerate(("one", "two", "three", "four"), 1)]
    fourth = say(here, thread, "4", bare, QUERY)
    assert given(here, fourth.run) == ["one", "two", "three", "four"]
    turns = here.client.get(f"/v1/threads/{thread}/turns").json()["turns"]
    assert [turn["messages"][0]["content"] for turn in turns] == ["one", "two", "three", "four"]


def test_a_conversation_that_began_without_ids_is_not_appended_to_itself(
    here: Site, door: str
) -> None:
    """Begun with prompts, and gone on with by a client that reads it and posts all it has."""
    say, thread = DOORS[door], f"begun-{door}"
    for text in ("one", "scenario:tool"):
        run = here.start(text, thread=thread)
        here.client.get(f"/v1/runs/{run}/events")
    if door.startswith("ag-ui"):
        page = here.client.get("/ag-ui", params={"threadId": thread}).json()["messages"]
        texts = ["".join(p["content"] for p in m["parts"] if p["type"] == "text") for m in page]
    else:
        query = {"as": "ui-messages"}
        page = here.client.get(f"/v1/threads/{thread}", params=query).json()["messages"]
        texts = ["".join(part.get("text", "") for part in m["parts"]) for m in page]
    assert len({message["id"] for message in page}) == len(page)
    shown = [(m["id"], m["role"], text) for m, text in zip(page, texts, strict=True)]
    shown = [message for message in shown if message[2]]
    last = say(here, thread, "3", [*shown, ("m3", "user", "three")], QUERY)
    assert given(here, last.run) == ["one", "scenario:tool", "three"]
    roles = [m["role"] for m in here.client.get(f"/v1/runs/{last.run}").json()["input"]]
    assert roles == ["user", "assistant", "user", "assistant", "tool", "assistant", "user"]


def test_another_content_is_refused_in_the_words_of_the_door(here: Site, door: str) -> None:
    say, thread = DOORS[door], f"conflict-{door}"
    first = say(here, thread, "1", [("m1", "user", "one")], QUERY)
    assert first.run is not None
    refused = say(here, thread, "2", [("m1", "user", "else"), ("m2", "user", "two")], QUERY)
    assert refused.run is None
    assert refused.status in (None, 409)
    assert "is stored with other content" in refused.text
    if not door.startswith("ai-sdk-"):  # whose error frame has no room for a code
        assert "history_conflict" in refused.text
    assert len(here.client.get(f"/v1/threads/{thread}").json()["runs"]) == 1


def test_a_busy_thread_is_refused_in_the_words_of_the_door(here: Site, door: str) -> None:
    say, thread = DOORS[door], f"busy-{door}"
    busy = here.start("scenario:stall", thread=thread)
    for rule in ("reject", "steer"):
        query = f"{QUERY}&while_busy={rule}"
        refused = say(here, thread, rule, [("m1", "user", "one")], query)
        assert refused.run is None
        assert refused.status in (None, 409)
        assert "under way" in refused.text
    wrong = say(here, thread, "x", [("m1", "user", "one")], "history=some")
    assert wrong.run is None
    assert "no history policy" in wrong.text
    here.client.post(f"/v1/runs/{busy}/cancel")


def test_the_plain_route_goes_on_in_a_thread(here: Site) -> None:
    def ask(prompt: str, **query: str) -> Any:
        return here.client.get("/chat/stream", params={"prompt": prompt, **query})

    first = ask("one", thread="plain")
    second = ask("two", thread="plain")
    assert given(here, second.headers["tokenwire-run"]) == ["one", "two"]
    alone = ask("three", thread="plain", history="none")
    assert given(here, alone.headers["tokenwire-run"]) == ["three"]
    last = ask("four", thread="plain", history="last:1")
    assert given(here, last.headers["tokenwire-run"]) == ["three", "four"]
    assert first.headers["tokenwire-run"] != second.headers["tokenwire-run"]
    busy = here.start("scenario:stall", thread="plain")
    for rule in ("reject", "queue", "interrupt", "steer"):
        refused = ask("five", thread="plain", while_busy=rule)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "thread_busy")
    assert ask("six", thread="plain", while_busy="parallel").status_code == 200
    assert ask("x", history="thread").status_code == 400
    assert ask("x", thread="no/name").status_code == 400
    here.client.post(f"/v1/runs/{busy}/cancel")


def test_names_of_threads_and_messages_do_not_run_together(here: Site) -> None:
    """``chat-1`` with the message ``12``, and ``chat-11`` with the message ``2``."""
    for thread, name in (("together-1", "12"), ("together-11", "2")):
        said = ai_sdk(here, thread, name, [(name, "user", f"hello {thread}")], QUERY)
        assert said.status == 200, said.text
