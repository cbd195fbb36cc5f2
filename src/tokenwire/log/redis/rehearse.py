"""What a run does to a Redis store, done once at the start.

A user of Redis without a right that is needed is told then, and not by the first run that fails.
"""

from __future__ import annotations

import contextlib

from tokenwire.errors import LogError, StoreFullError
from tokenwire.log.base import Store

__all__ = ["rehearse"]


async def rehearse(store: Store, name: str) -> None:
    """Create, own, write, end, read and erase the log ``name``. Raises `ConfigError` for what this
    user may not do. A full store passes: what is in it can still be read, and readiness tells."""
    try:
        await store.create(name, owner="start", thread=name, key=name, lease=1.0)
        await store.command(name, b"command")
        await store.commands(name)
        await store.release(name, epoch=1)
        await store.claim(name, owner="start", lease=1.0)
        await store.renew({name: 2}, owner="start", lease=1.0)
        await store.append(name, epoch=2, first=1, records=[b"record"])
        await store.append(name, epoch=2, first=2, records=[], close="complete")
        await store.read(name, fresh=True)
        await store.thread(name)
        await store.orphans(most=1)
        await store.set_document(name, name, b"document")
        await store.documents(name)
        await store.set_document(name, name, None)
    except StoreFullError:
        pass
    finally:
        with contextlib.suppress(LogError):
            await store.delete(name)
