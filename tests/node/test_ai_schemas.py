"""Arbitrary runs against the clients' own schemas, verifiers and reducers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.arbitrary_runs import arbitrary_run
from support.node import need_node, run_node
from tokenwire.events.codec import AnyEvent
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import UIMessageEncoder
from tokenwire.wire.ai_sdk.parts import Compat
from tokenwire.wire.catalogue import EVERY_WAIT
from tokenwire.wire.place import split_cursor

pytestmark = pytest.mark.node
RUNS = range(300)
#: compat -> the versions that must take whatever it says.
TAKEN: dict[Compat, list[str]] = {
    "5": ["5old", "5", "6", "7"],
    "common": ["5", "6", "7"],
    "6": ["6", "7"],
    "7": ["7"],
}
HISTORY: list[dict[str, Any]] = [{"id": "u1", "role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def _node() -> None:
    need_node()


def cursor_of(event: AnyEvent) -> str:
    return f"{event.seq}-{event.seq:016x}"


def told(encoder: Any, events: list[AnyEvent]) -> str:
    """What a server sends: until the run, or the wire's answer, is over."""
    pieces: list[bytes] = []
    for event in events:
        pieces.append(encoder.encode(event, cursor_of(event)))
        if encoder.ended:
            break
    return b"".join([*pieces, encoder.finish()]).decode()


def rest(make: Callable[[Any], Any], events: list[AnyEvent], whole: str, at: int) -> str:
    """What a reader hears that comes back with one of the ids."""
    ids = [line[4:] for line in whole.split("\n") if line.startswith("id: ")][:-1]
    if not ids:
        return ""
    place = split_cursor(ids[at % len(ids)])
    assert place is not None
    encoder, after = make(place), int(place.after.partition("-")[0])
    for event in events[:after]:
        encoder.skip(event)
    return encoder.reopen().decode() + told(encoder, events[after:])


def chunks_of(text: str) -> list[dict[str, Any]]:
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@pytest.mark.parametrize("version", ["5old", "5", "6", "7"])
def test_the_ai_sdk_takes_every_chunk_of_any_run(version: str, tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = []
    for seed in RUNS:
        events = arbitrary_run(seed)
        # Approvals and tools of the page: some have their answer, some end the stream.
        answered: Any = EVERY_WAIT if seed % 3 else ()
        for compat, versions in TAKEN.items():
            if version not in versions:
                continue

            def make(
                place: Any = None, compat: Compat = compat, answered: Any = answered
            ) -> UIMessageEncoder:
                return UIMessageEncoder(compat=compat, resolved_ids=answered, place=place)

            whole = told(make(), events)
            again = rest(make, events, whole, seed)
            chunks = {"chunks": chunks_of(whole), "rest": chunks_of(again)}
            runs.append({"seed": seed, "compat": compat, **chunks})
    path = tmp_path / "chunks.json"
    path.write_text(json.dumps(runs))
    found = run_node("check_chunks.mjs", version, str(path), seconds=300)
    assert found["count"] == 0, found["wrong"]
    assert found["checked"] > 3000


def test_ag_ui_takes_every_event_of_any_run(tmp_path: Path) -> None:
    runs: list[dict[str, Any]] = []
    for seed in RUNS:
        events = arbitrary_run(seed)
        answered: Any = EVERY_WAIT if seed % 3 else ()

        def make(place: Any = None, answered: Any = answered) -> AGUIEncoder:
            return AGUIEncoder(history=HISTORY, resolved_ids=answered, place=place)

        whole = told(make(), events)
        runs.append({"seed": seed, "bytes": whole, "rest": rest(make, events, whole, seed)})
    path = tmp_path / "bytes.json"
    path.write_text(json.dumps(runs))
    found = run_node("check_ag_ui.mjs", str(path), seconds=300)
    assert found["count"] == 0, found["wrong"]
    assert found["checked"] > 400
