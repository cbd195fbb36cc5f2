"""One object for each event loop of the process: clocks, tickers and pools that tasks share.

Always true: every live loop keeps its object, whichever thread it runs in; the objects of closed
loops are dropped when the next one is made, even where an object refers to its loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """``make`` is called once for each loop, at its first use."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._objects: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def __call__(self) -> T:
        """The running event loop's object."""
        loop = asyncio.get_running_loop()
        current = self._objects.get(loop)
        if current is None:
            with self._lock:
                for other in [each for each in self._objects if each.is_closed()]:
                    del self._objects[other]
                current = self._objects[loop] = self._make()
        return current

    def __len__(self) -> int:
        return len(self._objects)
