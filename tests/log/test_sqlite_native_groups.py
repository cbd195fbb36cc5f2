"""The native twins of what the SQLite writer does with a group and a page: as the Python."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenwire.log.base import Appended
from tokenwire.log.spool import Spool, Spools
from tokenwire.log.sqlite import pages, writer
from tokenwire.log.sqlite.heads import Head
from tokenwire.log.sqlite.pages import cut
from tokenwire.log.sqlite.schema import checksum
from tokenwire.log.sqlite.store import SQLiteStore

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
