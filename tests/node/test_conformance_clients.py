"""Every case of conformance/wire through the packages' own parsers, schemas and reducers."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from support.node import need_node, run_node

pytestmark = pytest.mark.node
CASES = Path(__file__).resolve().parents[2] / "conformance" / "wire"
NAMES = "everything reset tool approval reasoning length cancelled error agent".split()
#: compat -> the versions that must take it.
TAKEN = {"ui-5": "567", "ui-common": "567", "ui-6": "67", "ui-7": "7"}
PAIRS = [(wire, version) for wire, versions in TAKEN.items() for version in versions]
WIRES = {name: set(json.loads((CASES / f"{name}.json").read_text())["bytes"]) for name in NAMES}
TRIPLES = [(*pair, name) for name in NAMES for pair in PAIRS if pair[0] in WIRES[name]]


@pytest.fixture(autouse=True)
def _node() -> None:
    need_node()


@functools.cache
def states(wire: str, version: str) -> Any:
    """What a version's chat makes of each case that this wire has: one Node for all of them."""
    paths = ",".join(str(CASES / f"{name}.json") for name in NAMES if wire in WIRES[name])
    return run_node("ai_chat.mjs", version, "unused", "bytes", paths, WIRE=wire)


@pytest.mark.parametrize(("wire", "version", "name"), TRIPLES)
def test_the_ai_sdk_takes_every_chunk(name: str, wire: str, version: str) -> None:
    told = states(wire, version)[name]
    wanted = ["The model is overloaded."] if name == "error" else []
    assert told["errors"] == wanted
    assert told["status"] == ("error" if name == "error" else "ready")
    parts = told["messages"][-1]["parts"]
    kinds = [part["type"] for part in parts]
    if name == "reset" and wire == "ui-7":
        assert told["text"] == "Good day"
    if name == "reset" and wire != "ui-7":
        after = parts[kinds.index("data-step-reset") :]
        assert "".join(p.get("text", "") for p in after) == "Good day"
    if name == "agent":
        assert {"data-state", "data-step", "data-progress", "data-sources"} <= set(kinds)
        assert told["text"] == "Hello"
    if name == "everything":
        for kind in ("source-url", "source-document", "file", "data-weather", "tool-web_search"):
            assert kind in kinds, kind
        assert told["text"] == "Cats purr.No more."


@pytest.mark.parametrize("name", NAMES)
def test_ag_ui_takes_every_event_without_a_warning(name: str) -> None:
    told = run_node("ag_ui.mjs", "http://unused", "bytes", str(CASES / f"{name}.json"))
    assert told["warnings"] == []
    assert told["errors"] == (["The model is overloaded."] if name == "error" else [])
    if name == "reset":
        texts = [m["content"] for m in told["messages"] if m["role"] == "assistant"]
        assert texts == ["Good day"]
