"""Cyclic garbage of a server, collected in pieces that no stream feels.

A collection looks at every object of its generation, and a server with a thousand streams has half
a million, which all live: tens of milliseconds in which nothing is sent. But a stream leaves no
cycles, so nearly everything that is garbage goes without a collection. What survives two small
collections is put aside (`gc.freeze`) and looked at again only when nothing is open, or when far
more has been put aside than the open streams explain.

The interpreter counts new objects less those that were freed, whatever their age. In a crowd of
starts, which frees its requests meanwhile, seven times as many are new as it counts, and 28,000 are
in the second of the two collections. So after one that took long the next ones come sooner.

Always true: a collection within the turns of the event loop takes some `LONG` seconds at most, once
the first ones of a crowd have shown what they cost; a cycle is found at the latest when
`MOST_ASIDE` objects and `PER_STREAM` for each stream were put aside since the last whole
collection.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Callable
from typing import Any

__all__ = ["LEAST_YOUNG", "LONG", "YOUNG", "Collector"]

#: New objects after which the young ones are looked at, and the least after collections that took
#: long; after so many times those that survived.
YOUNG, LEAST_YOUNG, _TIMES = 1_000, 100, 3
#: Seconds of CPU that the look at those that survived may take, and a quarter of it the one before.
LONG = 0.002
#: Never by itself: a whole collection comes from `Collector.look`.
_NEVER = 1_000_000
#: Objects that may be put aside before a whole collection: in any case, and for each open stream.
MOST_ASIDE, PER_STREAM = 500_000, 1_000
#: The same while nothing is open, and seconds from one whole collection to the next then.
IDLE_ASIDE, IDLE_SECONDS = 50_000, 60.0
#: Seconds between two looks at that.
_LOOK_SECONDS = 5.0


class Collector:
    """The collections of this process, from `start` to `stop`. ``open_streams``: how many there
    are now. ``clock``: seconds; ``cpu``: seconds that this thread worked."""

    def __init__(
        self,
        open_streams: Callable[[], int],
        *,
        clock: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._open_streams, self._clock, self._cpu = open_streams, clock, cpu
        self._thresholds = gc.get_threshold()
        self._timer: asyncio.TimerHandle | None = None
        #: What was put aside since the last whole collection, at most; and when that was.
        self._aside, self._at = 0, 0.0
        #: Blocks of memory by then.
        self._base = 0
        #: New objects until the next collection; when the one under way began, by `cpu`; what those
        #: of the young ones took since the last one of survivors.
        self._young, self._began, self._took = YOUNG, 0.0, 0.0

    def start(self) -> None:
        """Everything that is there now lives on."""
        self._thresholds = gc.get_threshold()
        self.collect_all()
        gc.set_threshold(self._young, _TIMES, _NEVER)
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
        if phase == "start":
            self._began = self._cpu()
        elif info["generation"] == 0:
            self._adapt(self._cpu() - self._began)
        elif info["generation"] == 1:
            # Nothing else is in the oldest generation: all before was put aside.
            self._aside += len(gc.get_objects(generation=2))
            gc.freeze()
            self._took = 0.0
            gc.set_threshold(self._young, _TIMES, _NEVER)

    def _adapt(self, took: float) -> None:
        """What survived is looked at once more, which takes as long again, and the new objects with
        it: so the next collection does that, or fewer are new by then."""
        if took > LONG / 4:
            self._young = max(LEAST_YOUNG, self._young // 2)
        else:
            self._young = min(YOUNG, self._young + 1 + self._young // 8)
        self._took += took
        is_short = self._took + took <= LONG / 2
        gc.set_threshold(self._young, _TIMES if is_short else 0, _NEVER)

    def _look_soon(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LOOK_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self.look()
        self._look_soon()
