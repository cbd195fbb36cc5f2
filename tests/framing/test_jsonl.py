"""The line reader: any cut, bounds, blank lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenwire.errors import FramingError
from tokenwire.framing.jsonl import LineDecoder


def decode(reads: list[bytes]) -> list[bytes]:
    decoder = LineDecoder()
    return [line for read in reads for line in decoder.feed(read)] + decoder.finish()


def test_lines_come_without_ends_and_blanks_are_dropped() -> None:
    reads = [b'\xef\xbb\xbf{"a":1}\r\n\n  \n{"b"', b':2}\n{"c":3}']
    assert decode(reads) == [b'{"a":1}', b'{"b":2}', b'{"c":3}']


@given(st.lists(st.sampled_from([b"a", b"\n", b"\r\n", b" ", b"\xef\xbb\xbf"]), max_size=30))
def test_any_cut_gives_the_same_lines(tokens: list[bytes]) -> None:
    whole = b"".join(tokens)
    assert decode([whole]) == decode([whole[i : i + 1] for i in range(len(whole))])


def test_a_line_over_its_bound_is_a_typed_error_after_what_came_before() -> None:
    decoder = LineDecoder(max_line=10)
    assert decoder.feed(b"a\n" + b"x" * 11) == [b"a"]
    with pytest.raises(FramingError):
        decoder.feed(b"\n")
    with pytest.raises(FramingError):
        decoder.finish()
    assert decoder.finish() == []


def test_a_long_line_in_tiny_pieces_is_read_whole() -> None:
    decoder = LineDecoder(max_line=4 << 20)
    for _ in range(1 << 16):
        decoder.feed(b"0123456789abcdef")
    assert len(decoder.feed(b"\n")[0]) == 1 << 20
