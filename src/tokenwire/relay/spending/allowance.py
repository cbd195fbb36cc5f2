"""What one run may still use of its budgets: slices that it reserves in the store and counts down.

Always true: what runs use of a budget, as far as it is known, is never more than what they have
reserved, but for the read of its answer with which each finds that out; text is counted without a
call to the store, and the next slice is reserved beside the stream before the last one ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence

from tokenwire.errors import StoreUnavailableError
from tokenwire.events.estimate import QUARTERS, estimate_tokens
from tokenwire.events.model import (
    Event,
    PartStart,
    ResponseStart,
    RunBudget,
    StepEnd,
    StepReset,
    StepStart,
    Usage,
)
from tokenwire.events.principal import parts_of
from tokenwire.events.request import Request
from tokenwire.providers.base import Target
from tokenwire.relay.spending.bill import Sum, day_of, estimated_cost
from tokenwire.relay.spending.budgets import Budget, account_of, resets_of
from tokenwire.relay.spending.counts import Counts
from tokenwire.relay.spending.ledger import Account, Demand, Holding, Unit
from tokenwire.relay.spending.meter import Meter, ModelCall
from tokenwire.relay.spending.prices import NoPrices, Prices
from tokenwire.relay.spending.reserved import note_accounts
from tokenwire.relay.spending.settling import Settling
from tokenwire.run.call.spending import UNLIMITED

__all__ = ["SLICE", "RunAllowance"]

_log = logging.getLogger("tokenwire.relay")

#: Tokens that a run reserves at a time.
SLICE = 1000
#: The share of a budget from which on it is near.
_NEAR = 0.8
#: Seconds for which a store that does not answer is asked again.
_STORE_SECONDS = 10.0
#: Events after which the run's tokens are counted anew.
_COUNTED = (Usage, ResponseStart, StepStart, StepEnd, StepReset)


class _Limit:
    """One budget, as its run knows it. ``granted``: what the run may use of it, of which ``base``
    is not about this budget's period; ``others``: what all other runs have of it."""

    def __init__(self, budget: Budget, account: Account | None) -> None:
        self.budget, self.account = budget, account
        self.granted = budget.most if account is None else 0
        self.base = self.others = 0

    @property
    def unit(self) -> Unit:
        """What it counts."""
        return self.budget.unit


