"""What a person says while an answer is written: in every form in which a client reads it back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.server import simulator
from tokenwire.events.codec import decode
from tokenwire.framing.sse import SSEDecoder
from tokenwire.providers.registry import Registry
from tokenwire.server.app import App, create_app
from tokenwire.server.settings import Settings
from tokenwire.server.start import ThreadedServer
from tokenwire.tools.registry import ToolSet, tool
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.chunk_encoder import ChunkEncoder

WORDS = "And in Porto?"


class Steered:
    """A run of thread ``t`` whose tool waited until a person had said something."""

    def __init__(self, app: App, client: httpx.Client, gate: Gate) -> None:
        self.client = client
        asked = {"id": "m1", "role": "user", "content": "scenario:tool"}
        body = {"thread": "t", "messages": [asked], "history": "thread"}
        self.run: str = client.post("/v1/runs", json=body).json()["id"]
        assert gate.is_called.wait(60)
        said = {"thread": "t", "prompt": WORDS, "while_busy": "steer"}
        reply = client.post("/v1/runs", json=said)
        assert reply.status_code == 202, reply.text
        assert reply.json() | {"id": ""} == {
            "id": "",
            "state": "steering",
            "run": self.run,
            "thread": "t",
            "position": 1,
            "while_busy": "steer",
            "queue": reply.json()["queue"],
        }
        self.steer: str = reply.json()["id"]
        inbox = app.state.runs.worker.owned[self.run].inbox
        for _ in range(3000):
            if inbox.steers:
                break
            threading.Event().wait(0.01)
        gate.is_open.set()
        client.get(f"/v1/runs/{self.run}/events")

    def ui(self, compat: str = "7", thread: str = "t") -> list[dict[str, Any]]:
        query = {"as": "ui-messages", "compat": compat}
        return self.client.get(f"/v1/threads/{thread}", params=query).json()["messages"]

    def chunks(self, encoder: ChunkEncoder) -> list[dict[str, Any]]:
        """The run's chunks on a wire."""
        frames = SSEDecoder().feed(self.client.get(f"/v1/runs/{self.run}/events").content)
        events = [decode(frame.data) for frame in frames if frame.id]
        return [chunk for event in events for chunk in encoder.chunks(event)]


class Gate:
    def __init__(self) -> None:
        self.is_called, self.is_open = threading.Event(), threading.Event()


