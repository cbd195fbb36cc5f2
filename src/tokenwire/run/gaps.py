"""The times between the chunks of an answer, gathered so that observers are told once a second.

Always true: the time is an argument; a chunk costs a subtraction and an append; what was gathered
is handed out once.
"""

from __future__ import annotations

__all__ = ["ChunkGaps"]

#: Seconds after which, and number at which, what was gathered is told.
_EVERY, _MOST = 1.0, 512


class ChunkGaps:
    """The gaps of one model call."""

    __slots__ = ("_before", "_gathered", "_told")

    def __init__(self) -> None:
        self._before: float | None = None
        self._told = 0.0
        self._gathered: list[float] = []

    def chunk(self, now: float) -> list[float] | None:
        """A chunk came. The gaps since they were last told, when that is a while ago."""
        before, self._before = self._before, now
        if before is None:
            self._told = now
            return None
        self._gathered.append(now - before)
        if now - self._told < _EVERY and len(self._gathered) < _MOST:
            return None
        self._told = now
        return self._hand_out()

    def end(self) -> list[float] | None:
        """The model call is over; the gaps that were not told yet."""
        self._before = None
        return self._hand_out()

    def _hand_out(self) -> list[float] | None:
        gathered, self._gathered = self._gathered, []
        return gathered or None
