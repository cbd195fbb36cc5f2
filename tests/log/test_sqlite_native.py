"""The native twin of reading pages: found or not, and the same as the Python in every case."""

from __future__ import annotations

import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire import __version__
from tokenwire.errors import StoreDamagedError
from tokenwire.log.sqlite import pages
from tokenwire.log.sqlite.pages import PAGES, _in_python, cut, native_reader
from tokenwire.log.sqlite.schema import checksum

native: Any = pages._native
needs_twin = pytest.mark.skipif(native is None, reason="the twin is not installed")

#: What a damaged file can make of the columns.
WORDS = st.one_of(
    st.text("0123456789,", max_size=30),
    st.text(max_size=10),
    st.integers(0, 1 << 70).map(str),
    st.sampled_from(["", ",", "1,", ",1", "12,12", "-1", "+1", " 1", "0", "4611686018427387904"]),
)


def columns(sid: int, records: list[bytes]) -> list[Any]:
    """What `pages.READ` gives of a log with these records."""
    checks = [checksum(record, sid, number) for number, record in enumerate(records, 1)]
    some = list(cut(sid, 1, 0, records, checks))
    entries, data = [page[2] for page in some], [page[3] for page in some]
    lengths = (",".join(str(len(one)) for one in each) for each in (entries, data))
    return [",".join(str(page[0]) for page in some), *lengths, b"".join(entries), b"".join(data)]


def compare(given_columns: list[Any], start: int, most: int) -> list[bytes] | None:
    """The twin's answer, which is that of the Python, or none."""
    answer = native(*given_columns, start, most)
    keys, *sizes, entries, data = given_columns
    if answer is not None:
        assert answer == _in_python("s", keys, sizes, entries, data, start, most)
    return answer


@needs_twin
@given(st.lists(st.binary(max_size=90), min_size=1, max_size=200), st.data())
@settings(max_examples=300)
def test_any_part_of_a_log_is_that_of_the_python(records: list[bytes], data: st.DataObject) -> None:
    sid = data.draw(st.integers(1, (1 << 30) - 1))
    after = data.draw(st.integers(0, min(63, len(records) - 1)))
    most = data.draw(st.integers(1, 300))
    answer = compare(columns(sid, records), (sid << 32) + after, most)
    assert answer == records[after : after + most]


@needs_twin
@given(st.lists(st.binary(max_size=9), min_size=1, max_size=130), st.data())
@settings(max_examples=500)
def test_damage_to_any_columns_is_left_to_the_python(
    records: list[bytes], data: st.DataObject
) -> None:
    some = columns(5, records)
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, 4))
        if which < 3:
            words = some[which].split(",")
            words[data.draw(st.integers(0, len(words) - 1))] = data.draw(WORDS)
            some[which] = data.draw(st.one_of(WORDS, st.just(",".join(words))))
        else:
            changed = bytearray(some[which])
            if changed and data.draw(st.booleans()):
                changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1
            some[which] = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    start = (5 << 32) + data.draw(st.integers(0, 140))
    try:
        answer = compare(some, start, data.draw(st.integers(1, 200)))
    except (StoreDamagedError, ValueError, TypeError):
        raise AssertionError("the twin took what the Python refuses") from None
    after = start - (5 << 32)
    assert answer is None or answer == records[after : after + len(answer)]


@needs_twin
@given(WORDS, WORDS, WORDS, st.binary(max_size=80), st.binary(max_size=80), st.integers(0, 1 << 62))
@settings(max_examples=500)
def test_any_columns_are_well(
    keys: str, entry_sizes: str, data_sizes: str, entries: bytes, data: bytes, start: int
) -> None:
    assert native(keys, entry_sizes, data_sizes, entries, data, start, 9) is None


@needs_twin
def test_other_types_are_left_to_the_python_or_refused() -> None:
    some = columns(5, [b"one", b"two"])
    start = 5 << 32
    assert native(*some, start, 2) == [b"one", b"two"]
    for which, other in enumerate((None, 5, b"5", None, bytearray(some[4]))):
        changed = [*some[:which], other, *some[which + 1 :]]
        assert native(*changed, start, 2) is None
    assert native(*some, -start, 2) is None
    assert native(*some, start, -1) is None
    for arguments in ((), some, (*some, start), (*some, "5", 2), (*some, start, 1 << 80)):
        with pytest.raises((TypeError, OverflowError)):
            native(*arguments)


@needs_twin
@given(st.binary(max_size=400), st.integers(0, (1 << 32) - 1), st.integers(0, 20))
@settings(max_examples=500)
def test_the_checksum_of_any_bytes_is_zlib_s(data: bytes, value: int, skipped: int) -> None:
    import tokenwire_pages

    part = memoryview(data)[min(skipped, len(data)) :]
    expected = zlib.crc32(part, value)
    assert tokenwire_pages.crc32(part, value, False) == expected
    assert tokenwire_pages.crc32(part, value, True) == expected


def test_the_twin_has_the_version_and_the_number_of_this_release() -> None:
    source = (Path(__file__).parents[2] / "speedups" / "tokenwire_pages.c").read_text("utf-8")
    assert f'#define VERSION "{__version__}"\n' in source
    assert f"#define PAGES {PAGES}\n" in source


def read(*arguments: object) -> None:
    """A twin's function."""


@pytest.mark.parametrize(
    ("installed", "is_used"),
    [
        (None, False),
        (SimpleNamespace(), False),
        (SimpleNamespace(__version__="0.0.9", PAGES=PAGES, read=read), False),
        (SimpleNamespace(__version__=__version__, PAGES=PAGES + 1, read=read), False),
        (SimpleNamespace(__version__=__version__, PAGES=PAGES, read=read), True),
    ],
)
def test_only_a_twin_of_this_release_is_used(
    installed: Any, is_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOKENWIRE_SPEEDUPS", raising=False)
    monkeypatch.setitem(sys.modules, "tokenwire_pages", installed)
    assert native_reader() is (read if is_used else None)
    monkeypatch.setenv("TOKENWIRE_SPEEDUPS", " Off ")
    assert native_reader() is None
