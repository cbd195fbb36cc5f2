"""The private documents of a run: an owner that lost it replaces none of the next one's."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.spine import run_async
from tokenwire import open_store
from tokenwire.relay.documents.private import PrivateDocuments


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_an_owner_that_sleeps_and_wakes_replaces_nothing(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        store = open_store("memory:" if kind == "memory" else f"sqlite:{tmp_path / 'runs.db'}")
        await store.start()
        first, second = (PrivateDocuments(store, "run", epoch) for epoch in (1, 12))
        await first.put("graph-1", b"a")
        await first.put("graph-10", b"other")
        assert await second.all() == {"graph-1": b"a", "graph-10": b"other"}
        await second.put("graph-1", b"b")
        await first.put("graph-1", b"a late one")
        third = PrivateDocuments(store, "run", 13)
        assert await third.all() == {"graph-1": b"b", "graph-10": b"other"}
        assert await third.get("graph-1") == b"b"
        assert await third.get("graph") is None
        await third.put("graph-1", b"c")
        await second.put("graph-1", b"another late one")
        assert await PrivateDocuments(store, "run").get("graph-1") == b"c"
        await store.close()

    run_async(main())
