"""Cyclic garbage of a server, collected in pieces that no stream feels.

A collection looks at every object of its generation, and a server with a thousand streams has half
a million, which all live: tens of milliseconds in which nothing is sent. But a stream leaves no
cycles, so nearly everything that is garbage goes without a collection. What survives two small
collections is put aside (`gc.freeze`) and looked at again only when nothing is open, or when far
more has been put aside than the open streams explain.

Always true: a collection within the turns of the event loop looks at a few thousand objects; a
cycle is found at the latest when `MOST_ASIDE` objects and `PER_STREAM` for each stream were put
aside since the last whole collection.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["Collector"]

#: New objects after which the young ones are looked at; after so many times those that survived.
_YOUNG, _TIMES = 1_000, 3
#: Objects that may be put aside before a whole collection: in any case, and for each open stream.
MOST_ASIDE, PER_STREAM = 500_000, 1_000
#: The same while nothing is open, and seconds from one whole collection to the next then.
IDLE_ASIDE, IDLE_SECONDS = 50_000, 60.0
#: Seconds between two looks at that.
_LOOK_SECONDS = 5.0


class Collector:
    """The collections of this process, from `start` to `stop`. ``open_streams``: how many there
    are now. ``clock``: seconds."""

    def __init__(
        self, open_streams: Callable[[], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._open_streams, self._clock = open_streams, clock
        self._thresholds = gc.get_threshold()
        self._timer: asyncio.TimerHandle | None = None
        #: What was put aside since the last whole collection, at most; and when that was.
        self._aside, self._at = 0, 0.0
        #: Blocks of memory by then.
        self._base = 0

    def start(self) -> None:
        """Everything that is there now lives on."""
        self._thresholds = gc.get_threshold()
        self.collect_all()
        gc.set_threshold(_YOUNG, _TIMES, 1_000_000)
        gc.callbacks.append(self._collected)
        self._look_soon()

    def stop(self) -> None:
        """Leave collections to the interpreter again. What was put aside stays there: the process
        is about to end, and would only wait for it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._collected in gc.callbacks:
            gc.callbacks.remove(self._collected)
        gc.set_threshold(*self._thresholds)

    def collect_all(self) -> None:
        """A whole collection: it stops everything for as long as it takes."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._aside, self._at = 0, self._clock()
        self._base = sys.getallocatedblocks()

    def look(self) -> None:
        """A whole collection, if one is due."""
        streams, most = self._open_streams(), IDLE_ASIDE
        if streams or self._clock() - self._at < IDLE_SECONDS:
            most = MOST_ASIDE + PER_STREAM * streams
        if self._aside <= most:
            return
        # Most of it may be gone by itself. (`gc.get_freeze_count` walks through all objects, which
        # takes 20 ms with 700,000 of them; every object is at least one block of memory.)
        self._aside = min(self._aside, sys.getallocatedblocks() - self._base)
        if self._aside > most:
            self.collect_all()

    def _collected(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "stop" and info["generation"] == 1:
            gc.freeze()
            self._aside += _YOUNG * _TIMES

    def _look_soon(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self.look()
        self._look_soon()
