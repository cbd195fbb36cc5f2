"""Whether a server is too late to take on more runs.

Each new run makes all others later. So once the event loop has been late for longer than a hiccup
lasts (a collection of garbage, a crowd that comes at once), new runs are refused until it has
caught up; what runs, its readers, stops and approvals go on.

Always true: nothing is refused before the server has been late for `PATIENCE` seconds without a
break, but for a run that would have to wait for `LONGEST` times the limit before it starts; once
some were, the limit counts at once until it has been kept for `WARY` seconds; between the limit and
half of it nothing changes, so that refusals do not flap.
"""

from __future__ import annotations

import random

from tokenwire.errors import BusyError

__all__ = ["LONGEST", "PATIENCE", "WARY", "Overload", "OverloadedServerError"]

#: Seconds for which the server may be late before it refuses.
PATIENCE = 1.0
#: Seconds without a refusal after which it has that patience again.
WARY = 5.0
#: How many times the limit a run may wait until it starts, patience or not.
LONGEST = 4.0
#: Seconds after which a client may try again, at least and at most: those that were refused
#: together shall not come back together.
_AGAIN = (2, 5)


class OverloadedServerError(BusyError):
    """The server is late, and starts no more runs."""

    http_status = 503


class Overload:
    """``most``: seconds that the event loop may be late; 0 is no limit. Times are seconds of one
    clock that never goes back."""

    __slots__ = ("_since", "_wary_until", "is_on", "most")

    def __init__(self, most: float) -> None:
        self.most = most
        #: Whether new runs are refused.
        self.is_on = False
        #: Since when it has been late; None while it is not.
        self._since: float | None = None
        self._wary_until = 0.0

    def note(self, late: float, now: float, wait: float = 0.0) -> bool:
        """The server is ``late`` seconds late, and one more run would wait for ``wait``; whether
        it refuses new runs."""
        if not self.most:
            return False
        if wait > LONGEST * self.most:
            self.is_on = True
        elif max(late, wait) <= self.most / 2:
            self._since, self.is_on = None, False
        elif late > self.most:
            if self._since is None:
                self._since = now
            if now < self._wary_until or now - self._since >= PATIENCE:
                self.is_on = True
        if self.is_on:
            self._wary_until = now + WARY
        return self.is_on

    def error(self, late: float) -> OverloadedServerError:
        """What a refused client hears."""
        again = random.randint(*_AGAIN)
        return OverloadedServerError(
            f"the server is overloaded: it is {late:.2f} s late, and starts no more runs above "
            f"{self.most:g} s (max_lag); try again in {again} s",
            limit="max_lag",
            retry_after=again,
        )
