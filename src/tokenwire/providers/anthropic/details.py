"""What a Messages answer says beside its blocks: sources, token counts, the kinds of its deltas."""

from __future__ import annotations

from typing import Any

from tokenwire.events.model import Usage
from tokenwire.providers.decoding.values import (
    citation,
    obj,
    tokens_of,
)

__all__ = ["DELTA_FIELDS", "citation_of", "kind_of", "usage_of"]

#: The field of each kind of delta.
_KIND_BY_FIELD = (
    ("text", "text_delta"),
    ("partial_json", "input_json_delta"),
    ("thinking", "thinking_delta"),
)
#: Fields of a delta that the decoder reads.
DELTA_FIELDS = frozenset(
    {"type", "text", "partial_json", "thinking", "signature", "citation", "content", "p"}
)


def kind_of(delta: dict[str, Any]) -> str:
    """The kind of a delta that does not say it: by the only field it can be read from."""
    for name, kind in _KIND_BY_FIELD:
        if isinstance(delta.get(name), str):
            return kind
    return ""


def citation_of(source: dict[str, Any]) -> dict[str, Any]:
    """A source of the text, with its place in characters, pages or blocks."""
    for unit in ("char", "page", "block"):
        start, end = source.get(f"start_{unit}_index"), source.get(f"end_{unit}_index")
        if unit == "page":
            start, end = source.get("start_page_number"), source.get("end_page_number")
        if start is not None or end is not None:
            break
    else:
        unit, start, end = None, None, None
    return citation(
        source,
        url=source.get("url") or source.get("source"),
        title=source.get("title") or source.get("document_title"),
        text=source.get("cited_text"),
        source=source.get("file_id"),
        start=start,
        end=end,
        unit=unit,
    )


def usage_of(raw: dict[str, Any]) -> Usage:
    """Token counts; what was read from or written to the cache counts as input."""
    fresh = tokens_of(raw.get("input_tokens", raw.get("inputTokenCount")))
    cached = tokens_of(raw.get("cache_read_input_tokens", raw.get("cacheReadInputTokenCount")))
    cache_writes = tokens_of(
        raw.get("cache_creation_input_tokens", raw.get("cacheWriteInputTokenCount"))
    )
    output = tokens_of(raw.get("output_tokens", raw.get("outputTokenCount")))
    total_in = None if fresh is None else fresh + (cached or 0) + (cache_writes or 0)
    details = obj(raw.get("output_tokens_details"))
    return Usage(
        input_tokens=total_in,
        output_tokens=output,
        total_tokens=None if total_in is None or output is None else total_in + output,
        cached_input_tokens=cached,
        cache_write_tokens=cache_writes,
        reasoning_tokens=tokens_of(details.get("thinking_tokens")),
        raw=dict(raw),
    )
