"""Notes of runs of which something is still to be said: what is due, who says it, what failed.

Always true: a process looks only at notes that are due, and reads only those that changed since its
last look, however many there are; of two processes that claim one note, one has it; what failed is
tried again for a day, less and less often, and is then listed as failed.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from tokenwire.backoff import backoff
from tokenwire.log.base import Store

__all__ = [
    "ENDING_SECONDS",
    "FIRST_PAUSE",
    "LEAST_LOOK",
    "MOST_SECONDS",
    "UNMADE_SECONDS",
    "Attempts",
    "Noted",
    "Notes",
    "end_check_time",
]

#: Seconds for which something is tried again, and the pauses between two tries.
MOST_SECONDS, FIRST_PAUSE, MOST_PAUSE = 86_400.0, 2.0, 3600.0
#: Seconds after which a note without a run is of a start that failed.
UNMADE_SECONDS = 60.0
#: Seconds between two looks at a run that another process may have left at its end: half of the
#: run's age, or of the time since its end was marked, within these.
LEAST_LOOK, MOST_LOOK = 5.0, 3600.0
#: Seconds after the mark of an end at which other processes look: whoever wrote it may have died.
ENDING_SECONDS = 10.0
#: Ends of runs younger than this are not marked: half of their age is soon enough.
_UNMARKED_AGE = 20.0
#: Tries of a mark: who always loses leaves it to the looks by age.
_MOST_MARKS = 5
#: Notes of one page, and of a store.
_PAGE, _MOST_NOTES = 64, 200_000


class Attempts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How often something was tried, and when it is tried next."""

    #: Unix seconds before which nobody (else) tries.
    until: float = 0.0
    tries: int = 0
    first_try: float = 0.0
    error: str | None = None
    is_failed: bool = False

    def begin(self, now: float, seconds: float) -> None:
        """A try that begins ``now`` and is another's after ``seconds``."""
        self.until, self.tries = now + seconds, self.tries + 1
        self.first_try = self.first_try or now

    def fail(
        self,
        now: float,
        error: str,
        *,
        most: float = MOST_SECONDS,
        first: float = FIRST_PAUSE,
        is_final: bool = False,
    ) -> None:
        """The try failed: the next one comes later, or never (``is_final``, or after ``most``
        seconds)."""
        self.error = error
        self.is_failed = is_final or now > self.first_try + most
        self.until = now + backoff(self.tries, first=first, longest=MOST_PAUSE)


class Noted(Protocol):
    """What the note of a run begins with. ``since``: Unix seconds of its start; ``ends``: Unix
    seconds at which others look, because its owner was about to write the end, 0 before that."""

    since: float
    ends: float


def end_check_time(note: Noted) -> float | None:
    """Unix seconds at which others look for a marked end; None without one, or after it."""
    return note.ends if note.ends > time.time() else None


class Notes:
    """The notes of one ``kind`` in a store. ``due``: the Unix seconds at which a note is to be
    looked at for its own sake, None where only the end of its run matters, infinite for never."""

    def __init__(
        self,
        store: Store,
        kind: str,
        due: Callable[[bytes], float | None],
        *,
        least_look: float = LEAST_LOOK,
    ) -> None:
        self._store, self._kind, self._due = store, kind, due
        self._least_look = least_look
        #: The notes as the last reading of news found them, and when each is looked at.
        self._seen: dict[str, int] = {}
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        #: Runs that began here: their end is announced.
        self._own: set[str] = set()
        self._is_first = True

    # --- the notes -------------------------------------------------------------------------------

    async def expect(self, run: str, data: bytes) -> bool:
        """Note a run that is about to be created; False when there is a note of it already."""
        if await self.get(run) is not None:
            return False
        is_new = await self.swap(run, None, data)
        if is_new:
            self._own.add(run)
        return is_new

    async def get(self, run: str) -> bytes | None:
        """A run's note; None without one."""
        return await self._store.document(self._kind, run)

    async def swap(self, run: str, old: bytes | None, new: bytes | None) -> bool:
        """Make a note ``new`` if it is ``old``; whether it is."""
        return await self._store.swap_document(self._kind, run, old, new)

    async def forget(self, run: str) -> None:
        """The run was deleted, or never was."""
        self._drop(run)
        await self._store.set_document(self._kind, run, None)

    async def mark(self, run: str, decoded: Callable[[bytes], Noted]) -> None:
        """The run's owner is about to write its end. The mark is news to every other process, so
        that the end is found however old the run is, should the owner die before it says more."""
        for _ in range(_MOST_MARKS):
            data, now = await self.get(run), time.time()
            if data is None:
                return
            noted = decoded(data)
            if now < noted.since + _UNMARKED_AGE:
                return
            noted.ends = now + ENDING_SECONDS
            if await self.swap(run, data, msgspec.json.encode(noted)):
                return

    async def of(self, runs: list[str]) -> dict[str, bytes]:
        """The notes of those ``runs`` that have one."""
        notes = await asyncio.gather(*(self.get(run) for run in runs))
        return {run: data for run, data in zip(runs, notes, strict=True) if data is not None}

    async def all(self) -> dict[str, bytes]:
        """All notes: for a list that a person asks for."""
        return await self._store.documents(self._kind, most=10_000)

    # --- what is due -----------------------------------------------------------------------------

    async def due(self) -> list[str]:
        """The runs whose notes are to be looked at now."""
        await self._read_news()
        now, runs = time.time(), list[str]()
        while self._heap and self._heap[0][0] <= now:
            at, run = heapq.heappop(self._heap)
            if self._times.get(run) == at:  # else it was set anew
                del self._times[run]
                runs.append(run)
        return runs

    def reschedule(self, run: str, data: bytes | None, since: float) -> None:
        """Plan the next check of a note, which is ``data`` now (None: it is gone). ``since``: Unix
        seconds from which on its run's end is expected."""
        if data is None:
            self._drop(run)
            return
        self._plan(run, data, since)

    def retry(self, run: str) -> None:
        """A look failed: another one follows."""
        self._at(run, time.time() + self._least_look)

    async def _read_news(self) -> None:
        """Notes that are new or another. The store gives what changed last first, so all that come
        after one that is as it was are as they were."""
        most = _PAGE
        while True:
            page = await self._store.documents(self._kind, most=most)
            news = {run: data for run, data in page.items() if self._seen.get(run) != hash(data)}
            if len(news) < len(page) or len(page) < most or most >= _MOST_NOTES:
                break
            most = min(4 * most, _MOST_NOTES)
        for run, data in news.items():
            self._seen[run] = hash(data)
            if self._is_first and run not in self._own:
                self._at(run, 0.0)  # whoever left it may be gone
            else:
                self._plan(run, data, time.time())
        self._is_first = False

    def _plan(self, run: str, data: bytes, since: float) -> None:
        now, at = time.time(), self._due(data)
        if at is None:
            pause = MOST_LOOK if run in self._own else (now - since) / 2
            at = now + max(self._least_look, min(pause, MOST_LOOK))
        self._at(run, at)

    def _at(self, run: str, at: float) -> None:
        if at == float("inf"):
            self._times.pop(run, None)
        elif self._times.get(run) != at:
            self._times[run] = at
            heapq.heappush(self._heap, (at, run))

    def _drop(self, run: str) -> None:
        self._own.discard(run)
        self._seen.pop(run, None)
        self._times.pop(run, None)
