"""A bounded buffer between a model and a slower reader in the same process.

Always true: it never holds more than ``most_events`` events or ``most_bytes`` bytes of text plus
the one batch that crossed the bound; nothing is lost or reordered; when the reader is slower than
the writer, the policy says what happens: ``wait`` (the writer waits, so the provider's connection
is not read and TCP slows the provider) or ``merge`` (neighbouring deltas are joined first, then the
writer waits).
"""

from __future__ import annotations

import asyncio
from typing import Literal, get_args

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.model import Event, PartDelta
from tokenwire.run.coalesce import merge

__all__ = ["Buffer", "BufferLimits", "BufferStats", "Policy"]

Policy = Literal["wait", "merge"]


class BufferLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the buffer between a model and its reader, and the policy at the bound.

    ``events`` and ``bytes`` (of text): at least 1 each. ``policy``: ``wait`` (the model waits) or
    ``merge`` (neighbouring deltas are joined first).
    """

    events: int = 100
    bytes: int = 256 * 1024
    policy: Policy = "wait"


class BufferStats(msgspec.Struct):
    """How the buffer did: counts of events, the fullest moment, and how often the writer waited."""

    events: int = 0
    buffered: int = 0
    buffered_bytes: int = 0
    fullest: int = 0
    writer_waits: int = 0


class Buffer:
    """One writer, one reader, batches of events."""

    def __init__(self, limits: BufferLimits | None = None) -> None:
        limits = limits or BufferLimits()
        if limits.events < 1 or limits.bytes < 1:
            raise InputError("a buffer must hold at least 1 event and 1 byte")
        if limits.policy not in get_args(Policy):
            raise InputError("the policy of a buffer must be 'wait' or 'merge'")
        self.policy: Policy = limits.policy
        self.stats = BufferStats()
        self._most_events, self._most_bytes = limits.events, limits.bytes
        self._events: list[Event] = []
        self._ended = False
        self._error: BaseException | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    async def put(self, events: list[Event]) -> None:
        """Add a batch; waits first while the buffer is full."""
        while self._full():
            if self.policy == "merge":
                self._events = merge(self._events)
                self._measure()
                if not self._full():
                    break
            self.stats.writer_waits += 1
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        self._events.extend(events)
        self.stats.events += len(events)
        self.stats.buffered_bytes += _size(events)
        self._count()
        _wake(self._reader)

    def end(self, error: BaseException | None = None) -> None:
        """No batch will follow; the reader gets what is held, then the end or ``error``."""
        self._ended, self._error = True, error
        _wake(self._reader)

    async def take(self) -> list[Event] | None:
        """Everything held; waits while there is nothing; None at the end."""
        while not self._events:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return None
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        buffered, self._events = self._events, []
        self.stats.buffered = self.stats.buffered_bytes = 0
        _wake(self._writer)
        return buffered

    def _full(self) -> bool:
        return (
            len(self._events) >= self._most_events or self.stats.buffered_bytes >= self._most_bytes
        ) and not self._ended

    def _measure(self) -> None:
        self.stats.buffered_bytes = _size(self._events)
        self._count()

    def _count(self) -> None:
        self.stats.buffered = len(self._events)
        self.stats.fullest = max(self.stats.fullest, self.stats.buffered)


def _size(events: list[Event]) -> int:
    return sum(len(e.text) if isinstance(e, PartDelta) else 64 for e in events)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
