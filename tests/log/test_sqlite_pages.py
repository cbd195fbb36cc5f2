"""Pages of a SQLite log: what is read of them is what was written, or an error."""

from __future__ import annotations

import sqlite3
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.errors import StoreDamagedError
from tokenwire.log.sqlite import pages
from tokenwire.log.sqlite.pages import Page, cut, insert
from tokenwire.log.sqlite.schema import JOURNAL, checksum

SID = 7
#: What a reader turns into a `StoreDamagedError`.
REFUSED = (StoreDamagedError, TypeError, ValueError)

AT_ONCE = st.sampled_from([1, 1000, pages.READ_BYTES])
RECORDS = st.lists(st.binary(max_size=40), min_size=1, max_size=200)
LARGE = st.lists(st.sampled_from([0, 1, 50_000, 140_000]), min_size=1, max_size=12).map(
    lambda sizes: [bytes([number]) * size for number, size in enumerate(sizes)]
)


def paged(records: list[bytes], *, is_old: bool = False) -> list[Page]:
    checks = [checksum(record, SID, number) for number, record in enumerate(records, 1)]
    some = list(cut(SID, 1, 0, records, checks))
    if is_old:
        some = [(key, total, entries[:-4], data) for key, total, entries, data in some]
    return some


def stored(some: list[Page]) -> sqlite3.Connection:
    """A file with these pages, between those of other logs."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(JOURNAL)
    for sid in (SID - 1, SID + 1):
        insert(connection, list(cut(sid, 1, 0, [b"another"], [checksum(b"another", sid, 1)])))
    insert(connection, list(some))
    return connection


def read_pages(
    connection: sqlite3.Connection,
    sid: int,
    log: str,
    after: int,
    most: int,
    most_bytes: int,
    at_once: int = pages.READ_BYTES,
) -> list[bytes]:
    """With the twin in C, where it is installed, and without. ``at_once``: bytes of a statement."""
    answers: list[list[bytes] | str] = []
    error: Exception | None = None
    for native in (pages._native, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pages, "_native", native)
            patch.setattr(pages, "READ_BYTES", at_once)
            try:
                answers.append(pages.read_pages(connection, sid, log, after, most, most_bytes))
            except REFUSED as raised:
                error = raised
                answers.append(repr(raised))
    assert answers[0] == answers[1]
    if error is not None:
        raise error
    assert isinstance(answers[0], list)
    return answers[0]


def expected(records: list[bytes], after: int, most: int, most_bytes: int) -> list[bytes]:
    page = records[after : after + most]
    count = sum(end <= most_bytes for end in accumulate(map(len, page)))
    return page[: max(1, count)]


@given(
    st.one_of(RECORDS, LARGE),
    st.data(),
    st.integers(1, 300),
    st.one_of(st.integers(0, 3000), st.integers(0, 400_000)),
    st.booleans(),
    AT_ONCE,
)
@settings(max_examples=300)
def test_any_part_of_a_log_is_read_as_it_was_written(
    records: list[bytes],
    data: st.DataObject,
    most: int,
    most_bytes: int,
    is_old: bool,
    at_once: int,
) -> None:
    after = data.draw(st.integers(0, len(records) - 1))
    connection = stored(paged(records, is_old=is_old))
    read = read_pages(connection, SID, "s", after, most, most_bytes, at_once)
    assert read == expected(records, after, most, most_bytes)
    everything: list[bytes] = []
    while len(everything) < len(records):
        everything += read_pages(connection, SID, "s", len(everything), most, most_bytes, at_once)
    assert everything == records


@given(RECORDS, st.data(), st.booleans())
@settings(max_examples=600)
def test_damage_of_any_kind_gives_an_error_or_the_truth(
    records: list[bytes], data: st.DataObject, is_old: bool
) -> None:
    some = paged(records, is_old=is_old)
    for _ in range(data.draw(st.integers(1, 3))):
        which = data.draw(st.integers(0, len(some) - 1))
        key, total, entries, body = some[which]
        kind = data.draw(st.sampled_from(["flip", "cut", "swap", "type", "lose", "total"]))
        if kind == "flip" and entries + body:
            at = data.draw(st.integers(0, len(entries) + len(body) - 1))
            both = bytearray(entries + body)
            both[at] ^= data.draw(st.integers(1, 255))
            entries, body = bytes(both[: len(entries)]), bytes(both[len(entries) :])
        elif kind == "cut":
            entries = entries[: data.draw(st.integers(0, len(entries)))]
            body = body[: data.draw(st.integers(0, len(body)))]
        elif kind == "swap":
            other = data.draw(st.integers(0, len(some) - 1))
            entries, body = some[other][2:]
        elif kind == "total":
            total = data.draw(st.integers(-(1 << 40), 1 << 40))
        elif kind == "lose" and len(some) > 1:
            del some[which]
            continue
        else:
            entries = data.draw(st.sampled_from([b"", entries * 2, entries[4:]]))
        some[which] = key, total, entries, body
    connection = stored(some)
    if data.draw(st.booleans()):
        wrong = data.draw(st.sampled_from(["'text'", "17", "x'00'", "zeroblob(0)"]))
        column = data.draw(st.sampled_from(["entries", "data"]))
        which = data.draw(st.sampled_from(some))[0]
        connection.execute(f"UPDATE page SET {column} = {wrong} WHERE id = ?", (which,))
    after = data.draw(st.integers(0, len(records) - 1))
    most = data.draw(st.integers(1, 200))
    try:
        read = read_pages(connection, SID, "s", after, most, 1 << 20, data.draw(AT_ONCE))
    except REFUSED:
        return
    assert read == records[after : after + len(read)]
    assert 0 < len(read) <= most


@pytest.mark.parametrize("part", ["record", "length", "check of a record", "check of the page"])
def test_what_is_whole_of_a_damaged_page_is_returned(part: str) -> None:
    records = [b"record %03d" % number for number in range(1, 193)]
    some = paged(records)
    key, total, entries, data = some[1]
    place = {"length": 8 * 20, "check of a record": 8 * 20 + 4, "check of the page": -4}.get(part)
    changed = bytearray(data if place is None else entries)
    changed[20 * 10 if place is None else place] ^= 1
    both = (entries, bytes(changed)) if place is None else (bytes(changed), data)
    some[1] = key, total, *both
    connection = stored(some)
    assert read_pages(connection, SID, "s", 0, 84, 1 << 20) == records[:84]
    assert read_pages(connection, SID, "s", 128, 64, 1 << 20) == records[128:]
    if part == "check of the page":
        assert read_pages(connection, SID, "s", 0, 192, 1 << 20) == records
        return
    for after in (0, 70, 84):
        with pytest.raises(StoreDamagedError, match="record 85 of log s"):
            read_pages(connection, SID, "s", after, 192, 1 << 20)
    if part != "length":  # after a wrong length nothing is where it should be
        assert read_pages(connection, SID, "s", 85, 107, 1 << 20) == records[85:]


def test_a_page_of_another_place_is_refused() -> None:
    """Also one that is whole in itself."""
    some = paged([b"one"] * 64 + [b"two"] * 64)
    first, second = some
    connection = stored([(first[0], first[1], *second[2:]), second])
    with pytest.raises(StoreDamagedError, match="record 1 of log s"):
        read_pages(connection, SID, "s", 0, 128, 1 << 20)
    assert read_pages(connection, SID, "s", 64, 128, 1 << 20) == [b"two"] * 64


def test_most_pages_are_checked_by_one_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def matching(log: str, sid: int, first: int, records: list[bytes], checks: object) -> None:
        checked.append(first)

    monkeypatch.setattr(pages, "matching", matching)
    records = [b"%d" % number for number in range(300)]
    some = paged(records)
    some[2] = (*some[2][:2], some[2][2][:-4], some[2][3])
    monkeypatch.setattr(pages, "_native", None)
    assert pages.read_pages(stored(some), SID, "s", 0, 300, 1 << 20) == records
    assert checked == [129]
