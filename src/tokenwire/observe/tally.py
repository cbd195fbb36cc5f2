"""Histograms for per-token values: lists of counts, turned into metrics on demand.

Always true: `Tally.observe` is a bisection and two additions; only the event loop's thread
calls it, any thread may read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["Tallies", "Tally"]


class Tally:
    """Counts by bucket; ``bounds`` are the buckets' upper ends, inclusive, ascending."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count each of ``values``."""
        bounds, counts = self.bounds, self.counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)

    def buckets(self) -> list[tuple[str, float]]:
        """``[(upper end, number up to it), ...]``, the last one ``+Inf``."""
        rows: list[tuple[str, float]] = []
        below = 0
        ends = [*map(str, map(float, self.bounds)), "+Inf"]
        for end, count in zip(ends, list(self.counts), strict=True):
            below += count
            rows.append((end, below))
        return rows


class Tallies:
    """One histogram, with a label or without, for a Prometheus registry to collect."""

    def __init__(self, name: str, text: str, bounds: tuple[float, ...], label: str = "") -> None:
        self._name, self._text, self._bounds = name, text, bounds
        self._labels = [label] if label else []
        self._by_value: dict[str, Tally] = {}

    def of(self, value: str = "") -> Tally:
        """The tally of a label's value."""
        tally = self._by_value.get(value)
        if tally is None:
            tally = self._by_value[value] = Tally(self._bounds)
        return tally

    def collect(self) -> Iterator[Any]:
        """The metric family, for `prometheus_client`."""
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for value, tally in list(self._by_value.items()):
            labels = [value] if self._labels else []
            family.add_metric(labels, buckets=tally.buckets(), sum_value=tally.total)
        yield family
