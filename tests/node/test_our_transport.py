"""Our own fetch and transport for the AI SDK: whatever is cut, the chat reads one whole answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.node import need_client, run_node
from tokenwire.events.codec import from_fields
from tokenwire.events.model import Event
from tokenwire.events.order import Order
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.ai_sdk.parts import COMPAT, Compat
from tokenwire.wire.native import NativeEncoder
from tokenwire.wire.place import split_cursor

pytestmark = pytest.mark.node
ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "conformance" / "wire"
NAMES = ["reset", "tool", "approval", "reasoning", "length", "cancelled", "error"]
# Every byte of a short run; of the longer ones every so many, to be quick.
CUTS = [("everything", compat, 3 if compat == "7" else 7) for compat in COMPAT]
CUTS += [(name, "7", 1 if name == "length" else 5) for name in NAMES]


@pytest.fixture(autouse=True)
def _built() -> None:
    need_client()


def cursor_of(event: Event) -> str:
    return f"{event.seq}-{event.seq:016x}"


def told(events: list[Event], compat: Compat, last_id: str | None = None) -> str:
    """What the server says of a run, or to a reader that comes back with an id."""
    place = split_cursor(last_id) if last_id is not None else None
    encoder = UIMessageEncoder(compat=compat, place=place)
    skip = int(place.after.partition("-")[0]) if place is not None else 0
    for event in events[:skip]:
        encoder.skip(event)
    pieces = [encoder.reopen() if place is not None else b""]
    for event in events[skip:]:
        pieces.append(encoder.encode(event, cursor_of(event)))
        if encoder.ended:
            break  # the server ends the stream where the run waits
    return b"".join([*pieces, encoder.finish()]).decode()


@pytest.mark.parametrize(("name", "compat", "step"), CUTS)
def test_a_cut_is_never_seen(name: str, compat: Compat, step: int, tmp_path: Path) -> None:
    order = Order()
    case = json.loads((CASES / f"{name}.json").read_text())
    events: list[Event] = [order.check(from_fields(fields)) for fields in case["events"]]
    whole = told(events, compat)
    ids = [line[4:] for line in whole.split("\n") if line.startswith("id: ")]
    bytes_of = {"ui": {"whole": whole, "after": {i: told(events, compat, i) for i in ids}}}
    if compat == "7":  # the native wire is the same for all
        blocks = [NativeEncoder().encode(event, cursor_of(event)).decode() for event in events]
        bytes_of["native"] = {
            "whole": "".join(blocks),
            "after": {cursor_of(e): "".join(blocks[n:]) for n, e in enumerate(events, 1)},
        }
    path = tmp_path / "bytes.json"
    path.write_text(json.dumps(bytes_of))
    found = run_node("cut_chunks.mjs", str(path), str(step), seconds=300)
    assert found["count"] == 0, found["wrong"]
    assert found["tried"] >= 2 * found["bytes"] / step
