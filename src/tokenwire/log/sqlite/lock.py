"""The lock that all writers of a SQLite file pass, of all processes.

Older SQLite can damage a file when two connections write and checkpoint in the same instant; with
this lock that cannot happen.
"""

from __future__ import annotations

import os
import time

from tokenwire.errors import StoreUnavailableError

try:
    import fcntl
except ImportError:  # not on Windows: there SQLite's own lock has to do
    fcntl = None

__all__ = ["FileLock"]


class FileLock:
    """``path``-lock; held from `take` to `release`. ``busy``: seconds to wait for it."""

    def __init__(self, path: str, busy: float) -> None:
        self._busy = busy
        self._file = -1
        if fcntl is not None:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._file = os.open(path + "-lock", flags, 0o600)

    def take(self) -> None:
        """Raises `StoreUnavailableError` when another process keeps it, or it cannot be had."""
        if self._file < 0 or fcntl is None:
            return
        elapsed = 0.0
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if elapsed >= self._busy:
                    message = "another process holds the lock of the store"
                    raise StoreUnavailableError(message) from None
            except OSError as error:
                reason = error.strerror or type(error).__name__
                raise StoreUnavailableError(f"cannot lock the store: {reason}") from error
            pause = min(0.002, 0.0002 + elapsed / 10)
            time.sleep(pause)
            elapsed += pause

    def release(self) -> None:
        if self._file >= 0 and fcntl is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
