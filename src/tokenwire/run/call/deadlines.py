"""The deadlines of a model call: clocks as plain arithmetic.

Always true: no clock is read here (``now`` is an argument, in seconds of any monotonic clock); only
semantic events stop the keep-alive clock, a provider's keep-alives stop the idle clock alone; a
timeout after the provider has accepted the request rules out another attempt at it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import msgspec

from tokenwire.errors import DeadlineError, InputError
from tokenwire.providers.clocks import CLOCKS

__all__ = ["Deadlines", "Progress", "Watch"]


class Deadlines(msgspec.Struct, kw_only=True, frozen=True):
    """Seconds; each must be above 0.

    ``connect``: until the connection is open. ``first_event``: from sending the request to the
    head of the response. ``idle``: between two signs of life once the answer has begun: semantic
    events, or the provider's keep-alives. ``keep_alive``: without a semantic event: an accepted
    request that is still silent, or that only keep-alives followed. ``total``: the whole call.
    """

    connect: float = 5.0
    first_event: float = 60.0
    idle: float = 60.0
    keep_alive: float = 300.0
    total: float = 600.0

    def __post_init__(self) -> None:
        for name in CLOCKS:
            if not getattr(self, name) > 0:
                raise InputError(f"deadline '{name}' must be above 0 seconds")

    def over(self, clocks: Mapping[str, float]) -> Deadlines:
        """These, with the ``clocks`` of a model (`Target.clocks`, in seconds) in their place."""
        return msgspec.structs.replace(self, **clocks) if clocks else self


_WORDS = {
    "first_event": "no response from the model within {0:g} s",
    "idle": "no data from the model for {0:g} s",
    "keep_alive": "the model accepted the request and sent no output for {0:g} s",
    "total": "the model's answer took longer than {0:g} s",
    "end": "the provider kept the connection open after the end of the answer",
}


class Progress(Protocol):
    """Who knows by himself when the last semantic event arrived."""

    @property
    def last_event(self) -> float:
        """That time."""
        ...


class Watch:
    """The clocks of one call."""

    __slots__ = ("_accepted", "_end", "_start", "deadlines", "last_event", "last_life", "progress")

    def __init__(self, deadlines: Deadlines, now: float) -> None:
        self.deadlines = deadlines
        self._start = now
        self._accepted: float | None = None
        self._end = math.inf
        #: Time of the last semantic event; set by the reader.
        self.last_event: float | None = None
        #: Time of the last keep-alive; set by the reader.
        self.last_life = now
        #: Who has a later `last_event`, as long as there is one.
        self.progress: Progress | None = None

    def accept(self, now: float) -> None:
        """The head of a successful response arrived."""
        if self._accepted is None:
            self._accepted = now

    def end_by(self, moment: float) -> None:
        """The answer seems to be over: wait for its end marker until ``moment`` only."""
        self._end = moment

    def due(self) -> float:
        """The time at which the first clock expires."""
        d, last = self.deadlines, self._last_event()
        if last is not None:
            life = max(last, self.last_life)
            moment = min(life + d.idle, last + d.keep_alive)
        elif self._accepted is not None:
            moment = self._accepted + d.keep_alive
        else:
            moment = self._start + d.first_event
        return min(moment, self._start + d.total, self._end)

    def _last_event(self) -> float | None:
        return self.last_event if self.progress is None else self.progress.last_event

    def earliest(self, now: float) -> float:
        """The time before which no clock can expire, whatever arrives from ``now`` on; `end_by`
        alone brings it forward."""
        return min(self.due(), now + min(self.deadlines.idle, self.deadlines.keep_alive))

    def overdue(self, now: float) -> DeadlineError | None:
        """The error of the expired clock, or None."""
        if now < self.due():
            return None
        which = self._expired(now)
        seconds = 0.0 if which == "end" else getattr(self.deadlines, which)
        # The provider works on an accepted request, and bills it: it must not be sent again.
        again = None if self._accepted is None else False
        return DeadlineError(
            _WORDS[which].format(seconds), which=which, seconds=seconds, should_retry=again
        )

    def _expired(self, now: float) -> str:
        d, last = self.deadlines, self._last_event()
        if now >= self._end:
            return "end"
        if now >= self._start + d.total:
            return "total"
        if last is None:
            return "first_event" if self._accepted is None else "keep_alive"
        return "keep_alive" if now >= last + d.keep_alive else "idle"
