"""Groups appends into calls: what was given while one call is under way goes with the next.

Always true: order is kept, and one call of a server is under way at a time. A lone append leaves in
its own turn of the event loop; where calls carry several each, the next one waits a moment for
more, since what a call costs both sides hardly depends on how much it carries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["PACES", "Turns"]

#: Appends of the last call from which on the next one begins so many seconds after it.
PACES = ((24, 0.003), (6, 0.002), (3, 0.001))


class Turns:
    """`give` an append, or several at once; ``work`` carries out a group of at most ``most`` and
    settles it, and raises nothing. ``size``: how many appends are in what was given."""

    __slots__ = ("_begun", "_entries", "_last", "_loop", "_most", "_size", "_task", "_work")

    def __init__(
        self, work: Callable[[list[Any]], Awaitable[None]], most: int, size: Callable[[Any], int]
    ) -> None:
        self._work, self._most, self._size = work, most, size
        self._entries: list[Any] = []
        self._task: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        #: When the last call began, and how much it carried.
        self._begun = self._last = 0.0

    def give(self, entry: Any) -> None:
        self._entries.append(entry)
        if self._task is None:
            self._task = self._loop.create_task(self._pump())

    def _next(self) -> list[Any]:
        """What the next call carries: one entry at least."""
        count = total = 0
        for entry in self._entries:
            size = self._size(entry)
            if count and total + size > self._most:
                break
            count, total = count + 1, total + size
        entries, self._entries = self._entries[:count], self._entries[count:]
        self._last = total
        return entries

    async def _pump(self) -> None:
        now = self._loop.time
        try:
            while self._entries:
                for size, pace in PACES:
                    if self._last >= size:
                        pause = self._begun + pace - now()
                        if pause > 0.0002:
                            await asyncio.sleep(pause)
                        break
                entries = self._next()
                self._begun = now()
                await self._work(entries)
        finally:
            self._task = None

    async def drain(self) -> None:
        while self._task is not None:
            await asyncio.wait([self._task])
