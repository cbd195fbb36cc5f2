"""When to reconnect after a cut: plain arithmetic, with time and randomness as arguments.

Always true: every wait is random over its whole range (full jitter) under a cap that doubles with
each cut; only a connection that lived long enough resets it; no retry comes before the server's
``Retry-After``; after ``give_up`` seconds without a sign of life the client gives up.
"""

from __future__ import annotations

import msgspec

from tokenwire.backoff import FULL_JITTER, backoff
from tokenwire.framing.retry_after import seconds_after

__all__ = ["Patience", "Reconnect", "retry_after"]

#: The longest ``Retry-After`` in seconds; a longer one is a mistake.
_MOST_WAIT = 3600.0


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How a reader waits; all in seconds.

    ``base`` and ``cap``: the longest first wait and the longest of all. ``healthy``: a connection
    that lived this long resets the wait. ``silence``: a connection without a byte for this long
    is lost (two heartbeats). ``connect``: to open a connection. ``give_up``: without a sign of
    life from the server; None is never.
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
        self._last_sign = now
        self._open_since: float | None = None

    def opened(self, now: float) -> None:
        """A connection is open."""
        self._open_since = self._last_sign = now

    def heard(self, now: float) -> None:
        """A sign of life: an event or a heartbeat."""
        self._last_sign = now

    def cut(
        self, now: float, chance: float, *, within: float | None = None, wait: float | None = None
    ) -> float | None:
        """The connection was lost or never opened. The seconds to wait; None is to give up.

        ``chance`` is a random number from 0 to 1. ``within``: the seconds within which a
        ``reconnect`` event wants the client back; ``wait``: the server's ``Retry-After``.
        """
        open_since, self._open_since = self._open_since, None
        if open_since is not None and now - open_since >= self.patience.healthy:
            self.tries = 0
        patience = self.patience
        pause = backoff(
            self.tries + 1,
            first=patience.base,
            longest=patience.cap,
            spread=FULL_JITTER,
            chance=chance,
        )
        if wait is not None:
            # Not all clients at the same moment.
            pause += min(max(wait, 0.0), _MOST_WAIT)
        elif within is not None and self.tries == 0:
            pause = chance * min(max(within, 0.0), _MOST_WAIT)
        self.tries += 1
        give_up = self.patience.give_up
        if give_up is not None and now + pause - self._last_sign > give_up:
            return None
        return pause


def retry_after(value: str | None, now: float) -> float | None:
    """``Retry-After`` as seconds from ``now`` (Unix time): a number or a date. None for others."""
    return seconds_after(value, now) if value else None
