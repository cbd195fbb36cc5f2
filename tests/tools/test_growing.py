"""Tool calls while they are written: what is drawn is a prefix of what comes, in linear time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tokenwire
from tokenwire.events.model import (
    Event,
    PartAttr,
    PartPatch,
    StepReset,
    TextDelta,
    ToolCallDelta,
    ToolCallEnd,
    ToolCallStart,
)
from tokenwire.testing import ScriptedModel, call
from tokenwire.tools.calls.growing import GrowingCalls

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def start(part: int = 0, name: str = "f", call_id: str = "c") -> ToolCallStart:
    return ToolCallStart(part=part, step=1, name=name, call_id=call_id)


def pieces(data: Any, text: str) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b]


def is_prefix(shown: Any, whole: Any) -> bool:
    if shown is None:
        return True
    if isinstance(shown, dict) and isinstance(whole, dict):
        return all(k in whole and is_prefix(v, whole[k]) for k, v in shown.items())
    if isinstance(shown, list) and isinstance(whole, list):
        return len(shown) <= len(whole) and all(map(is_prefix, shown, whole))
    if isinstance(shown, str) and isinstance(whole, str):
        return whole.startswith(shown)
    return shown == whole


@given(st.lists(st.dictionaries(st.text(max_size=5), JSON), min_size=1, max_size=3), st.data())
def test_any_cut_and_interleaving_shows_prefixes_and_then_all(wholes: list[Any], data: Any) -> None:
    events: list[Event] = [start(part, call_id=f"c{part}") for part in range(len(wholes))]
    queues = {
        part: [ToolCallDelta(part=part, text=piece) for piece in pieces(data, json.dumps(whole))]
        for part, whole in enumerate(wholes)
    }
    while any(queues.values()):
        part = data.draw(st.sampled_from([part for part, queue in queues.items() if queue]))
        events.append(queues[part].pop(0))
    calls = GrowingCalls()
    for event in events:
        calls.push([event])
        for found in calls.changed():
            assert is_prefix(found.arguments, wholes[found.part])
            assert found.status == "open"
    for part, whole in enumerate(wholes):
        calls.push([ToolCallEnd(part=part, arguments=whole)])
    ended = calls.changed()
    assert [(c.call_id, c.arguments, c.status) for c in ended] == [
        (f"c{part}", whole, "complete") for part, whole in enumerate(wholes)
    ]
    assert calls.changed() == []


def test_a_look_parses_once_and_all_looks_together_are_linear(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[int] = []
    real = jiter.from_json

    def counting(data: bytes, **options: Any) -> Any:
        parsed.append(len(data))
        return real(data, **options)

    monkeypatch.setattr("tokenwire.tools.calls.partial.jiter.from_json", counting)
    calls = GrowingCalls()
    calls.push([start()])
    calls.push([ToolCallDelta(part=0, text=piece) for piece in ('{"a": "', "x", "y", "z")])
    (found,) = calls.changed()
    assert found.arguments == {"a": "xyz"}
    assert len(parsed) == 1
    for _ in range(200_000):
        calls.push([ToolCallDelta(part=0, text="x")])
        calls.changed()
    small = 4096 * 4096 // 2
    assert sum(parsed) < small + 40 * 200_000


def test_a_call_is_shown_by_its_name_before_its_arguments() -> None:
    calls = GrowingCalls()
    calls.push([TextDelta(part=7, text="x"), start(name="", call_id="")])
    (found,) = calls.changed()
    assert (found.name, found.arguments) == ("", None)
    calls.push([PartAttr(part=0, name="tool_name", value="f")])
    calls.push([PartAttr(part=0, name="call_id", value="c9"), PartAttr(part=0, name="meta")])
    (found,) = calls.changed()
    assert (found.name, found.call_id) == ("f", "c9")


def test_patches_grow_and_a_reset_takes_back() -> None:
    calls = GrowingCalls()
    calls.push([start(), PartPatch(part=0, path="$.city", value="Par", open=True)])
    (found,) = calls.changed()
    assert found.arguments == {"city": "Par"}
    calls.push([PartPatch(part=0, path="$.city", value="is")])
    (found,) = calls.changed()
    assert found.arguments == {"city": "Paris"}
    calls.push([StepReset(step=1, attempt=2, discard_parts=[0])])
    calls.push([ToolCallDelta(part=0, text="{}")])
    assert calls.changed() == []


def test_a_cut_call_keeps_what_was_shown() -> None:
    calls = GrowingCalls()
    calls.push([start(), ToolCallDelta(part=0, text='{"a": "b')])
    calls.push([ToolCallEnd(part=0, status="truncated")])
    (found,) = calls.changed()
    assert (found.arguments, found.status) == ({"a": "b"}, "truncated")


def test_a_run_is_drawn_batch_by_batch() -> None:
    model = ScriptedModel([call("f", {"city": "Paris"})], ["ok"])
    drawn: list[Any] = []

    async def main() -> None:
        tools = [tokenwire.Tool.of(lambda city: city, name="f")]
        async with tokenwire.stream("Hi", model=model, tools=tools) as run:
            calls = GrowingCalls()
            async for batch in run.batches():
                calls.push(batch)
                drawn.extend((c.name, c.arguments, c.status) for c in calls.changed())

    asyncio.run(main())
    assert drawn[-1] == ("f", {"city": "Paris"}, "complete")
