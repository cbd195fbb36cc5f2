"""When a file that an operator may change is another.

Always true: a look costs one ``stat``, at most once a second; a change is seen once; a file that
was changed within the last second, as one that is still being written, is looked at again later.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["FileLook"]

#: Seconds between two looks, and for which a file is left alone after a change.
_LOOK, _REST = 1.0, 1.0

#: What tells one content from another: a file that cannot be looked at has none.
_Stamp = tuple[int, ...] | None


class FileLook:
    """At the file ``path``, which was read just before. ``clock``: seconds that never go back;
    ``wall``: Unix seconds."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._path, self._clock, self._wall = path, clock, wall
        self._stamp, _ = self._now()
        #: A change that may not be complete yet, and when it was first seen.
        self._pending, self._pending_since = self._stamp, 0.0
        self._next_look = 0.0

    def is_due(self) -> bool:
        """Whether the file is another than at the last time that this was true, and is not being
        written. It may be missing."""
        now = self._clock()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK
        stamp, changed_at = self._now()
        if stamp == self._stamp:
            self._pending = stamp
            return False
        if stamp != self._pending:
            self._pending, self._pending_since = stamp, now
        # (A clock that was put back must not keep a change from counting.)
        is_at_rest = self._wall() - changed_at >= _REST or now - self._pending_since >= _REST
        if is_at_rest:
            self._stamp = stamp
        return is_at_rest

    def _now(self) -> tuple[_Stamp, float]:
        """The stamp of the file, and when its content changed (Unix seconds)."""
        try:
            info = self._path.stat()
        except OSError:
            return None, self._wall()
        # The time of the mode as well: a file that others could read may be mended.
        stamp = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, info.st_mode)
        return stamp, info.st_mtime
