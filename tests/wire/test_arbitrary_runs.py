"""Whatever events come, in any order that the table allows, every wire stays a valid wire."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

import anthropic.types as claude
import pytest
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from support.arbitrary_runs import arbitrary_run
from tokenwire.events.codec import AnyEvent
from tokenwire.framing.sse import Frame, SSEDecoder
from tokenwire.wire.catalogue import WIRES
from tokenwire.wire.langgraph.messages import answer_messages
from tokenwire.wire.langgraph.thread_encoder import ThreadEncoder
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.openai.responses import OpenAIResponsesEncoder
from tokenwire.wire.place import split_cursor
from tokenwire.wire.token_sse import TokenEncoder

RUNS = range(150)
_PART_OF_THE_API: dict[str, Any] = {
    "openai-chat": TypeAdapter(ChatCompletionChunk),
    "openai-responses": TypeAdapter(ResponseStreamEvent),
    "anthropic": TypeAdapter(claude.RawMessageStreamEvent),
}
#: The last thing that a wire's client hears.
_LAST: dict[str, tuple[str, ...]] = {
    "ui": ("finish", "error", "abort"),
    "ui-5": ("finish", "error", "abort"),
    "ui-6": ("finish", "error", "abort"),
    "ui-7": ("finish", "error", "abort"),
    "ag-ui": ("RUN_FINISHED", "RUN_ERROR"),
    "tanstack": ("RUN_FINISHED", "RUN_ERROR"),
    "openai-responses": ("response.completed", "response.incomplete", "response.failed"),
    "anthropic": ("message_stop", "error"),
    "langgraph": ("end", "error"),
}


def cursor_of(event: AnyEvent) -> str:
    return f"{event.seq}-{event.seq:016x}"


def told(encoder: Any, events: list[AnyEvent]) -> bytes:
    return b"".join(encoder.encode(e, cursor_of(e)) for e in events) + encoder.finish()


def frames_of(data: bytes) -> list[Frame]:
    assert b"\r" not in data
    decoder = SSEDecoder()
    found = decoder.feed(data)
    assert decoder.finish() == [], "a frame without its end"
    return found


def chunks_of(wire: str, frames: list[Frame]) -> list[dict[str, Any]]:
    if wire == "langgraph":  # what an event holds may be a list, or nothing
        return [{"type": frame.event, "data": json.loads(frame.text)} for frame in frames]
    return [json.loads(frame.text) for frame in frames if frame.text != "[DONE]"]


def check(wire: str, chunks: list[dict[str, Any]]) -> None:
    kinds = [chunk.get("type", "") for chunk in chunks]
    if wire in _LAST:
        assert kinds[-1] in _LAST[wire]
        assert sum(kind in _LAST[wire] for kind in kinds) == 1
    adapter = _PART_OF_THE_API.get(wire)
    for chunk in chunks:
        if adapter is not None and "error" not in chunk:
            adapter.validate_python(chunk)


@pytest.mark.parametrize("wire", WIRES)
def test_every_wire_is_valid_and_so_is_its_rest_after_any_id(wire: str) -> None:
    make = cast("Callable[[Any], Any]", WIRES[wire])
    for seed in RUNS:
        events = arbitrary_run(seed)
        frames = frames_of(told(make(None), events))
        check(wire, chunks_of(wire, frames))
        ids = [frame.id for frame in frames if frame.text != "[DONE]"]
        assert len(ids) == len(set(ids)), "an id of its own for every frame"
        for number in {0, len(ids) // 3, len(ids) // 2, len(ids) - 2}:
            if not 0 <= number < len(ids) - 1:
                continue
            place = split_cursor(ids[number])
            assert place is not None
            after = int(place.after.partition("-")[0])
            encoder = OpenAIResponsesEncoder() if wire == "openai-responses" else make(place)
            if wire == "openai-responses":
                continue  # goes on by its own sequence numbers; test_wires_property has that
            for event in events[:after]:
                encoder.skip(event)
            rest = encoder.reopen() + told(encoder, events[after:])
            check(wire, chunks_of(wire, frames_of(rest)))


def test_our_own_wires_are_valid() -> None:
    for seed in RUNS:
        events = arbitrary_run(seed)
        for encoder in (NativeEncoder(), TokenEncoder("run-1234567890abcdef")):
            frames = frames_of(told(encoder, events))
            assert frames
            kinds = [json.loads(f.data).get("type") for f in frames if f.event == "message"]
            assert kinds in ([], [e.type if hasattr(e, "type") else None for e in events])


def test_the_events_of_a_thread_are_whole_whatever_comes() -> None:
    for seed in RUNS:
        events = arbitrary_run(seed)
        encoder, again = (ThreadEncoder(history=[], created=1.8e9) for _ in range(2))
        made = [chunk for e in events for chunk in encoder.take(e, cursor_of(e))]
        assert [chunk for e in events for chunk in again.take(e, cursor_of(e))] == made
        numbers = [chunk["seq"] for chunk in made]
        assert numbers == list(range(numbers[0], numbers[0] + len(made)))
        named = [chunk["event_id"] for chunk in made if chunk["method"] != "input.answered"]
        assert len(set(named)) == len(named)
        assert not any("event_id" in c for c in made if c["method"] == "input.answered")
        lives = [c for c in made if c["method"] == "lifecycle" and not c["params"]["namespace"]]
        assert lives[-1] is made[-1]
        assert lives[-1]["params"]["data"]["event"] in ("completed", "failed", "interrupted")
        values = [c["params"]["data"] for c in made if c["method"] == "values"]
        assert values[-1]["messages"] == answer_messages(encoder.fold)
        check_blocks([c["params"] for c in made if c["method"] == "messages"])


def check_blocks(said: list[dict[str, Any]]) -> None:
    """Messages as their reader puts them together, by namespace and node."""
    open_messages: dict[Any, dict[int, dict[str, Any]]] = {}
    for params in said:
        data, key = params["data"], (*params["namespace"], "", params.get("node"))
        if data["event"] == "message-start":
            open_messages[key] = {}
            continue
        blocks = open_messages[key]
        if data["event"] == "content-block-start":
            assert data["index"] == len(blocks)
            blocks[data["index"]] = data["content"]
        elif data["event"] == "content-block-delta":
            kind = data["delta"]["type"].removesuffix("-delta")
            assert blocks[data["index"]]["type"] in (kind, f"{kind.replace('-', '_')}_chunk")
        elif data["event"] == "content-block-finish":
            assert data["index"] in blocks
