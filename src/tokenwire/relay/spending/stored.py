"""Budgets that operators set while servers run, and which budgets are in force for a run.

Always true: a change is one compare and swap, which keeps who made it; a start is checked against
what was stored at most `STALE` seconds before, on every process of the store, whatever its clock;
where the store does not say what is set, nothing starts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Literal

import msgspec

from tokenwire.errors import ConflictError, LimitError
from tokenwire.events.principal import parts_of
from tokenwire.log.base import Store
from tokenwire.relay.spending.budgets import Budget

__all__ = ["MOST_SET", "STALE", "Change", "Limit", "SetBudgets", "StoredBudgets", "Whose", "of_run"]

Whose = Literal["principal", "tenant", "thread"]
#: Seconds for which a process uses what it has read; and those after which it reads everything
#: again, should a process have died between a change and its mark.
STALE, BACKSTOP = 1.0, 60.0
#: Owners that budgets may be set for: each process holds them all.
MOST_SET = 10_000
#: Changes that are remembered of each owner, and seconds for which an owner without any budget is.
_MOST_CHANGES, _FORGOTTEN = 20, 400 * 86_400.0
_KIND = "budgets"
#: One document that is another after every change.
_MARK = ("budgets-mark", "all")
_PAGE = 1000
#: Tries of a change, each of which another process may come before.
_ATTEMPTS = 20


class Limit(msgspec.Struct, frozen=True):
    """``most`` tokens, or billionths of a dollar, in a ``period`` (None: for good); None: no
    limit, whatever is set elsewhere."""

    period: Literal["day", "month"] | None
    unit: Literal["tokens", "dollars"]
    most: int | None


class Change(msgspec.Struct, kw_only=True):
    """One change: when (Unix seconds), who, what it became, and why, if that was said."""

    at: float
    by: str
    limits: list[Limit]
    note: str | None = None


class SetBudgets(msgspec.Struct, kw_only=True):
    """The budgets of one owner. ``version``: 0 where none were ever set; ``changes``: the newest
    last, which stay when the budgets are cleared."""

    version: int = 0
    limits: list[Limit] = []
    changes: list[Change] = []
    nonce: bytes = b""


class StoredBudgets:
    """The budgets set in one store. Methods raise `LogError`."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._clock = store, clock
        self._table: dict[str, list[Limit]] = {}
        self._has_threads = False
        self._mark: bytes | None = None
        #: When the table was confirmed, and read, last; None: never.
        self._confirmed: float | None = None
        self._loaded = 0.0
        self._reading = asyncio.Lock()
        #: Changes of this process are made one after the other, so that only others come between.
        self._changing = asyncio.Lock()

    async def table(self) -> Mapping[str, list[Limit]]:
        """All that is set, by `place_of`, as it was at most `STALE` seconds ago."""
        if self._is_fresh():
            return self._table
        async with self._reading:
            if not self._is_fresh():  # whoever was first has read it
                await self._read()
        return self._table

    async def has_threads(self) -> bool:
        """Whether any conversation has a budget, as `table` says it."""
        await self.table()
        return self._has_threads

    def _is_fresh(self) -> bool:
        return self._confirmed is not None and self._clock() - self._confirmed < STALE

    async def _read(self) -> None:
        now = self._clock()
        mark = await self._store.document(*_MARK)  # before the table: what comes later is another
        is_old = self._confirmed is None or now - self._loaded >= BACKSTOP
        if is_old or mark != self._mark:
            table = {place: entry.limits async for place, entry in self._entries() if entry.limits}
            self._table, self._mark, self._loaded = table, mark, now
            self._has_threads = any(place.partition("/")[0] == "thread" for place in table)
        self._confirmed = now

    async def _entries(self, after: str = "") -> AsyncIterator[tuple[str, SetBudgets]]:
        while True:
            documents = await self._store.documents(_KIND, most=_PAGE, after=after)
            for place, data in documents.items():
                yield place, _decoded(data)
                after = place
            if len(documents) < _PAGE:
                return

    async def page(self, *, after: str = "", most: int = 100) -> list[tuple[str, SetBudgets]]:
        """Owners that have budgets, by their places, as the store says now."""
        entries: list[tuple[str, SetBudgets]] = []
        async for place, entry in self._entries(after):
            if entry.limits:
                entries.append((place, entry))
                if len(entries) == most:
                    break
        return entries

    async def read(self, place: str) -> SetBudgets:
        """The budgets of one owner, as the store says now."""
        return _decoded(await self._store.document(_KIND, place))

    async def put(
        self,
        place: str,
        limits: list[Limit],
        *,
        by: str,
        note: str | None = None,
        version: int | None = None,
    ) -> SetBudgets:
        """Make ``limits`` those of an owner, in place of all that it had; none clear them.
        ``version``: only where this is the present one. Raises `ConflictError` where it is not, or
        where others change them all the time, and `LimitError`."""
        async with self._changing:
            return await self._put(place, limits, by=by, note=note, version=version)

    async def _put(
        self, place: str, limits: list[Limit], *, by: str, note: str | None, version: int | None
    ) -> SetBudgets:
        for _ in range(_ATTEMPTS):
            data = await self._store.document(_KIND, place)
            entry = _decoded(data)
            if version is not None and version != entry.version:
                raise ConflictError(
                    f"the budgets are at version {entry.version}, not {version}; read them again",
                    reason="changed",
                )
            if data is None and not limits:
                return entry  # there is nothing to clear, nor to remember
            if limits and not entry.limits and await self._is_full():
                raise LimitError(
                    f"budgets are set for {MOST_SET:,} owners; clear some", limit="budgets"
                )
            change = Change(at=time.time(), by=by, limits=limits, note=note)
            new = SetBudgets(
                version=entry.version + 1,
                limits=limits,
                changes=[*entry.changes, change][-_MOST_CHANGES:],
                nonce=os.urandom(8),
            )
            if await self._store.swap_document(_KIND, place, data, msgspec.msgpack.encode(new)):
                await self._changed()
                return new
        raise ConflictError("others are changing these budgets; try again", reason="changed")

    async def _is_full(self) -> bool:
        """Whether as many owners as may be have budgets; those that had some do not count."""
        if await self._store.count_documents(_KIND) < MOST_SET:
            return False
        return len([place async for place, entry in self._entries() if entry.limits]) >= MOST_SET

    async def _changed(self) -> None:
        """Every process reads again what is set; this one before its next start."""
        await self._store.set_document(*_MARK, os.urandom(8))
        self._confirmed = None

    async def forget_threads(self, threads: Iterable[str]) -> None:
        """Conversations, by their names in the store, are gone."""
        for thread in threads:
            place = place_of("thread", thread)
            if await self._store.document(_KIND, place) is not None:
                await self._store.set_document(_KIND, place, None)
                await self._changed()

    async def sweep(self) -> None:
        """Erase what was cleared long ago."""
        async for place, entry in self._entries():
            if not entry.limits and entry.changes[-1].at < time.time() - _FORGOTTEN:
                data = await self._store.document(_KIND, place)
                if data is not None and _decoded(data).version == entry.version:
                    await self._store.swap_document(_KIND, place, data, None)


