"""What a principal keeps in Durable Streams, and how much it may.

Always true: nothing is written that would exceed the quota by what this process knows: it measures
anew now and then, and counts its own writes and deletes in between.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import msgspec

from tokenwire.errors import LimitError

__all__ = ["UNLIMITED", "Quota", "Usage"]

#: Seconds for which a measure holds: other processes write too.
_MEASURE_SECONDS = 600.0
_MOST_OWNERS = 10_000


class Quota(msgspec.Struct, frozen=True):
    """Of one principal. None is no limit."""

    streams: int | None = None
    size: int | None = None


UNLIMITED = Quota()


class _Measured:
    __slots__ = ("at", "size", "streams")

    def __init__(self, streams: int, size: int) -> None:
        self.streams, self.size, self.at = streams, size, time.monotonic()


class Usage:
    """``measure``: the streams of an owner and their bytes, as the store has them."""

    def __init__(self, quota: Quota, measure: Callable[[str], Awaitable[tuple[int, int]]]) -> None:
        self._quota, self._measure = quota, measure
        self._owners: dict[str, _Measured] = {}

    async def take(self, owner: str, *, streams: int = 0, size: int = 0) -> None:
        """Count what is about to be written. Raises `LimitError` when it is too much."""
        quota = self._quota
        if quota.streams is None and quota.size is None:
            return
        measured = self._owners.get(owner)
        if measured is None or time.monotonic() - measured.at > _MEASURE_SECONDS:
            if len(self._owners) >= _MOST_OWNERS:
                self._owners.clear()
            measured = self._owners[owner] = _Measured(*await self._measure(owner))
        if quota.streams is not None and streams and measured.streams + streams > quota.streams:
            raise LimitError(
                f"at most {quota.streams} streams; delete some",
                limit="durable_streams_count",
                most=quota.streams,
            )
        if quota.size is not None and size and measured.size + size > quota.size:
            raise LimitError(
                f"your streams may hold at most {quota.size} bytes; delete some",
                limit="durable_streams_bytes",
                most=quota.size,
            )
        measured.streams += streams
        measured.size += size

    def give(self, owner: str, *, streams: int = 0, size: int = 0) -> None:
        """Something was deleted."""
        measured = self._owners.get(owner)
        if measured is not None:
            measured.streams = max(0, measured.streams - streams)
            measured.size = max(0, measured.size - size)
