"""Decoding the recordings of the native families, and what else a manifest says of them."""

from __future__ import annotations

from typing import Any

from corpus_support import Recording, decode, differences
from tokenwire.events.model import PartStart, ProviderResultStart, ResponseStart, Usage
from tokenwire.providers.facts import facts


def decode_all(dialect: Any, data: bytes, content_type: str | None = None, cut: Any = None):
    decoder = dialect.decoder(content_type=content_type)
    events = decode(decoder, cut(data) if cut else [data])
    return decoder, events


def check(recording: Recording, decoder: Any, events: list[Any]) -> dict[str, Any]:
    """All differences between a recording's manifest entry and what was decoded."""
    expected = recording.expected
    got = facts(events)
    found = differences(expected, got)
    usages = [e for e in events if isinstance(e, Usage)]
    raw = usages[-1].raw if usages else None
    if expected["usage"] != raw:
        found["usage"] = (expected["usage"], raw)
    if "tokens" in found and raw is not None and "cache_read_input_tokens" in raw:
        # The manifest counts as the provider does; ours includes what was cached.
        ours = got["usage"]["input_tokens"]
        cached = (raw.get("cache_read_input_tokens") or 0) + (
            raw.get("cache_creation_input_tokens") or 0
        )
        if ours - cached == expected["tokens"]["input"]:
            del found["tokens"]
    starts = [e for e in events if isinstance(e, ResponseStart)]
    for name, value in (
        ("response_id", next((s.id for s in reversed(starts) if s.id), None)),
        ("model", next((s.model for s in starts if s.model), None)),
        ("payload_count", decoder.payloads),
        ("done_sentinel", decoder.done_sentinel),
    ):
        if expected[name] != value:
            found[name] = (expected[name], value)
    return found


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


def provider_results(events: list[Any]) -> list[tuple[str, str]]:
    return [(e.name, e.call_id) for e in events if isinstance(e, ProviderResultStart)]
