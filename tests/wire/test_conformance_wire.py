"""conformance/wire and docs/protocol say what the encoders say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tokenwire.events.codec import from_fields
from tokenwire.events.order import Order

ROOT = Path(__file__).resolve().parents[2]
CASES = sorted((ROOT / "conformance" / "wire").glob("*.json"))


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", CASES, ids=[p.stem for p in CASES])
def test_each_case_is_a_valid_run_with_the_bytes_it_promises(path: Path) -> None:
    case = json.loads(path.read_text())
    order = Order()
    events = [order.check(from_fields(fields)) for fields in case["events"]]
    assert order.state == "ended" or events[-1].type == "run-wait"
    docs = load("wire_docs")
    for wire, told in case["bytes"].items():
        assert docs.encoded(events, wire, case.get("cut")) == told, wire
        assert "\r" not in told


def test_pages_are_fresh() -> None:
    assert load("wire_docs").main(check=True) == 0, "run scripts/wire_docs.py"
