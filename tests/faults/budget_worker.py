"""A worker process whose runs have budgets, meant to be killed at any change of the money: while a
run reserves, while it is settled, and between the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from datetime import UTC
from multiprocessing.connection import Connection
from typing import Any, cast

from faults import worker as fault_worker
from faults.journal import Journal
from faults.worker import Place
from tokenwire.errors import TokenwireError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.relay.runs import Runs
from tokenwire.relay.spending.budgets import budgets_of
from tokenwire.relay.spending.settling import Settling

#: Tokens that a run reserves at a time.
SLICE = 25
#: Of each principal, tenant and conversation. At the price of `CHEAP` tokens end the runs, at that
#: of `DEAR` money does.
BUDGETS = budgets_of(["principal/day=400", "tenant/month=$0.0006", "thread=250"])
CHEAP, DEAR = "cheap", "dear"
#: Billionths of a dollar for a million tokens, in and out.
PRICES = {
    f"demo/{CHEAP}": (500_000_000, 500_000_000),
    f"demo/{DEAR}": (3_000_000_000, 3_000_000_000),
}


class Purse:
    """The store, as `Settling` has it: its worker can be told to die at a change that is to come,
    before or after it is made."""

    def __init__(self, store: Any, journal: Journal, owner: str) -> None:
        self._store, self._journal, self._owner = store, journal, owner
        self._changes_left: int | None = None
        self._is_after = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def aim(self, changes: int, *, is_after: bool) -> None:
        """Die at the change after so many others."""
        self._changes_left, self._is_after = changes, is_after

    async def swap_document(self, kind: str, name: str, old: Any, new: Any) -> bool:
        is_last = self._changes_left == 0
        if self._changes_left:
            self._changes_left -= 1
        if is_last and not self._is_after:
            _die()
        is_made = await self._store.swap_document(kind, name, old, new)
        if is_last:
            _die()
        self._journal.write("change", name=kind, who=self._owner)
        return is_made

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        if self._changes_left == 0 and not self._is_after:
            _die()
        await self._store.set_document(kind, name, data)
        if self._changes_left == 0:
            _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # another thread of the process may take the signal, a moment later


async def serve(pipe: Connection, place: Place) -> None:
    loop = asyncio.get_running_loop()
    orders: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    journal, owner = Journal(place.journal), place.owner()
    runs = fault_worker.make_runs(place, journal, owner=owner)
    purse = Purse(runs.store, journal, owner)
    settling = Settling(cast("Store", purse), UTC, PRICES)
    runs.worker.settle_with(settling, BUDGETS, slice_tokens=SLICE)
    await runs.open()
    carriers: set[asyncio.Task[None]] = set()

    def receive() -> None:
        try:
            orders.put_nowait(pipe.recv())
        except (EOFError, OSError):
            loop.remove_reader(pipe.fileno())
            orders.put_nowait(None)

    async def carry_out(order: dict[str, Any]) -> None:
        answer: dict[str, Any] = {"order": order["order"]}
        try:
            answer["run"] = await _start(runs, order)
        except TokenwireError as error:
            answer |= {"error": error.code, "message": str(error)}
        except Exception as error:  # a bug: the harness says so
            answer |= {"error": "bug", "message": repr(error)}
        with contextlib.suppress(OSError):
            pipe.send(answer)

    loop.add_reader(pipe.fileno(), receive)
    pipe.send({"ready": True})
    while (order := await orders.get()) is not None:
        if order["do"] == "die":
            purse.aim(order["changes"], is_after=order["is_after"])
            continue
        task = asyncio.create_task(carry_out(order))
        carriers.add(task)
        task.add_done_callback(carriers.discard)
    await fault_worker.leave(runs)


async def _start(runs: Runs, order: dict[str, Any]) -> str:
    info = await runs.start(
        Request(messages=[user(order["text"])]),
        model=order["model"],
        principal=order["principal"],
        thread=order["thread"],
        key=order["key"],
        tools=False,
    )
    return info.id


def main(pipe: Connection, place: Place) -> None:
    logging.getLogger("tokenwire").setLevel(logging.ERROR)  # that runs are lost is the point
    asyncio.run(serve(pipe, place))
