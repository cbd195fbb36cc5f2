"""JSON Patch: what changed between two values, and the standard's own rules."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import InputError
from tokenwire.events.fold import fold
from tokenwire.events.json_patch import after, apply, diff, same
from tokenwire.events.model import RunStart, SharedState

VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "a", "a/b", "~", "0"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["", "a", "a/b", "~1", "0", "-"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(old=VALUES, new=VALUES)
def test_a_difference_applied_gives_the_new_value(old: Any, new: Any) -> None:
    before = repr(old)
    assert same(apply(old, diff(old, new)), new)
    assert repr(old) == before, "the old value was changed"
    assert (diff(old, new) == []) == same(old, new)


@pytest.mark.parametrize(
    ("value", "operation", "expected"),
    [
        ({"a": 1}, {"op": "add", "path": "", "value": 2}, 2),
        ([1, 3], {"op": "add", "path": "/1", "value": 2}, [1, 2, 3]),
        ([1], {"op": "add", "path": "/-", "value": 2}, [1, 2]),
        ({"a": [1, 2]}, {"op": "remove", "path": "/a/0"}, {"a": [2]}),
        (
            {"a/b": 1, "m~n": 2},
            {"op": "replace", "path": "/a~1b", "value": 3},
            {"a/b": 3, "m~n": 2},
        ),
        ({"a": {"b": 1}}, {"op": "move", "from": "/a/b", "path": "/c"}, {"a": {}, "c": 1}),
        ({"a": 1}, {"op": "copy", "from": "/a", "path": "/b"}, {"a": 1, "b": 1}),
        ({"a": 1.0}, {"op": "test", "path": "/a", "value": 1}, {"a": 1.0}),
    ],
)
def test_each_operation(value: Any, operation: dict[str, Any], expected: Any) -> None:
    assert apply(value, [operation]) == expected


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/b"},
        {"op": "replace", "path": "/b", "value": 1},
        {"op": "add", "path": "/b/c", "value": 1},
        {"op": "add", "path": "/list/9", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "replace", "path": "/list/-", "value": 1},
        {"op": "test", "path": "/a", "value": True},
        {"op": "remove", "path": ""},
        {"op": "add", "path": "a", "value": 1},
        {"op": "grow", "path": "/a"},
        {"path": "/a"},
    ],
)
def test_what_does_not_fit_is_an_error_and_changes_nothing(operation: dict[str, Any]) -> None:
    value = {"a": 1, "list": [1]}
    with pytest.raises(InputError):
        apply(value, [operation])
    assert after(value, None, [operation]) is value


def test_the_fold_keeps_the_state_and_survives_a_bad_patch() -> None:
    state = fold(
        [
            RunStart(run="r" * 16),
            SharedState(snapshot={"stage": "search", "n": [1]}),
            SharedState(patch=[{"op": "remove", "path": "/nothing"}]),
            SharedState(patch=[{"op": "replace", "path": "/stage", "value": "draft"}]),
        ]
    )
    assert state.shared == {"stage": "draft", "n": [1]}
