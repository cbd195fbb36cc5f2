"""The native twins of what the SQLite writer does with a group and a page: as the Python."""

from __future__ import annotations

import asyncio
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.log.base import Appended
from tokenwire.log.spool import Spool, Spools
from tokenwire.log.sqlite import journal, pages, writer
from tokenwire.log.sqlite.heads import Head
from tokenwire.log.sqlite.pages import cut
from tokenwire.log.sqlite.schema import checksum
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.tail import Heard

module: Any = pages.native_module()
needs_twin = pytest.mark.skipif(module is None, reason="the twin is not installed")

NAMES = ("a", "b", "c", "d{x}%")


@needs_twin
@given(
    st.integers(1, (1 << 30) - 1),
    st.integers(1, 1 << 31),
    st.integers(0, 1 << 40),
    st.lists(st.binary(max_size=90), max_size=200),
    st.integers(1, 64),
    st.integers(1, 300),
)
@settings(max_examples=200)
def test_generated_pages_are_those_of_the_python(
    sid: int, first: int, total: int, records: list[bytes], most: int, most_bytes: int
) -> None:
    checks = [checksum(record, sid, number) for number, record in enumerate(records, first)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGE_RECORDS", most)
        patch.setattr(pages, "PAGE_BYTES", most_bytes)
        native = list(cut(sid, first, total, records, checks))
        assert module.cut(sid, first, total, records, checks, most, most_bytes) == native
        patch.setattr(pages, "_native_cut", None)
        assert list(cut(sid, first, total, records, checks)) == native


@needs_twin
@pytest.mark.parametrize(
    ("sid", "first", "records", "checks"),
    [
        (1 << 30, 1, [b"x"], [1]),
        (1, (1 << 32) - 1, [b"x"], [1]),
        (1, 1, [bytearray(b"x")], [1]),
        (1, 1, [b"x"], [1.0]),
        (1, 1, [b"x"], []),
    ],
)
def test_pages_that_are_not_plain_are_left_to_the_python(
    sid: int, first: int, records: list[Any], checks: list[Any]
) -> None:
    assert module.cut(sid, first, 0, records, checks, 64, 1000) is None


#: A step: the log, how many records, their length, and what is the matter with the item.
STEP = st.tuples(
    st.sampled_from(NAMES),
    st.integers(1, 7),
    st.integers(0, 40),
    st.sampled_from(["", "", "", "", "fenced", "gap", "again", "closed", "unknown", "subclass"]),
)


class OtherSpool(Spool):
    __slots__ = ()


def state_of(half: writer.Writer) -> tuple[Any, ...]:
    """All that a group changes in a writer."""
    heads = {
        name: tuple(getattr(head, slot) for slot in Head.__slots__)
        for name, head in half._heads.by_name.items()
    }
    due = {sid: head.name for sid, head in half._pager.due.items()}
    return heads, due, half._numbers.tolist(), half._records, half._size


async def groups(path: str, steps: list[list[tuple[str, int, int, str]]], row: int) -> list[Any]:
    """The outcomes of groups, and what the writer holds after each, in a store of its own."""
    store = SQLiteStore(path)
    await store.start()
    half = store._writer
    assert half is not None
    spools, found = Spools(lambda batch: None), []
    tapes: dict[str, Spool] = {}
    try:
        for name in NAMES:
            await store.create(name, owner="me")
            tapes[name] = Spool(spools, name, 1, 0)
        await store.append("b", epoch=1, first=1, records=[b"of another task"])
        tapes["b"].records.append(b"")
        half._heads.clear()  # the first item of each has to look it up
        ended: set[str] = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writer, "ROW_BYTES", row)
            patch.setattr(writer, "PAGE_RECORDS", 4)
            half._connection.execute("BEGIN IMMEDIATE")
            half._catch_up()
            for step in steps:
                items: list[Any] = []
                for name, count, size, trouble in step:
                    tape = tapes[name]
                    start = len(tape.records)
                    if trouble == "closed" and name not in ended:
                        ended.add(name)
                        job = writer.AppendJob(name, 1, start + 1, [b"end"], "complete", False)
                        found.append(half._one(job))
                    if trouble == "again" and start:
                        items.append((tape, 0, start))
                        continue
                    if trouble == "gap":
                        further = Spool(spools, name, 1, start + 1)
                        further.records.append(b"behind the gap")
                        items.append((further, start + 1, start + 2))
                        continue
                    records = [bytes([65 + n]) * size for n in range(count)]
                    kind = OtherSpool if trouble == "subclass" else Spool
                    log = "nobody" if trouble == "unknown" else name
                    item = kind(spools, log, 9 if trouble == "fenced" else 1, 0)
                    item.records = [*tape.records, *records]
                    if trouble in ("", "subclass") and name not in ended:
                        tape.records += records
                    items.append((item, start, start + count))
                outcomes = half._append_all(items)
                found += [
                    [repr(one) for one in outcomes or [None] * len(items)],
                    repr(state_of(half)),
                ]
            half._undo()
    finally:
        await store.close()
    return found