def place_of(whose: Whose, owner: str | None) -> str:
    """Where the budgets of an owner are: a principal's or a tenant's name, a conversation's name in
    the store; None: of all of this kind."""
    return whose if owner is None else f"{whose}/{owner}"


def of_run(
    configured: Iterable[Budget],
    table: Mapping[str, list[Limit]],
    *,
    principal: str,
    thread: str | None = None,
) -> list[Budget]:
    """The budgets in force for a run of ``principal`` in ``thread`` (its name in the store). Of two
    for the same, that of this very owner counts before one for all owners, and that before the
    configuration's."""
    limits: dict[tuple[str, str | None, str], int | None] = {
        budget.place: budget.most for budget in configured
    }
    owners: list[tuple[Whose, str | None]] = [
        ("principal", principal),
        ("tenant", parts_of(principal)[1]),
        ("thread", thread),
    ]
    for whose, owner in owners:
        places = [place_of(whose, None), *([place_of(whose, owner)] if owner is not None else [])]
        for place in places:
            for limit in table.get(place, ()):
                limits[whose, limit.period, limit.unit] = limit.most
    return [
        Budget(whose, period, unit, most)  # type: ignore[arg-type]
        for (whose, period, unit), most in limits.items()
        if most is not None
    ]


def _decoded(data: bytes | None) -> SetBudgets:
    return SetBudgets() if data is None else msgspec.msgpack.decode(data, type=SetBudgets)
