"""Operations of owner.lua on one log: all but appends and reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenwire.log.redis.link import Link, Script
from tokenwire.log.redis.upkeep.expiry import KEEP_NAMES_MS

__all__ = ["OWNER", "Owner"]

OWNER = Script("owner.lua")


class Owner:
    """Call it with a log and an operation. ``key(log, what)`` names keys and channels; ``fence``:
    the key that changes when a log is taken from its owner."""

    def __init__(
        self,
        link: Link,
        key: Callable[[str, str], str],
        ttl: int,
        publish: str,
        fence: str | None,
    ) -> None:
        self._link, self._key, self._ttl, self._publish = link, key, ttl, publish
        self.fence = [] if fence is None else [fence]

    async def __call__(self, log: str, operation: str, *values: Any, wait: bool = False) -> Any:
        """The answer, its first part as text."""
        names = ("meta", "log") if operation == "describe" else ("meta", "log", "commands")
        keys = [self._key(log, name) for name in names]
        if operation != "describe":
            keys += self.fence
        channels = [self._key(log, name) for name in ("live", "control")]
        head = [operation, self._ttl, KEEP_NAMES_MS, self._publish, *channels]
        answer, _ = await self._link.run(OWNER, keys, [*head, *values], wait=wait)
        return [part.decode() if index == 0 else part for index, part in enumerate(answer)]
