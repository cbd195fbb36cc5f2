"""The one watcher of disconnects: a task that sleeps until the peer of a request is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Receive

__all__ = ["watch_disconnect"]


def watch_disconnect(receive: Receive, then: Callable[[], None]) -> asyncio.Task[None]:
    """Call ``then`` once when the peer is gone. Cancel the task when the request is over."""
    return asyncio.get_running_loop().create_task(_until_gone(receive, then))


async def _until_gone(receive: Receive, then: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    then()
