"""Requests that begin and readers that leave, some in each turn of the event loop.

Hundreds of them may come in one turn, and each makes work of about a millisecond: were all of it
done at once, every other stream would stand still for as long.

Always true: what waits is done in the order in which it came, `MOST` of it in a turn; nothing waits
where no more than that comes in a turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from tokenwire.per_loop import PerLoop

__all__ = ["MOST", "Turns", "turns"]

#: How many are done in a turn.
MOST = 6


class Turns:
    """The turns of one event loop."""

    def __init__(self, most: int = MOST, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._clock = most, clock
        self._waiting: deque[tuple[float, Callable[[], None]]] = deque()
        self._done = 0
        self._is_counting = False

    def take(self, work: Callable[[], None]) -> None:
        """Do ``work`` now, or in a later turn. What it raises is told to the event loop: the others
        are done all the same."""
        if not self._is_counting:
            self._is_counting = True
            asyncio.get_running_loop().call_soon(self._turn)
        if self._waiting or self._done >= self._most:
            self._waiting.append((self._clock(), work))
            return
        self._do(work)

    def lateness(self) -> float:
        """For how many seconds the oldest that waits has waited."""
        return self._clock() - self._waiting[0][0] if self._waiting else 0.0

    def _turn(self) -> None:
        self._done = 0
        while self._waiting and self._done < self._most:
            self._do(self._waiting.popleft()[1])
        self._is_counting = self._done > 0
        if self._is_counting:
            asyncio.get_running_loop().call_soon(self._turn)

    def _do(self, work: Callable[[], None]) -> None:
        self._done += 1
        try:
            work()
        except Exception as error:
            context = {"message": "work of a turn failed", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)


#: The running event loop's.
turns = PerLoop(Turns)
