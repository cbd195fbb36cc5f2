"""Who reads the runs of this process, and the stop of a run when its last reader has left.

Always true: only a run that was started so (``stop``, ``stop:N``) is stopped because nobody reads
it, and never while somebody does.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable

from tokenwire.events.model import Control

__all__ = ["ON_DISCONNECT", "Readers"]

#: What a run may be started with: ``continue``, ``stop``, or ``stop:N`` seconds after.
ON_DISCONNECT = re.compile(r"continue|stop|stop:[0-9]{1,5}")


class Readers:
    """Readers by run, and what the runs that are owned here want when they have none."""

    def __init__(self) -> None:
        self._reading: Counter[str] = Counter()
        self._owned: dict[str, tuple[str, Callable[[Control], None]]] = {}
        self._stops: dict[str, asyncio.TimerHandle] = {}

    def own(self, run: str, policy: str, stop: Callable[[Control], None]) -> None:
        """From now on ``stop`` is called when the last reader of ``run`` left, as ``policy`` has
        it (one of `ON_DISCONNECT`)."""
        self._owned[run] = policy, stop

    def disown(self, run: str) -> None:
        """The run has ended, or belongs to another process."""
        self._owned.pop(run, None)
        self.stay(run)

    def came(self, run: str) -> None:
        """Somebody is about to read; `stay` says that it works."""
        self._reading[run] += 1

    def stay(self, run: str) -> None:
        """Call off the stop that was to come."""
        timer = self._stops.pop(run, None)
        if timer is not None:
            timer.cancel()

    def left(self, run: str) -> None:
        """Somebody who came does not read any more."""
        self._reading[run] -= 1
        if self._reading[run] > 0:
            return
        del self._reading[run]
        policy, stop = self._owned.get(run, ("continue", None))
        if stop is None or policy == "continue" or run in self._stops:
            return
        seconds = float(policy.partition(":")[2] or 0)
        order = Control(command="cancel", by="on_disconnect", reason="the last reader left")
        self._stops[run] = asyncio.get_running_loop().call_later(seconds, stop, order)

    def close(self) -> None:
        """Stop nothing any more."""
        for run in list(self._stops):
            self.stay(run)
