"""Workers of agents on one SQLite file, which die as if they were killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tokenwire import Runs, open_store
from tokenwire.agents.load import agents_of
from tokenwire.events import model as m
from tokenwire.events.message import user
from tokenwire.events.order import Order
from tokenwire.events.request import Request

LEASE = 0.4


@asynccontextmanager
async def worker(path: Path, *agents: Any, **more: Any) -> AsyncIterator[Runs]:
    runs = Runs(
        open_store(f"sqlite:{path / 'runs.db'}"),
        agents=agents_of(agents),
        lease=LEASE,
        owner=f"elsewhere:{id(agents)}:x",
        **{"leave_for": 0.5, **more},
    )
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


def crash(runs: Runs) -> None:
    """The process is gone: no task of it does anything any more, and nothing is released."""
    assert runs._tender is not None
    runs._tender.cancel()
    for owned in list(runs.owned.values()):
        owned.task.cancel()
    runs.owned.clear()


async def events_of(
    runs: Runs, run: str, until: Callable[[m.Event], bool] | None = None
) -> list[Any]:
    events: list[Any] = []
    follower = await runs.follow(run)
    try:
        async with asyncio.timeout(60):
            while (batch := await follower.next()) is not None:
                for _, event in batch.events():
                    events.append(event)
                    if until is not None and until(event):
                        return events
    finally:
        follower.close()
    order = Order()
    for event in events:
        order.check(event)
    assert order.state == "ended"
    return events


def asked(text: str = "Hello") -> Request:
    return Request(messages=[user(text)])
