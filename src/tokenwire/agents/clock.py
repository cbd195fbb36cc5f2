"""The deadline of a run that may wait for a person."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["WorkClock"]


class WorkClock:
    """The deadline of a run. Time that it waits for a person does not count."""

    def __init__(self, is_waiting: Callable[[], bool], expire: Callable[[], None]) -> None:
        self._is_waiting, self._expire = is_waiting, expire
        self._seconds: float | None = None  # what remains; None: no deadline holds
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Call ``expire`` after ``seconds`` of work."""
        self._seconds = seconds
        self.look()

    def stop(self) -> None:
        """No deadline holds any more."""
        self._pause()
        self._seconds = None

    def look(self) -> None:
        """Pause or go on, as the run waits or not."""
        if self._seconds is None:
            return
        if self._is_waiting():
            self._pause()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._since = loop.time()
            self._timer = loop.call_later(self._seconds, self._expire)

    def _pause(self) -> None:
        if self._timer is None or self._seconds is None:
            return
        self._timer.cancel()
        self._timer = None
        elapsed = asyncio.get_running_loop().time() - self._since
        self._seconds = max(0.0, self._seconds - elapsed)
