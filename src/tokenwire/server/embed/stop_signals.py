"""Hear that the process is told to stop, before its server waits for the connections.

Always true: whoever handled the signal before still does; off the main thread nothing happens, as
Python allows handlers only there.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["call_on_stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def call_on_stop(callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback`` on the running loop when SIGINT or SIGTERM comes, and then whoever handled
    it before. Returns a function that ends this."""
    if threading.current_thread() is not threading.main_thread():
        return _nothing
    loop = asyncio.get_running_loop()
    earlier: dict[int, Any] = {}

    def handler(number: int, frame: FrameType | None) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(callback)
        before = earlier[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in _SIGNALS:
        before = signal.getsignal(number)
        if before is None or before == signal.SIG_IGN:
            continue  # not Python's, or to be ignored
        earlier[number] = before
        signal.signal(number, handler)

    def end() -> None:
        for number, before in earlier.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, before)

    return end


def _nothing() -> None:
    """Nothing was set."""
