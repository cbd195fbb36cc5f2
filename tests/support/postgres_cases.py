"""What the cases of the PostgreSQL log share: opening one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tokenwire.log.open import open_store
from tokenwire.log.postgres.store import PostgresStore

__all__ = ["opened", "run", "through"]


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStore]:
    log = open_store(url)
    assert isinstance(log, PostgresStore)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


def run(url: str, case: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(url) as log:
            await case(log)

    asyncio.run(main())


def through(port: int, url: str) -> str:
    """``url`` at another port of this machine."""
    address, _, rest = url.partition("/postgres")
    return f"{address.rpartition(':')[0]}:{port}/postgres{rest}"
