"""What Gemini says of its sources, as citations; offsets are bytes of the answer's text."""

from __future__ import annotations

from typing import Any

from tokenwire.providers.decoding.values import citation, items, obj

__all__ = ["cited", "grounded"]


def grounded(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """One citation per support and source; offsets are bytes of the answer's text."""
    chunks = items(metadata.get("groundingChunks"))
    entries: list[dict[str, Any]] = []
    for support in items(metadata.get("groundingSupports")):
        segment = obj(obj(support).get("segment"))
        for index in items(obj(support).get("groundingChunkIndices")):
            in_range = isinstance(index, int) and 0 <= index < len(chunks)
            chunk = obj(chunks[index]) if in_range else {}
            source = next((obj(v) for v in chunk.values() if isinstance(v, dict)), {})
            entries.append(
                citation(
                    {"support": support, "chunk": chunk},
                    url=source.get("uri"),
                    title=source.get("title"),
                    text=segment.get("text"),
                    start=segment.get("startIndex", 0),
                    end=segment.get("endIndex"),
                    unit="byte",
                )
            )
    return entries


def cited(metadata: dict[str, Any]) -> list[dict[str, Any]]:
    """One citation per source of ``citationMetadata``."""
    listed = metadata.get("citations") or metadata.get("citationSources")
    return [
        citation(
            source,
            url=source.get("uri"),
            title=source.get("title"),
            start=source.get("startIndex"),
            end=source.get("endIndex"),
            unit="byte",
        )
        for source in map(obj, items(listed))
    ]
