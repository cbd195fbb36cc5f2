"""Coalescing: what is joined, and what never."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.events import model as m
from tokenwire.run.coalesce import merge


def delta(text, part=0):
    return m.TextDelta(part=part, text=text)


def test_only_neighbours_of_one_part_are_merged():
    events = [delta("a"), delta("b"), delta("c", 1), delta("d"), m.Usage(), delta("e"), delta("f")]
    merged = merge(events)
    assert [getattr(e, "text", e.type) for e in merged] == ["ab", "c", "d", "usage", "ef"]


def test_text_and_reasoning_of_one_number_are_not_mixed():
    merged = merge([delta("a"), m.ReasoningDelta(part=0, text="b")])
    assert [e.text for e in merged] == ["a", "b"]


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.text(min_size=1, max_size=3)))))
def test_any_batches_keep_every_part_whole_and_in_order(batches):
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    for batch in batches:
        for part, text in batch:
            before[part] = before.get(part, "") + text
        for event in merge([delta(text, part) for part, text in batch]):
            after[event.part] = after.get(event.part, "") + event.text
    assert after == before
