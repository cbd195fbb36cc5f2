"""What `@tokenwire/client/testing` makes of its scripts keeps the rules of the event model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokenwire.events.codec import decode
from tokenwire.events.fold import fold
from tokenwire.events.order import Order

ROOT = Path(__file__).resolve().parents[2]
#: What packages/client/test/testing/server.test.ts compares the server's runs with.
RUNS = json.loads((ROOT / "conformance/cassettes/scripted.json").read_text("utf-8"))


@pytest.mark.parametrize("name", RUNS)
def test_a_scripted_run_is_one_that_the_server_could_have_written(name):
    events = [decode(json.dumps(event).encode()) for event in RUNS[name]]
    order = Order()
    for event in events:
        order.check(event)
    assert order.state == "ended"
    assert order.open == {}
    state = fold(events)
    outcome = {"failure": "error", "cancelled": "cancelled"}.get(name, "complete")
    assert state.outcome == outcome
    usage = RUNS[name][-1].get("usage")
    assert usage is None or usage["input_tokens"] == state.usage["input_tokens"]
