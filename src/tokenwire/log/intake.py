"""Sockets of providers that are read together, when their store next takes what they bring.

A store that takes records in groups hands nothing on between two of them, so a wake-up of the event
loop for each token gains nobody anything. These sockets are in a poller of their own. The event
loop looks after that as after one more socket (`Intake.watch`), or not at all (`Intake.rest`) while
somebody calls `Intake.drain` in time.

Always true: a socket that had nothing to read when it was read is not here any more, and whoever
joined hears of that; one that left is not read again for whoever had it; what goes wrong with one
is no other's fault.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import sys
from collections.abc import Callable

__all__ = ["Intake"]

#: Sockets that are read in one turn of the event loop; the others are in the next group.
MOST_AT_ONCE = 512

#: Reads a socket, and is called when it is not here any more.
_Entry = tuple[Callable[[], bool], Callable[[], None]]


class Intake:
    """Nothing joins before `open`, or where the system has no such poller."""

    __slots__ = ("_entries", "_is_watched", "_loop", "_poller")

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._poller: select.epoll | None = None
        self._is_watched = False

    def open(self) -> None:
        """Begin, on the running event loop, which looks after the sockets at first."""
        if sys.platform == "linux" and self._poller is None:
            self._loop, self._poller = asyncio.get_running_loop(), select.epoll()
            self.watch()

    @property
    def is_open(self) -> bool:
        """Whether sockets may join."""
        return self._poller is not None

    @property
    def is_used(self) -> bool:
        """Whether a socket is here."""
        return bool(self._entries)

    def join(self, fd: int, pull: Callable[[], bool], end: Callable[[], None]) -> None:
        """See `tokenwire.express.Intake`."""
        if self._poller is not None:
            with contextlib.suppress(FileExistsError):  # of one that was here before
                self._poller.register(fd, select.EPOLLIN)
            self._entries[fd] = pull, end

    def leave(self, fd: int, pull: Callable[[], bool]) -> None:
        """See `tokenwire.express.Intake`."""
        entry = self._entries.get(fd)
        if entry is not None and entry[0] is pull:  # else the number is another socket's by now
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        self._entries.pop(fd, None)
        if self._poller is not None:
            with contextlib.suppress(OSError):  # the system forgets what is closed
                self._poller.unregister(fd)

    def drain(self) -> None:
        """Read what is there."""
        entries = self._entries
        if self._poller is None or not entries:
            return
        for fd, _ in self._poller.poll(0, MOST_AT_ONCE):
            entry = entries.get(fd)
            try:
                if entry is None:
                    self._forget(fd)
                elif not entry[0]() and entries.get(fd) is entry:
                    self._forget(fd)
                    entry[1]()
            except Exception as error:
                self._report(error)

    def _report(self, error: Exception) -> None:
        if self._loop is not None:
            message = "a read of a provider's answer failed"
            self._loop.call_exception_handler({"message": message, "exception": error})

    def watch(self) -> None:
        """From here on the event loop reads what comes, at once."""
        if not self._is_watched and self._loop is not None and self._poller is not None:
            self._is_watched = True
            self._loop.add_reader(self._poller.fileno(), self.drain)

    def rest(self) -> None:
        """From here on nothing that is here is read but by `drain`."""
        if not (self._is_watched and self._entries):
            return
        if self._loop is not None and self._poller is not None:
            self._is_watched = False
            self._loop.remove_reader(self._poller.fileno())

    def close(self) -> None:
        """Nobody is here any more."""
        poller, self._poller = self._poller, None
        if poller is not None:
            if self._is_watched and self._loop is not None:
                self._loop.remove_reader(poller.fileno())
            self._is_watched = False
            poller.close()
        entries, self._entries = self._entries, {}
        for _, end in entries.values():
            try:
                end()
            except Exception as error:
                self._report(error)
