"""A store in front of another, whose calls take a while, or fail."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from tokenwire.errors import StoreUnavailableError
from tokenwire.log.base import Store

__all__ = ["Unsteady"]


class Unsteady:
    """A store whose calls take a turn or more of the loop each, in an order of its own; the one
    with number ``fails_at`` does what it should and then fails, or fails before that."""

    def __init__(self, store: Store, seed: int, fails_at: int = 0, *, does: bool = True) -> None:
        self._store, self._dice = store, random.Random(seed)
        self._fails_at, self._does = fails_at, does
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name not in ("document", "documents", "set_document", "swap_document", "read"):
            return value

        async def call(*args: Any, **options: Any) -> Any:
            for _ in range(self._dice.randrange(3)):
                await asyncio.sleep(0)
            self.calls += 1
            fails = self.calls == self._fails_at
            if fails and not self._does:
                raise StoreUnavailableError("cut before")
            result = await value(*args, **options)
            if fails:
                raise StoreUnavailableError("cut after")
            for _ in range(self._dice.randrange(3)):
                await asyncio.sleep(0)
            return result

        return call
