"""The newest result of a call, shared by everybody who asks within a short time.

Always true: one call is under way at a time, however many ask, and however many of them give up;
a failure is shared like a result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tokenwire.errors import StoreUnavailableError

__all__ = ["Recent"]


class Recent:
    """``call`` at most once in ``seconds``, and for at most ``timeout`` seconds."""

    def __init__(
        self, call: Callable[[], Awaitable[None]], *, seconds: float = 1.0, timeout: float = 5.0
    ) -> None:
        self._call, self._seconds, self._timeout = call, seconds, timeout
        self._task: asyncio.Task[None] | None = None
        self._since = 0.0

    async def get(self) -> None:
        """The outcome of a call that began less than ``seconds`` ago, or is under way. Raises
        what it raised; `StoreUnavailableError` when it took too long."""
        now = asyncio.get_running_loop().time()
        task = self._task
        if task is None or (task.done() and now >= self._since + self._seconds):
            task = self._task = asyncio.create_task(self._run())
            task.add_done_callback(_retrieve)
            self._since = now
        await asyncio.shield(task)

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                await self._call()
        except TimeoutError:
            message = f"the store did not take a write within {self._timeout:g} s"
            raise StoreUnavailableError(message) from None


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # everybody who asked may have given up
