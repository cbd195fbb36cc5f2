"""What the store in memory keeps."""

from __future__ import annotations

import asyncio
import tracemalloc

import msgspec

from tokenwire.log.memory import MemoryStore

TEXT = "word " * 20_000


def test_what_is_kept_has_memory_of_its_size() -> None:
    async def main() -> list[int]:
        store = MemoryStore()
        await store.start()
        before = tracemalloc.take_snapshot()
        await store.create("log", owner="o", meta=msgspec.json.encode(TEXT))
        await store.set_document("kind", "name", msgspec.json.encode(TEXT))
        traces = tracemalloc.take_snapshot().traces
        sizes = sorted(trace.size for trace in traces if trace.size > len(TEXT))
        assert not [trace for trace in before.traces if trace.size > len(TEXT)]
        assert (await store.describe("log")).meta == msgspec.json.encode(TEXT)
        assert await store.document("kind", "name") == msgspec.json.encode(TEXT)
        return sizes

    tracemalloc.start()
    try:
        sizes = asyncio.run(main())
    finally:
        tracemalloc.stop()
    assert len(sizes) == 2
    assert sizes[1] < len(TEXT) + 1000
