"""The tables of docs/guide/providers.md are those of the code, and say what answers hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.corpus import decode
from tokenwire.errors import FramingError
from tokenwire.events.model import PartAttr
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import DIALECTS, FAMILIES, Registry

ROOT = Path(__file__).parents[2]
CONFORMANCE = ROOT / "conformance" / "providers"
REGISTRY = Registry(env={})
ATTRIBUTES = {
    "signature": "signatures",
    "encrypted": "encrypted reasoning",
    "citation": "citations",
    "logprobs": "log probabilities",
}
STARTS = {
    "reasoning-start": "reasoning",
    "refusal-start": "refusals",
    "tool-call-start": "tool calls",
    "provider-result-start": "provider-run tools",
    "file-start": "images and files",
    "usage": "usage",
}


def test_the_tables_are_current() -> None:
    script = ROOT / "scripts" / "providers_table.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def table() -> dict[str, set[str]]:
    """What each dialect answers, as the page says it."""
    text = (ROOT / "docs" / "guide" / "providers.md").read_text(encoding="utf-8")
    text = text.partition("<!-- capabilities:")[2].partition("<!-- /capabilities")[0]
    rows = [[c.strip() for c in r.split("|")[1:-1]] for r in text.splitlines() if r[:1] == "|"]
    names = [name.strip("`") for name in rows[0][1:]]
    answers = [r for r in rows if r[0].startswith("answer: ")]
    return {
        name: {r[0].removeprefix("answer: ") for r in answers if r[i + 1] == "yes"}
        for i, name in enumerate(names)
    }


def blocks(case: dict[str, Any]) -> bytes:
    if "raw" in case:
        return case["raw"].encode()
    payloads = [p if isinstance(p, str) else json.dumps(p) for p in case["payloads"]]
    names = [
        None if isinstance(p, str) else p.get("type") or p.get("event_type")
        for p in case["payloads"]
    ]
    return b"".join(encode_frame(p, event=n) for p, n in zip(payloads, names, strict=True))


def answers(dialect: str) -> set[str]:
    """What the events of a dialect's conformance streams hold."""
    cases = [
        {"family": "chat"} | case
        for name in ("chat", "native")
        for case in json.loads((CONFORMANCE / f"{name}.json").read_text())["cases"]
    ]
    held: set[str] = set()
    for case in cases:
        if FAMILIES.get(case["family"], case["family"]) != dialect:
            continue
        try:
            events = decode(REGISTRY.dialect(dialect).decoder(), [blocks(case)])
        except FramingError:
            continue
        for event in events:
            word = STARTS.get(event.type)
            if isinstance(event, PartAttr):
                word = ATTRIBUTES.get(event.name)
            held |= {word} if word is not None else set()
            if getattr(event, "choice", 0):
                held.add("several choices")
    return held


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_answers_hold_is_in_the_table(dialect: str) -> None:
    held, row = answers(dialect), table()[dialect]
    assert ("usage" if dialect == "completions" else "tool calls") in held
    assert held <= row
    assert dialect == "completions" or {"reasoning", "tool calls", "usage"} <= row


def test_a_wire_of_text_alone_is_not_said_to_do_more() -> None:
    assert not {"reasoning", "tool calls", "refusals", "citations"} & table()["completions"]
