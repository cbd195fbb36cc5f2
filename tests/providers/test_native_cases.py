"""Odd streams of the native wires, told as data: facts, statuses, and the same however cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.corpus import cut_every, decode, merged
from support.order import in_order
from tokenwire.events.codec import encode
from tokenwire.events.model import Heartbeat
from tokenwire.framing.sse import encode_frame
from tokenwire.providers.registry import Registry
from tokenwire.providers.summary import facts

ROOT = Path(__file__).parents[2]
CASES = json.loads((ROOT / "conformance" / "providers" / "native.json").read_text())["cases"]
REGISTRY = Registry(env={})


def data_of(case: dict[str, Any]) -> bytes:
    if "raw" in case:
        return case["raw"].encode()
    names = [p.get("type") or p.get("event_type") for p in case["payloads"]]
    return b"".join(
        encode_frame(json.dumps(p), event=name)
        for p, name in zip(case["payloads"], names, strict=True)
    )


def told(event: Any) -> Any:
    """What a case may say of an event: its status, reason, or name."""
    for name in ("status", "reason", "event"):
        if getattr(event, name, None) is not None:
            return getattr(event, name)
    return None


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_a_case(case: dict[str, Any]) -> None:
    dialect = REGISTRY.dialect(case["family"])
    events = decode(dialect.decoder(), [data_of(case)])
    in_order(events)
    assert events[-1].status == case.get("status", events[-1].status)
    for event in events:
        encode(event)
    found, expected = facts(events), dict(case["expected"])
    if expected.get("error") is not None:
        wanted = expected.pop("error")
        assert found["error"] is not None
        assert {k: found["error"][k] for k in wanted} == wanted
    assert {name: found[name] for name in expected} == expected
    for kind, wanted in case.get("events", {}).items():
        of_kind = [e for e in events if e.type == kind]
        if isinstance(wanted, int):
            assert len(of_kind) == wanted
        elif wanted is None:
            assert of_kind
        else:
            assert wanted in [told(e) for e in of_kind]


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_a_case_cut_into_bytes(case: dict[str, Any]) -> None:
    dialect, data = REGISTRY.dialect(case["family"]), data_of(case)

    def plain(events: list[Any]) -> list[Any]:
        return merged([e for e in events if not isinstance(e, Heartbeat)])

    whole = plain(decode(dialect.decoder(), [data]))
    assert plain(decode(dialect.decoder(), cut_every(1)(data))) == whole


CUT = [c for c in CASES if "surrogates-cut" in c["id"]]


@pytest.mark.parametrize("case", CUT, ids=lambda c: c["id"])
@pytest.mark.parametrize("cut", [1, 2, 3])
def test_bytes_of_one_character_in_two_payloads(case: dict[str, Any], cut: int) -> None:
    smile = "\N{GRINNING FACE}".encode()
    data = data_of(case).replace(b"\\ud83d", smile[:cut]).replace(b"\\ude00", smile[cut:])
    found = facts(decode(REGISTRY.dialect(case["family"]).decoder(), [data]))
    assert {name: found[name] for name in case["expected"]} == case["expected"]


def test_every_case_has_its_own_name() -> None:
    names = [c["id"] for c in CASES]
    assert len(set(names)) == len(names)
