"""Every open stream of this process, and the one ticker that looks after them all.

Always true: a connection costs no timer and no task of its own here; the ticker runs only while
something is open; a connection that has to leave learns the reason once; a send that makes no
progress for the deadline raises `SlowReader`, and no other connection waits for it; a cancellation
of the task that sends remains a cancellation, also at the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from starlette.types import Message, Send

from tokenwire.errors import NotAuthenticatedError
from tokenwire.express import Port
from tokenwire.server.edge.auth import Identity
from tokenwire.server.process.overload import Overload, OverloadedServerError
from tokenwire.turns import turns

__all__ = ["REVOKED", "Connection", "Connections", "Poked", "SharedBytes", "SlowReader", "Waker"]

#: Why a connection leaves whose key no longer counts.
REVOKED = "revoked"

#: Encoded pages kept for the readers of one run: the tail, and what late joiners catch up on.
_SHARED_PAGES = 16
#: Seconds from one measurement of the loop's lag to the next, and the share of the newest.
_STEP, _SHARE = 0.1, 0.2
#: A page bigger than this is not worth keeping for others.
_SHARED_BYTES = 1 << 20


class SlowReader(Exception):
    """The peer read nothing for the write deadline. Raised by `Connection.write`. No answer can
    tell the peer, so it is no `TokenwireError`: those are reported to the client."""

    def __init__(self) -> None:
        super().__init__("the peer does not read what is sent")


class Poked(Protocol):
    """What a connection waits in: a follower, or several."""

    def poke(self) -> None:
        """Wake the waiting reader without anything to read."""
        ...


class Waker:
    """An event to wait for, as `Poked`."""

    __slots__ = ("event",)

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def poke(self) -> None:
        """Set the event."""
        self.event.set()


class Connection:
    """One open stream: the marks that the ticker reads and the writer sets."""

    __slots__ = (
        "_cancels",
        "_loop",
        "_sender",
        "_unsent",
        "expires",
        "identity",
        "is_slow",
        "last_write",
        "leaving",
        "lost",
        "poked",
        "port",
        "sending",
        "unsent",
    )

    def __init__(
        self, poked: Poked, now: float, expires: float, identity: Identity | None = None
    ) -> None:
        self.poked = poked
        #: Who reads; None where no key can end the connection.
        self.identity = identity
        #: When bytes last went out; heartbeats are counted from here.
        self.last_write = now
        #: When the send that is under way began; 0 when none is.
        self.sending = 0.0
        #: When the connection is asked to come back on a new one.
        self.expires = expires
        #: Why this connection has to leave: ``max_age``, ``drain``, ``revoked``; None while it may
        #: stay.
        self.leaving: str | None = None
        #: The peer has gone.
        self.lost = False
        #: The peer does not read: every `write` raises `SlowReader`.
        self.is_slow = False
        #: The task whose `write` is under way, and how often it had been cancelled before.
        self._sender: asyncio.Task[Any] | None = None
        self._cancels = 0
        self._loop = asyncio.get_running_loop()
        #: Where bytes go out past `write`; `written_at` looks there.
        self.port: Port | None = None
        #: Bytes that wait in the transport, where the server lets us know.
        self.unsent: Callable[[], int] | None = None
        self._unsent = 0

    def written_at(self, now: float) -> float:
        """`last_write`, or ``now`` for what went out past `write` since the last call."""
        port = self.port
        if port is not None and port.wrote:
            port.wrote, self.last_write = False, now
        return self.last_write

    def stuck(self, now: float) -> float:
        """For how many seconds the send that is under way has not moved."""
        if not self.sending:
            return 0.0
        if self.unsent is not None:
            unsent = self.unsent()
            if unsent < self._unsent:
                self.sending = now
            self._unsent = unsent
        return now - self.sending

    async def write(self, send: Send, message: Message) -> None:
        """``await send(message)``, with the marks that the ticker reads. One at a time. Raises
        `SlowReader` when it makes no progress for the write deadline."""
        if self.is_slow:
            raise SlowReader
        task = self._sender = asyncio.current_task()
        self._cancels = task.cancelling() if task is not None else 0
        self.sending = self._loop.time()
        try:
            await send(message)
            if self.is_slow and self._was_given_up():  # a middleware swallowed it
                raise SlowReader
        except asyncio.CancelledError:
            if self._was_given_up():
                raise SlowReader from None
            raise
        finally:
            self._sender, self.sending = None, 0.0
        self.last_write = self._loop.time()

    def give_up(self) -> bool:
        """End the `write` that is under way with `SlowReader`; whether there was one to end."""
        task = self._sender
        if task is None or self.is_slow or task.cancelling() > self._cancels:
            return False
        self.is_slow = True
        task.cancel()  # what wakes a foreign `send`; `write` takes it back
        return True

    def _was_given_up(self) -> bool:
        """Whether a cancellation is `give_up`'s alone. Takes that one back."""
        task = self._sender
        return self.is_slow and task is not None and task.uncancel() <= self._cancels

    def leave(self, reason: str) -> None:
        """Ask the writer to say ``reconnect`` and end."""
        if self.leaving is None:
            self.leaving = reason
            self.poked.poke()

    def revoke(self) -> None:
        """The key no longer counts. Takes the place of any other reason: some wires let a reader
        stay beyond its age."""
        self.leaving = REVOKED
        self.poked.poke()

    def check(self) -> None:
        """Raise `NotAuthenticatedError` where the key no longer counts: for an answer that is not
        begun yet."""
        if self.leaving == REVOKED:
            raise NotAuthenticatedError("the key behind this request is no longer valid")

    def gone(self) -> None:
        """The peer has gone: the writer ends without a word."""
        if not self.lost:
            self.lost = True
            self.poked.poke()


