"""The demo model: the simulator on a loopback port of its own, started on first use.

Always true: the same HTTP client and decoder read it as any provider; one event loop has at most
one, which stops after its last user.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["demo_server"]

_servers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Shared] = (
    weakref.WeakKeyDictionary()
)


class _Shared:
    def __init__(self) -> None:
        self.users = 0
        self.server: Any = None
        self.lock = asyncio.Lock()


@asynccontextmanager
async def demo_server() -> AsyncIterator[str]:
    """The base URL (with ``/v1``) of this event loop's demo model, while the context lasts."""
    from tokenwire.simulator.app import start_demo

    loop = asyncio.get_running_loop()
    shared = _servers.get(loop)
    if shared is None:
        shared = _servers[loop] = _Shared()
    async with shared.lock:
        if shared.server is None:
            shared.server = await start_demo()
        shared.users += 1
    try:
        yield f"{shared.server.url}/v1"
    finally:
        async with shared.lock:
            shared.users -= 1
            if shared.users == 0:
                server, shared.server = shared.server, None
                await server.aclose()