class RunAllowance:
    """The allowance of one run; see `tokenwire.run.call.spending`. ``budgets``: of its principal,
    its tenant and its conversation, which is ``thread`` in the store; ``own``: of the run itself.
    ``slice_tokens``: that it reserves at a time, or their price."""

    def __init__(
        self,
        settling: Settling | None,
        run: str,
        *,
        principal: str,
        thread: str | None,
        budgets: Iterable[Budget],
        own: Iterable[Budget] = (),
        slice_tokens: int = SLICE,
        store_seconds: float = _STORE_SECONDS,
    ) -> None:
        self._settling, self._run, self._slice = settling, run, slice_tokens
        self._principal, self._tenant, self._thread = principal, parts_of(principal)[1], thread
        self._budgets, self._store_seconds = list(budgets), store_seconds
        self._own = [_Limit(budget, None) for budget in own]
        self._limits = list(self._own)
        self._day = ""
        self._meter, self._prices = Meter(), _no_prices
        #: What the run uses, as last counted, and text since then, in quarters of a token.
        self._usage = Holding()
        self._since = 0
        #: Tokens of the run's first request, and of one that has no answer yet.
        self._first: int | None = None
        self._pending_input = 0
        #: What is left: until something is due, and until the next slice is to be reserved.
        self.remaining, self._until_next = UNLIMITED, UNLIMITED
        self._target: tuple[str | None, str | None] = (None, None)
        self._was_near = False
        #: No further slice is there to be reserved beside the stream.
        self._is_last = False
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def restore(self, events: Sequence[Event], request: Request) -> None:
        """Take what the log of an earlier worker says."""
        self._first = estimate_tokens(request)
        for event in events:
            self._meter.apply(event)
            self._was_near = self._was_near or isinstance(event, RunBudget)

    # --- the run's side, see `Allowance` ---------------------------------------------------------

    @property
    def is_due(self) -> bool:
        """Whether something is to be said, or reserved."""
        return self.remaining <= 0

    def count_text(self, quarters: int) -> None:
        """Count text of a model."""
        self._meter.count_text(quarters)
        self._since += quarters
        self.remaining -= quarters
        self._until_next -= quarters
        if self._until_next <= 0 and self._task is None:
            self._until_next = UNLIMITED
            self._task = asyncio.create_task(self._reserve_beside(), name="slice")

    def apply(self, event: Event) -> None:
        """Take any other event."""
        self._meter.apply(event)
        if self._pending_input and isinstance(event, ResponseStart | PartStart | Usage):
            self._pending_input = 0
        if isinstance(event, _COUNTED):
            self._count()

    async def begin(self, request: Request | None, target: Target | None) -> RunBudget | None:
        """Reserve the tokens of a request, and a slice for its answer."""
        if target is not None:
            self._target = target.provider, target.model
        if self._settling is not None:
            self._prices = await self._settling.loaded()
        if request is not None:
            self._pending_input = self._meter.request = estimate_tokens(request)
            self._first = self._first or self._pending_input
        self._count()
        await self._reserve()
        empty = self._empty()
        return None if empty is None else self._event(empty, 0)

    async def more(self) -> RunBudget | None:
        """Reserve the next slice; what is used up, or near."""
        self._count()
        if self._empty() is not None:
            await self._reserve()
        # What is reserved is used up: only now is that a budget, and not the slice of one.
        empty = self._empty()
        if empty is not None:
            return self._event(empty, 0)
        near = self._near()
        if near is not None:
            self._was_near = True
            self._count()
            return self._event(near, self._remaining(near))
        return None

    def estimate(self) -> Usage | None:
        """The newest call's tokens, where its provider has said nothing of them."""
        counts = self._meter.unreported(self._first or 0)
        if counts is None:
            return None
        return Usage(
            input_tokens=counts.input_tokens,
            output_tokens=counts.output_tokens,
            source="estimated",
        )

    @property
    def reserved_tokens(self) -> int:
        """Tokens that are reserved in the store beyond what the run uses, as last counted: the most
        of any of its sums; 0 when it is over."""
        return max((self._unused(limit) for limit in self._limits), default=0)

    def _unused(self, limit: _Limit) -> int:
        is_reserved = limit.account is not None and limit.unit == "tokens"
        if self._is_closed or not is_reserved or limit.granted >= UNLIMITED:
            return 0
        return max(0, limit.granted - self._used_of(limit))

    def close(self) -> None:
        """Reserve no more."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()

    # --- counting --------------------------------------------------------------------------------

    def _count(self) -> None:
        """Count the run's calls anew, and what is left of each limit."""
        total = Sum()
        for call in self._meter.calls(self._first or 0):
            cost = self._prices.cost(call) if call.counts is not None else None
            total.count(call, cost, estimated_cost(call, self._prices))
        input_cost = self._price(Counts(input_tokens=self._pending_input)) or 0
        self._usage = Holding(
            tokens=total.all_tokens + self._pending_input, dollars=total.all_cost + input_cost
        )
        self._since = 0
        room = min((self._room(limit) for limit in self._limits), default=UNLIMITED)
        calm = UNLIMITED
        if not self._was_near:
            calm = min((self._calm(limit) for limit in self._limits), default=UNLIMITED)
        self.remaining = min(room, calm)
        is_reserved = any(limit.account is not None for limit in self._limits)
        self._until_next = UNLIMITED
        if room < UNLIMITED and is_reserved and not self._is_last:
            self._until_next = max(0, room - self._slice * QUARTERS // 2)

    def _used_of(self, limit: _Limit) -> int:
        """What the run uses of a limit."""
        usage = self._usage.of(limit.unit)
        rate = self._rate(limit.unit)
        return usage - limit.base + (math.ceil(self._since * rate) if rate else 0)

    def _rate(self, unit: Unit) -> float:
        """What a quarter of a token of an answer costs; 0 where that is not known."""
        if unit == "tokens":
            return 1 / QUARTERS
        price = self._price(Counts(output_tokens=SLICE))
        return 0.0 if price is None else price / (SLICE * QUARTERS)

    def _price(self, counts: Counts) -> int | None:
        if not counts.total:
            return 0
        provider, model = self._target
        now = int(time.time() * 1000)
        return self._prices.cost(ModelCall(provider=provider, model=model, time=now, counts=counts))

    def _quarters(self, amount: int, unit: Unit) -> int:
        """How much text an amount is."""
        rate = self._rate(unit)
        if amount <= 0:
            return 0
        return UNLIMITED if not rate else max(1, int(amount / rate))

    def _room(self, limit: _Limit) -> int:
        if not self._rate(limit.unit):  # no price: it is held to what is known
            most = limit.budget.most - limit.others
            return UNLIMITED if self._used_of(limit) < most else 0
        return self._quarters(limit.granted - self._used_of(limit), limit.unit)

    def _calm(self, limit: _Limit) -> int:
        near = int(limit.budget.most * _NEAR) - limit.others
        return self._quarters(near - self._used_of(limit), limit.unit)

    def _empty(self) -> _Limit | None:
        """A limit of which nothing is left to use."""
        return next((limit for limit in self._limits if self._room(limit) <= 0), None)

    def _near(self) -> _Limit | None:
        """A limit that is near, where none was before."""
        if self._was_near:
            return None
        return next((limit for limit in self._limits if self._calm(limit) <= 0), None)

    def _remaining(self, limit: _Limit) -> int:
        return max(1, limit.budget.most - limit.others - self._used_of(limit))

    def _event(self, limit: _Limit, left: int) -> RunBudget:
        budget, now = limit.budget, time.time()
        resets = None
        if limit.account is not None and self._settling is not None:
            seconds = resets_of(budget, now, self._settling.zone)
            resets = None if seconds is None else round(now + seconds)
        return RunBudget(
            name=budget.name,
            unit=budget.unit,
            left=budget.shown(left),
            most=budget.shown(budget.most),
            resets=resets,
        )

    # --- reserving -------------------------------------------------------------------------------

    async def _reserve_beside(self) -> None:
        try:
            await self._reserve()
        except Exception as error:  # whoever needs it tries again, and raises
            _log.warning("run %s could not reserve beside its stream: %s", self._run, error)
        finally:
            self._task = None

    async def _reserve(self) -> None:
        """Hold what the run uses and a slice more, in each sum. Raises `LogError`."""
        give_up = time.monotonic() + self._store_seconds
        while True:
            try:
                await self._hold()
            except StoreUnavailableError:
                if time.monotonic() >= give_up:
                    raise
                await asyncio.sleep(0.1)
            else:
                self._count()
                return

    async def _hold(self) -> None:
        settling = self._settling
        if settling is None or not self._budgets:
            return
        await self._begin_day(settling)
        self._is_last = False
        by_account: dict[Account, list[_Limit]] = {}
        for limit in self._limits:
            if limit.account is not None:
                by_account.setdefault(limit.account, []).append(limit)
        for account, limits in by_account.items():
            wants = [
                Demand(one.unit, self._used_of(one) + self._slice_of(one.unit), one.budget.most)
                for one in limits
            ]
            share = await settling.ledger.reserve(account, self._run, wants, settling.may_reserve)
            for limit, want in zip(limits, wants, strict=True):
                if share is None:  # it is in no sum: it began before anything was counted
                    limit.granted = UNLIMITED
                else:
                    limit.granted = share.holding.of(limit.unit)
                    limit.others = share.others.of(limit.unit)
                    self._is_last = self._is_last or limit.granted < want.amount

    def _slice_of(self, unit: Unit) -> int:
        """A slice in a unit."""
        return (
            self._slice
            if unit == "tokens"
            else math.ceil(self._slice * QUARTERS * self._rate(unit))
        )

    async def _begin_day(self, settling: Settling) -> None:
        """Where another day has begun, its sums are others."""
        day = day_of(time.time(), settling.zone)
        if day == self._day:
            return
        earlier = {limit.account for limit in self._limits}
        limits = list(self._own)
        for budget in self._budgets:
            account = account_of(budget, day, self._principal, self._tenant, self._thread)
            if account is None:
                continue
            limit = next(
                (one for one in self._limits if (one.account, one.unit) == (account, budget.unit)),
                None,
            )
            if limit is None:
                limit = _Limit(budget, account)
                if self._day:  # what it used before is in the sums of another day
                    limit.base = self._usage.of(budget.unit)
            limits.append(limit)
        new = [one.account for one in limits if one.account not in earlier]
        await note_accounts(settling.store, self._run, [one for one in new if one is not None])
        self._limits, self._day = limits, day


_no_prices: Prices = NoPrices()
