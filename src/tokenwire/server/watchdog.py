"""A thread that notices when the event loop stands still, and says where.

Always true: it costs the loop one timer; code that blocks is named once per place, with its task
(an agent, a tool, a run); a stall is reported once, with the stack that it stands in; under a
debugger it does nothing. ``beat`` lets a parent process see the loop, too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import sysconfig
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

__all__ = ["BLOCK_SECONDS", "STALL_SECONDS", "Watchdog"]

#: A loop that has not come round for so long stands still.
STALL_SECONDS = 2.0
#: Code that keeps the loop for so long is named.
BLOCK_SECONDS = 0.3
#: Between two beats of the loop, and between two looks of the thread.
_BEAT_SECONDS, _LOOK_SECONDS = 0.2, 0.1
#: Places that are remembered as named.
_MOST_PLACES = 256
_log = logging.getLogger("tokenwire.server")

#: Files that are not the user's: the standard library, installed packages, this one.
_OTHERS = (
    "<",
    *(
        sysconfig.get_paths()[name] + os.sep
        for name in ("stdlib", "platstdlib", "purelib", "platlib")
    ),
    str(Path(__file__).parents[1]) + os.sep,
)

#: File and function of the loop itself, with asyncio's loops and others.
_LOOP = frozenset(
    {
        ("base_events.py", "_run_once"),
        ("base_events.py", "run_until_complete"),
        ("runners.py", "run"),
    }
)


class Watchdog:
    """Watches the running loop: from `start` to `stop`, or for an ``async with`` block.

    ``beat``: called with the monotonic time at every beat; ``stall``, ``block``: seconds after
    which the stack is logged, and the line of a user's function is named.
    """

    def __init__(
        self,
        *,
        beat: Callable[[float], None] | None = None,
        stall: float = STALL_SECONDS,
        block: float = BLOCK_SECONDS,
    ) -> None:
        self._beat_parent, self._stall, self._block = beat, stall, block
        self._last = 0.0
        self._stopped = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        #: The user's frames of the look before, while the loop was late.
        self._frames: list[FrameType] = []
        self._places: set[tuple[str, str]] = set()
        #: Stalls that were reported.
        self.stalls = 0

    async def __aenter__(self) -> Watchdog:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.stop()

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
        while not self._stopped.wait(min(_LOOK_SECONDS, self._stall / 4)):
            last = self._last
            late = time.monotonic() - last - _BEAT_SECONDS
            if late <= _LOOK_SECONDS / 2:
                self._frames.clear()
                continue
            self._look(late)
            if late > self._stall and last != reported:
                reported = last
                self.stalls += 1
                self._report(late + _BEAT_SECONDS)
        self._frames.clear()

    def _look(self, late: float) -> None:
        """Name the user's function that runs, if it ran at the look before, too: a loop that is
        late because much goes on has no single place."""
        frame = sys._current_frames().get(self._loop_thread)
        frames: list[FrameType] = []
        while frame is not None:
            if frame.f_trace is not None or frame.f_code.co_filename.endswith(("bdb.py", "pdb.py")):
                self._frames.clear()
                return  # a debugger holds it
            if (frame.f_code.co_filename.rpartition(os.sep)[2], frame.f_code.co_name) in _LOOP:
                break  # what called the loop does not block it
            if not frame.f_code.co_filename.startswith(_OTHERS):
                frames.append(frame)
            frame = frame.f_back
        before, self._frames = self._frames, frames
        if late >= self._block and any(frame in before for frame in frames):
            self._name(frames[0], late)

    def _name(self, frame: FrameType, seconds: float) -> None:
        code = frame.f_code
        place = code.co_filename, code.co_qualname
        if place in self._places or len(self._places) >= _MOST_PLACES:
            return
        self._places.add(place)
        task = asyncio.current_task(self._loop)
        _log.warning(
            "%s blocks the event loop, and with it all other runs, for more than %.1f s: "
            "%s:%d in %s; use 'await' or 'asyncio.to_thread'",
            task.get_name() if task is not None else "a callback",
            seconds,
            _short(code.co_filename),
            frame.f_lineno,
            code.co_qualname,
        )

    def _report(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
        _log.error("the event loop has not come round for %.1f s; it is here:\n%s", seconds, stack)


def _short(path: str) -> str:
    """A file below the working directory, or the end of its path: logs leave whole paths out."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):  # another drive, or a directory that is gone
        relative = os.pardir
    return os.path.join(*Path(path).parts[-3:]) if relative.startswith(os.pardir) else relative
