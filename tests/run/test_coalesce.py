"""Coalescing: what is joined, and what never."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.events import model as m
from tokenwire.run import coalesce
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


def test_a_long_delta_leaves_in_pieces_that_base64_readers_can_join():
    text = "QUJD" * (coalesce.MOST_TEXT // 2) + "QQ=="
    for events in ([delta(text)], [delta("QUJD"), delta(text), delta("QUJD")]):
        merged = merge(events)
        assert all(len(e.text) <= coalesce.MOST_TEXT for e in merged)
        assert all(len(e.text) % 4 == 0 for e in merged)
        assert "".join(e.text for e in merged) == "".join(e.text for e in events)
        assert {e.part for e in merged} == {0}


@given(st.lists(st.lists(st.tuples(st.integers(0, 2), st.text(min_size=1, max_size=3)))))
@pytest.mark.parametrize("most", [2, 1000])
def test_any_batches_keep_every_part_whole_and_in_order(most, batches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coalesce, "MOST_TEXT", most)
        keeps_all(batches, most)


def keeps_all(batches, most):
    before: dict[int, str] = {}
    after: dict[int, str] = {}
    for batch in batches:
        for part, text in batch:
            before[part] = before.get(part, "") + text
        for event in merge([delta(text, part) for part, text in batch]):
            assert len(event.text) <= most
            after[event.part] = after.get(event.part, "") + event.text
    assert after == before
