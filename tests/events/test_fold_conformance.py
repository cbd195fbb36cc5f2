"""The fold meets the cases that the TypeScript client meets too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tokenwire.events.codec import from_fields
from tokenwire.events.fold import fold

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "conformance/fold/cases.json").read_text("utf-8")
)["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_fold(case: dict[str, Any]) -> None:
    state = fold([from_fields(event) for event in case["events"]])  # type: ignore[misc]
    assert {
        "state": state.status,
        "text": state.text,
        "finish_reason": state.finish_reason,
        "usage": state.usage,
        "waiting": state.waiting,
        "history": msgspec.to_builtins(state.history()),
        "error": state.error,
        "shared": state.shared,
        "progress": state.progress,
        "budget": state.budget,
    } == case["expected"]
