"""Budgets: how much principals, tenants and conversations may use, and what is left of it.

Always true: what is used or reserved is what the sums in the store say, so all processes of a
store hold the same budget; a sum in money has only what has a price.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple, cast

from tokenwire.errors import ConfigError, TokenwireError
from tokenwire.events.principal import parts_of
from tokenwire.relay.spending.bill import day_of
from tokenwire.relay.spending.ledger import Account, Ledger, owner_account, thread_account
from tokenwire.relay.spending.prices import NANOS

__all__ = [
    "Budget",
    "BudgetError",
    "Remaining",
    "account_of",
    "budgets_of",
    "remaining_of",
    "require",
    "resets_of",
    "run_budget",
]

_FORM = re.compile(r"(?:(principal|tenant)/(day|month)|(thread))=(\$?)([0-9]+(?:\.[0-9]+)?)")
#: Tokens, or dollars, that a budget may have: more is a mistake.
_MOST = 10**15


class BudgetError(TokenwireError):
    """A budget is used up. ``details``: ``limit`` (its name), ``most``, and ``retry_after``, the
    seconds until it begins anew."""

    code = "budget"
    http_status = 402


class Budget(NamedTuple):
    """So many tokens, or billionths of a dollar, for one owner; in a period, or (a conversation)
    for good."""

    whose: str
    period: Literal["day", "month"] | None
    unit: Literal["tokens", "dollars"]
    most: int

    @property
    def place(self) -> tuple[str, str | None, str]:
        """What a budget is for; a second one for the same takes its place."""
        return self.whose, self.period, self.unit

    @property
    def name(self) -> str:
        """``principal/day``."""
        return self.whose if self.period is None else f"{self.whose}/{self.period}"

    def shown(self, amount: int) -> int | float:
        """An amount in tokens or dollars."""
        return amount if self.unit == "tokens" else amount / NANOS

    @property
    def text(self) -> str:
        """As `budgets_of` reads it."""
        amount = self.most if self.unit == "tokens" else f"${Decimal(self.most) / NANOS:f}"
        return f"{self.name}={amount}"

    @property
    def words(self) -> str:
        """Its amount, for people."""
        if self.unit == "tokens":
            return f"{self.most:,} tokens"
        dollars = Decimal(self.most) / NANOS
        is_cents = dollars == round(dollars, 2)
        return f"${dollars:,.2f}" if is_cents else f"${dollars.normalize():,f}"


class Remaining(NamedTuple):
    """What is left of a budget; ``resets``: seconds until it begins anew, None for good."""

    budget: Budget
    amount: int
    resets: float | None


def budgets_of(texts: Iterable[str]) -> list[Budget]:
    """Budgets as they are written: ``principal/day=200000`` (tokens), ``tenant/month=$100``,
    ``thread=$2``. Raises `ConfigError`."""
    budgets: dict[tuple[str, str | None, str], Budget] = {}
    for text in texts:
        budget = _budget_of(text)
        if budget.place in budgets:
            raise ConfigError(f"two budgets are for the same: '{text[:80]}'")
        budgets[budget.place] = budget
    return list(budgets.values())


def _budget_of(text: str) -> Budget:
    match = _FORM.fullmatch(text.replace(" ", "").replace("_", ""))
    if match is None:
        raise ConfigError(
            f"a budget is written as principal/day=200000, tenant/month=$100 or thread=$2, not "
            f"'{text[:80]}'"
        )
    whose, period, thread, dollar, number = match.groups()
    when = cast("Literal['day', 'month'] | None", period)
    try:
        amount = Decimal(number)
    except InvalidOperation as error:
        raise ConfigError(f"the budget '{text[:80]}' has no amount") from error
    if amount > _MOST:
        raise ConfigError(f"the budget '{text[:80]}' is more than {_MOST:,}")
    if not dollar and amount != int(amount):
        raise ConfigError(f"the budget '{text[:80]}' needs a whole number of tokens")
    most = int(amount * NANOS) if dollar else int(amount)
    if amount and not most:
        raise ConfigError(f"the budget '{text[:80]}' is less than a billionth of a dollar")
    return Budget(thread or whose, when, "dollars" if dollar else "tokens", most)


def run_budget(text: str) -> Budget:
    """The budget of one run as it is written: ``1000`` (tokens) or ``$0.05``. Raises
    `ConfigError`."""
    return _budget_of(f"thread={text}")._replace(whose="run")


async def remaining_of(
    ledger: Ledger,
    zone: tzinfo,
    budgets: Iterable[Budget],
    *,
    principal: str,
    thread: str | None = None,
) -> list[Remaining]:
    """What is left of those budgets that a run of ``principal`` in ``thread`` (its name in the
    store) would use; less than 0 where more was used. Raises `LogError`."""
    now, tenant = time.time(), parts_of(principal)[1]
    day, remaining = day_of(now, zone), list[Remaining]()
    for budget in budgets:
        account = account_of(budget, day, principal, tenant, thread)
        if account is not None:
            entry = await ledger.read(account)
            amount = budget.most - entry.committed(budget.unit)
            remaining.append(Remaining(budget, amount, resets_of(budget, now, zone)))
    return remaining


def require(remaining: Iterable[Remaining]) -> None:
    """Raise `BudgetError` where nothing is left of one."""
    for budget, amount, resets in remaining:
        if amount <= 0:
            when = {"day": "today", "month": "this month", None: "this conversation"}[budget.period]
            details = {} if resets is None else {"retry_after": max(1.0, resets)}
            raise BudgetError(
                f"the budget of {budget.words} for {when} is used up",
                limit=budget.name,
                most=budget.shown(budget.most),
                **details,
            )


def account_of(
    budget: Budget, day: str, principal: str, tenant: str | None, thread: str | None
) -> Account | None:
    """The sum that a budget is about; None where it is not about such a run."""
    if budget.period is None:
        return None if thread is None else thread_account(thread)
    if budget.whose == "tenant":
        return None if tenant is None else owner_account(budget.period, day, "t", tenant)
    return owner_account(budget.period, day, "p", principal)


def resets_of(budget: Budget, now: float, zone: tzinfo) -> float | None:
    """Seconds until the next day, or the first of the next month, begins in ``zone``."""
    if budget.period is None:
        return None
    today = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if budget.period == "day":
        # Noon, so that a day of 23 or 25 hours counts as one.
        following = (today.replace(hour=12) + timedelta(days=1)).replace(hour=0)
    else:
        following = (today.replace(day=28) + timedelta(days=4)).replace(day=1)
    return following.timestamp() - now
