"""The goals of performance, and the table of what was reached. No measuring here.

A figure is a number, a ratio with its spread, or the reason why it could not be had. A ratio is
that of all rounds together, as what a server does now and then is in some of them only; half of the
pairs (two servers that were measured one after the other, in the same round) are between the two
bounds that stand beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

__all__ = ["GOALS", "Figure", "Goal", "Missing", "Ratio", "ratio", "table"]


class Goal(NamedTuple):
    """One goal: what it is about, and the value to reach, without the compiled twin and with it."""

    text: str
    python: float
    twin: float
    #: After the value.
    unit: str = "x"
    #: The value is to be reached, not to be kept under.
    is_least: bool = False

    def is_met(self, value: float, *, with_twin: bool) -> bool:
        """Whether ``value`` is good enough; what is printed as the goal is."""
        shown = float(_number(value))
        limit = self.twin if with_twin else self.python
        return shown >= limit if self.is_least else shown <= limit


class Missing(NamedTuple):
    """A figure that could not be had."""

    reason: str


class Ratio(NamedTuple):
    """The ratio of the sums, and the quartiles of the pairs: half are from ``low`` to ``high``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.spread()})"

    def spread(self) -> str:
        """The quartiles, as they are printed."""
        return f"{_number(self.low)}-{_number(self.high)}"


Figure = float | Ratio | Missing

#: By the names that `goals.py` gives its figures.
GOALS: dict[str, Goal] = {
    "bare-400": Goal("token, memory, 400 streams, against the bare uvloop server", 1.4, 1.0),
    "bare-800": Goal("token, memory, 800 streams, against the bare uvloop server", 1.4, 1.0),
    "proxy-400": Goal("token, memory, 400 streams, against the C proxy", 2.7, 1.7),
    "proxy-800": Goal("token, memory, 800 streams, against the C proxy", 2.3, 1.6),
    "sqlite": Goal("token, SQLite fully durable, against memory", 1.6, 1.8),
    "redis": Goal("token, Redis (server excluded), against memory", 1.5, 1.6),
    "held-memory": Goal("streams held, memory", 700, 1200, "", True),
    "held-sqlite": Goal("streams held, SQLite", 500, 800, "", True),
    "held-redis": Goal("streams held, Redis", 500, 800, "", True),
    "fast": Goal("token, 200 tokens/s a stream, against the C proxy", 1.5, 0.7),
    "fan-out": Goal("reader and token, 1,000 readers, against a C loop of send", 1.5, 1.15),
    "replay": Goal("replay of 10,000 records, SQLite, CPU", 5.0, 1.0, "ms"),
    "wires": Goal("token, the dearest of the other wires, against the native one", 1.15, 1.15),
    "written": Goal("written per record, SQLite, 400 streams", 2.0, 2.0, "kB"),
    "redis-server": Goal("token, redis-server's own CPU", 5.0, 5.0, "us"),
    "workers": Goal("token, two workers at half load each, against one", 1.1, 1.1),
    "elsewhere": Goal("reader and token, readers in another worker, against the same", 1.3, 1.3),
}


def ratio(costs: Sequence[float], base: Sequence[float]) -> Ratio:
    """The ratio of all rounds that have both. Raises ValueError without such a round."""
    pairs = [(cost, least) for cost, least in zip(costs, base, strict=False) if least > 0]
    if not pairs:
        raise ValueError("no round has both")
    value = sum(cost for cost, _ in pairs) / sum(least for _, least in pairs)
    ratios = [cost / least for cost, least in pairs]
    if len(ratios) == 1:
        return Ratio(value, value, value)
    low, _, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return Ratio(value, low, high)


def table(
    figures: Mapping[str, Figure],
    names: Collection[str] = GOALS,
    doubts: Mapping[str, str] | None = None,
    *,
    with_twin: bool,
) -> list[str]:
    """The lines of the table: goal, value, what half of the pairs are between, what it should be,
    whether it is met; last a count. ``names``: the goals that it is about; ``doubts``: why a figure
    does not count either way."""
    width = max(len(goal.text) for goal in GOALS.values())
    lines = [_line("goal", "value", "half of them", "goal", "met", width)]
    met = measured = 0
    for name, goal in GOALS.items():
        if name not in names:
            continue
        figure = figures.get(name, Missing("not measured"))
        limit = goal.twin if with_twin else goal.python
        wanted = f"{'>=' if goal.is_least else '<='} {_number(limit)} {goal.unit}".rstrip()
        if isinstance(figure, Missing):
            lines.append(_line(goal.text, "-", "", wanted, figure.reason, width))
            continue
        spread = figure.spread() if isinstance(figure, Ratio) else ""
        value = figure.value if isinstance(figure, Ratio) else figure
        if doubts and name in doubts:
            verdict = f"? {doubts[name]}"
        else:
            is_met = goal.is_met(value, with_twin=with_twin)
            measured, met = measured + 1, met + is_met
            verdict = "yes" if is_met else "NO"
        shown = f"{_number(value)} {goal.unit}".rstrip()
        lines.append(_line(goal.text, shown, spread, wanted, verdict, width))
    missing = len(names) - measured
    lines.append(f"{met} of {measured} met" + (f", {missing} not measured" if missing else ""))
    return lines


def _line(text: str, value: str, spread: str, wanted: str, verdict: str, width: int) -> str:
    return f"{text:{width}}  {value:>9}  {spread:>12}  {wanted:>11}  {verdict}"


def _number(value: float) -> str:
    return f"{value:.2f}" if 0 < value < 10 else f"{value:.0f}"
