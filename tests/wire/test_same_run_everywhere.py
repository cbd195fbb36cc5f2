"""One run, read over every wire of the server: the same text, arguments, results and end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.a2a_reader import A2AReader
from support.langgraph_reader import LangGraphReader
from support.node import serving
from support.wire_readers import (
    AGUIReader,
    AnthropicReader,
    ChatReader,
    Reader,
    ResponsesReader,
    UIReader,
)
from tokenwire.wire.catalogue import WIRES

READERS: dict[str, type[Reader]] = {
    "ui": UIReader,
    "ui-5": UIReader,
    "ui-6": UIReader,
    "ui-7": UIReader,
    "ag-ui": AGUIReader,
    "tanstack": AGUIReader,
    "openai-chat": ChatReader,
    "openai-responses": ResponsesReader,
    "anthropic": AnthropicReader,
    "a2a": A2AReader,
    "langgraph": LangGraphReader,
}
ENDS = {
    "stop": {"finish stop", "success", "stop", "completed", "end_turn", "COMPLETED", "end"},
    "length": {"finish length", "success", "length", "incomplete", "max_tokens", "FAILED", "end"},
    "refusal": {"finish refusal", "success", "stop", "completed", "refusal", "REJECTED", "end"},
    "error": {"error", "failed", "FAILED"},
}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as server:
        yield server.url


def read(url: str, run: str, wire: str) -> Any:
    reader = READERS[wire]()
    answer = httpx.get(f"{url}/v1/runs/{run}/wires/{wire}", timeout=30)
    assert answer.status_code == 200
    reader.feed(answer.content)
    assert reader.ended
    return reader


def text_of(reader: Any) -> str:
    if isinstance(reader, UIReader):
        return "".join(text for text, _, _ in reader.view())
    if isinstance(reader, AGUIReader):
        return str(reader.view()[0])
    if isinstance(reader, LangGraphReader):
        return reader.text()
    if isinstance(reader, A2AReader):
        refused = reader.view()[1] if reader.end == "REJECTED" else []
        return reader.text() + "".join(part["text"] for part in refused)
    if isinstance(reader, ChatReader):
        return reader.fields["content"] + reader.fields["refusal"]
    if isinstance(reader, AnthropicReader):
        return str(reader.view()[0]["text"])
    parts = [p for i in reader.items if i["type"] == "message" for p in i["content"]]
    return "".join(p.get("text", p.get("refusal", "")) for p in parts)


@pytest.mark.parametrize(
    "scenario", ["text", "tool", "tools", "reasoning", "length", "refusal", "cut"]
)
def test_every_wire_tells_the_same(url: str, scenario: str) -> None:
    assert set(READERS) == set(WIRES)
    made = httpx.post(f"{url}/v1/runs", json={"prompt": f"scenario:{scenario}?rate=300"}).json()
    httpx.get(f"{url}/v1/runs/{made['id']}/events", timeout=30)
    shown = httpx.get(f"{url}/v1/runs/{made['id']}").json()
    content = shown["message"].get("content", "")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    truth = "".join(p["text"] for p in parts if p["type"] in ("text", "refusal"))
    readers = {wire: read(url, made["id"], wire) for wire in READERS}
    for wire, reader in readers.items():
        assert text_of(reader) == truth, wire
        end = {"cut": "error", "length": "length", "refusal": "refusal"}.get(scenario, "stop")
        assert reader.end.partition(" ")[0] in {word.partition(" ")[0] for word in ENDS[end]}, wire
    if scenario in ("tool", "tools"):
        calls = {p["call_id"]: p["arguments"] for p in parts if p["type"] == "tool-call"}
        assert calls
        for wire in ("ag-ui", "tanstack"):
            assert {k: v for k, (_, v) in readers[wire].view()[1].items()} == calls
            assert set(readers[wire].view()[2]) == set(calls)
        for wire in ("ui", "ui-5", "ui-6", "ui-7"):
            told = [c for _, _, step in readers[wire].view() for c in step]
            assert told == list(calls)
            assert all("output" in readers[wire].tools[c] for c in calls)


def test_an_unknown_wire_and_an_unknown_run(url: str) -> None:
    made = httpx.post(f"{url}/v1/runs", json={"prompt": "Hello"}).json()
    assert httpx.get(f"{url}/v1/runs/{made['id']}/wires/morse").status_code == 400
    assert httpx.get(f"{url}/v1/runs/{'A' * 22}/wires/ui").status_code == 404


def test_a_stopping_server_breaks_off_instead_of_ending() -> None:
    began = threading.Event()
    seen: list[str] = []
    broken: list[Exception] = []

    def reading(url: str) -> None:
        message = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "scenario:slow"}]}
        body = {"id": "drained", "messages": [message]}
        try:
            with httpx.stream("POST", f"{url}/api/chat", json=body, timeout=20) as answer:
                for line in answer.iter_lines():
                    seen.append(line)
                    if "text-delta" in line:
                        began.set()
        except httpx.HTTPError as error:
            broken.append(error)

    with serving(graceful_stop=2.0) as server:
        reader = threading.Thread(target=reading, args=(server.url,))
        reader.start()
        assert began.wait(30)
    reader.join(30)
    told = "\n".join(seen)
    assert '"type":"finish"' not in told
    assert broken or '"type":"error"' in told
