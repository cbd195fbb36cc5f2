"""Logs that may be shorter than their owner knows: the server may be another one since.

Always true: after a connection was lost, the owner of each open log of this process is told, once
the server renews its lease, so that a run which has nothing to append writes again what a failover
lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

__all__ = ["Doubts"]


class Doubts:
    """Those of a store."""

    def __init__(self) -> None:
        #: Who writes the records of a log again.
        self.listeners: list[Callable[[str], None]] = []
        self._logs: set[str] = set()

    def add(self, logs: Iterable[str]) -> None:
        """A connection was lost; ``logs`` are this process's."""
        self._logs.update(logs)

    def settle(self, logs: Iterable[str], losses: Set[str]) -> None:
        """The server that there is now has renewed the leases of ``logs``, but for ``losses``."""
        if self._logs:
            doubtful = self._logs.intersection(logs)
            self._logs -= doubtful
            for log in doubtful - losses:
                for call in self.listeners:
                    call(log)
