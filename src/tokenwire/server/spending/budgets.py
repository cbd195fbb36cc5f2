"""The budgets of one server: what a start is checked against, and what its caller is told.

Always true: a start that a budget refuses has started nothing; the repetition of a start that
succeeded is not refused.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from tokenwire.observe.facts import BudgetNear, BudgetRefused
from tokenwire.observe.hooks import report
from tokenwire.relay.spending.bill import zone_of
from tokenwire.relay.spending.budgets import (
    Budget,
    BudgetError,
    Remaining,
    budgets_of,
    remaining_of,
    require,
)
from tokenwire.relay.spending.stored import StoredBudgets, of_run
from tokenwire.server.settings import Settings
from tokenwire.server.spending.notice import note

if TYPE_CHECKING:
    from tokenwire.relay import Store
    from tokenwire.relay.runs import Runs
    from tokenwire.relay.spending.settling import Settling
    from tokenwire.server.edge.auth import Identity

__all__ = ["HEADER", "Budgets", "UnpricedError"]

HEADER = "Tokenwire-Budget"
#: A budget is near its end where less than this part of it is left: a fifth.
_NEAR = 5


class UnpricedError(BudgetError):
    """What a run would cost is not known, and a budget in dollars holds. ``details``: ``limit``,
    its name."""

    code = "unpriced"


class Budgets:
    """The budgets of the settings, and those that operators set. ``stored``: the latter, from the
    start of the server on. Raises `ConfigError` for what is none."""

    stored: StoredBudgets
    _store: Store

    def __init__(self, settings: Settings) -> None:
        self.configured: list[Budget] = budgets_of(settings.budget)
        self.zone = zone_of(settings.usage_zone)
        self._unpriced = settings.unpriced

    @property
    def any(self) -> bool:
        """Whether the settings have any, so that usage has to be counted."""
        return bool(self.configured)

    def open(self, store: Store) -> None:
        """``store`` has what operators set."""
        self._store = store
        self.stored = StoredBudgets(store)

    async def forget_expired(self, runs: list[str], threads: list[str]) -> None:
        """Erase the budgets of conversations (by their names in the store) of which nothing is
        left. Raises `LogError`."""
        for thread in threads:
            if not await self._store.thread(thread, most=1):
                await self.stored.forget_threads([thread])

    async def admit(
        self,
        runs: Runs,
        settling: Settling | None,
        identity: Identity,
        *,
        thread: str | None,
        is_repeated: Callable[[], Awaitable[bool]],
        target: tuple[str, str] | None = None,
    ) -> list[str] | None:
        """The budgets in force, as texts; note what is left in a header of the answer. ``target``:
        provider and name of the model; None where that is not known before. Raises `BudgetError`
        where nothing is left, or a budget in dollars holds and the model has no price, unless the
        start ``is_repeated``, and `LogError`."""
        if settling is None:
            return None
        scope: str | None = None
        if thread is not None and await self._has_threads():
            scope = (await runs.members.enter(identity.principal, thread, "write")).scope
        remaining = await self.remaining(settling, identity.principal, scope, identity)
        budgets = [one.budget.text for one in remaining]
        if remaining:
            note(HEADER, ", ".join(map(_described, remaining)))
        try:
            require(remaining)
            if target is not None and self._unpriced == "refuse":
                await _require_price(settling, target, remaining)
        except BudgetError as error:
            if await is_repeated():
                return budgets
            names = {(one.budget.name, one.budget.unit) for one in remaining if one.amount <= 0}
            if error.code == UnpricedError.code:
                names = {(str(error.details["limit"]), "dollars")}
            for name, unit in sorted(names):
                report(BudgetRefused(name, unit))
            raise
        for budget, amount, _ in remaining:
            if amount * _NEAR < budget.most:
                report(BudgetNear(budget.name, budget.unit))
        return budgets

    async def remaining(
        self,
        settling: Settling,
        principal: str,
        scope: str | None = None,
        identity: Identity | None = None,
    ) -> list[Remaining]:
        """What is left of the budgets of a principal, whose ``identity`` may name its own, and of a
        conversation, by its name in the store. Raises `LogError`."""
        budgets = await self.of(principal, scope)
        own = _own(identity) if identity is not None else []
        if own:
            places = {budget.place for budget in own}
            budgets = [*(one for one in budgets if one.place not in places), *own]
        return await remaining_of(
            settling.ledger, self.zone, budgets, principal=principal, thread=scope
        )

    async def of(self, principal: str, scope: str | None = None) -> list[Budget]:
        """The budgets in force for a principal, and for a conversation, by its name in the store.
        Raises `LogError`."""
        table = await self.stored.table()
        return of_run(self.configured, table, principal=principal, thread=scope)

    async def _has_threads(self) -> bool:
        """Whether any conversation has a budget."""
        if any(budget.period is None for budget in self.configured):
            return True
        return await self.stored.has_threads()


def _own(identity: Identity) -> list[Budget]:
    """The budgets that authentication names for a principal, and for its tenant."""
    return budgets_of(
        f"{whose}/{text}"
        for whose, limits in (("principal", identity.limits), ("tenant", identity.tenant_limits))
        if limits is not None
        for text in limits.budgets
    )


async def _require_price(
    settling: Settling, target: tuple[str, str], remaining: list[Remaining]
) -> None:
    """Raise `UnpricedError` where one of the budgets is in dollars and the model has no price."""
    budget = next((one.budget for one in remaining if one.budget.unit == "dollars"), None)
    if budget is not None and not await settling.has_price(*target):
        raise UnpricedError(
            f"the model '{'/'.join(target)[:120]}' has no price, and a budget in dollars holds: "
            "use another one, or give it a price (--price)",
            limit=budget.name,
            reason="unpriced",
        )


def _described(remaining: Remaining) -> str:
    """``principal/day; unit=tokens; left=1200; most=200000; resets=3600``."""
    budget, amount, resets = remaining
    fields = [
        budget.name,
        f"unit={budget.unit}",
        f"left={budget.shown(max(0, amount)):.9g}"
        if budget.unit == "dollars"
        else f"left={max(0, amount)}",
        f"most={budget.shown(budget.most):.9g}"
        if budget.unit == "dollars"
        else f"most={budget.most}",
    ]
    if resets is not None:
        fields.append(f"resets={math.ceil(resets)}")
    return "; ".join(fields)
