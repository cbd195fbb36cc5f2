"""The client's fold and Python's make the same of any run that the order of events allows."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import msgspec
import pytest

from support.arbitrary_runs import arbitrary_run
from support.node import HERE, need_client
from tokenwire.events import model as m
from tokenwire.events.codec import AnyEvent, decode, encode
from tokenwire.events.fold import Fold

RUNS = 500
_FILE = "application/octet-stream"


def reading(events: list[AnyEvent]) -> dict[str, Any]:
    fold = Fold()
    for event in events:
        fold.apply(decode(encode(event)))
    history = json.loads(msgspec.json.encode(fold.history()))
    tools = [t for t in fold.tools.values() if t.started or t.done or t.approval_id is not None]
    fields = ("name", "started", "done", "content", "error", "approved")
    return {
        "state": fold.status,
        "text": fold.text,
        "finish_reason": fold.finish_reason,
        "usage": fold.usage,
        "usage_unknown": None if fold.outcome is None else fold.usage_unknown,
        "waiting": fold.waiting,
        "history": [_explicit(message) for message in history],
        "error": fold.error,
        "shared": fold.shared,
        "progress": fold.progress,
        "budget": fold.budget,
        "cancel_requested": fold.cancel_requested,
        "data": [{name: fact[name] for name in ("name", "id", "payload")} for fact in fold.data],
        "tools": {tool.call_id: {f: getattr(tool, f) for f in fields} for tool in tools},
    }


def _explicit(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the defaults that either may leave out."""
    content = message.setdefault("content", "")
    if isinstance(content, list):
        for part in content:
            if part["type"] == "file":
                part.setdefault("media_type", _FILE)
    return message


def both(runs: list[list[AnyEvent]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each run as Python reads it, and as the client does."""
    lines = [b"[" + b",".join(map(encode, events)) + b"]\n" for events in runs]
    done = subprocess.run(
        ["node", "folds.mjs"], input=b"".join(lines), cwd=HERE, capture_output=True, timeout=120
    )
    assert not done.returncode, done.stderr.decode()[-2000:]
    theirs = [json.loads(line) for line in done.stdout.split(b"\n") if line]
    assert len(theirs) == len(runs)
    for state in theirs:
        state["history"] = [_explicit(message) for message in state["history"]]
    ours = [json.loads(json.dumps(reading(events))) for events in runs]
    return list(zip(ours, theirs, strict=True))


def test_both_folds_agree_about_arbitrary_runs() -> None:
    need_client()
    # (A checkpoint is a snapshot of the log's own, which clients do not read.)
    runs = [
        [event for event in arbitrary_run(seed) if not isinstance(event, m.Checkpoint)]
        for seed in range(RUNS)
    ]
    for seed, (ours, theirs) in enumerate(both(runs)):
        assert theirs == ours, seed


@pytest.mark.parametrize("text", [None, "", "more"])
@pytest.mark.parametrize("name", [None, "t1"])
@pytest.mark.parametrize("kind", ["model", "task"])
def test_both_folds_take_the_same_steers(text: str | None, name: str | None, kind: Any) -> None:
    need_client()
    events: list[AnyEvent] = [
        m.RunStart(run="r", seq=1),
        m.StepStart(step=1, kind=kind, seq=2),
        m.Control(command="steer", text=text, id=name, seq=3),
    ]
    ((ours, theirs),) = both([events])
    assert theirs == ours
    is_taken = text is not None and name is not None and kind == "model"
    assert len(theirs["history"]) == is_taken


def test_both_folds_take_back_a_part_of_another_step() -> None:
    need_client()
    events: list[AnyEvent] = [
        m.RunStart(run="r", seq=1),
        m.StepStart(step=1, seq=2),
        m.TextStart(part=0, step=1, seq=3),
        m.TextDelta(part=0, text="old", seq=4),
        m.TextEnd(part=0, seq=5),
        m.StepEnd(step=1, status="complete", seq=6),
        m.StepStart(step=2, seq=7),
        m.TextStart(part=1, step=2, seq=8),
        m.TextDelta(part=1, text="kept", seq=9),
        m.StepReset(step=2, attempt=2, discard_parts=[0], seq=10),
        m.TextDelta(part=1, text=" on", seq=11),
    ]
    ((ours, theirs),) = both([events])
    assert theirs == ours
    assert theirs["text"] == "kept on"
