"""One answer of a provider, from its head to its end.

Always true: what is buffered is bounded, beyond it the socket is not read; nothing is handed on
after an error or the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from tokenwire.errors import ProviderError
from tokenwire.express import YES, Diversion, Hold, Taken
from tokenwire.providers.http.proxy import Proxy

__all__ = ["Response"]

#: Unread body at which the socket is no longer read.
HIGH_WATER = 256 << 10
#: Bytes after the end marker of an answer in which its body may end, so that the connection can be
#: used again.
MOST_REST_BYTES = 16 << 10

NO_FIELDS: Mapping[str, str] = MappingProxyType({})


class _Connection(Protocol):
    """The connection that a response has (`providers.http.connection`)."""

    loop: asyncio.AbstractEventLoop

    @property
    def forwarder(self) -> Proxy | None:
        """The proxy that forwards requests."""
        ...

    def pull(self) -> bool:
        """See `tokenwire.express.Hold`."""
        ...

    def hold(self) -> int:
        """Stop the event loop's reading; the descriptor that `pull` reads."""
        ...

    def go_on(self) -> None:
        """Let it read again, if there is room."""
        ...

    def pause(self) -> None:
        """There is no room for more."""
        ...

    def resume(self) -> None:
        """There is room again."""
        ...

    def has(self, response: Response) -> bool:
        """Whether it is that response's."""
        ...

    def divert(self, lane: Diversion, pieces: list[bytes], body: bytes) -> bytes | None:
        """See `providers.http.client.PushStream`."""
        ...

    def delay_acks(self) -> None:
        """See `providers.http.client.PushStream`."""
        ...

    def end_diversion(self) -> None:
        """What comes is parsed again."""
        ...

    def linger(self) -> None:
        """The reader has gone: close, unless the body ends first."""
        ...

    def release(self, *, reusable: bool) -> None:
        """Return it to the pool, or close it."""
        ...

    def abort(self) -> None:
        """Close it."""
        ...


class Response:
    """One answer, from its head to its end: what `providers.http.ByteStream` promises."""

    __slots__ = (
        "_connection",
        "_ended",
        "_error",
        "_lingering",
        "_pieces",
        "_settle",
        "_size",
        "_take",
        "_waiter",
        "headers",
        "status",
    )

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self.status = 0
        self.headers: Mapping[str, str] = NO_FIELDS
        self._pieces: list[bytes] = []
        self._size = 0
        self._ended = False
        self._error: ProviderError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], Taken] | None = None
        self._settle = self._lingering = False

    async def read(self) -> bytes:
        """The bytes that have arrived, at least one; ``b""`` at the end."""
        return await self.read_express(None) or b""

    async def read_express(self, take: Callable[[bytes], Taken] | None) -> bytes | None:
        """`read`, but pieces that arrive during the wait go to ``take`` first (which must not
        raise; see `tokenwire.express`). ``SETTLE`` makes this return None, before anything that
        arrives later and before an error."""
        while True:
            if self._pieces:
                return self._drain()
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            if take is not None:
                self.headers = NO_FIELDS  # a service sends two dozen, of some kilobytes
            self._waiter, self._take = self._connection.loop.create_future(), take
            try:
                await self._waiter
            finally:
                self._connection.end_diversion()
                self._waiter = self._take = None
            if self._settle:
                self._settle = False
                return None

    def _drain(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        self._connection.resume()
        return data

    @property
    def proxy(self) -> Proxy | None:
        """The proxy that forwarded the request, and could read it; None over a tunnel."""
        return self._connection.forwarder

    @property
    def hungry(self) -> bool:
        """Whether there is room for more."""
        return self._size <= HIGH_WATER

    def abort(self, error: ProviderError) -> None:
        """Close the connection now; a pending or the next `read` raises ``error``."""
        if self._error is None:
            self._error = error
        self._pieces.clear()
        self._size = 0
        self._connection.abort()
        self.wake()

    def hold(self) -> Hold:
        """See `providers.http.client.PushStream`."""
        fd = self._connection.hold()
        return Hold(self._connection.pull, self._go_on, fd)

    def _go_on(self) -> None:
        if self._connection.has(self):
            self._connection.go_on()

    def divert(self, lane: Diversion, body: bytes) -> bytes | None:
        """See `providers.http.client.PushStream`."""
        waiter = self._waiter
        if waiter is None or waiter.done() or self._error is not None or self._ended:
            return None
        return self._connection.divert(lane, self._pieces, body)

    def delay_acks(self) -> None:
        """See `providers.http.client.PushStream`."""
        self._connection.delay_acks()

    def settle(self) -> None:
        """End the diversion; a waiting `read_express` returns None."""
        self._settle = True
        self.wake()

    async def aclose(self) -> None:
        """Release the connection; before the end of the body this closes it."""
        self._connection.release(reusable=self._ended and self._error is None)
        # It was raised here, so that its traceback has this response.
        self._ended, self._error = True, None

    def linger(self) -> None:
        """Release the connection, now or when the body ends within `LINGER` seconds and
        `MOST_REST_BYTES`; otherwise it is closed."""
        if self._ended or self._error is not None:
            self._connection.release(reusable=self._error is None)
            return
        self._lingering, self._size = True, 0
        self._pieces.clear()
        self._connection.linger()

    # --- from the connection -------------------------------------------------------------------

    def arrived(self) -> None:
        """Hand new pieces to the reader's ``take``, or wake the reader."""
        waiter = self._waiter
        if waiter is None or waiter.done() or not self._pieces:
            return
        if self._take is not None and self._error is None:
            data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            outcome = self._take(data)
            if outcome:
                self._pieces.clear()
                self._size = 0
                self._connection.resume()
                if outcome is YES:
                    return
                self._settle = True
        waiter.set_result(None)

    def body(self, data: bytes) -> None:
        self._size += len(data)
        if self._lingering:
            if self._size > MOST_REST_BYTES:
                self._connection.abort()
            return
        self._pieces.append(data)
        if self._size > HIGH_WATER:
            self._connection.pause()

    def end(self) -> None:
        self._ended = True
        if self._lingering:
            self._connection.release(reusable=True)
        self.wake()

    def fail(self, error: ProviderError) -> None:
        if not self._ended and self._error is None:
            self._error = error
        self.wake()

    def wake(self) -> None:
        self._connection.end_diversion()
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
