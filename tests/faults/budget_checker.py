"""The invariants M1-M6 of money, checked on the sums in a store at rest. Pure: values in,
complaints out.

What a run used is read from its log again, by the same meter that bills it (the meter has tests of
its own); which run is in which sum, and how often, is worked out here by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenwire.relay.spending.bill import Bill, Sum
from tokenwire.relay.spending.ledger import Account, StoredSum, Unit

__all__ = ["Most", "Settled", "check_money"]


@dataclass
class Settled:
    """One run at rest. ``bill``: what its log says now; ``stored``: its bill in the store, None
    without one; ``accounts``: the sums that it belongs to, or has reserved in, each with the
    beginning of the days that count there; ``is_noted``: somebody still has to settle it;
    ``is_told``: that no budget was left is in its log; ``end``: why it ended."""

    run: str
    bill: Bill
    stored: Bill | None
    accounts: dict[Account, str]
    is_noted: bool = False
    is_told: bool = False
    end: str | None = None


@dataclass
class Most:
    """What one sum may come to: a budget, and what runs may use beyond it."""

    account: Account
    unit: Unit
    amount: int
    beyond: int


def check_money(
    runs: list[Settled], sums: dict[Account, StoredSum], most: Iterable[Most]
) -> Iterable[str]:
    """What is broken. ``sums``: all of the accounts of the runs."""
    for one in runs:
        yield from _billed(one)
    for account, entry in sums.items():
        expected, count = Sum(), 0
        for one in runs:
            lines = [line.sum for line in one.bill.lines if _counts(one, account, line.day)]
            count += bool(lines)
            for line in lines:
                expected.add(line)
        yield from _summed(account, entry, expected, count)
        if entry.holdings:
            yield f"M4: {sorted(entry.holdings)} hold still of {_name(account)}"
    for limit in most:
        taken = sums[limit.account].committed(limit.unit)
        if taken > limit.amount + limit.beyond:
            yield (
                f"M5: {taken} {limit.unit} of {_name(limit.account)} are used, of {limit.amount} "
                f"and {limit.beyond} beyond"
            )


def _counts(one: Settled, account: Account, day: str) -> bool:
    return account in one.accounts and day.startswith(one.accounts[account])


def _billed(one: Settled) -> Iterable[str]:
    """M1: each run has one bill, which says what its log says, and is settled."""
    if one.stored is None or one.is_noted or not one.stored.is_settled:
        yield f"M1: {one.run} is not settled"
    elif one.stored.lines != one.bill.lines:
        yield f"M1: the bill of {one.run} says {one.stored.lines}, its log {one.bill.lines}"
    if one.end == "budget" and not one.is_told:
        yield f"M6: {one.run} ended by a budget, and its log has none that is used up"


def _summed(account: Account, entry: StoredSum, expected: Sum, count: int) -> Iterable[str]:
    """M2: nothing is lost; M3: nothing is counted twice."""
    for name, found, due in (
        ("runs", entry.runs, count),
        ("calls", entry.calls, expected.calls),
        ("tokens", entry.all_tokens, expected.all_tokens),
        ("billionths", entry.all_cost, expected.all_cost),
        ("estimated tokens", entry.estimated_tokens, expected.estimated_tokens),
    ):
        if found != due:
            kind = "M2" if found < due else "M3"
            yield f"{kind}: {_name(account)} has {found} {name}, and its runs {due}"


def _name(account: Account) -> str:
    return f"{account.kind}/{account.name[:12]} {account.owner!r}"
