"""The deadlines of a model call: four clocks as plain arithmetic.

Always true: no clock is read here (``now`` is an argument, in seconds of any monotonic clock);
only semantic events move the idle clock, keep-alives do not.
"""

from __future__ import annotations

import msgspec

from tokenwire.errors import DeadlineError, InputError

__all__ = ["Deadlines", "Watch"]


class Deadlines(msgspec.Struct, kw_only=True, frozen=True):
    """Seconds; each must be above 0.

    ``connect``: until the connection stands. ``first_event``: from sending the request to the
    first semantic event. ``idle``: between semantic events. ``total``: the whole call.
    """

    connect: float = 5.0
    first_event: float = 60.0
    idle: float = 60.0
    total: float = 600.0

    def __post_init__(self) -> None:
        for name in ("connect", "first_event", "idle", "total"):
            if not getattr(self, name) > 0:
                raise InputError(f"deadline '{name}' must be above 0 seconds")


_WORDS = {
    "first_event": "no response from the model within {0:g} s",
    "idle": "no data from the model for {0:g} s",
    "total": "the model's answer took longer than {0:g} s",
}


class Watch:
    """The clocks of one call."""

    __slots__ = ("_start", "deadlines", "last_event")

    def __init__(self, deadlines: Deadlines, now: float) -> None:
        self.deadlines = deadlines
        self._start = now
        #: Time of the last semantic event; set by the reader.
        self.last_event: float | None = None

    def due(self) -> float:
        """The time at which the first clock expires."""
        d = self.deadlines
        waiting = (
            self._start + d.first_event if self.last_event is None else self.last_event + d.idle
        )
        return min(waiting, self._start + d.total)

    def overdue(self, now: float) -> DeadlineError | None:
        """The error of the expired clock, or None."""
        if now < self.due():
            return None
        d = self.deadlines
        if now >= self._start + d.total:
            which, seconds = "total", d.total
        elif self.last_event is None:
            which, seconds = "first_event", d.first_event
        else:
            which, seconds = "idle", d.idle
        return DeadlineError(_WORDS[which].format(seconds), which=which, seconds=seconds)
