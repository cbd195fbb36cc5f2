"""Fast models are read on a shared tick: fewer wake-ups, fewer and larger events.

Where tokens come faster than the tick, a read a token costs more than the token. So a fast stream's
socket stays out of the event loop's poller; each tick reads it, and finds several tokens there.
Ordinary streams (slower than one token in `FAST` seconds) are read at once, always.

Always true: the first token is never held back; no read waits longer than one tick; a stream that
slows down is read at once again: after the first tick that finds nothing, or when the mean gap of
its tokens is above `SLOW`; a tick never keeps the event loop for more than `MOST_AT_ONCE` reads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tokenwire.per_loop import PerLoop

__all__ = ["FAST", "LARGE", "SLOW", "TICK", "Pacer", "Ticks", "ticks"]

#: Seconds of one tick: what a fast stream's token may wait, at most.
TICK = 0.02
#: A mean gap below this makes a stream fast: some 110 tokens/s.
FAST = 0.009
#: A fast stream stays one up to this mean gap, some 75 tokens/s: where the network or the machine
#: is late for a moment, its reads do not change their way.
SLOW = 0.0135
#: Reads of this size have enough in them; to wait for more would only slow a flood.
LARGE = 16 << 10
#: Reads in one turn of the event loop.
MOST_AT_ONCE = 32


class Pacer:
    """Whether a stream is fast, from when its reads came. Time is an argument (seconds)."""

    __slots__ = ("_gap", "_last")

    def __init__(self) -> None:
        self._gap = 1.0
        self._last: float | None = None

    def read(self, now: float, size: int, tokens: int) -> bool:
        """A read of ``size`` bytes brought ``tokens`` events at ``now``; wait for the tick before
        the next one?"""
        last, self._last = self._last, now
        if last is None:
            return False
        gap = (now - last) / max(1, tokens)
        self._gap += (gap - self._gap) * (0.5 if gap > self._gap else 0.2)
        return self._gap < FAST and size < LARGE

    def state(self) -> tuple[float, float]:
        """The mean gap, and when the last read came, for one who goes on by himself."""
        return self._gap, self._last or 0.0

    def go_on(self, gap: float, last: float) -> None:
        """Go on from there."""
        self._gap, self._last = gap, last


class Ticks:
    """The shared tick of one event loop: one timer for everybody who waits."""

    __slots__ = ("_due", "_is_set", "_loop", "_now", "_waiting")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        #: Who is called at the next tick, and who has yet to be called at this one.
        self._waiting: list[Callable[[], bool]] = []
        self._now: deque[Callable[[], bool]] = deque()
        #: When the next tick is due, and whether it is under way, or its timer is set.
        self._due, self._is_set = 0.0, False

    def join(self, call: Callable[[], bool]) -> None:
        """Call at the next tick, and at those after it as long as it returns true."""
        self._waiting.append(call)
        if not self._is_set:
            self._is_set, self._due = True, self._loop.time() + TICK
            self._loop.call_at(self._due, self._begin)

    async def wait(self) -> None:
        """Wait for the next tick."""
        future: asyncio.Future[None] = self._loop.create_future()

        def end() -> bool:
            if not future.done():
                future.set_result(None)
            return False

        self.join(end)
        await future

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._now.extend(waiting)
        self._turn()

    def _turn(self) -> None:
        """Some calls of a tick; the others in the event loop's next turn, so that nobody else waits
        for all of them."""
        calls, waiting = self._now, self._waiting
        for _ in range(min(len(calls), MOST_AT_ONCE)):
            call = calls.popleft()
            try:
                if call():
                    waiting.append(call)
            except Exception as error:  # as event loops do, so that the others go on
                self._loop.call_exception_handler({"message": "a tick failed", "exception": error})
        if calls:
            self._loop.call_soon(self._turn)
        elif not waiting:
            self._is_set = False
        else:
            self._due = max(self._due + TICK, self._loop.time())
            self._loop.call_at(self._due, self._begin)


#: The running event loop's.
ticks = PerLoop(Ticks)
