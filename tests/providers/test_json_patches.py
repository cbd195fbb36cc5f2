"""Objects built by patches: the same as setting the values by hand, and bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.providers.google.json_patches import PatchedObject

LEAVES = st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=6)
NAMES = st.text("abcxyz_", min_size=1, max_size=4)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)


def patches(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in patches(v, f"{path}.{k}")]
    if isinstance(value, list):
        return [p for n, v in enumerate(value) for p in patches(v, f"{path}[{n}]")]
    return [(path, value)]


@settings(max_examples=100)
@given(st.dictionaries(NAMES, VALUES, max_size=4), st.integers(1, 3))
def test_patches_of_every_leaf_give_the_object(value: dict[str, Any], size: int) -> None:
    built = PatchedObject()
    for path, leaf in patches(value, "$"):
        if isinstance(leaf, str) and len(leaf) > size:
            pieces = [leaf[i : i + size] for i in range(0, len(leaf), size)]
            for piece in pieces:
                built.set(path, piece, more=True)
            built.set(path, "", more=False)
        else:
            built.set(path, leaf, more=False)
    assert built.value() == value
    assert not built.open


def test_an_open_string_is_read_as_far_as_it_came() -> None:
    built = PatchedObject()
    built.set("$.a['b c'][0]", "x", more=True)
    built.set("$.a['b c'][0]", "y", more=True)
    assert built.open
    assert built.value() == {"a": {"b c": ["xy"]}}


@pytest.mark.parametrize(
    "path", ["", "a", "$", "$.", "$.a[", "$.a[x]", "$[0]", "$.a[99999]", "$" + ".a" * 100, "$..a"]
)
def test_a_path_that_cannot_be_followed_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="patch"):
        PatchedObject().set(path, 1, more=False)


def test_a_value_is_no_object() -> None:
    built = PatchedObject()
    built.set("$.a", 1, more=False)
    with pytest.raises(ValueError, match="not an object"):
        built.set("$.a.b", 1, more=False)