@needs_twin
@given(st.lists(st.lists(STEP, max_size=12), max_size=5), st.sampled_from([1, 100, 1 << 20]))
@settings(max_examples=60, deadline=None)
def test_a_generated_group_is_that_of_the_python(
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[list[tuple[str, int, int, str]]],
    row: int,
) -> None:
    folder = tmp_path_factory.mktemp("groups")
    native = asyncio.run(groups(f"{folder}/native.db", steps, row))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_native", None)
        expected = asyncio.run(groups(f"{folder}/python.db", steps, row))
    assert native == expected


@needs_twin
def test_a_plain_group_needs_nothing_of_the_python(tmp_path: Path) -> None:
    """Each log looked up once, and no record appended by itself."""

    async def main() -> None:
        store = SQLiteStore(f"{tmp_path}/log.db")
        await store.start()
        half = store._writer
        assert half is not None
        calls: list[str] = []
        append = half._append_item

        def counted(spool: Spool, start: int, end: int) -> Any:
            calls.append(spool.log)
            return append(spool, start, end)

        half._append_item = counted  # type: ignore[method-assign]
        try:
            for name in "st":
                await store.create(name, owner="me")
            problems: list[Appended | BaseException | None] = []
            for first in range(1, 30):
                for name in "st":
                    store.append_soon(
                        name, epoch=1, first=first, records=[b"x"], then=problems.append
                    )
                async with asyncio.timeout(20):
                    while len(problems) < 2 * first:
                        await asyncio.sleep(0.0005)
            assert problems == [None] * 58
            assert sorted(calls) == ["s", "t"]
        finally:
            await store.close()

    asyncio.run(main())


class Shifted:
    __slots__ = ("a", *Head.__slots__)


class Borrowed:
    """Members of another class, which lie elsewhere in its objects."""


for _name in Head.__slots__:
    setattr(Borrowed, _name, getattr(Head, _name))


@needs_twin
@pytest.mark.parametrize("classes", [(Shifted, object), (Borrowed, Spool)])
def test_classes_that_do_not_fit_leave_those_before(classes: tuple[type, type]) -> None:
    spool = Spool(Spools(lambda batch: None), "log", 1, 0)
    spool.records.append(b"record")
    try:
        with pytest.raises(TypeError, match="is no slot"):
            module.bind(*classes)
        heads, numbers, records = {"log": Head("log", 3, 1, None, 0, 0)}, array("I"), []
        found = module.append([(spool, 0, 1)], 0, heads, {}, numbers, records, 64, 1 << 20)
    finally:
        module.bind(Head, Spool)
    assert found == (1, 6)
    assert (numbers[:3].tolist(), records) == ([3, 1, 6], [b"record"])
    assert (heads["log"].tail, heads["log"].total) == (1, 6)


entries = st.lists(
    st.tuples(
        st.integers(0, 4), st.integers(0, 5), st.binary(max_size=80), st.sampled_from([0, 0, 0, 1])
    ),
    max_size=30,
)


@needs_twin
@given(entries, st.integers(0, 60), st.booleans())
@settings(max_examples=300)
def test_what_a_row_has_for_readers_is_that_of_the_python(
    rows: list[tuple[int, int, bytes, int]], missing: int, is_cut: bool
) -> None:
    numbers, data = array("I"), b"".join(record for _, _, record, _ in rows)
    for sid, offset, record, damage in rows:
        numbers.extend((sid, offset, len(record), checksum(record, sid, offset) ^ damage))
    if is_cut:  # of a row that is not whole
        data = data[:-missing] if missing else data
    readers = {1: "a", 2: "b", 4: "d"}
    results = []
    for found_in in (journal._in_python, module.records_of):
        before: Heard = "b", 1, [b"x"]
        appends: list[Heard] = [before]
        newest: dict[str, Heard] = {"b": before}
        found_in(numbers, data, readers, appends, newest)
        results.append((appends, newest, [newest[log] is one for one in appends for log in newest]))
    assert results[0] == results[1]


def test_records_of_a_row_that_follow_each_other_are_together() -> None:
    records = [("a", 5, b"one"), ("b", 1, b"other"), ("a", 6, b"two"), ("a", 8, b"four")]
    numbers, sids = array("I"), {"a": 1, "b": 2}
    for log, offset, record in records:
        numbers.extend((sids[log], offset, len(record), checksum(record, sids[log], offset)))
    numbers.extend((1, 0, 0, 0))  # something else happened to it
    numbers.extend((1, 9, 3, 17))  # not what it was
    data = b"".join(record for _, _, record in records) + b"bad"
    for found_in in {journal._in_python, journal.records_of}:
        appends: list[Any] = []
        found_in(numbers, data, {1: "a"}, appends, {})
        assert appends == [("a", 4, [b"one", b"two"]), ("a", 7, [b"four"]), ("a", 8, None)]
