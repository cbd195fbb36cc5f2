"""What a principal keeps in Durable Streams, and how much it may: one total in the store.

Always true: what is about to be written is in the total before it is written, whichever process
writes it, so that all processes of a store together hold the quota; a process reserves bytes for
several appends at once, at most a sixteenth of what is free, so that an append seldom writes the
total. Totals are measured anew now and then, for what ended processes had reserved.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable

import msgspec

from tokenwire.errors import LimitError
from tokenwire.log.base import Index

__all__ = ["UNLIMITED", "Quota", "Usage"]

_KIND = "durable-usage"
#: Seconds for which a total holds, and for which one does that refuses a write.
_MEASURE_SECONDS, _REFUSING_SECONDS = 600.0, 10.0
#: Bytes that a process reserves beyond what it writes.
_RESERVED = 64 << 10
_SHARE = 16
#: Owners with reserved bytes in one process.
_MOST_OWNERS = 10_000


class Quota(msgspec.Struct, frozen=True):
    """Of one principal. None is no limit."""

    streams: int | None = None
    size: int | None = None


UNLIMITED = Quota()


class _Total(msgspec.Struct, frozen=True, array_like=True):
    """As the store has it. ``at``: when it was measured, in seconds since 1970. ``change``: no two
    writes are the same, so that of two processes that count the same one swaps."""

    streams: int
    size: int
    at: float
    change: bytes = b""

    def older_than(self, seconds: float) -> bool:
        return abs(time.time() - self.at) > seconds


class Usage:
    """``measure``: the streams of an owner and their bytes, as the store has them."""

    def __init__(
        self, store: Index, quota: Quota, measure: Callable[[str], Awaitable[tuple[int, int]]]
    ) -> None:
        self._store, self._quota, self._measure = store, quota, measure
        self._reserved: dict[str, int] = {}

    @property
    def _is_on(self) -> bool:
        return self._quota.streams is not None or self._quota.size is not None

    async def take(self, owner: str, *, streams: int = 0, size: int = 0) -> None:
        """Count what is about to be written. Raises `LimitError` when it is too much."""
        if not self._is_on:
            return
        own = min(size, self._reserved.get(owner, 0))
        self._reserve(owner, -own)
        if not streams and own == size:
            return
        try:
            extra = await self._enter(owner, streams, size - own)
        except BaseException:
            self._reserve(owner, own)
            raise
        self._reserve(owner, extra)

    async def give(self, owner: str, *, streams: int = 0, size: int = 0) -> None:
        """Something was deleted."""
        if not self._is_on:
            return
        while (data := await self._store.document(_KIND, owner)) is not None:
            total = msgspec.msgpack.decode(data, type=_Total)
            less = max(0, total.streams - streams), max(0, total.size - size)
            new = _encode(*less, total.at) if any(less) else None
            if await self._store.swap_document(_KIND, owner, data, new):
                return

    def refund(self, owner: str, size: int) -> None:
        """Bytes that were taken were not written: they are reserved again."""
        if self._is_on:
            self._reserve(owner, size)

    async def _enter(self, owner: str, streams: int, size: int) -> int:
        """Add to the total in the store; the bytes that were reserved beyond that."""
        while True:
            data = await self._store.document(_KIND, owner)
            total = msgspec.msgpack.decode(data, type=_Total) if data is not None else None
            if total is None or total.older_than(_MEASURE_SECONDS):
                total = await self._measured(owner)
            error = self._excess(total, streams, size)
            if error is not None and total.older_than(_REFUSING_SECONDS):
                total = await self._measured(owner)
                error = self._excess(total, streams, size)
            if error is not None:
                raise error
            extra = 0
            if self._quota.size is not None:
                extra = min(_RESERVED, (self._quota.size - total.size - size) // _SHARE)
            new = _encode(total.streams + streams, total.size + size + extra, total.at)
            if await self._store.swap_document(_KIND, owner, data, new):
                return extra

    async def _measured(self, owner: str) -> _Total:
        self._reserved.pop(owner, None)  # it is not in what is measured
        return _Total(*await self._measure(owner), time.time())

    def _excess(self, total: _Total, streams: int, size: int) -> LimitError | None:
        quota = self._quota
        if quota.streams is not None and streams and total.streams + streams > quota.streams:
            return LimitError(
                f"at most {quota.streams} streams; delete some",
                limit="durable_streams_count",
                most=quota.streams,
            )
        if quota.size is not None and size and total.size + size > quota.size:
            return LimitError(
                f"your streams may hold at most {quota.size} bytes; delete some",
                limit="durable_streams_bytes",
                most=quota.size,
            )
        return None

    def _reserve(self, owner: str, size: int) -> None:
        reserved = self._reserved.pop(owner, 0) + size
        if reserved > 0:
            if len(self._reserved) >= _MOST_OWNERS:  # measured anew later
                del self._reserved[next(iter(self._reserved))]
            self._reserved[owner] = reserved


def _encode(streams: int, size: int, at: float) -> bytes:
    return msgspec.msgpack.encode(_Total(streams, size, at, os.urandom(8)))
