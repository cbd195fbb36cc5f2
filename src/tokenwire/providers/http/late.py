"""Reads of one connection, and its end, that wait for their turn of the event loop.

Always true: nothing passes what waits: while bytes do, further ones wait behind them, and so does
the end of the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from tokenwire.express import Diversion

__all__ = ["Late"]


class Late:
    """What waits. It stands in the place of ``lane``, the diversion of the connection, which
    refused the first of these reads. ``on_full``: called where more than ``most`` bytes wait."""

    __slots__ = ("_most", "_on_full", "_pieces", "_size", "end", "lane")

    def __init__(self, lane: Diversion | None, *, most: int, on_full: Callable[[], None]) -> None:
        self.lane = lane
        self._most, self._on_full = most, on_full
        self._pieces: list[bytes] = []
        self._size = 0
        #: The end of the connection, with its error, if it had one.
        self.end: tuple[Exception | None] | None = None

    def received(self, data: bytes) -> bool:
        """See `tokenwire.express.Diversion`."""
        self._pieces.append(data)
        self._size += len(data)
        if self._size > self._most:
            self._on_full()
        return True

    def leave(self) -> None:
        """The lane is over; what waits stays."""
        lane, self.lane = self.lane, None
        if lane is not None:
            lane.leave()

    def take(self) -> bytes:
        """All that waits."""
        data = b"".join(self._pieces)
        self.drop()
        return data

    def drop(self) -> None:
        """Forget the bytes."""
        self._pieces, self._size = [], 0
