"""The shared recordings, ways to cut them, and their facts in the form that ours have."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tokenwire.events.model import Heartbeat, PartDelta
from tokenwire.framing.sse import encode_frame

CORPUS = Path(__file__).parents[3] / "shared" / "corpus"
MISSING = "the shared corpus is not beside the project"
needs_corpus = pytest.mark.skipif(not CORPUS.exists(), reason=MISSING)

#: Families whose JSON lines carry an event name on the wire, and the field that holds it.
NAMED = {
    "responses": "type",
    "messages": "type",
    "cohere-v2": "type",
    "interactions": "event_type",
}
#: Families that end with a sentinel which recordings of bare payloads lack.
SENTINEL = {"chat", "completions"}
MEDIA_TYPES = {
    "sse": "text/event-stream",
    "jsonl": "text/event-stream",
    "ndjson": "application/x-ndjson",
    "json-array": "application/json",
    "aws-eventstream": "application/vnd.amazon.eventstream",
}


class Recording:
    """One entry of the manifest."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.file: str = entry["file"]
        self.family: str = entry["family"]
        self.framing: str = entry["framing"]
        self.expected: dict[str, Any] = entry["expected"]

    def __repr__(self) -> str:
        return self.file

    @property
    def content_type(self) -> str:
        return MEDIA_TYPES[self.framing]

    @property
    def raw(self) -> bytes:
        return (CORPUS / self.file).read_bytes()

    @property
    def wire(self) -> bytes:
        """The bytes as a provider sends them: bare payloads get their SSE framing back."""
        if self.framing != "jsonl":
            return self.raw
        frames: list[bytes] = []
        for line in self.raw.splitlines():
            if line.strip():
                name = NAMED.get(self.family)
                frames.append(encode_frame(line, event=json.loads(line)[name] if name else None))
        if self.family in SENTINEL:
            frames.append(encode_frame("[DONE]"))
        return b"".join(frames)


@cache
def recordings(family: str | None = None) -> list[Recording]:
    """All recordings, or those of one family; none when the corpus is absent."""
    if not CORPUS.exists():
        return []
    entries = json.loads((CORPUS / "manifest.json").read_text())["recordings"]
    return [Recording(e) for e in entries if family in (None, e["family"])]


def cut_every(size: int) -> Callable[[bytes], Iterator[bytes]]:
    """A cutter into pieces of ``size`` bytes."""

    def cut(data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), size):
            yield data[start : start + size]

    return cut


def cut_randomly(seed: int, most: int = 400) -> Callable[[bytes], Iterator[bytes]]:
    """A cutter into pieces of 1 to ``most`` bytes, the same for the same seed."""

    def cut(data: bytes) -> Iterator[bytes]:
        rnd, start = random.Random(seed), 0
        while start < len(data):
            size = rnd.randint(1, most)
            yield data[start : start + size]
            start += size

    return cut


def decode(decoder: Any, pieces: Iterator[bytes] | list[bytes]) -> list[Any]:
    """All events of a stream fed piece by piece."""
    events: list[Any] = []
    for piece in pieces:
        events.extend(decoder.feed(piece))
    return events + decoder.finish()


def merged(events: list[Any]) -> list[Any]:
    """The events with neighbouring deltas of a part joined and without heartbeats, which belong
    to reads: to compare different cuts."""
    found: list[Any] = []
    for event in events:
        if isinstance(event, Heartbeat):
            continue
        last = found[-1] if found else None
        if (
            isinstance(event, PartDelta)
            and isinstance(last, PartDelta)
            and last.part == event.part
            and type(last) is type(event)
        ):
            found[-1] = type(event)(part=event.part, text=last.text + event.text)
        else:
            found.append(event)
    return found


def differences(expected: dict[str, Any], got: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What a manifest says against our `facts`: ``{fact: (wanted, got)}``, empty when equal."""
    found: dict[str, tuple[Any, Any]] = {}
    said = ("text", "reasoning", "refusal", "finish_reason", "complete")
    for name in [*said, *({"block_reason"} & expected.keys())]:
        if expected[name] != got[name]:
            found[name] = (expected[name], got[name])
    keys = ("id", "name", "arguments", "arguments_raw")
    wanted = [{k: c[k] for k in keys} for c in expected["tool_calls"]]
    if wanted != got["tool_calls"]:
        found["tool_calls"] = (wanted, got["tool_calls"])
    for name, ours in (("tokens", "tokens"), ("usage", "provider_usage"), ("model", "model")):
        if name in expected and expected[name] != got[ours]:
            found[name] = (expected[name], got[ours])
    counted = got["usage"] or {"input_tokens": None, "output_tokens": None}
    pair = {"input": counted["input_tokens"], "output": counted["output_tokens"]}
    if expected["tokens"] != pair:
        found["usage in our names"] = (expected["tokens"], pair)
    for name in ("choices", "media", "tool_plan", "citation_count"):
        if name in expected and expected[name] != got.get(name):
            found[name] = (expected[name], got.get(name))
    if (expected["error"] is None) != (got["error"] is None):
        found["error"] = (expected["error"], got["error"])
    return found
