"""Readers of logs that are silent hear when these are gone: after a FLUSHALL nothing is published.

Always true: within the store's timeout of its loss, every log that somebody follows here is read
again by its followers; one that its living owner puts back meanwhile is not reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tokenwire.errors import TokenwireError
from tokenwire.log.redis.connection import Address, encode
from tokenwire.log.redis.link import Link

__all__ = ["QuietLogs"]

#: Commands in one write.
MOST_COMMANDS = 500


class QuietLogs:
    """Looks for the logs of ``names()`` every third of the store's timeout, and calls ``on_lost``
    with each that was missing twice. ``key(log)``: the key that every log has."""

    def __init__(
        self,
        link: Link,
        key: Callable[[str], str],
        *,
        names: Callable[[], list[str]],
        on_lost: Callable[[str], None],
    ) -> None:
        self._link, self._key, self._names, self._on_lost = link, key, names, on_lost
        self._suspects: set[str] = set()
        self._task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._link.settings.timeout / 3)
            try:
                missing = await self._missing(self._names())
            except (TokenwireError, OSError):
                continue  # readers hear of a broken connection through the wake-ups
            losses, self._suspects = missing & self._suspects, missing
            for log in losses:
                self._on_lost(log)

    async def _missing(self, logs: list[str]) -> set[str]:
        places: dict[Address | None, list[str]] = {}
        for log in logs:
            places.setdefault(self._link.place(self._key(log)), []).append(log)
        missing: set[str] = set()
        for names in places.values():
            for start in range(0, len(names), MOST_COMMANDS):
                part = names[start : start + MOST_COMMANDS]
                keys = [self._key(log) for log in part]
                commands = [encode("EXISTS", key) for key in keys]
                answers, _ = await self._link.send_all(keys, commands)
                missing.update(log for log, there in zip(part, answers, strict=True) if not there)
        return missing
