"""The bill of a run: its calls by model and day, what they cost, and by which table of prices.

Always true: a bill is made once, and what it says stays, whatever another table would say; tokens
without a price are counted beside the cost, never in it.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from tokenwire.errors import ConfigError
from tokenwire.relay.spending.counts import Counts, bounded
from tokenwire.relay.spending.meter import ModelCall
from tokenwire.relay.spending.prices import Prices

__all__ = [
    "Bill",
    "BillLine",
    "Sum",
    "bill_of",
    "costs_by_kind",
    "day_of",
    "estimated_cost",
    "zone_of",
]


#: In which order the kinds of tokens are taken out of a call, to know what each of them cost.
_KINDS = ("reasoning", "output", "cache_write", "cached_input", "input")


class Sum(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Calls and what they used. ``cost``: billionths of a dollar of the tokens that have a price;
    ``unpriced_tokens``: those that have none; ``unreported_calls``: calls that were answered, and
    of which the provider did not say what they used. ``estimated_tokens``, ``estimated_cost``:
    what calls used beyond that, where they were cut or unreported; never in the others."""

    calls: int = 0
    unreported_calls: int = 0
    counts: Counts = msgspec.field(default_factory=Counts)
    cost: int = 0
    unpriced_tokens: int = 0
    estimated_tokens: int = 0
    estimated_cost: int = 0

    def add(self, other: Sum) -> None:
        """Add ``other``."""
        self.calls += other.calls
        self.unreported_calls += other.unreported_calls
        self.counts.add(other.counts)
        self.cost = bounded(self.cost + other.cost)
        self.unpriced_tokens = bounded(self.unpriced_tokens + other.unpriced_tokens)
        self.estimated_tokens = bounded(self.estimated_tokens + other.estimated_tokens)
        self.estimated_cost = bounded(self.estimated_cost + other.estimated_cost)

    @property
    def all_tokens(self) -> int:
        """Tokens, the estimated ones too: what counts for a budget."""
        return self.counts.total + self.estimated_tokens

    @property
    def all_cost(self) -> int:
        """Billionths of a dollar, the estimated ones too."""
        return self.cost + self.estimated_cost

    def count(self, call: ModelCall, cost: int | None, estimated_cost: int | None = None) -> None:
        """Add one call, which cost so much, or nobody knows how much."""
        self.calls += 1
        if call.estimate is not None:
            self.estimated_tokens = bounded(self.estimated_tokens + call.estimate.total)
            self.estimated_cost = bounded(self.estimated_cost + (estimated_cost or 0))
        if call.counts is None:
            self.unreported_calls += 1
            return
        self.counts.add(call.counts)
        if cost is None:
            self.unpriced_tokens = bounded(self.unpriced_tokens + call.counts.total)
        else:
            self.cost = bounded(self.cost + cost)


class BillLine(msgspec.Struct, kw_only=True):
    """The calls of one model on one day (``2026-11-29``)."""

    model: str
    day: str
    sum: Sum
    #: The cost by kind of token, of which none is a part of another: they add up to the sum's.
    costs: dict[str, int] = {}

    def count(self, call: ModelCall, prices: Prices) -> None:
        """Add one call."""
        cost = prices.cost(call) if call.counts is not None else None
        self.sum.count(call, cost, estimated_cost(call, prices))
        for kind, part in costs_by_kind(call, prices, cost or 0).items():
            self.costs[kind] = bounded(self.costs.get(kind, 0) + part)


class Bill(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one run used. ``table``: of the prices, None without one; ``thread``: the name of its
    conversation in the store; ``is_settled``: it is in all sums."""

    principal: str = ""
    thread: str | None = None
    lines: list[BillLine] = []
    table: str | None = None
    is_settled: bool = False


def bill_of(
    calls: list[ModelCall], prices: Prices, zone: tzinfo, *, principal: str, thread: str | None
) -> Bill:
    """The bill of a run with these calls."""
    lines: dict[tuple[str, str], BillLine] = {}
    for call in calls:
        key = (call.name[:200], day_of(call.time / 1000, zone))
        line = lines.get(key)
        if line is None:
            line = lines[key] = BillLine(model=key[0], day=key[1], sum=Sum())
        line.count(call, prices)
    return Bill(principal=principal, thread=thread, lines=list(lines.values()), table=prices.table)


def costs_by_kind(call: ModelCall, prices: Prices, cost: int) -> dict[str, int]:
    """What a ``cost`` is made of, by kind of token; ``unsplit`` where the prices do not say it. A
    price that depends on the length of the request is that of the whole one for its first kinds."""
    rest, remaining, costs = call.counts, cost, dict[str, int]()
    if rest is None or not cost or rest.unsplit_tokens:
        return {"unsplit": cost} if cost else {}
    for kind in _KINDS:
        if not getattr(rest, f"{kind}_tokens"):
            continue
        rest = rest.without(kind)
        less = prices.cost(msgspec.structs.replace(call, counts=rest)) if rest.total else 0
        if less is None:
            return {"unsplit": cost}
        costs[kind] = max(0, remaining - less)
        remaining = min(remaining, less)
    return {kind: part for kind, part in costs.items() if part}


def estimated_cost(call: ModelCall, prices: Prices) -> int | None:
    """What the estimated tokens of a call cost; None where that is not known."""
    if call.estimate is None:
        return None
    return prices.cost(msgspec.structs.replace(call, counts=call.estimate))


def day_of(time: float, zone: tzinfo) -> str:
    """The day of a Unix time; its first seven characters are the month."""
    return datetime.fromtimestamp(time, zone).date().isoformat()


def zone_of(name: str) -> tzinfo:
    """The time zone ``Europe/Berlin``. Raises `ConfigError`."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(
            f"unknown time zone '{name[:80]}'; use a name as Europe/Berlin"
        ) from error
