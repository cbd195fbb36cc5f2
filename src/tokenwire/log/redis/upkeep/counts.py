"""How much is in a Redis store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tokenwire.log.redis.create import Own
from tokenwire.log.redis.index import Index

__all__ = ["counts_of"]

#: Logs that are looked at for ``stats()["records"]`` and ``["bytes"]``.
MOST_COUNTED = 200


async def counts_of(index: Index, own: Own, size: Callable[[str, int], int]) -> dict[str, Any]:
    """For `Store.stats`. ``size`` gives the bytes of a log, of which so many are noted."""
    still_open, ended, names = await index.counts()
    counts = {"streams": still_open + ended, "open": still_open, "records": 0, "bytes": 0}
    counts["tombstones"] = names
    logs = await index.some(MOST_COUNTED)
    answers = await asyncio.gather(*(own(log, "describe") for log in logs))
    for log, answer in zip(logs, answers, strict=True):
        if answer[0] == "ok":
            counts["records"] += answer[3]
            counts["bytes"] += size(log, int(answer[7]))
    return counts
