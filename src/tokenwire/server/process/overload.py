"""Whether a server is too late to take on more runs.

Each new run makes all others later. But a crowd that comes at once is no overload: its line becomes
shorter, whoever waits in it starts sooner than a refused client would come again, and how long its
first has waited says only how long the line was. Overload is a line that is late and becomes no
shorter, or an event loop that is late and not for a line. While that lasts, new runs are refused
until the server has caught up; what runs, its readers, stops and approvals go on.

Always true: a run is refused where it would wait for `LONGEST` times the limit before it starts,
and then only it and those in its place; else none is before the server has been late for
`PATIENCE` seconds without a break, in which the line became less than `SHRINKS` shorter; once some
were, the limit counts at once until it has been kept for `WARY` seconds; between the limit and half
of it nothing changes, so that refusals do not flap.
"""

from __future__ import annotations

import random

from tokenwire.errors import BusyError

__all__ = ["LONGEST", "PATIENCE", "SHRINKS", "WARY", "Overload", "OverloadedServerError"]

#: Seconds for which the server may be late before it refuses, and the part of the line that has to
#: be gone by then, else.
PATIENCE, SHRINKS = 2.0, 1 / 8
#: Seconds without a refusal after which it has that patience again.
WARY = 5.0
#: How many times the limit a run may wait until it starts, patience or not: about as long as
#: clients wait that were refused.
LONGEST = 8.0
#: Seconds after which a client may try again, at least and at most: those that were refused
#: together shall not come back together.
_AGAIN = (2, 5)


class OverloadedServerError(BusyError):
    """The server is late, and starts no more runs."""

    http_status = 503


class Overload:
    """``most``: seconds that the event loop may be late; 0 is no limit. Times are seconds of one
    clock that never goes back."""

    __slots__ = ("_is_standing", "_longest", "_since", "_wary_until", "is_on", "most")

    def __init__(self, most: float) -> None:
        self.most = most
        #: Whether new runs are refused.
        self.is_on = False
        #: Whether the server is late and does not catch up.
        self._is_standing = False
        #: Since when it has been late, or late in line; None while it is not. How many waited since
        #: then, at most.
        self._since: float | None = None
        self._longest = 0
        self._wary_until = 0.0

    def note(self, late: float, now: float, wait: float = 0.0, line: int = 0) -> bool:
        """The server is ``late`` seconds late with ``line`` requests and starts in line, and one
        more run would wait for ``wait``; whether it refuses new runs."""
        if not self.most:
            return False
        if max(late, wait) <= self.most / 2:
            self._since, self._is_standing = None, False
        elif now < self._wary_until and max(late, wait) > self.most:
            self._is_standing = True
        elif late > self.most:
            self._watch(now, line)
        if self._is_standing:
            self._wary_until = now + WARY
        self.is_on = self._is_standing or wait > LONGEST * self.most
        return self.is_on

    def _watch(self, now: float, line: int) -> None:
        if self._since is None:
            self._since, self._longest = now, 0
        self._longest = max(self._longest, line)
        if now - self._since >= PATIENCE:
            if line >= self._longest * (1 - SHRINKS):
                self._is_standing = True
            self._since, self._longest = now, line

    def error(self, late: float) -> OverloadedServerError:
        """What a refused client hears."""
        again = random.randint(*_AGAIN)
        return OverloadedServerError(
            f"the server is overloaded: it is {late:.2f} s late, and starts no more runs above "
            f"{self.most:g} s (max_lag); try again in {again} s",
            limit="max_lag",
            retry_after=again,
        )