class SharedBytes:
    """Encoded pages of one run in one wire, for as long as somebody reads it."""

    __slots__ = ("_pages", "readers")

    def __init__(self) -> None:
        self.readers = 0
        #: None while nothing is kept: an empty one takes room for each run that has one reader.
        self._pages: OrderedDict[tuple[int, int], bytes] | None = None

    def get(self, first: int, count: int) -> bytes | None:
        """The bytes of ``count`` records from offset ``first``, when another reader made them."""
        return None if self._pages is None else self._pages.get((first, count))

    def put(self, first: int, count: int, data: bytes) -> None:
        """Keep them for the others; pointless for a single reader."""
        if self.readers > 1 and len(data) <= _SHARED_BYTES:
            if self._pages is None:
                self._pages = OrderedDict()
            self._pages[first, count] = data
            if len(self._pages) > _SHARED_PAGES:
                self._pages.popitem(last=False)


class Connections:
    """Open connections, their ticker, and the bytes that readers of one run share."""

    def __init__(
        self,
        *,
        heartbeat: float = 15.0,
        max_age: float = 240.0,
        write_deadline: float = 30.0,
        retry_ms: int = 1000,
        max_lag: float = 0.0,
    ) -> None:
        self.heartbeat = heartbeat
        self.max_age = max_age
        self.write_deadline = write_deadline
        self.retry_ms = retry_ms
        self.draining = False
        #: How late the ticker woke up, in seconds: the event loop's lag, smoothed.
        self.lag = 0.0
        self.overload = Overload(max_lag)
        #: When the ticker is due to wake; infinity while it does not run.
        self._due = math.inf
        self._open: set[Connection] = set()
        self._shared: dict[tuple[str, str], SharedBytes] = {}
        self._sweepers: list[Callable[[float], bool]] = []
        self._ticker: asyncio.Task[None] | None = None
        self._interval = max(0.02, min(0.5, heartbeat / 4, write_deadline / 4, max_age / 4))

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._open)

    def open(self, poked: Poked, identity: Identity | None = None) -> Connection:
        """A new connection, which the ticker looks after until `close`. ``identity``: who reads."""
        now = asyncio.get_running_loop().time()
        # Spread over +-10 %, so that readers who came together do not come back together.
        expires = now + self.max_age * random.uniform(0.9, 1.1)
        connection = Connection(poked, now, expires, identity)
        self._open.add(connection)
        if self.draining:
            connection.leaving = "drain"
        self.wake()
        return connection

    def close(self, connection: Connection) -> None:
        """The connection has ended, however it did."""
        self._open.discard(connection)

    @contextlib.contextmanager
    def waiting(self, poked: Poked, identity: Identity | None) -> Iterator[Connection]:
        """A connection while an answer of one piece waits for what it says. It has no age and sends
        nothing meanwhile; ``poked`` is woken for `Connection.check`."""
        connection = self.open(poked, identity)
        connection.expires = connection.last_write = math.inf
        try:
            yield connection
        finally:
            self.close(connection)

    def share(self, run: str, wire: str) -> SharedBytes:
        """The shared bytes of a run in a wire; give back with `unshare`."""
        shared = self._shared.setdefault((run, wire), SharedBytes())
        shared.readers += 1
        return shared

    def unshare(self, run: str, wire: str) -> None:
        """One reader less."""
        shared = self._shared[run, wire]
        shared.readers -= 1
        if not shared.readers:
            del self._shared[run, wire]

    def lateness(self) -> float:
        """How late the event loop is: `lag`, or a quarter of the time for which the ticker has been
        due, or the time for which requests and starts wait for their turn. Hundreds of requests may
        come within a turn of the loop, in which only that tells; but one long turn by itself is no
        overload."""
        return max(self.lag, (time.monotonic() - self._due) / 4, turns().lateness())

    def check_overload(self) -> OverloadedServerError | None:
        """The refusal of a new run; None while the server can take it on."""
        late, wait = self.lateness(), turns().wait_for_start()
        is_on = self.overload.note(late, time.monotonic(), wait, turns().line())
        return self.overload.error(max(late, wait)) if is_on else None

    def sweep_with(self, sweeper: Callable[[float], bool]) -> None:
        """Call ``sweeper(now)`` on every tick; it says whether it still has something to watch."""
        self._sweepers.append(sweeper)

    def wake(self) -> None:
        """Make sure the ticker runs."""
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.get_running_loop().create_task(self._tick_forever())

    def drain(self) -> None:
        """Ask every reader, and every later one, to come back elsewhere."""
        self.draining = True
        for connection in list(self._open):
            connection.leave("drain")

    async def aclose(self) -> None:
        """Stop the ticker."""
        ticker, self._ticker = self._ticker, None
        if ticker is not None:
            ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticker

    async def _tick_forever(self) -> None:
        loop = asyncio.get_running_loop()
        busy = True
        while busy:
            await self._sleep()
            now = loop.time()
            self._tick(now)
            watching = [sweeper(now) for sweeper in self._sweepers]
            busy = any(watching) or bool(self._open)
        self.lag, self._due = 0.0, math.inf
        self.overload.note(0.0, time.monotonic())

    async def _sleep(self) -> None:
        """Until the next tick, in steps that find out how late the loop is."""
        seconds = self._interval
        while seconds > 0:
            step = min(seconds, _STEP)
            seconds -= step
            self._due = time.monotonic() + step
            await asyncio.sleep(step)
            now = time.monotonic()
            self.lag += _SHARE * (max(0.0, now - self._due) - self.lag)
            self._due = now  # until it sleeps again it is not late
            line = turns()
            self.overload.note(self.lateness(), now, line.wait_for_start(), line.line())

    def _tick(self, now: float) -> None:
        for connection in list(self._open):
            if connection.sending:
                stuck = connection.stuck(now)
                if stuck > self.write_deadline:
                    connection.give_up()
            elif now >= connection.expires:
                connection.leave("max_age")
            elif now - connection.written_at(now) >= self.heartbeat:
                connection.poked.poke()
