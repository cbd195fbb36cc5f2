"""Conversations that nobody uses any more, and all that goes with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.spine import run_async
from tokenwire.errors import GoneError, NotFoundError
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.relay import outbox as outbox_module
from tokenwire.relay.outbox import EndedRun, Outbox
from tokenwire.relay.upkeep import retention as retention_module
from tokenwire.relay.upkeep.retention import Retention

KIND = outbox_module._KIND


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'runs.db'}"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    store = open_store(url)
    await store.start()
    try:
        yield store
    finally:
        await store.close()


async def ended(store: Store, run: str, thread: str | None = None) -> None:
    await store.create(run, owner="me", thread=thread)
    await store.append(run, epoch=1, first=1, records=[b"x"], close="complete")


async def is_there(store: Store, run: str) -> bool:
    try:
        await store.describe(run)
    except (GoneError, NotFoundError):
        return False
    return True


class Cleaned:
    """A cleaner that notes what it is told, and may fail."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], list[str]]] = []
        self.failures = 0

    async def __call__(self, runs: list[str], threads: list[str]) -> None:
        if self.failures:
            self.failures -= 1
            raise RuntimeError("the process died here")
        self.calls.append((runs, threads))


async def on_end(ended: EndedRun) -> None:
    raise AssertionError("nothing is told in these tests")


def note(**fields: Any) -> bytes:
    return msgspec.json.encode({"since": 0.0, **fields})


@pytest.mark.parametrize("is_failed", [False, True])
def test_what_is_still_to_be_told_is_kept_until_it_was_or_has_failed(
    url: str, is_failed: bool
) -> None:
    async def main() -> None:
        async with opened(url) as store:
            for run, thread in [("told", "t"), ("waits", "t"), ("alone", None), ("other", None)]:
                await ended(store, run, thread)
            for run in ("waits", "alone"):
                await store.set_document(KIND, run, note(is_failed=is_failed))
            retention = Retention(store, -1.0, deliveries=[Outbox(store, on_end)])
            cleaned = Cleaned()
            retention.cleaners.append(cleaned)
            count = await retention.sweep()
            there = [run for run in ("told", "waits", "alone") if await is_there(store, run)]
            assert not await is_there(store, "other")
            if is_failed:
                assert (count, there) == (4, [])
                assert await store.documents(KIND) == {}, "what failed goes with its run"
            else:
                assert (count, there) == (1, ["told", "waits", "alone"])
                assert cleaned.calls == [(["other"], [])]
                for run in ("waits", "alone"):
                    await store.set_document(KIND, run, None)
                await asyncio.sleep(2.1)  # they are due again a moment later
                assert await retention.sweep() == 3
            assert await store.documents(retention_module._ERASING) == {}

    run_async(main())


def test_what_a_sweep_leaves_is_cleaned_by_the_next(url: str) -> None:
    async def main() -> None:
        async with opened(url) as store:
            await ended(store, "a", "t")
            await ended(store, "b", "t")
            await ended(store, "c")
            cleaned = Cleaned()
            cleaned.failures = 1
            first = Retention(store, -1.0)
            first.cleaners.append(cleaned)
            with pytest.raises(RuntimeError):
                await first.sweep()
            assert cleaned.calls == []
            second = Retention(store, -1.0)
            second.cleaners.append(cleaned)
            await second.sweep()
            runs = [run for call in cleaned.calls for run in call[0]]
            assert sorted(runs) == ["a", "b", "c"]
            assert [thread for call in cleaned.calls for thread in call[1]] == ["t"]
            assert await store.documents(retention_module._ERASING) == {}
            await second.sweep()
            assert len(cleaned.calls) == 1

    run_async(main())


def test_one_process_of_a_store_sweeps_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(f"sqlite:{tmp_path / 'runs.db'}") as store:
            first, second = Retention(store, 600.0), Retention(store, 600.0)
            assert await first._take_turn(60)
            assert not await second._take_turn(60)
            assert await first._take_turn(0.05), "its own turn may go on"
            await asyncio.sleep(0.1)
            assert await second._take_turn(60)
            assert not await first._take_turn(60)
            # A turn that ends in a time far off was written with another clock.
            far = msgspec.json.encode({"owner": "x", "until": 1e12})
            await store.set_document(*retention_module._TURN, far)
            assert await first._take_turn(60)

    run_async(main())


def test_it_sweeps_by_itself_and_survives_a_cleaner_that_fails(url: str) -> None:
    async def main() -> None:
        async with opened(url) as store:
            await ended(store, "a", "t")
            cleaned = Cleaned()
            cleaned.failures = 2
            retention = Retention(store, 0.2)
            retention.cleaners.append(cleaned)
            retention._pause = 0.05
            retention.open()
            async with asyncio.timeout(60):
                while not cleaned.calls:
                    await asyncio.sleep(0.02)
            await retention.aclose()
            assert cleaned.calls == [(["a"], ["t"])]

    run_async(main())
