"""Coalescing: what may wait, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tokenwire.events import model as m
from tokenwire.run.coalesce import Coalescer, merge


def delta(text, part=0):
    return m.TextDelta(part=part, text=text)


def test_only_neighbours_of_one_part_are_merged():
    events = [delta("a"), delta("b"), delta("c", 1), delta("d"), m.Usage(), delta("e"), delta("f")]
    merged = merge(events)
    assert [getattr(e, "text", e.type) for e in merged] == ["ab", "c", "d", "usage", "ef"]


def test_text_and_reasoning_of_one_number_are_not_mixed():
    merged = merge([delta("a"), m.ReasoningDelta(part=0, text="b")])
    assert [e.text for e in merged] == ["a", "b"]


def test_the_first_delta_is_never_held_back():
    coalescer = Coalescer(10.0)
    assert coalescer.push([delta("first")], 0.0)[0].text == "first"
    assert coalescer.push([delta("later")], 0.1) == []
    assert coalescer.deadline() == 10.1


def test_another_kind_of_event_takes_what_is_held_with_it():
    coalescer = Coalescer(10.0)
    coalescer.push([delta("first")], 0.0)
    coalescer.push([delta("a")], 0.1)
    out = coalescer.push([m.TextEnd(part=0)], 0.2)
    assert [e.type for e in out] == ["text-delta", "text-end"]
    assert coalescer.deadline() is None


@given(st.lists(st.tuples(st.floats(0, 0.05), st.text(min_size=1, max_size=3)), max_size=50))
def test_nothing_is_held_longer_than_the_window(pushes):
    coalescer, now, out, held_since = Coalescer(0.04), 0.0, "", None
    for gap, text in pushes:
        now += gap
        due = coalescer.deadline()
        if due is not None and now >= due:
            out += "".join(e.text for e in coalescer.flush())
            held_since = None
        ready = coalescer.push([delta(text)], now)
        out += "".join(e.text for e in ready)
        if ready:
            held_since = None
        elif held_since is None:
            held_since = now
        if held_since is not None:
            assert coalescer.deadline() <= held_since + 0.04 + 1e-9
    out += "".join(e.text for e in coalescer.flush())
    assert out == "".join(text for _, text in pushes)


def test_a_very_large_held_text_goes_out_before_its_time():
    coalescer = Coalescer(10.0, most_bytes=100)
    coalescer.push([delta("first")], 0.0)
    assert coalescer.push([delta("x" * 100)], 0.1)
