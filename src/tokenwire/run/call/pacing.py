"""Fast models are read on a shared tick: fewer wake-ups, fewer and larger events.

Where tokens come faster than the tick, a read a token costs more than the token. So a fast stream's
socket is left alone until the next tick, and several tokens are found there. Ordinary streams
(slower than one token in `FAST` seconds) are read at once, always.

Always true: the first token is never held back; no read waits longer than one tick; a stream that
slows down is read at once again after one tick at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tokenwire.per_loop import PerLoop

__all__ = ["FAST", "TICK", "Pacer", "Ticks", "ticks"]

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

    def state(self) -> tuple[float, float]:
        """The mean gap, and when the last read came, for one who goes on by himself."""
        return self._gap, self._last or 0.0

    def go_on(self, gap: float, last: float) -> None:
        """Go on from there."""
        self._gap, self._last = gap, last


class Ticks:
    """The shared tick of one event loop: one timer for everybody who waits."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def call(self, call: Callable[[], None]) -> None:
        """Call at the next tick. It must not raise."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(TICK, self._fire)
        self._waiting.append(call)

    async def wait(self) -> None:
        """Wait for the next tick."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.call(lambda: None if future.done() else future.set_result(None))
        await future

    def _fire(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()


#: The running event loop's.
ticks = PerLoop(Ticks)
