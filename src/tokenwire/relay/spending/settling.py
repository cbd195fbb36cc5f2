"""Settles runs: reads what an ended run used, makes its bill, and adds that to the sums.

Always true: a note of the run is in the store before the run is, and goes only after the run is in
all sums, so that a run which nobody has settled is found, also after a crash; the run's log says
what it used; meanwhile the run does not expire, and who erases it settles it first.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import tzinfo

import msgspec

from tokenwire.errors import GoneError, LogError, NotFoundError, StoreDamagedError
from tokenwire.events.estimate import estimate_tokens
from tokenwire.events.fold import Fold
from tokenwire.log.base import LogInfo, Store, private_kind
from tokenwire.observe.facts import RunBilled
from tokenwire.observe.hooks import report
from tokenwire.relay.conversation.turns import with_history
from tokenwire.relay.description import meta_of
from tokenwire.relay.spending.bill import Bill, BillLine, bill_of, day_of
from tokenwire.relay.spending.counts import Counts
from tokenwire.relay.spending.ledger import Account, Ledger, accounts_of
from tokenwire.relay.spending.meter import ModelCall, read_calls
from tokenwire.relay.spending.prices import NoPrices, OwnPrices, Prices, installed_prices
from tokenwire.relay.spending.reserved import reserved_accounts
from tokenwire.relay.upkeep.notes import UNMADE_SECONDS, Attempts, Notes, end_check_time
from tokenwire.relay.upkeep.rounds import Rounds

__all__ = ["BILL", "Settling", "bill_in"]

_log = logging.getLogger("tokenwire.relay")

_KIND = "unsettled"
#: The name of a run's bill among its own documents.
BILL = "bill"


class _Note(Attempts, kw_only=True, omit_defaults=True):
    """What the store keeps for one run until it is settled; `Noted`."""

    since: float
    ends: float = 0.0


class Settling:
    """What one process settles; a part of its `Outbox`. ``zone``: of days and months; ``own``:
    prices that count before those of the installed table."""

    def __init__(
        self, store: Store, zone: tzinfo, own: dict[str, tuple[int, int]] | None = None
    ) -> None:
        self.store, self.zone, self._own = store, zone, own or {}
        self._prices: Prices = NoPrices()
        self.ledger = Ledger(store)
        self._notes = Notes(store, _KIND, _due)
        self._rounds = Rounds("runs could not be settled", self._look_at_all, self._notes.due)
        self._loading: asyncio.Task[None] | None = None

    @property
    def table(self) -> str | None:
        """The table of prices of this process; None without one."""
        return self._prices.table

    def day(self, time: float) -> str:
        """The day of a Unix time."""
        return day_of(time, self.zone)

    async def has_price(self, provider: str, model: str) -> bool:
        """Whether tokens of a provider's model cost something that is known."""
        if self._loading is not None:
            await asyncio.shield(self._loading)
        counts = Counts(input_tokens=1, output_tokens=1)
        now = int(time.time() * 1000)
        call = ModelCall(provider=provider, model=model, time=now, counts=counts)
        return self._prices.cost(call) is not None

    async def bill_so_far(self, run: str) -> Bill:
        """The run's bill; before it is made, one of what the log says. Raises `LogError`."""
        bill = await bill_in(self.store, run)
        return bill or await self._made(run, await self.store.describe(run))

    # --- a part of the outbox --------------------------------------------------------------------

    def open(self) -> None:
        """Begin to settle."""
        self._loading = asyncio.create_task(self._load(), name="prices")
        self._rounds.open("settling")

    async def aclose(self) -> None:
        """Stop; the next process settles what is left."""
        await self._rounds.aclose()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])

    async def expect(self, run: str) -> bool:
        """Note a run that is about to be created; False when there is a note of it already."""
        return await self._notes.expect(run, msgspec.json.encode(_Note(since=time.time())))

    async def forget(self, run: str) -> None:
        """The run was never created, or was erased."""
        await self._notes.forget(run)

    async def erasing(self, run: str) -> None:
        """The run is about to be erased: add what it has used so far. Raises `LogError`."""
        if await self._notes.get(run) is None:
            return
        try:
            await self._settle_all({run: await self.store.describe(run)})
        except (NotFoundError, GoneError, StoreDamagedError):
            pass  # nothing says what it used
        await self.forget(run)

    async def undelivered(self, runs: list[str]) -> set[str]:
        """Those of ``runs`` that are not settled: the retention waits for them."""
        notes = await self._notes.of(runs)
        return {run for run, data in notes.items() if not _decoded(data).is_failed}

    async def drop(self, runs: list[str]) -> None:
        """The runs are gone."""
        await asyncio.gather(*(self.forget(run) for run in await self._notes.of(runs)))

    async def ending(self, run: str) -> None:
        """The end of a run of this process is about to be written."""
        await self._notes.mark(run, _decoded)

    def ended(self, run: str) -> None:
        """A run of this process is over: settle it now."""
        self._rounds.soon(run)

    def waits(self, run: str, fold: Fold) -> None:
        """Nothing is settled before the end."""

    async def failed(self) -> dict[str, str]:
        """Runs that could not be settled for a day, with the last error."""
        decoded = {run: _decoded(data) for run, data in (await self._notes.all()).items()}
        return {run: note.error or "" for run, note in decoded.items() if note.is_failed}

    async def forget_expired(self, runs: list[str], threads: list[str]) -> None:
        """Erase the sums of conversations (by their names in the store) of which nothing is
        left."""
        for thread in threads:
            if not await self.store.thread(thread, most=1):
                await self.ledger.forget_threads([thread])

    # --- inside ----------------------------------------------------------------------------------

    async def _load(self) -> None:
        prices = await installed_prices()
        self._prices = OwnPrices(self._own, prices) if self._own else prices

    async def _look_at_all(self, runs: Iterable[str]) -> None:
        """Settle those that have ended, in as few changes of the sums as can be."""
        remaining = set(runs)
        try:
            ended: dict[str, LogInfo] = {}
            for run in tuple(remaining):
                info = await self._look_at(run)
                if info is None:
                    remaining.discard(run)
                else:
                    ended[run] = info
            await self._settle_all(ended)
            remaining.clear()
        finally:
            for run in remaining:  # the store failed
                self._notes.retry(run)

    async def _look_at(self, run: str) -> LogInfo | None:
        """The description of a run that is to be settled now."""
        data = await self._notes.get(run)
        if data is None:
            self._notes.reschedule(run, None, 0.0)
            return None
        note = _decoded(data)
        since = max(note.since, note.ends)
        try:
            info = await self.store.describe(run)
        except (NotFoundError, GoneError):
            if time.time() > note.since + UNMADE_SECONDS:
                await self.forget(run)
            else:
                self._notes.reschedule(run, data, since)
            return None
        if info.closed is None or note.is_failed or note.until > time.time():
            self._notes.reschedule(run, data, since)
            return None
        return info

    async def _settle_all(self, infos: dict[str, LogInfo]) -> None:
        bills: dict[str, Bill] = {}
        for run, info in infos.items():
            try:
                bill = await self._bill(run, info)
            except (NotFoundError, GoneError):
                continue  # who erased it has settled it
            except StoreDamagedError as error:
                await self._postpone(run, error)
                continue
            except LogError:
                raise
            except Exception as error:  # of one run; the others are settled
                _log.exception("the run %s cannot be settled", run)
                await self._postpone(run, error)
                continue
            if bill is not None:
                bills[run] = bill
        parts: dict[Account, dict[str, Bill]] = {}
        for run, bill in bills.items():
            if not bill.is_settled:
                reserved = await reserved_accounts(self.store, run)
                for account in dict.fromkeys([*accounts_of(bill), *reserved]):
                    parts.setdefault(account, {})[run] = bill
        for account, part in parts.items():
            await self.ledger.add(account, part, self._is_open)
        for run, bill in bills.items():
            await self._close(run, bill)

    async def _bill(self, run: str, info: LogInfo) -> Bill | None:
        """The run's bill, made now or before; None where the run was erased meanwhile."""
        bill = await bill_in(self.store, run)
        if bill is not None:
            return bill
        bill = await self._made(run, info)
        encoded = msgspec.msgpack.encode(bill)
        if not await self.store.swap_document(private_kind(run), BILL, None, encoded):
            return await bill_in(self.store, run)
        if await self._notes.get(run) is None:
            await self.store.set_document(private_kind(run), BILL, None)
            return None
        return bill

    async def _made(self, run: str, info: LogInfo) -> Bill:
        meta = meta_of(info)

        async def request() -> int:
            return estimate_tokens((await with_history(self.store, run, meta)).request)

        calls = await read_calls(self.store, run, request)
        if self._loading is not None:  # what a run costs is said once
            await asyncio.shield(self._loading)
        return bill_of(calls, self._prices, self.zone, principal=meta.principal, thread=info.thread)

    async def may_reserve(self, run: str) -> bool:
        """Whether a run may reserve: it is noted, and has no bill. Raises `LogError`."""
        return await self._notes.get(run) is not None and await bill_in(self.store, run) is None

    async def loaded(self) -> Prices:
        """The table of prices, when it is read."""
        if self._loading is not None:
            await asyncio.shield(self._loading)
        return self._prices

    async def _is_open(self, run: str) -> bool:
        """Whether a run may still be added to sums."""
        if await self._notes.get(run) is None:
            return False
        bill = await bill_in(self.store, run)
        return bill is not None and not bill.is_settled

    async def _close(self, run: str, bill: Bill) -> None:
        """The run is in all sums: say so, then forget the note."""
        if not bill.is_settled:
            old = msgspec.msgpack.encode(bill)
            bill.is_settled = True
            new = msgspec.msgpack.encode(bill)
            if await self.store.swap_document(private_kind(run), BILL, old, new):
                for line in bill.lines:
                    report(billed(run, line))
        await self.forget(run)
        self.ledger.settled(run, bill)

    async def _postpone(self, run: str, error: Exception) -> None:
        """The run cannot be settled: try again later, and give up after a day."""
        data = await self._notes.get(run)
        if data is None:
            return
        note, now = _decoded(data), time.time()
        note.begin(now, 0.0)
        note.fail(now, str(error))
        failed = msgspec.json.encode(note)
        await self._notes.swap(run, data, failed)
        self._notes.reschedule(run, failed, max(note.since, note.ends))


def billed(run: str, line: BillLine) -> RunBilled:
    """What observers hear of a line of a bill."""
    part = line.sum
    return RunBilled(
        run,
        line.model,
        part.cost,
        part.unpriced_tokens,
        part.unreported_calls,
        {name.removesuffix("_tokens"): n for name, n in part.counts.items() if n},
        line.costs,
    )


async def bill_in(store: Store, run: str) -> Bill | None:
    """The bill of a run; None before it is made. Raises `LogError`."""
    data = await store.document(private_kind(run), BILL)
    return None if data is None else msgspec.msgpack.decode(data, type=Bill)


def _decoded(data: bytes) -> _Note:
    return msgspec.json.decode(data, type=_Note)


def _due(data: bytes) -> float | None:
    note = _decoded(data)
    if note.is_failed:
        return float("inf")
    return note.until if note.tries else end_check_time(note)
