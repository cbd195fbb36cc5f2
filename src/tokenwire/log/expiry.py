"""Erasing what the retention is over for: the same course in every store.

Always true: a conversation is erased as a whole or not at all, unless it has more logs than one
step erases; each step takes a bounded time, and so do all steps together.
"""

from __future__ import annotations

import time
from typing import Protocol

from tokenwire.log.base import Due, Sweeper

__all__ = ["SECONDS", "Expiring", "expire"]

#: Seconds after which a sweep leaves the rest to the next one.
SECONDS = 20.0
#: Logs of one step.
MOST = 200
#: Seconds after which what had to stay is due again.
PAUSE = 300.0


class Expiring(Protocol):
    """What a store does in one step."""

    async def due(self, retention: float, most: int) -> list[Due]:
        """Up to ``most`` logs whose time is over, the longest ago first."""
        ...

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        """Erase what is still due of these; what was erased."""
        ...

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        """Let these be due again in so many seconds."""
        ...


async def expire(store: Expiring, retention: float, sweeper: Sweeper | None) -> int:
    """Erase what is due; how many logs went. Raises `LogError`."""
    end = time.monotonic() + SECONDS
    count = 0
    while due := await store.due(retention, MOST):
        free = due if sweeper is None else await sweeper.before(due)
        if len(free) < len(due):
            erasable = {id(one) for one in free}
            later = [one for one in due if id(one) not in erasable]
            await store.postpone(later, retention, min(PAUSE, max(1.0, retention / 4)))
        erased = await store.erase_due(free, retention)
        count += sum(len(one.logs) for one in erased)
        if sweeper is not None and erased:
            await sweeper.after(erased)
        if time.monotonic() > end:
            break
    return count
