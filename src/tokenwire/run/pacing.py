"""Fast models are read on a shared tick: fewer wake-ups, fewer and larger events.

Where tokens come faster than the tick, a read a token costs more than the token. So a fast stream
waits for the next tick before it reads again, and finds several tokens there. Ordinary streams
(slower than one token in `FAST` seconds) are read at once, always.

Always true: the first token is never held back; no read waits longer than one tick; a stream that
slows down is read at once again after one tick at most.
"""

from __future__ import annotations

import asyncio
import weakref

__all__ = ["FAST", "TICK", "Pacer", "next_tick"]

#: Seconds of one tick: what a fast stream's token may wait, at most.
TICK = 0.015
#: A mean gap below this makes a stream fast: some 110 tokens/s.
FAST = 0.009
#: Reads of this size have enough in them; to wait for more would only slow a flood.
LARGE = 16 << 10


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


class _Ticks:
    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []

    def fire(self) -> None:
        waiting, self.waiting = self.waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


_ticks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Ticks] = weakref.WeakKeyDictionary()


async def next_tick() -> None:
    """Wait for the event loop's next tick; one timer for everybody who waits."""
    loop = asyncio.get_running_loop()
    ticks = _ticks.get(loop)
    if ticks is None:
        ticks = _ticks[loop] = _Ticks()
    if not ticks.waiting:
        loop.call_later(TICK, ticks.fire)
    future = loop.create_future()
    ticks.waiting.append(future)
    await future
