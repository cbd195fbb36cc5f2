"""Cassettes with the official SDKs of JavaScript: recorded and played by both languages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.node import need_client, need_node, run_node
from support.recorded_upstream import upstream
from tokenwire.testing import Cassette

pytestmark = pytest.mark.node


def test_the_sdks_read_a_cassette_of_either_language(tmp_path: Path) -> None:
    need_node()
    need_client()
    path = tmp_path / "x.json"
    with upstream() as provider:
        bases = [f"{provider.models}/v1", provider.models]
        with Cassette(path, mode="new") as cassette:
            recorded = run_node("cassette.mjs", *map(cassette.url, bases))
    assert recorded["chunks"]
    assert recorded["content"]
    assert "sk-proj" not in path.read_text("utf-8")
    with Cassette(path, faults=["rate-limit@1:0", "split@1"]) as cassette:
        assert run_node("cassette.mjs", *map(cassette.url, bases)) == recorded
        assert cassette.unused == []
    assert run_node("cassette.mjs", str(path), BASES=json.dumps(bases)) == recorded
