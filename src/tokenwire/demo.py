"""The demo model: the simulator on a loopback port of its own, started on first use.

Always true: the same HTTP client and decoder read it as any provider; one event loop has at most
one, which stops after its last user.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tokenwire.per_loop import PerLoop

__all__ = ["demo_server"]


class _Shared:
    def __init__(self) -> None:
        self.users = 0
        self.server: Any = None
        self.lock = asyncio.Lock()


_shared_server = PerLoop(_Shared)


@asynccontextmanager
async def demo_server() -> AsyncIterator[str]:
    """The base URL (with ``/v1``) of this event loop's demo model, while the context lasts."""
    from tokenwire.simulator.app import start_demo

    shared = _shared_server()
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
