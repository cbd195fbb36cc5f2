"""An agent whose run another worker has: its code is cancelled, whatever it is at, and writes
nothing more."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.agents import asked, worker
from tokenwire import RunContext, agent
from tokenwire.log.sqlite.store import SQLiteStore


async def _fence(path: Path, run: str) -> SQLiteStore:
    """Take the run as a worker does that thinks its lease is over."""
    other = SQLiteStore(f"{path / 'runs.db'}", clock=lambda: time.time() + 1000)
    await other.start()
    claim = await other.claim(run, owner="another", lease=1000)
    assert claim is not None
    assert claim.epoch == 2
    return other


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("where", ["silent", "step", "speaking"])
async def test_it_is_cancelled_wherever_it_is(tmp_path: Path, where: str) -> None:
    progress: list[str] = []

    async def work() -> str:
        progress.append("begun")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            progress.append("cancelled")
            raise
        return "done"

    @agent
    async def one(ctx: RunContext):
        yield "Hello."
        if where == "step":
            await ctx.step("work", work)
        elif where == "silent":
            await work()
        else:
            progress.append("begun")
            try:
                while True:
                    yield "More. "
                    await asyncio.sleep(0.01)
            finally:
                progress.append("cancelled")

    async with worker(tmp_path, one) as runs:
        run = (await runs.start(asked(), model="one")).id
        await _until(lambda: "begun" in progress)
        owned = runs.owned[run]
        other = await _fence(tmp_path, run)
        tail = (await other.describe(run)).tail
        await _until(owned.task.done)
        assert progress == ["begun", "cancelled"]
        info = await other.describe(run)
        assert (info.tail, info.epoch, info.owner, info.closed) == (tail, 2, "another", None)
        assert run not in runs.owned
        await other.close()
