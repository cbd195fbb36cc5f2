"""A process that commits all the time, and readers there of what other processes append."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tokenwire.log.sqlite.reader import LOOK_SECONDS, NEW_SECONDS, Reader
from tokenwire.log.sqlite.store import SQLiteStore


class Busy:
    """A store that appends by itself, one record after the other, until it is told to stop."""

    def __init__(self, store: SQLiteStore) -> None:
        self.store, self.count, self.goes_on = store, 0, True

    def go_on(self, problem: object | None = None) -> None:
        assert problem is None
        if self.goes_on:
            self.count += 1
            done = self.store.append_soon(
                "mine", epoch=1, first=self.count, records=[b"x"], then=self.go_on
            )
            assert done


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_what_another_process_appends_is_heard_beside_many_commits(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        busy = Busy(here)
        try:
            await here.create("mine", owner="me")
            await there.create("theirs", owner="you")
            offsets: list[int] = []

            def take(offset: int, record: bytes) -> bool:
                offsets.append(offset)
                return True

            here.subscribe("theirs", lambda: None, take=take)
            busy.go_on()
            await until(lambda: busy.count > 20)
            for number in range(1, 21):
                await there.append("theirs", epoch=1, first=number, records=[b"%d" % number])
                if number % 2:
                    await until(lambda n=number: offsets and offsets[-1] >= n)
            await until(lambda: offsets and offsets[-1] == 20)
            assert (await here.read("theirs", fresh=True)).tail == 20
        finally:
            busy.goes_on = False
            await asyncio.sleep(0.01)
            await here.close()
            await there.close()

    asyncio.run(main())


def test_a_command_of_another_process_wakes_beside_many_commits(tmp_path: Path) -> None:
    async def main() -> None:
        here, there = (SQLiteStore(f"{tmp_path}/log.db") for _ in range(2))
        await here.start()
        await there.start()
        busy = Busy(here)
        try:
            await here.create("mine", owner="me")
            woken = asyncio.Event()
            here.subscribe("mine", woken.set, appends=False)
            busy.go_on()
            await until(lambda: busy.count > 20)
            for number in range(5):
                woken.clear()
                await there.command("mine", b"%d" % number)
                await asyncio.wait_for(woken.wait(), 30)
            assert len(await here.commands("mine")) == 5
        finally:
            busy.goes_on = False
            await asyncio.sleep(0.01)
            await here.close()
            await there.close()

    asyncio.run(main())


class Looks:
    """What a writer tells of its looks."""

    def __init__(self) -> None:
        self.looked, self.foreign = 0.0, 0


def test_a_poll_does_not_look_where_the_writer_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        store = SQLiteStore(f"{tmp_path}/log.db")
        await store.start()
        looks, now = Looks(), 100.0
        reader = Reader(
            lambda: store._connect(False),
            store.path,
            identity="",
            is_wanted=lambda log: True,
            changed=lambda touched, appends: None,
            writer=looks,
        )
        with monkeypatch.context() as patch:
            patch.setattr(
                "tokenwire.log.sqlite.reader.time", SimpleNamespace(monotonic=lambda: now)
            )
            assert not reader._is_seen_to()  # nobody has looked
            looks.looked = now
            assert reader._is_seen_to()
            looks.foreign += 1
            assert not reader._is_seen_to()
            assert reader._is_seen_to()
            now += NEW_SECONDS
            assert not reader._is_seen_to()  # it was too long ago
            now += LOOK_SECONDS
            looks.looked = now
            assert not reader._is_seen_to()  # once in a while all the same
            assert reader._is_seen_to()
        reader.close()
        await store.close()

    asyncio.run(main())
