"""How fast a simulated model speaks: time to first token, rate, jitter, tokens per chunk.

Always true: the schedule is a function of the settings and the seed; it reads no clock.
"""

from __future__ import annotations

import random

import msgspec

from tokenwire.simulator.script import PaceHint

__all__ = ["Pace", "Schedule"]


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the rhythm. A rate of 0 means: as fast as the reader takes it."""

    #: Seconds from the request to the first byte of the answer.
    ttft: float = 0.0
    #: Tokens a second after the first; 0 is without a limit.
    rate: float = 0.0
    #: Spread of each gap around its mean, from 0 (even) to 1 (from nothing to twice the mean).
    jitter: float = 0.0
    #: Tokens joined into one chunk.
    tokens_per_chunk: int = 1

    def with_hint(self, hint: PaceHint) -> Pace:
        """The rhythm of a script that brings its own."""
        rate = self.rate if hint.rate is None else hint.rate
        if hint.rate is None and rate:
            rate = max(rate, hint.least_rate)
        return Pace(
            ttft=self.ttft if hint.ttft is None else hint.ttft,
            rate=rate,
            jitter=self.jitter if hint.jitter is None else min(1.0, max(0.0, hint.jitter)),
            tokens_per_chunk=hint.tokens_per_chunk or self.tokens_per_chunk,
        )


class Schedule:
    """The gaps of one answer, drawn one after another."""

    __slots__ = ("_draw", "_jitter", "_seconds", "pace")

    def __init__(self, pace: Pace, seed: int) -> None:
        self.pace = pace
        self._seconds = 1.0 / pace.rate if pace.rate > 0 else 0.0
        self._jitter = min(1.0, max(0.0, pace.jitter))
        self._draw = random.Random(seed).random

    def first(self) -> float:
        """Seconds before the first byte."""
        return max(0.0, self.pace.ttft * self._spread())

    def gap(self, tokens: int) -> float:
        """Seconds before a chunk of ``tokens``."""
        if self._seconds == 0.0:
            return 0.0
        return self._seconds * tokens * self._spread()

    def _spread(self) -> float:
        if self._jitter == 0.0:
            return 1.0
        return 1.0 + self._jitter * (2.0 * self._draw() - 1.0)
