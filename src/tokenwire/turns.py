"""Work that comes in crowds, some of it in each turn of the event loop.

In one turn hundreds of answers may end, requests arrive or readers disconnect. Each makes tasks run
for a third of a millisecond to two milliseconds: were all of it done at once, every other stream
would stand still for as long. So reads of providers' answers that nobody takes on the lane, lost
connections, requests, departures and runs that start are counted, and what exceeds a turn's share
waits in line. Requests and starts have lines of their own: a stop, an approval or a refusal waits
for no run that is about to start. So have requests that are not parsed yet: parsing one takes 20
µs, so that hundreds that come in one turn are many of one that is allowed.

Always true: each line is served in the order in which it came; a turn does at most `MOST` pieces
(or its `RATE`, where other work makes it long), and one request and one start more, and parses
`MOST_PARSES` requests; nothing waits
where no more than that comes in a turn; something of each line is done in every turn, however long
turns take.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from tokenwire.per_loop import PerLoop

__all__ = [
    "CROWDED",
    "LEAST",
    "LONG",
    "MOST",
    "MOST_PARSES",
    "RATE",
    "REQUEST",
    "START",
    "UPGRADE",
    "Turns",
    "turns",
]

#: Pieces of one turn: a read is one. A turn that was `LONG` makes the next ones smaller, down to
#: `LEAST`.
MOST, LEAST = 12, 4
#: Pieces of a request that begins; of a run that starts, or of a reader that has gone.
REQUEST, START = 2, 4
#: Requests that are parsed in one turn, and for how many of them an upgrade to a WebSocket counts.
MOST_PARSES, UPGRADE = 64, 8
#: Seconds of CPU that a turn may take.
LONG = 0.004
#: Pieces for each second beyond `LONG` that a turn takes, with the tokens of a thousand streams,
#: and how many at most: else next to nothing would be done in turns that are long anyway.
RATE, CROWDED = 2000, 48

#: Seconds from one start to the next before anything is known, and of how many starts that counts.
_PACE, _FIRST = 0.001, 4
#: How many turns make a measurement: what follows a start often comes a turn later. Seconds in
#: which measurements come to a third, and how many times as long as those before one counts at
#: most: a single pause of the program, or of the machine, is no pace.
_SAMPLE, _FADES, _LONGEST = 2, 1.0, 4.0

_Line = deque[tuple[float, Callable[[], None], int]]


class Turns:
    """The turns of one event loop. ``clock``: seconds; ``cpu``: seconds that this thread worked."""

    __slots__ = (
        "_clock",
        "_cpu",
        "_is_counting",
        "_most",
        "_others",
        "_pace",
        "_parse_count",
        "_pieces",
        "_reads",
        "_sample",
        "_share",
        "_since",
        "_starts",
        "_unparsed",
    )

    def __init__(
        self,
        most: int = MOST,
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._most, self._clock, self._cpu = most, clock, cpu
        #: Pieces of the next turn: `_most`, or what a long one has room for.
        self._share = most
        self._reads: _Line = deque()
        self._others: _Line = deque()
        self._starts: _Line = deque()
        self._unparsed: _Line = deque()
        self._pieces = self._parse_count = 0
        self._is_counting = False
        #: Seconds, and the starts of the line within them.
        self._pace = _FIRST * _PACE, float(_FIRST)
        #: When the measurement under way began, its turns and its starts; None while none wait.
        self._sample: tuple[float, int, int] | None = None
        #: When the turn before began, by `cpu`; None while there was none directly before.
        self._since: float | None = None

    def admit(self) -> bool:
        """Whether a read may be handled now, in which case it is counted; else it must `wait`."""
        if self._reads or self._pieces >= self._share:
            return False
        self._count(1)
        return True

    def wait(self, work: Callable[[], None]) -> None:
        """Handle a read in a later turn. What ``work`` raises is reported to the event loop."""
        self._count(0)
        self._reads.append((self._clock(), work, 1))

    def take(self, work: Callable[[], None], pieces: int = START) -> None:
        """Begin a request, or what follows from a departure, now or in a later turn. What ``work``
        raises is reported to the event loop: the others are done all the same."""
        if self._others or self._reads or self._pieces + pieces > self._share:
            self._count(0)
            self._others.append((self._clock(), work, pieces))
            return
        self._count(pieces)
        _do(work)

    def admit_request(self) -> bool:
        """Whether the first bytes of a request may be parsed now, in which case they are counted;
        else they must `wait_unparsed`."""
        if self._unparsed or self._parse_count >= MOST_PARSES:
            return False
        self.parse(1)
        return True

    def wait_unparsed(self, work: Callable[[], None]) -> None:
        """Parse in a later turn. What ``work`` raises is reported to the event loop."""
        self._count(0)
        self._unparsed.append((self._clock(), work, 1))

    def parse(self, requests: int) -> None:
        """Count what takes as long as the parsing of so many requests."""
        self._count(0)
        self._parse_count += requests

    async def start(self) -> None:
        """Return when a run may start: at once, or in a later turn."""
        is_free = not (self._starts or self._others or self._reads)
        if is_free and self._pieces + START <= self._share:
            self._count(START)
            return
        turn = asyncio.get_running_loop().create_future()
        self._count(0)
        self._starts.append((self._clock(), partial(_let_go, turn), START))
        await turn

    def wait_for_start(self) -> float:
        """For how many seconds one more start would wait, at the pace of those before: behind all
        that waits, as most requests of a crowd are starts, and departures cost as much."""
        seconds, starts = self._pace
        return self.line() * seconds / starts

    def line(self) -> int:
        """How many requests, departures and starts wait."""
        return len(self._starts) + len(self._others) + len(self._unparsed)

    def lateness(self) -> float:
        """For how many seconds the oldest that waits has waited."""
        lines = self._reads, self._others, self._starts, self._unparsed
        oldest = [line[0][0] for line in lines if line]
        return self._clock() - min(oldest) if oldest else 0.0

    def _count(self, pieces: int) -> None:
        self._pieces += pieces
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._adapt()
        self._pieces = self._parse_count = 0
        try:
            while self._reads and self._pieces < self._share:
                self._pieces += 1
                _do(self._reads.popleft()[1])
            while self._unparsed and self._parse_count < MOST_PARSES:
                self._parse_count += 1
                _do(self._unparsed.popleft()[1])
            self._serve(self._others)
            self._note_pace(self._serve(self._starts))
        finally:  # also where an exit ends this turn: what waits is needed for a tidy end
            self._is_counting = self._pieces > 0 or self._parse_count > 0
            if self._is_counting:
                asyncio.get_running_loop().call_soon(self._turn)

    def _serve(self, line: _Line) -> int:
        """Do what fits into the turn, and the first in any case: no crowd of one kind holds up the
        others for ever. Returns how many."""
        count = 0
        while line and (not count or self._pieces + line[0][2] <= self._share):
            count += 1
            self._pieces += line[0][2]
            _do(line.popleft()[1])
        return count

    def _note_pace(self, count: int) -> None:
        """A turn has let so many starts go."""
        if not count:
            return
        now, sample = self._clock(), self._sample
        if sample is not None and sample[1] == _SAMPLE:
            start_time, _, starts_so_far = sample
            seconds, starts = self._pace
            took = min(now - start_time, _LONGEST * starts_so_far * seconds / starts)
            fading = math.exp(-took / _FADES)
            self._pace = seconds * fading + took, starts * fading + starts_so_far
            sample = None
        start_time, times, starts_so_far = sample or (now, 0, 0)
        self._sample = (start_time, times + 1, starts_so_far + count) if self._starts else None

    def _adapt(self) -> None:
        """Make turns smaller after a long one: what a piece costs depends on the machine, the store
        and the wire, and most of it follows a turn or two later."""
        since, self._since = self._since, None
        took = 0.0
        if self._reads or self._others or self._starts:
            self._since = self._cpu()
            if since is not None:
                took = self._since - since
                self._most = max(LEAST, min(MOST, self._most + (-2 if took > LONG else 1)))
        self._share = max(self._most, min(CROWDED, int((took - LONG) * RATE)))


def _let_go(turn: asyncio.Future[None]) -> None:
    if not turn.done():  # its request may have been cancelled
        turn.set_result(None)


def _do(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception as error:
        context = {"message": "work of a turn failed", "exception": error}
        asyncio.get_running_loop().call_exception_handler(context)


#: The running event loop's.
turns = PerLoop(Turns)
