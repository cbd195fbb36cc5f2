"""The checker of money can fail: sums that break each invariant are found."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from faults.budget_checker import Most, Settled, check_money
from tokenwire.relay.spending.bill import Bill, BillLine, Sum
from tokenwire.relay.spending.counts import Counts
from tokenwire.relay.spending.ledger import Account, Holding, StoredSum

DAY = Account("spent-day", "2026-11-29.p.0", "eve")
NEXT = Account("spent-day", "2026-11-30.p.0", "eve")
MONTH = Account("spent-month", "2026-11.p.0", "eve")
THREAD = Account("spent-thread", "0")
DAYS = {DAY: "2026-11-29", MONTH: "2026-11", THREAD: ""}


def used(tokens: int, *, estimated: int = 0, calls: int = 1) -> Sum:
    counts = Counts(input_tokens=1, output_tokens=tokens - 1)
    cost, more = tokens * 10, estimated * 10
    return Sum(
        calls=calls, counts=counts, cost=cost, estimated_tokens=estimated, estimated_cost=more
    )


def run(name: str, *lines: tuple[str, Sum]) -> Settled:
    bill = Bill(principal="eve", lines=[BillLine(model="m", day=day, sum=s) for day, s in lines])
    stored = copy.deepcopy(bill)
    stored.is_settled = True
    days = {line[0] for line in lines}
    within = {a: d for a, d in [*DAYS.items(), (NEXT, "2026-11-30")] if a != NEXT or d in days}
    return Settled(name, bill, stored, within)


@dataclass
class Rest:
    """A store at rest: one run over midnight, one that was cut, and one that never called."""

    runs: list[Settled]
    sums: dict[Account, StoredSum]
    most: list[Most]

    @property
    def found(self) -> str:
        return " ".join(sorted({text[:2] for text in check_money(self.runs, self.sums, self.most)}))


def spent(runs: int, *parts: Sum) -> StoredSum:
    entry = StoredSum(runs=runs)
    for part in parts:
        entry.add(part)
    return entry


def at_rest() -> Rest:
    before, after = used(40), used(5)
    cut = used(2, estimated=30)
    runs = [
        run("r1", ("2026-11-29", before), ("2026-11-30", after)),
        run("r2", ("2026-11-29", cut)),
        run("r3"),
    ]
    sums = {
        DAY: spent(2, before, cut),
        NEXT: spent(1, after),
        MONTH: spent(2, before, after, cut),
        THREAD: spent(2, before, after, cut),
    }
    return Rest(runs, sums, [Most(DAY, "tokens", 60, 12), Most(MONTH, "dollars", 770, 0)])


def test_what_is_whole_passes() -> None:
    rest = at_rest()
    assert rest.found == ""
    rest.runs[1].end, rest.runs[1].is_told = "budget", True
    rest.runs[0].is_told = True  # of an attempt that was lost; others gave back what they held
    assert rest.found == ""


def _noted(rest: Rest) -> None:
    rest.runs[0].is_noted = True


def _no_bill(rest: Rest) -> None:
    rest.runs[0].stored = None


def _open_bill(rest: Rest) -> None:
    assert rest.runs[0].stored is not None
    rest.runs[0].stored.is_settled = False


def _early_bill(rest: Rest) -> None:
    assert rest.runs[0].stored is not None
    del rest.runs[0].stored.lines[1]


def _lost_run(rest: Rest) -> None:
    rest.sums[DAY] = spent(1, used(40))


def _lost_sum(rest: Rest) -> None:
    rest.sums[THREAD] = StoredSum()


def _lost_estimate(rest: Rest) -> None:
    rest.sums[MONTH].estimated_tokens = 0


def _lost_money(rest: Rest) -> None:
    rest.sums[MONTH].cost -= 10


def _twice(rest: Rest) -> None:
    rest.sums[NEXT] = spent(2, used(5), used(5))


def _twice_counted_once(rest: Rest) -> None:
    rest.sums[NEXT] = spent(1, used(5), used(5))


def _other_day(rest: Rest) -> None:
    rest.sums[DAY].add(used(5))
    rest.sums[NEXT] = StoredSum()


def _held(rest: Rest) -> None:
    rest.sums[DAY].holdings["r3"] = Holding(tokens=25)


def _beyond(rest: Rest) -> None:
    rest.most[0].beyond = 11


def _beyond_in_money(rest: Rest) -> None:
    rest.most[1].amount = 769


def _held_beyond(rest: Rest) -> None:
    rest.sums[DAY].holdings["r3"] = Holding(tokens=1)


def _untold(rest: Rest) -> None:
    rest.runs[1].end = "budget"


@pytest.mark.parametrize(
    ("hurt", "found"),
    [
        (_noted, "M1"),
        (_no_bill, "M1"),
        (_open_bill, "M1"),
        (_early_bill, "M1"),
        (_lost_run, "M2"),
        (_lost_sum, "M2"),
        (_lost_estimate, "M2"),
        (_lost_money, "M2"),
        (_twice, "M3"),
        (_twice_counted_once, "M3"),
        (_other_day, "M2 M3 M5"),
        (_held, "M4 M5"),
        (_beyond, "M5"),
        (_beyond_in_money, "M5"),
        (_held_beyond, "M4 M5"),
        (_untold, "M6"),
    ],
)
def test_what_is_broken_is_found(hurt: Callable[[Rest], None], found: str) -> None:
    rest = at_rest()
    hurt(rest)
    assert rest.found == found
