"""Work that comes in crowds, some of it in each turn of the event loop.

In one turn hundreds of answers may end, requests arrive or readers disconnect. Each makes tasks run
for a third of a millisecond to two milliseconds: were all of it done at once, every other stream
would stand still for as long. So reads of providers' answers that nobody takes on the lane, lost
connections, requests and departures are counted, and what exceeds a turn's share waits in line.

Always true: each line is served in the order in which it came; a turn does at most `MOST` pieces,
and one request more; nothing waits where no more than that comes in a turn; something is done in
every turn, however long turns take.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tokenwire.per_loop import PerLoop

__all__ = ["LEAST", "LONG", "MOST", "START", "Turns", "turns"]

#: Pieces of one turn: a read is one. A turn that was `LONG` makes the next ones smaller, down to
#: `LEAST`.
MOST, LEAST = 12, 4
#: Pieces of a request that begins, or of a reader that has gone.
START = 4
#: Seconds of CPU that a turn may take.
LONG = 0.004

_Line = deque[tuple[float, Callable[[], None]]]


class Turns:
    """The turns of one event loop. ``clock``: seconds; ``cpu``: seconds that this thread worked."""

    __slots__ = (
        "_clock",
        "_cpu",
        "_is_counting",
        "_most",
        "_pieces",
        "_reads",
        "_since",
        "_starts",
    )

    def __init__(
        self,
        most: int = MOST,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._most, self._clock, self._cpu = most, clock, cpu
        self._reads: _Line = deque()
        self._starts: _Line = deque()
        self._pieces = 0
        self._is_counting = False
        #: When the turn before began, by `cpu`; None while there was none directly before.
        self._since: float | None = None

    def admit(self) -> bool:
        """Whether a read may be handled now, in which case it is counted; else it must `wait`."""
        if self._reads or self._pieces >= self._most:
            return False
        self._count(1)
        return True

    def wait(self, work: Callable[[], None]) -> None:
        """Handle a read in a later turn. What ``work`` raises is reported to the event loop."""
        self._count(0)
        self._reads.append((self._clock(), work))

    def take(self, work: Callable[[], None]) -> None:
        """Begin a request, or what follows from a departure, now or in a later turn. What ``work``
        raises is reported to the event loop: the others are done all the same."""
        if self._starts or self._reads or self._pieces + START > self._most:
            self._count(0)
            self._starts.append((self._clock(), work))
            return
        self._count(START)
        _do(work)

    def lateness(self) -> float:
        """For how many seconds the oldest that waits has waited."""
        oldest = [line[0][0] for line in (self._reads, self._starts) if line]
        return self._clock() - min(oldest) if oldest else 0.0

    def _count(self, pieces: int) -> None:
        self._pieces += pieces
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._adapt()
        self._pieces = 0
        try:
            while self._reads and self._pieces < self._most:
                self._pieces += 1
                _do(self._reads.popleft()[1])
            is_first = True  # a crowd of reads does not hold up requests for ever
            while self._starts and (is_first or self._pieces + START <= self._most):
                is_first = False
                self._pieces += START
                _do(self._starts.popleft()[1])
        finally:  # also where an exit ends this turn: what waits is needed for a tidy end
            self._is_counting = self._pieces > 0
            if self._is_counting:
                asyncio.get_running_loop().call_soon(self._turn)

    def _adapt(self) -> None:
        """Make turns smaller after a long one: what a piece costs depends on the machine, the store
        and the wire, and most of it follows a turn or two later."""
        since, self._since = self._since, None
        if self._reads or self._starts:
            self._since = self._cpu()
            if since is not None:
                step = -2 if self._since - since > LONG else 1
                self._most = max(LEAST, min(MOST, self._most + step))


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        context = {"message": "work of a turn failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


#: The running event loop's.
turns = PerLoop(Turns)
