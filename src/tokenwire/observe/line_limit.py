"""One kind of log line that outsiders can cause at will: at most one a second, with a count.

Always true: what was left out is counted, by a line of its own after the pause, or without an event
loop before the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time

__all__ = ["LineLimit"]


class LineLimit:
    """Lines of one kind. ``seconds``: the pause between two of them."""

    def __init__(self, logger: logging.Logger, level: int, seconds: float = 1.0) -> None:
        self._logger, self._level, self._seconds = logger, level, seconds
        self._due = 0.0
        self._omitted = 0
        self._last = ""

    def log(self, message: str, *args: object) -> None:
        """Log a line, or count it when there was one of its kind within the pause."""
        now = time.monotonic()
        if now >= self._due:
            self._log_omitted()
            self._due = now + self._seconds
            self._logger.log(self._level, message, *args)
            return
        if not self._omitted:
            with contextlib.suppress(RuntimeError):  # no loop: the next line says it
                asyncio.get_running_loop().call_later(self._due - now, self._flush)
        self._omitted += 1
        self._last = message % args if args else message

    def _flush(self) -> None:
        if self._omitted:
            self._due = time.monotonic() + self._seconds
        self._log_omitted()

    def _log_omitted(self) -> None:
        if self._omitted:
            number, self._omitted = self._omitted, 0
            self._logger.log(self._level, "%s (%d more of them)", self._last, number)
