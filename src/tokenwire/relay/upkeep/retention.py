"""Erasing what nobody has used for long: conversations, runs without one, and all that is theirs.

Always true: of the processes of a store one sweeps at a time; a run whose end is still to be told
waits, and its conversation with it; what lies elsewhere follows its run, also after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

import msgspec

from tokenwire.errors import GoneError, LogError, NotFoundError
from tokenwire.log.base import Due, Store

__all__ = ["Cleaner", "Deliveries", "Retention"]

_log = logging.getLogger("tokenwire.relay")

#: Erases what belongs to runs that are gone, and to conversations of which nothing is left (by
#: their names in the store); it looks itself whether a conversation has begun anew since.
Cleaner = Callable[[list[str], list[str]], Awaitable[None]]

#: Documents of what is about to be erased, so that who comes after a crash can clean up.
_ERASING = "erasing"
#: The document that says whose turn it is to sweep.
_TURN = ("upkeep", "sweep")
#: Seconds between two sweeps, at most; and that a sweep may take.
PAUSE, TURN_SECONDS = 60.0, 120.0


class Deliveries(Protocol):
    """What is to be told about runs, such as `tokenwire.relay.outbox.Outbox`."""

    async def undelivered(self, runs: list[str]) -> set[str]:
        """Those of ``runs`` of which something is still to be told: they are kept until then."""
        ...

    async def drop(self, runs: list[str]) -> None:
        """The runs were erased: drop what could not be delivered about them."""
        ...


class _Batch(msgspec.Struct):
    logs: list[str]
    threads: list[str]


class _Turn(msgspec.Struct):
    owner: str
    until: float


class Retention:
    """Sweeps ``store`` a few times within ``seconds``, the time for which a conversation is kept
    after its last use. ``deliveries``: what is waited for."""

    def __init__(
        self, store: Store, seconds: float, *, deliveries: Iterable[Deliveries] = ()
    ) -> None:
        self.cleaners: list[Cleaner] = []
        self._store = store
        self._seconds = seconds
        self._deliveries = list(deliveries)
        self._owner = secrets.token_hex(8)
        self._pause = min(PAUSE, max(0.5, seconds / 4))
        self._batch: str | None = None
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to sweep."""
        self._task = asyncio.create_task(self._work(), name="retention")

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                if await self._take_turn(TURN_SECONDS):
                    await self.sweep()
                    await self._take_turn(self._pause * 0.9)
            except LogError as error:
                _log.warning("old runs could not be erased: %s", error)
            except Exception:
                _log.exception("erasing old runs failed; it goes on")

    async def _take_turn(self, seconds: float) -> bool:
        """Whether no other process of the store sweeps, or has just done so."""
        if not self._store.shared:
            return True
        data, now = await self._store.document(*_TURN), time.time()
        turn = msgspec.json.decode(data, type=_Turn) if data is not None else None
        if (
            turn is not None
            and turn.owner != self._owner
            and now < turn.until <= now + TURN_SECONDS
        ):
            return False
        mine = msgspec.json.encode(_Turn(self._owner, now + seconds))
        return await self._store.swap_document(*_TURN, data, mine)

    async def sweep(self) -> int:
        """Erase what is due; how many runs went. Raises `LogError`."""
        for name, data in (await self._store.documents(_ERASING)).items():
            await self._clean_up(name, msgspec.json.decode(data, type=_Batch))
        return await self._store.expire(retention=self._seconds, sweeper=self)

    async def _clean_up(self, name: str, batch: _Batch) -> None:
        """What a sweep that did not end has left."""
        erased = [log for log in batch.logs if await self._is_gone(log)]
        await self._clean(erased, batch.threads)
        await self._store.set_document(_ERASING, name, None)

    async def _is_gone(self, log: str) -> bool:
        try:
            await self._store.describe(log)
        except (NotFoundError, GoneError):
            return True
        return False

    async def _clean(self, logs: list[str], threads: list[str]) -> None:
        for delivery in self._deliveries:
            await delivery.drop(logs)
        for cleaner in self.cleaners:
            await cleaner(logs, threads)

    # What the store asks and tells while it erases.

    async def before(self, due: list[Due]) -> list[Due]:
        for delivery in self._deliveries:
            waiting = await delivery.undelivered([log for one in due for log in one.logs])
            due = [one for one in due if waiting.isdisjoint(one.logs)]
        if not due:
            return []
        logs = [log for one in due for log in one.logs]
        threads = [one.thread for one in due if one.thread is not None]
        self._batch = secrets.token_hex(8)
        data = msgspec.json.encode(_Batch(logs, threads))
        await self._store.set_document(_ERASING, self._batch, data)
        return due

    async def after(self, erased: list[Due]) -> None:
        logs = [log for one in erased for log in one.logs]
        threads = [one.thread for one in erased if one.thread is not None and one.is_all]
        await self._clean(logs, threads)
        if self._batch is not None:
            await self._store.set_document(_ERASING, self._batch, None)
