"""One clock for all calls: a tick that looks at every open call's deadlines.

Always true: a call costs no timer of its own; a deadline is noticed at most one tick late, or two
where the event loop itself stood still; a call is not looked at before one of its clocks could have
run out; calls that are overdue together, as those of a provider that stands still, end in turns.
"""

from __future__ import annotations

import asyncio
import math
import time
from functools import partial
from typing import Protocol

from tokenwire.errors import ProviderError
from tokenwire.per_loop import PerLoop
from tokenwire.run.call.deadlines import Watch
from tokenwire.turns import turns

__all__ = ["Sweeper", "sweeper"]


class _Abortable(Protocol):
    def abort(self, error: ProviderError) -> None: ...


class Sweeper:
    """Aborts streams whose `Watch` is overdue, every ``tick`` seconds, while there are any."""

    def __init__(self, tick: float = 0.1) -> None:
        self._tick = tick
        self._watched: dict[_Abortable, Watch] = {}
        #: When each of them is looked at next. (Hundreds of streams, ten times a second: to look at
        #: each would cost two hundredths of all that a token costs.)
        self._looks: dict[_Abortable, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._has_waited = False

    def add(self, stream: _Abortable, watch: Watch) -> None:
        """Watch a stream until `discard`; to be called again after `Watch.end_by`."""
        self._watched[stream], self._looks[stream] = watch, -math.inf
        if self._timer is None:
            self._start()

    def discard(self, stream: _Abortable) -> None:
        """Stop watching."""
        self._watched.pop(stream, None)
        self._looks.pop(stream, None)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._tick
        self._timer = loop.call_at(self._due, self._sweep)

    def _sweep(self) -> None:
        is_late = asyncio.get_running_loop().time() > self._due + self._tick
        # A process that stood still takes its own silence for that of every provider: what came
        # meanwhile is read first. One that is always late looks every second time.
        self._has_waited = is_late and not self._has_waited
        if self._has_waited:
            self._start()
            return
        now = time.monotonic()
        for stream in [stream for stream, look in self._looks.items() if look <= now]:
            watch = self._watched.get(stream)
            if watch is None:  # one before it ended it, too
                continue
            if watch.overdue(now) is None:
                self._looks[stream] = watch.earliest(now)
            else:
                del self._looks[stream]
                turns().take(partial(self._end, stream, watch))
        self._timer = None
        if self._watched:
            self._start()

    def _end(self, stream: _Abortable, watch: Watch) -> None:
        """It is the turn of one that was overdue, unless it has moved on meanwhile."""
        if self._watched.get(stream) is not watch or stream in self._looks:
            return
        now = time.monotonic()
        error = watch.overdue(now)
        if error is None:
            self._looks[stream] = watch.earliest(now)
            return
        self.discard(stream)
        stream.abort(error)


#: The running event loop's.
sweeper = PerLoop(Sweeper)
