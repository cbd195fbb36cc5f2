"""What uvicorn keeps for each connection and hardly ever uses, in less room.

Always true: whoever uses it cannot tell it from what it stands for.
"""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["NOBODY_WAITS", "SPENT_SCOPE", "Flow", "Pipeline"]


class Flow:
    """uvicorn's `FlowControl`, with an event only while somebody waits."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False
        self._writable: asyncio.Event | None = None

    async def drain(self) -> None:
        """Wait until the socket takes more."""
        if self.write_paused:
            self._writable = self._writable or asyncio.Event()
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Read nothing from the socket."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The socket takes no more."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """It takes more."""
        self.write_paused = False
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.set()


class Pipeline(list[Any]):
    """uvicorn's queue of requests that wait, the next one last: a deque holds 600 bytes when it is
    empty."""

    __slots__ = ()

    def appendleft(self, item: Any) -> None:
        """Add one that comes after all others."""
        self.insert(0, item)


class _NobodyWaits(asyncio.Event):
    """The event of a request whose messages nobody receives any more."""

    def set(self) -> None:
        pass


NOBODY_WAITS = _NobodyWaits()
#: The scope of a request whose response goes on without it: uvicorn looks for HEAD there.
SPENT_SCOPE: Any = {"type": "http", "method": "GET"}
