"""Sums of what runs used: of a principal and a tenant by day and month, of a conversation for good.

Always true: a run is in each of its sums once, however often and by however many processes it is
settled, and wherever one of them dies. A sum and the names of the runs that were added to it are
one document; a name leaves it only after the run's bill says that it is in all sums, and who adds
looks at the bill after it has read the sum, so that it sees the name, or the bill, or fails to
swap. What an open run has reserved is in the same document, and leaves it with the run's own part,
in one change; once there is a bill, the run can reserve nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, NamedTuple

import msgspec

from tokenwire.events.principal import parts_of
from tokenwire.log.base import Store
from tokenwire.relay.spending.bill import Bill, Sum
from tokenwire.relay.spending.counts import bounded

__all__ = [
    "Account",
    "Demand",
    "Holding",
    "Ledger",
    "Period",
    "Share",
    "StoredSum",
    "Unit",
    "accounts_of",
    "owner_account",
    "thread_account",
]

Period = Literal["day", "month", "thread"]
#: What a budget counts: tokens, or billionths of a dollar.
Unit = Literal["tokens", "dollars"]
#: The first characters of a day that are its month.
_MONTH = 7
_KINDS: dict[Period, str] = {
    "day": "spent-day",
    "month": "spent-month",
    "thread": "spent-thread",
}
#: Days and months after which a sum is erased: some three months, and two years.
_DAY_SECONDS, _MONTH_SECONDS = 100 * 86_400.0, 800 * 86_400.0
#: Models that a sum names; the others are one.
_MOST_MODELS = 50
#: Seconds after which a name whose run is settled is taken out by whoever comes by.
_OLD_NAME = 60.0
#: Sums that one sweep erases.
_MOST_SWEPT = 1000


class Account(msgspec.Struct, frozen=True):
    """Whose sum, and of which time: the kind and the name of its document. ``owner``: the principal
    or tenant, for operators; empty for a conversation."""

    kind: str
    name: str
    owner: str = ""


class Holding(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What an open run has reserved of a sum, for all that it uses: tokens, and billionths of a
    dollar."""

    tokens: int = 0
    dollars: int = 0

    def of(self, unit: Unit) -> int:
        """The amount in a unit."""
        return self.tokens if unit == "tokens" else self.dollars


class Demand(NamedTuple):
    """What a run asks to reserve of a budget of ``most``; amounts in the unit's smallest part."""

    unit: Unit
    amount: int
    most: int


class Share(NamedTuple):
    """What a run holds of a sum, and what all the others have."""

    holding: Holding
    others: Holding


class StoredSum(Sum, kw_only=True, omit_defaults=True):
    """One sum, as the store has it. ``owner``: of its account; ``runs``: how many; ``models``: by
    model; ``added``: the runs that are in it and whose bill may not say so yet, with Unix seconds;
    ``change``: no two writes are the same, so that of two processes one swaps."""

    owner: str = ""
    runs: int = 0
    models: dict[str, Sum] = {}
    added: dict[str, float] = {}
    #: What runs have reserved that are not in the sum yet.
    holdings: dict[str, Holding] = {}
    change: bytes = b""

    def committed(self, unit: Unit) -> int:
        """What is used or reserved, in the unit's smallest part."""
        total = self.all_tokens if unit == "tokens" else self.all_cost
        return bounded(total + sum(holding.of(unit) for holding in self.holdings.values()))

    def settle(self, part: Sum, models: dict[str, Sum]) -> None:
        """Add one run's part."""
        self.runs += 1
        self.add(part)
        for name, model in models.items():
            if name not in self.models and len(self.models) >= _MOST_MODELS:
                name = "other"  # noqa: PLW2901
            self.models.setdefault(name, Sum()).add(model)


#: Whether a run may still be added: it is noted, and its bill does not say that it is settled.
IsOpen = Callable[[str], Awaitable[bool]]


