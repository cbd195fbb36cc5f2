"""When to come back after a cut: plain arithmetic, with the time and the chance as arguments.

Always true: every wait is random over its whole range (full jitter) under a cap that doubles with
each cut; only a connection that lived long enough makes it short again; a server that names a time
is never asked before it; whoever has heard nothing for as long as the patience lasts gives up.
"""

from __future__ import annotations

import math
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

__all__ = ["Patience", "Reconnect", "retry_after"]

#: A server's word is followed up to this; what is longer is a mistake.
_MOST_TOLD = 3600.0
#: `2 ** tries` beyond this is far over any cap.
_MOST_DOUBLINGS = 32


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How a reader waits; all in seconds.

    ``base`` and ``cap``: the longest first wait and the longest of all. ``healthy``: a connection
    that lived this long makes the next wait short again. ``silence``: a connection that says
    nothing for this long counts as dead (two heartbeats). ``connect``: for a connection to open.
    ``give_up``: after this long without a word from the server; None is never.
    """

    base: float = 0.5
    cap: float = 15.0
    healthy: float = 5.0
    silence: float = 30.0
    connect: float = 10.0
    give_up: float | None = 300.0


class Reconnect:
    """The cuts of one reader. ``now`` is any clock that only grows."""

    def __init__(self, patience: Patience, now: float) -> None:
        self.patience = patience
        #: Cuts since a connection was healthy.
        self.tries = 0
        self._heard = now
        self._opened: float | None = None

    def opened(self, now: float) -> None:
        """A connection was answered."""
        self._opened = self._heard = now

    def heard(self, now: float) -> None:
        """Something came: an event or a heartbeat."""
        self._heard = now

    def cut(
        self, now: float, chance: float, *, told: float | None = None, wait: float | None = None
    ) -> float | None:
        """The connection ended or never was. The seconds to wait, or None: it is time to give up.

        ``chance`` is a random number from 0 to 1. ``told``: a ``reconnect`` event asked to come
        back within about that many seconds; ``wait``: the server said ``Retry-After``.
        """
        opened, self._opened = self._opened, None
        if opened is not None and now - opened >= self.patience.healthy:
            self.tries = 0
        pause = chance * min(
            self.patience.cap, self.patience.base * 2 ** min(self.tries, _MOST_DOUBLINGS)
        )
        if wait is not None:
            # Not all at the same moment when the time is over.
            pause += min(max(wait, 0.0), _MOST_TOLD)
        elif told is not None and self.tries == 0:
            pause = chance * min(max(told, 0.0), _MOST_TOLD)
        self.tries += 1
        give_up = self.patience.give_up
        if give_up is not None and now + pause - self._heard > give_up:
            return None
        return pause


def retry_after(value: str | None, now: float) -> float | None:
    """``Retry-After`` as seconds from ``now`` (Unix time): a number or a date. None for others."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = date.timestamp() - now
    return max(0.0, seconds) if math.isfinite(seconds) else None
