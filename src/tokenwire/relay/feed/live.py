"""A stream that somebody reads: what every kind of feed's stream has.

Always true: a wake-up is never lost, whenever it comes; a reader that does not read makes nothing
be collected; a stream that has failed hands out nothing more.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import cast

from tokenwire.events.codec import AnyEvent
from tokenwire.express import Port, Taken
from tokenwire.relay.follow import Batch

__all__ = ["LiveStream", "StreamBatch"]


class StreamBatch(Batch):
    """Events with their cursors; None for those that only pass."""

    __slots__ = ("_items",)

    def __init__(self, items: list[tuple[str | None, bytes]]) -> None:
        super().__init__(1, [data for _, data in items])
        self._items = items

    def parts(self) -> list[tuple[str | None, bytes]]:
        """``[(cursor or None, event JSON), ...]``"""
        return self._items

    def events(self) -> list[tuple[str, AnyEvent]]:
        """The same, for a response that hands them to its encoder unseen."""
        return cast("list[tuple[str, AnyEvent]]", self._items)


class LiveStream(ABC):
    """One reader. Take batches with `next`, and `close` it on every path."""

    def __init__(self) -> None:
        #: Called when the stream is closed.
        self.on_close: list[Callable[[], None]] = []
        #: How many events were handed out.
        self.after = 0
        #: What was collected and not taken yet.
        self._items: list[tuple[str | None, bytes]] = []
        self._failure: Exception | None = None
        self._is_poked = self._is_closed = False
        self._is_dirty = True
        self._waiter: asyncio.Future[None] | None = None

    @property
    @abstractmethod
    def cursor(self) -> str:
        """Where the reader is."""

    @abstractmethod
    async def _collect(self) -> None:
        """Add what has come to `_items`; `_is_dirty` is set where more is there."""

    @abstractmethod
    def _let_go(self, *, returning: bool) -> None:
        """Stop following."""

    def wake(self) -> None:
        """There may be something to read."""
        self._is_dirty = True
        self._resume()

    def poke(self) -> None:
        """Make a waiting `next` return an empty batch (heartbeat, drain)."""
        self._is_poked = True
        self._resume()

    def fail(self, error: Exception) -> None:
        """Make `next` raise ``error``: the reader may read no more."""
        self._failure = error
        self._resume()

    def express(
        self,
        take: Callable[[Batch], Taken],
        one: Callable[[int, bytes], Taken] | None = None,
        port: Port | None = None,
    ) -> None:
        """Nothing here goes the express way."""

    def close(self, *, returning: bool = False) -> None:
        """Stop; a waiting `next` returns None. ``returning``: the reader is about to come back."""
        if self._is_closed:
            return
        self._is_closed = True
        for hook in self.on_close:
            hook()
        self._let_go(returning=returning)
        self._resume()

    async def next(self) -> StreamBatch | None:
        """The next events; waits for them. An empty batch means a `poke`; None that the stream was
        closed. Raises `GoneError` when what is followed was erased, what `fail` was given, and
        `LogError`."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self._items:
                return self._batch()
            if self._is_poked:
                self._is_poked = False
                return StreamBatch([])
            if self._is_closed:
                return None
            if self._is_dirty:
                self._is_dirty = False
                await self._collect()
                continue
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def ready(self) -> StreamBatch:
        """The events that are there now. Raises as `next`."""
        self._is_dirty = False
        await self._collect()
        if self._failure is not None:
            raise self._failure
        return self._batch()

    def _batch(self) -> StreamBatch:
        items, self._items = self._items, []
        self.after += len(items)
        return StreamBatch(items)

    def _resume(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
