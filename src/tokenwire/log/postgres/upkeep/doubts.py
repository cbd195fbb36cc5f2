"""Logs that may be shorter than their owner knows: the server is another one since.

Always true: once a server that took the place of another one, or was started anew, has renewed the
leases of this process, the owner of each open log is told, so that a run which has nothing to
append writes again what a failover lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tokenwire.log.postgres.link import Link

__all__ = ["Doubts"]


class Doubts:
    """Those of a store with this link."""

    def __init__(self, link: Link) -> None:
        #: Who writes the records of a log again.
        self.listeners: list[Callable[[str], None]] = []
        self._link = link
        #: When the server was started, which no other one was. A lost connection would tell less:
        #: one that nobody used is replaced unseen, and an application's pool tells of none.
        self._server: Any = None

    async def note(self) -> bool:
        """Remember which server this is; whether there was another one before."""
        server = await self._link.value("SELECT pg_postmaster_start_time()")
        before, self._server = self._server, server
        return before is not None and before != server

    async def settle(self, logs: Iterable[str]) -> None:
        """The leases of ``logs`` were renewed."""
        if await self.note():
            for log in logs:
                for call in self.listeners:
                    call(log)
