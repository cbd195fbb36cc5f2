"""Actions of many answers carried out in time, by one timer for all of them.

Always true: an action is never early; a client that does not read holds up only itself; when the
client goes away nothing more is made for it.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tokenwire.simulator.http import Exchange

__all__ = ["Action", "Close", "Head", "Playback", "Send", "Silence", "Ticker"]

#: Streams due within this of one another share a wake-up.
QUANTUM = 0.001
#: Bytes written in one turn before others get theirs.
TURN_BYTES = 64 * 1024


class Head(msgspec.Struct):
    """The status line and headers of a body that follows; always the first action."""

    delay: float
    status: int
    headers: dict[str, str]


class Send(msgspec.Struct):
    """Bytes, due ``delay`` seconds after the action before; ``alone``: not joined to others."""

    delay: float
    data: bytes
    alone: bool = False


class Silence(msgspec.Struct):
    """Say nothing more; the connection stays open."""


class Close(msgspec.Struct):
    """End the body: ``end`` (as a whole one), ``fin`` (cut) or ``rst`` (reset)."""

    how: str = "end"
    #: The end came too early.
    early: bool = False


Action = Head | Send | Silence | Close


class Ticker:
    """One timer for many streams: a heap of moments, one wake-up for all that are due."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[tuple[float, int, Callable[[], Any]]] = []
        self._count = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed = float("inf")

    def now(self) -> float:
        """The loop's clock."""
        return self._loop.time()

    def at(self, when: float, callback: Callable[[], Any]) -> None:
        """Call ``callback`` at ``when`` or up to a quantum later."""
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, callback))
        if when < self._armed - QUANTUM:
            self._arm(when)

    def close(self) -> None:
        """Forget everything."""
        self._heap.clear()
        if self._handle is not None:
            self._handle.cancel()

    def _arm(self, when: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed = when
        self._handle = self._loop.call_at(when, self._tick)

    def _tick(self) -> None:
        self._handle, self._armed = None, float("inf")
        limit = self._loop.time() + QUANTUM / 2
        heap = self._heap
        due: list[Callable[[], Any]] = []
        while heap and heap[0][0] <= limit:
            due.append(heapq.heappop(heap)[2])
        for callback in due:
            callback()
        if heap and heap[0][0] < self._armed - QUANTUM:
            self._arm(heap[0][0])


class Playback:
    """One answer on its way to one client."""

    __slots__ = (
        "_actions",
        "_due",
        "_exchange",
        "_next",
        "_on_end",
        "_stopped",
        "_ticker",
        "_waiting",
    )

    def __init__(
        self,
        exchange: Exchange,
        actions: Iterator[Action],
        ticker: Ticker,
        on_end: Callable[[str], None],
    ) -> None:
        self._exchange = exchange
        self._actions = actions
        self._ticker = ticker
        self._on_end = on_end
        self._due = ticker.now()
        self._next: Action | None = None
        self._stopped = False
        self._waiting = False
        exchange.on_close = self._lost
        exchange.on_resume = self.advance

    def advance(self) -> None:
        """Carry out what is due; called by the ticker, and when the client reads again."""
        out: list[bytes] = []
        size = 0
        limit = self._ticker.now() + QUANTUM / 2
        while not self._stopped and not self._exchange.paused:
            if self._next is None:
                self._fetch()
            if self._due > limit:
                self._wait(self._due)
                break
            action, self._next = self._next, None
            if isinstance(action, Head):
                self._exchange.begin(action.status, action.headers)
                continue
            if not isinstance(action, Send):
                self._write(out)
                self._end(action)
                return
            if action.alone:
                self._write(out)
                out = []
                self._exchange.write(action.data)
                self._wait(0.0)
                break
            out.append(action.data)
            size += len(action.data)
            if size > TURN_BYTES:
                self._write(out)
                out, size = [], 0
                self._wait(0.0)
                break
        self._write(out)

    def _wait(self, when: float) -> None:
        if not self._waiting:
            self._waiting = True
            self._ticker.at(when, self._wake)

    def _wake(self) -> None:
        self._waiting = False
        if self._stopped:
            return
        try:
            self.advance()
        except Exception as error:  # one broken answer must not stop the others
            self._stopped = True
            self._exchange.cut()
            self._on_end("failed")
            asyncio.get_running_loop().call_exception_handler(
                {"message": "an answer of the simulator failed", "exception": error}
            )

    def _fetch(self) -> None:
        action = next(self._actions, None) or Close("end")
        self._next = action
        if isinstance(action, Send | Head):
            self._due += action.delay

    def _write(self, out: list[bytes]) -> None:
        if out:
            self._exchange.write(b"".join(out) if len(out) > 1 else out[0])

    def _end(self, action: Action | None) -> None:
        if isinstance(action, Silence):
            self._exchange.on_resume = None  # the exchange stays open until the client goes
            return
        self._stopped = True
        how = action.how if isinstance(action, Close) else "end"
        if how == "end":
            self._exchange.finish()
        else:
            self._exchange.cut(reset=how == "rst")
        early = how != "end" or (isinstance(action, Close) and action.early)
        self._on_end(f"cut-{how}" if early else "complete")

    def _lost(self) -> None:
        self._stopped = True
        self._on_end("disconnected")
