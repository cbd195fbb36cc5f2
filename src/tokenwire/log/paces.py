"""How long a group of appends waits for more records, by what the last one carried."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MOST_PACE", "PACES", "pace_after"]

#: Records of the last group from which on the next one begins so many seconds after it.
PACES = ((100, 0.010), (16, 0.006), (8, 0.004), (3, 0.003))
#: Seconds between two groups at most where other processes write to the store as well.
MOST_PACE = 0.015


def pace_after(last: int, beside: float, paces: Sequence[tuple[int, float]] = PACES) -> float:
    """Seconds between the beginnings of a group of ``last`` records and the next. ``beside``:
    records that other processes give the store for each group. All processes together send as many
    groups as one with all of the records would."""
    for count, pace in paces:
        if last + beside >= count:
            return min(pace * (1 + beside / max(last, 1)), max(pace, MOST_PACE))
    return 0.0
