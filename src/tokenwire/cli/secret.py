"""``tokenwire rotate-secret``: end every session and every token that reads one run.

Always true: runs and keys stay as they are; running servers of the store follow within a second.
"""

from __future__ import annotations

import asyncio

from tokenwire.errors import ConfigError
from tokenwire.log.open import open_store, user_store
from tokenwire.server.configuration import load_settings
from tokenwire.server.edge.sessions import rotate_secret

__all__ = ["run_rotate"]


def run_rotate(store: str | None, config: str | None = None) -> int:
    """Rotate the secret of ``store`` (default: the one that ``tokenwire serve`` would use)."""
    settings = load_settings({"store": store}, config=config)
    url = settings.store or user_store()
    if url.startswith("memory"):
        raise ConfigError("a memory store has no stored secret; restart the server instead")
    asyncio.run(_rotate(url))
    print("The secret was replaced; all users must sign in again.")
    return 0


async def _rotate(url: str) -> None:
    log = open_store(url, upgrade=False)
    await log.start()
    try:
        await rotate_secret(log)
    finally:
        await log.close()
