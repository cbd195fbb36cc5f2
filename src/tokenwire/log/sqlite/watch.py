"""Leases whose end is further away than a lease is long: the clock of their owner is ahead.

Always true: a lease that its owner renews is never stale, whatever the clocks say; one that nobody
renews is stale after the time of a lease by the monotonic clock of the process that watches it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["Term", "Watch"]

_log = logging.getLogger("tokenwire.log")


class Term(NamedTuple):
    """One lease as it is stored; a renewal changes its end."""

    log: str
    epoch: int
    #: Unix seconds by the clock of the owner.
    end: float


class Watch:
    """What one process has seen of such leases. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[Term, float] = {}
        #: Those that nobody renewed for their time, by their logs.
        self.stale: dict[str, Term] = {}

    def look(self, terms: Iterable[Term], lease: float) -> list[str]:
        """The logs whose lease was seen unrenewed for ``lease`` seconds, of all such leases
        (``terms``) as they are now."""
        now, before = self._clock(), self._since
        self._since = {term: before.get(term, now) for term in terms}
        stale = {term.log: term for term, since in self._since.items() if now - since >= lease}
        for log in stale.keys() - self.stale.keys():
            _log.warning(
                "log %s: nobody renews its lease, which ends in more than %g s by the clock of"
                " this process; the clock of its owner is ahead, or its lease is longer",
                log,
                lease,
            )
        self.stale = stale
        return list(stale)
