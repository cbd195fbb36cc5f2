"""Rounds over runs of which something is still to be said: at once those that changed here, and
every few seconds those whose notes are due.

Always true: what goes wrong at one run, or in one round, is logged and looked at again, and ends
neither the rounds nor another run's look.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from tokenwire.errors import LogError
from tokenwire.relay.upkeep.notes import Noted, Notes

__all__ = ["PERIOD", "Looks", "Rounds"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds between two looks at the notes that are due; a change in this process is seen at once.
PERIOD = 2.0
#: Runs that are looked at at the same time.
AT_ONCE = 16


class Rounds:
    """Calls ``look`` with the runs of `soon`, and with those that ``due`` gives. ``fails``: what is
    logged when that fails."""

    def __init__(
        self,
        fails: str,
        look: Callable[[Iterable[str]], Awaitable[None]],
        due: Callable[[], Awaitable[Iterable[str]]],
    ) -> None:
        self._fails, self._look, self._due = fails, look, due
        self._wake = asyncio.Event()
        self._soon: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def open(self, name: str) -> None:
        """Begin, in a task with this name."""
        self._task = asyncio.create_task(self._work(), name=name)

    async def aclose(self) -> None:
        """Stop; the next process goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def soon(self, run: str) -> None:
        """Look at a run now."""
        self._soon.add(run)
        self._wake.set()

    async def _work(self) -> None:
        next_scan = 0.0
        while True:
            now = time.monotonic()
            try:
                soon, self._soon = self._soon, set()
                await self._look(soon)
                if now >= next_scan:  # also while runs change all the time
                    next_scan = now + PERIOD
                    await self._look(await self._due())
            except LogError as error:
                _log.warning("%s: %s", self._fails, error)
            except Exception:
                _log.exception("%s, by a fault inside; the next look retries", self._fails)
            try:
                async with asyncio.timeout(PERIOD):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()


class Looks:
    """Looks at runs, each in a task of its own, at most `AT_ONCE` at the same time. ``look`` is
    called with a run; afterwards its note (``decoded`` reads it) says when the next look is due.
    ``soon`` is called with a run that was to be looked at during its look."""

    def __init__(
        self,
        name: str,
        notes: Notes,
        decoded: Callable[[bytes], Noted],
        look: Callable[[str], Awaitable[None]],
        soon: Callable[[str], None],
    ) -> None:
        self._name, self._notes, self._decoded = name, notes, decoded
        self._look, self._soon = look, soon
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()

    async def begin(self, runs: Iterable[str]) -> None:
        """Begin to look at ``runs``; waits for none of them."""
        for run in runs:
            if run in self._tasks:
                self._again.add(run)
                continue
            task = asyncio.create_task(self._look_at(run), name=f"{self._name} of {run}")
            self._tasks[run] = task
            task.add_done_callback(lambda _, run=run: self._check_done(run))

    async def aclose(self) -> None:
        """Cancel all looks."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _check_done(self, run: str) -> None:
        self._tasks.pop(run, None)
        if run in self._again:
            self._again.discard(run)
            self._soon(run)

    async def _look_at(self, run: str) -> None:
        try:
            async with self._gate:
                await self._look(run)
                data = await self._notes.get(run)
            note = self._decoded(data) if data is not None else None
            since = max(note.since, note.ends) if note is not None else 0.0
            self._notes.reschedule(run, data, since)
        except LogError as error:
            self._notes.retry(run)
            _log.warning("%s of run %s could not be sent: %s", self._name, run, error)
        except Exception:
            self._notes.retry(run)
            _log.exception("%s of run %s failed inside; the next look retries", self._name, run)
