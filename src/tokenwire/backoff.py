"""How long to wait before another attempt: doubling under a cap, spread so that many do not retry
at the same moment.

Always true: pure; the randomness is an argument; any number of failures gives a finite pause.
"""

from __future__ import annotations

__all__ = ["EVEN", "FULL_JITTER", "backoff"]

#: No spread: for one caller against one peer.
EVEN = (1.0, 1.0)
#: The whole range below the cap: for many clients of one server.
FULL_JITTER = (0.0, 1.0)

#: `2 ** failures` beyond this is far over any cap.
_MOST_DOUBLINGS = 32


def backoff(
    failures: int,
    *,
    first: float,
    longest: float,
    spread: tuple[float, float] = EVEN,
    chance: float = 1.0,
) -> float:
    """Seconds to wait after ``failures`` (1 and more) failed attempts in a row: ``first``, then
    twice as long each time, up to ``longest``; times a factor of the range ``spread``, chosen by
    ``chance`` (a random number from 0 to 1)."""
    pause = min(longest, first * 2.0 ** min(max(failures, 1) - 1, _MOST_DOUBLINGS))
    low, high = spread
    return pause * (low + (high - low) * chance)
