"""What a provider must get back, it gets back byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.corpus import Recording, decode, needs_corpus, recordings
from support.order import in_order
from tokenwire.events.message import Message, ToolCallPart, ToolResultPart, user
from tokenwire.events.model import OpaqueStart, PartAttr
from tokenwire.events.request import Request
from tokenwire.providers.base import Target
from tokenwire.providers.registry import FAMILIES, Registry

REGISTRY = Registry(env={})
NATIVE = [
    r
    for family in ("messages", "gemini", "responses", "interactions", "converse", "cohere-v2")
    for r in recordings(family)
]
OLLAMA = recordings("ollama")


def answered(recording: Recording) -> tuple[list[Any], Request]:
    """The recording's events, and the request that continues its conversation."""
    dialect = REGISTRY.dialect(recording.family)
    events = decode(dialect.decoder(), [recording.raw])
    history = in_order(events, dialect.name).history()
    results = [
        ToolResultPart(call_id=p.call_id, name=p.name, content="done")
        for m in history
        for p in m.parts
        if isinstance(p, ToolCallPart) and p.executor != "provider" and p.status == "complete"
    ]
    messages = [user("hello"), *history]
    if results:
        messages.append(Message(role="tool", content=list(results)))
    return events, Request(messages=[*messages, user("go on")])


def body_of(recording: Recording, request: Request) -> dict[str, Any]:
    dialect = REGISTRY.dialect(recording.family)
    model = recording.expected["model"] or "m"
    target = Target(provider="p", dialect=dialect.name, model=model, base_url="http://h/v1")
    return json.loads(dialect.build(request, target).body)


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [s for v in value.values() for s in strings(v)]
    return [s for v in value for s in strings(v)] if isinstance(value, list) else []


def kept(events: list[Any]) -> set[str]:
    """Signatures, encrypted payloads and opaque payloads; the last of each part counts."""
    found: dict[tuple[int, str], str] = {}
    opaque: set[str] = set()
    for event in events:
        if isinstance(event, PartAttr) and event.name in ("signature", "encrypted"):
            found[event.part, event.name] = event.value
        elif isinstance(event, OpaqueStart):
            opaque.update(s for s in strings(event.payload) if len(s) > 20)
    return {*found.values(), *opaque}


@needs_corpus
@pytest.mark.parametrize("recording", [*NATIVE, *OLLAMA], ids=repr)
def test_signatures_and_opaque_parts_go_back(recording: Recording) -> None:
    events, request = answered(recording)
    sent = set(strings(body_of(recording, request)))
    assert kept(events) <= sent


#: What the wire itself calls what must come back, and where it stands.
SECRETS = {"signature", "thoughtSignature", "encrypted_content", "redactedContent"}


def secrets_in(value: Any) -> set[str]:
    if isinstance(value, list):
        return {s for v in value for s in secrets_in(v)}
    if not isinstance(value, dict):
        return set()
    found = {s for v in value.values() for s in secrets_in(v)}
    return found | {v for k, v in value.items() if k in SECRETS and isinstance(v, str) and v}


def secrets_of(recording: Recording) -> set[str]:
    """The same from the recording's own JSON. A Responses item tells its secret when it is done;
    what it told before may be another."""
    found: set[str] = set()
    for line in recording.raw.splitlines():
        line = line.removeprefix(b"data:").strip()
        if not line.startswith(b"{"):
            continue
        payload = json.loads(line)
        if recording.family == "responses":
            if payload.get("type") == "response.output_item.done":
                found |= secrets_in(payload)
        else:
            found |= secrets_in(payload)
    return found


@needs_corpus
@pytest.mark.parametrize(
    "recording", [r for r in NATIVE if r.framing in ("sse", "jsonl")], ids=repr
)
def test_every_secret_of_the_wire_goes_back(recording: Recording) -> None:
    wanted = secrets_of(recording)
    sent = set(strings(body_of(recording, answered(recording)[1])))
    assert wanted <= sent


@needs_corpus
@pytest.mark.parametrize("recording", [*NATIVE, *OLLAMA], ids=repr)
def test_a_foreign_provider_gets_no_secrets_and_no_error(recording: Recording) -> None:
    events, request = answered(recording)
    secrets = kept(events)
    for name in set(FAMILIES.values()) - {FAMILIES[recording.family], "completions"}:
        target = Target(provider="p", dialect=name, model="m", base_url="http://h/v1")
        body = json.loads(REGISTRY.dialect(name).build(request, target).body)
        assert not secrets & set(strings(body)), name