@pytest.fixture(scope="module")
def steered() -> Iterator[Steered]:
    gate = Gate()

    @tool
    def get_weather(city: str) -> str:
        """The weather, when it is time."""
        gate.is_called.set()
        assert gate.is_open.wait(60)
        return f"It rains in {city}."

    registry = Registry(demo_url=simulator().server.url + "/v1", env={})
    settings = Settings(port=0, access_log=False, graceful_stop=2.0)
    app = create_app(settings, registry=registry, tools=ToolSet.of([get_weather]))
    with (
        ThreadedServer(app) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        yield Steered(app, client, gate)


def kinds(message: dict[str, Any]) -> list[str]:
    return [part["type"] for part in message["parts"]]


PLACE = ["step-start", "tool-get_weather", "steering-message", "step-start", "text"]


def test_the_turn_has_it_between_its_steps(steered: Steered) -> None:
    turn = steered.client.get("/v1/threads/t/turns").json()["turns"][0]
    roles = [message["role"] for message in turn["answer"]]
    assert roles == ["assistant", "tool", "user", "assistant"]
    said = turn["answer"][2]
    assert (said["content"], said["id"]) == (WORDS, steered.steer)
    snapshot = steered.client.get(f"/v1/runs/{steered.run}").json()
    assert [message["role"] for message in snapshot["messages"]] == roles


def test_the_ai_sdk_reads_it_as_a_part_of_the_answer(steered: Steered) -> None:
    messages = steered.ui()
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert kinds(messages[1]) == PLACE
    part = messages[1]["parts"][2]
    text = [{"type": "text", "text": WORDS}]
    assert part == {"type": "steering-message", "id": steered.steer, "parts": text}
    for compat in ("5", "6", "common"):
        older = steered.ui(compat)[1]["parts"][2]
        assert older == {"type": "data-steering", "id": steered.steer, "data": {"parts": text}}


@pytest.mark.parametrize("compat", ["5", "common", "6", "7"])
def test_the_stream_says_it_before_the_step_that_is_given_it(steered: Steered, compat: Any) -> None:
    chunks = steered.chunks(UIMessageEncoder(compat=compat))
    types = [chunk["type"] for chunk in chunks]
    kind = "steering-message" if compat == "7" else "data-steering"
    assert types.count(kind) == 1
    place = types.index(kind)
    assert types[place + 1] == "start-step"
    assert WORDS in str(chunks[place])


def test_ag_ui_says_it_as_a_persons_message(steered: Steered) -> None:
    events = steered.chunks(AGUIEncoder())
    mine = [event for event in events if event.get("messageId") == steered.steer]
    assert [event["type"] for event in mine] == [
        "TEXT_MESSAGE_START",
        "TEXT_MESSAGE_CONTENT",
        "TEXT_MESSAGE_END",
    ]
    assert (mine[0]["role"], mine[1]["delta"]) == ("user", WORDS)
    page = steered.client.get("/ag-ui", params={"threadId": "t"}).json()
    texts = [(message["role"], message["parts"][0].get("content")) for message in page["messages"]]
    assert ("user", WORDS) in texts
    assert texts[-1][0] == "assistant"


def test_a_transcript_that_comes_back_is_the_stored_one(steered: Steered) -> None:
    """Whatever release wrote it; what is known is appended to nothing, and what differs is 409."""
    for number, compat in enumerate(("7", "5", "6")):
        before = steered.ui(compat)
        new = {"id": f"n{number}", "role": "user", "parts": [{"type": "text", "text": f"{number}"}]}
        body = {"id": "t", "messages": [*before, new]}
        answer = steered.client.post("/api/chat?history=thread", json=body)
        assert answer.status_code == 200, answer.text
        run = answer.headers["tokenwire-run"]
        info = steered.client.get(f"/v1/runs/{run}").json()
        texts = [message["content"] for message in info["input"] if message["role"] == "user"]
        assert texts == ["scenario:tool", WORDS, *(str(n) for n in range(number + 1))]
        assert kinds(steered.ui()[1]) == PLACE  # in an older answer as well
    changed = steered.ui()
    changed[1]["parts"][2]["parts"][0]["text"] = "And in Faro?"
    more = {"id": "n9", "role": "user", "parts": [{"type": "text", "text": "more"}]}
    body = {"id": "t", "messages": [*changed, more]}
    assert steered.client.post("/api/chat?history=thread", json=body).status_code == 409


def test_a_client_that_posts_everything_keeps_it(steered: Steered) -> None:
    """Without the server's history: the model is given it, and the page reads it again."""
    shown = steered.ui()[:2]
    new = {"id": "x", "role": "user", "parts": [{"type": "text", "text": "next"}]}
    body = {"id": "other", "messages": [*shown, new]}
    answer = steered.client.post("/api/chat", json=body)
    run = answer.headers["tokenwire-run"]
    info = steered.client.get(f"/v1/runs/{run}").json()
    roles = [message["role"] for message in info["input"]]
    assert roles == ["user", "assistant", "tool", "user", "assistant", "user"]
    assert kinds(steered.ui(thread="other")[1]) == PLACE


def test_openais_responses_go_on_with_it(steered: Steered) -> None:
    body = {"model": "demo", "input": "more", "previous_response_id": f"resp_{steered.run}"}
    answer = steered.client.post("/v1/responses", json=body)
    assert answer.status_code == 200, answer.text
    run = answer.headers["tokenwire-run"]
    given = steered.client.get(f"/v1/runs/{run}").json()["input"]
    texts = [message["content"] for message in given if message["role"] == "user"]
    assert texts == ["scenario:tool", WORDS, "more"]
