"""How many runs a process owns: of each principal, at work and waiting.

Always true: a run counts from its adoption (a start or a takeover) until its task is over, so no
count grows with runs that have ended; counting costs nothing for runs of others.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from tokenwire.events.model import RunStatus

__all__ = ["Census", "Count"]


class Count(NamedTuple):
    """Runs at work, and runs that wait for a person or a client."""

    running: int
    waiting: int


class _Run(Protocol):
    @property
    def state(self) -> RunStatus: ...


class Census:
    """The runs of one process by principal."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, _Run]] = {}

    def add(self, principal: str, name: str, run: _Run) -> None:
        """``run`` is owned here from now on."""
        self._runs.setdefault(principal, {})[name] = run

    def remove(self, principal: str, name: str, run: _Run) -> None:
        """``run`` is over, or another process owns it."""
        runs = self._runs.get(principal, {})
        if runs.get(name) is run:
            del runs[name]
            if not runs:
                del self._runs[principal]

    def of(self, principal: str, *, below: float = 0) -> Count:
        """The runs of one principal. To tell which of them wait is a look at each; where there are
        fewer than ``below`` in all, each counts as both."""
        runs = self._runs.get(principal, {})
        return Count(len(runs), len(runs)) if len(runs) < below else _count([*runs.values()])

    def total(self, *, below: float = 0) -> Count:
        """The runs of all principals; ``below``: see `of`."""
        size = sum(map(len, self._runs.values()))
        if size < below:
            return Count(size, size)
        return _count([run for runs in self._runs.values() for run in runs.values()])


def _count(runs: list[_Run]) -> Count:
    waiting = sum(run.state == "waiting" for run in runs)
    return Count(len(runs) - waiting, waiting)
