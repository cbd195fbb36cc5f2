"""Decoding the recordings of the native families, and what else a manifest says of them."""

from __future__ import annotations

from typing import Any

from support.corpus import Recording, decode, differences
from tokenwire.events.message import (
    FilePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from tokenwire.events.model import PartStart
from tokenwire.events.request import ToolSpec
from tokenwire.providers.summary import facts


def decode_all(dialect: Any, data: bytes, content_type: str | None = None, cut: Any = None):
    decoder = dialect.decoder(content_type=content_type)
    events = decode(decoder, cut(data) if cut else [data])
    return decoder, events


def check(recording: Recording, decoder: Any, events: list[Any]) -> dict[str, Any]:
    """All differences between a recording's manifest entry and what was decoded."""
    expected = recording.expected
    got = facts(events)
    found = differences(expected, got)
    for name, value in (
        ("response_id", got["response_id"]),
        ("payload_count", decoder.payloads),
        ("done_sentinel", decoder.done_sentinel),
    ):
        if expected[name] != value:
            found[name] = (expected[name], value)
    if "server_items" in expected:
        wanted = [_comparable(i) for i in expected["server_items"]]
        ours = [_comparable(i) for i in got["server_items"]]
        if wanted != ours:
            found["server_items"] = (wanted, ours)
    return found


def _comparable(item: dict[str, Any]) -> dict[str, Any]:
    """Without what only an item's end tells (its status), what is absent, and the text of
    arguments (their values are compared; an object's text depends on who wrote it)."""
    skipped = ("status", "arguments_raw")
    return {k: v for k, v in item.items() if k not in skipped and v not in (None, "")}


def item_types(events: list[Any]) -> list[str]:
    """The provider's own items in order, from the ``meta`` of the parts' starts."""
    found: list[str] = []
    seen: set[Any] = set()
    for event in events:
        if not isinstance(event, PartStart) or not event.meta:
            continue
        key = (event.meta.get("type"), event.meta.get("index"))
        if key not in seen:
            seen.add(key)
            found.append(event.meta["type"])
    return found


TOOL = ToolSpec(
    name="add",
    description="Adds",
    parameters={"type": "object", "properties": {"a": {"type": "integer"}}},
)
PNG = FilePart(media_type="image/png", data="aGk=")


def talk(meta: dict[str, Any] | None = None) -> list[Message]:
    """A question with an image, an answer with reasoning and a call, and the call's result."""
    return [
        Message(role="user", content=[TextPart(text="look"), PNG]),
        Message(
            role="assistant",
            content=[
                ReasoningPart(text="hm", signature="sig", meta=meta),
                TextPart(text="so"),
                ToolCallPart(call_id="c1", name="add", arguments='{"a":1}', meta=meta),
            ],
        ),
        Message(role="tool", content=[ToolResultPart(call_id="c1", name="add", content={"n": 2})]),
    ]
