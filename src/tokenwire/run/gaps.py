"""The times between the chunks of an answer, reported to observers about once a second.

Always true: the time is an argument; a chunk costs a subtraction and an append; each gap is
reported once.
"""

from __future__ import annotations

from itertools import pairwise

__all__ = ["ChunkGaps"]

#: Seconds, and number of gaps, after which the gathered gaps are reported.
_EVERY, _MOST = 1.0, 512


class ChunkGaps:
    """The gaps of one model call."""

    __slots__ = ("_before", "_gathered", "_reported")

    def __init__(self) -> None:
        self._before: float | None = None
        self._reported = 0.0
        self._gathered: list[float] = []

    def chunk(self, now: float) -> list[float] | None:
        """Record a chunk. Returns the gaps since the last report when one is due."""
        before, self._before = self._before, now
        if before is None:
            self._reported = now
            return None
        self._gathered.append(now - before)
        if now - self._reported < _EVERY and len(self._gathered) < _MOST:
            return None
        self._reported = now
        return self._hand_out()

    def chunks(self, times: list[float]) -> list[float] | None:
        """The same for several. What is due after one of them comes at the last."""
        before = times[0] if self._before is None else self._before
        if self._before is None:
            self._reported = before
            times = times[1:]
        self._gathered += [b - a for a, b in pairwise([before, *times])]
        self._before = now = times[-1] if times else before
        if now - self._reported < _EVERY and len(self._gathered) < _MOST:
            return None
        self._reported = now
        return self._hand_out()

    def end(self) -> list[float] | None:
        """The model call is over; returns the gaps not reported yet."""
        self._before = None
        return self._hand_out()

    def _hand_out(self) -> list[float] | None:
        gathered, self._gathered = self._gathered, []
        return gathered or None
