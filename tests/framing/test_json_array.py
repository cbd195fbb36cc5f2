"""The splitter of JSON values: arrays, one value after another, values over many lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.errors import FramingError
from tokenwire.framing.json_array import JSONValueDecoder

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
OBJECTS = st.lists(st.dictionaries(st.text(max_size=6), JSON, max_size=4), max_size=5)


def read(pieces: list[bytes]) -> list[Any]:
    decoder = JSONValueDecoder()
    found = [v for piece in pieces for v in decoder.feed(piece)]
    assert not decoder.cut
    return [json.loads(v) for v in found + decoder.finish()]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@settings(max_examples=100)
@given(OBJECTS, st.integers(1, 30), st.sampled_from([None, 1, "\t"]), st.booleans())
def test_elements_of_an_array(values: list[Any], size: int, indent: Any, ascii_only: bool) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode()
    assert read(cut(data, size)) == values


@settings(max_examples=100)
@given(OBJECTS, st.integers(1, 30), st.sampled_from(["", "\n", ",\r\n", "  "]))
def test_values_one_after_another(values: list[Any], size: int, between: str) -> None:
    data = between.join(json.dumps(v, indent=1) for v in values).encode()
    assert read(cut(data, size)) == values


def test_a_byte_order_mark_and_an_unfinished_value() -> None:
    decoder = JSONValueDecoder()
    assert decoder.feed(b'\xef\xbb\xbf[{"a":"]}"},{"b":') == [b'{"a":"]}"}']
    assert decoder.cut
    assert decoder.finish() == []
    assert not decoder.stray


def test_what_is_no_value_is_counted() -> None:
    decoder = JSONValueDecoder()
    assert decoder.feed(b'oops {"a":1} x') == [b'{"a":1}']
    assert decoder.stray == 5


def test_a_value_over_its_bound_is_refused() -> None:
    decoder = JSONValueDecoder(max_value=100)
    with pytest.raises(FramingError):
        for _ in range(20):
            decoder.feed(b'{"a":"aaaaaaaaaa')


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=30), max_size=8))
def test_any_bytes_are_read_the_same_however_cut(pieces: list[bytes]) -> None:
    whole = JSONValueDecoder().feed(b"".join(pieces))
    decoder = JSONValueDecoder()
    assert [v for piece in pieces for v in decoder.feed(piece)] == whole
