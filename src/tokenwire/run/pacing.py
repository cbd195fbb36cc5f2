"""Fast models are read on a shared tick: fewer wake-ups, fewer and larger events.

Where tokens come faster than the tick, a read a token costs more than the token. So a fast stream's
socket is left alone until the next tick, and several tokens are found there. Ordinary streams
(slower than one token in `FAST` seconds) are read at once, always.

Always true: the first token is never held back; no read waits longer than one tick; a stream that
slows down is read at once again after one tick at most.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable

__all__ = ["FAST", "TICK", "Pacer", "at_next_tick", "next_tick"]

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
        self.waiting: list[Callable[[], None]] = []

    def fire(self) -> None:
        waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()


_ticks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Ticks] = weakref.WeakKeyDictionary()


def at_next_tick(call: Callable[[], None]) -> None:
    """Call at the event loop's next tick; one timer for everybody who waits. It must not raise."""
    loop = asyncio.get_running_loop()
    ticks = _ticks.get(loop)
    if ticks is None:
        ticks = _ticks[loop] = _Ticks()
    if not ticks.waiting:
        loop.call_later(TICK, ticks.fire)
    ticks.waiting.append(call)


async def next_tick() -> None:
    """Wait for the event loop's next tick."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    at_next_tick(lambda: None if future.done() else future.set_result(None))
    await future
