"""A thread that notices when the event loop stands still, and says where.

Always true: it costs the loop one timer; a stall is reported once, with the stack that it stands
in; under a debugger it does nothing. ``beat`` lets a parent process see the loop, too.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

__all__ = ["STALL_SECONDS", "Watchdog"]

#: A loop that has not come round for so long stands still.
STALL_SECONDS = 2.0
_BEAT_SECONDS = 0.5
_log = logging.getLogger("tokenwire.server")


class Watchdog:
    """Watches the running loop from `start` to `stop`."""

    def __init__(
        self, *, beat: Callable[[float], None] | None = None, stall: float = STALL_SECONDS
    ) -> None:
        self._beat_parent, self._stall = beat, stall
        self._last = 0.0
        self._stopped = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        #: Stalls that were reported.
        self.stalls = 0

    def start(self) -> None:
        """Begin, on the loop that is to be watched."""
        if sys.gettrace() is not None or "pydevd" in sys.modules:
            return
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat()
        self._thread = threading.Thread(target=self._watch, name="tokenwire-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join(2 * _BEAT_SECONDS)

    def _beat(self) -> None:
        self._last = time.monotonic()
        if self._beat_parent is not None:
            self._beat_parent(self._last)
        self._timer = self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _watch(self) -> None:
        reported = 0.0
        while not self._stopped.wait(min(_BEAT_SECONDS, self._stall / 4)):
            last = self._last
            if time.monotonic() - last > self._stall + _BEAT_SECONDS and last != reported:
                reported = last
                self.stalls += 1
                self._report(time.monotonic() - last)

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
        _log.error("the event loop has not come round for %.1f s; it is here:\n%s", seconds, stack)