class Ledger:
    """The sums in a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        #: Names that can go with the next change of their sum.
        self._done: dict[Account, set[str]] = {}
        #: The runs of this process take turns at a sum, so that none of them swaps in vain.
        self._turns: weakref.WeakValueDictionary[Account, asyncio.Lock] = (
            weakref.WeakValueDictionary()
        )

    async def add(self, account: Account, runs: dict[str, Bill], is_open: IsOpen) -> None:
        """Add those ``runs`` that are not in it. Raises `LogError`; then some of it may be done,
        and the same again does the rest."""
        while True:
            data = await self._store.document(account.kind, account.name)
            entry = _decoded(data)
            missing = [run for run in runs if run not in entry.added]
            missing = [run for run in missing if await is_open(run)]
            if not missing:
                return
            now = time.time()
            for run in missing:
                # Whether there is any or not: who reserves meanwhile fails to swap.
                entry.holdings.pop(run, None)
                if account in accounts_of(runs[run]):
                    part, models = _part(runs[run], account)
                    entry.settle(part, models)
                    entry.added[run] = now
            removable = self._done.pop(account, set())
            removable |= {
                run
                for run, since in entry.added.items()
                if since < now - _OLD_NAME and run not in runs and not await is_open(run)
            }
            for run in removable:
                entry.added.pop(run, None)
            entry.owner, entry.change = account.owner, os.urandom(8)
            new = msgspec.msgpack.encode(entry)
            if await self._store.swap_document(account.kind, account.name, data, new):
                return
            self._done.setdefault(account, set()).update(removable)

    async def reserve(
        self, account: Account, run: str, wants: Iterable[Demand], may_reserve: IsOpen
    ) -> Share | None:
        """Hold for ``run`` as much as it wants, as far as the budgets allow; it never holds less
        than before. None where the run may reserve nothing any more. Raises `LogError`; the same
        again does no harm."""
        turn = self._turns.get(account)
        if turn is None:
            turn = self._turns[account] = asyncio.Lock()
        async with turn:
            while True:
                data = await self._store.document(account.kind, account.name)
                entry = _decoded(data)
                if run in entry.added or not await may_reserve(run):
                    return None
                holding = entry.holdings.get(run, Holding())
                amounts = {"tokens": holding.tokens, "dollars": holding.dollars}
                others = Holding(
                    tokens=entry.committed("tokens") - holding.tokens,
                    dollars=entry.committed("dollars") - holding.dollars,
                )
                for unit, amount, most in wants:
                    free = most - others.of(unit)
                    amounts[unit] = max(amounts[unit], min(amount, free))
                new = Holding(**amounts)
                if new == holding:
                    return Share(holding, others)
                entry.holdings[run], entry.change = new, os.urandom(8)
                encoded = msgspec.msgpack.encode(entry)
                if await self._store.swap_document(account.kind, account.name, data, encoded):
                    return Share(new, others)

    def settled(self, run: str, bill: Bill) -> None:
        """The run's bill says that it is in all of its sums."""
        for account in accounts_of(bill):
            self._done.setdefault(account, set()).add(run)
        while len(self._done) > _MOST_SWEPT:  # others take them out
            self._done.pop(next(iter(self._done)))

    async def read(self, account: Account) -> StoredSum:
        """A sum, which may be nothing. Raises `LogError`."""
        return _decoded(await self._store.document(account.kind, account.name))

    async def page(
        self, period: Period, when: str, kind: str, *, after: str = "", most: int = 100
    ) -> list[tuple[str, StoredSum]]:
        """Sums of principals (``p``) or tenants (``t``) in the day or month ``when``, with their
        places, in the order of these; those behind the place ``after``. Raises `LogError`."""
        prefix = f"{when}.{kind}."
        documents = await self._store.documents(
            _KINDS[period], prefix=prefix, most=most, after=prefix + after
        )
        return [(name.removeprefix(prefix), _decoded(data)) for name, data in documents.items()]

    async def forget_threads(self, threads: Iterable[str]) -> None:
        """Conversations, by their names in the store, are gone."""
        for thread in threads:
            account = thread_account(thread)
            await self._store.set_document(account.kind, account.name, None)

    async def sweep(self) -> None:
        """Erase sums of long ago."""
        now = time.time()
        for kind, seconds in (
            (_KINDS["day"], _DAY_SECONDS),
            (_KINDS["month"], _MONTH_SECONDS),
        ):
            last = time.strftime("%Y-%m-%d", time.gmtime(now - seconds))
            for name in await self._store.documents(kind, most=_MOST_SWEPT, after=""):
                if name >= last:
                    break
                await self._store.set_document(kind, name, None)


def accounts_of(bill: Bill) -> list[Account]:
    """The sums that a run belongs to."""
    days = {line.day for line in bill.lines}
    accounts = [account for day in sorted(days) for account in _day_accounts(bill.principal, day)]
    if bill.thread is not None and days:
        accounts.append(thread_account(bill.thread))
    return list(dict.fromkeys(accounts))


def _day_accounts(principal: str, day: str) -> list[Account]:
    """The sums of a day and its month, of a principal and its tenant."""
    tenant = parts_of(principal)[1]
    owners = [("p", principal), *([("t", tenant)] if tenant is not None else [])]
    return [
        owner_account(period, day, kind, whose)
        for kind, whose in owners
        for period in ("day", "month")
    ]


def owner_account(period: Period, day: str, kind: str, whose: str) -> Account:
    """The sum of a principal (``p``) or a tenant (``t``) in a day or its month."""
    when = day if period == "day" else day[:_MONTH]
    return Account(_KINDS[period], f"{when}.{kind}.{_hidden(whose)}", whose)


def thread_account(thread: str) -> Account:
    """The sum of a conversation, by its name in the store."""
    return Account(_KINDS["thread"], _hidden(thread))


def _hidden(name: str) -> str:
    """A name that says nobody's."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def _part(bill: Bill, account: Account) -> tuple[Sum, dict[str, Sum]]:
    """What of a bill belongs to a sum: all, or that of the sum's time; and by model."""
    when = "" if account.kind == _KINDS["thread"] else account.name.partition(".")[0]
    whole, models = Sum(), dict[str, Sum]()
    for line in bill.lines:
        if line.day.startswith(when):
            whole.add(line.sum)
            models.setdefault(line.model, Sum()).add(line.sum)
    return whole, models


def _decoded(data: bytes | None) -> StoredSum:
    return StoredSum() if data is None else msgspec.msgpack.decode(data, type=StoredSum)
