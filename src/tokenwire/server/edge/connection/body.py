"""The chunked body of one response, written past ASGI's `send`: no task, no message.

Always true: bytes leave in the order in which they were written, whichever way they came; what is
held leaves within `TURNS` turns of the event loop, however little it is, and waits for nobody.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from tokenwire.express import Port

__all__ = ["ChunkedBody", "socket_of"]

#: Turns of the event loop for which bytes are held: the run's task has one, and its reader's.
TURNS = 2
#: Bytes that are not held any longer.
_MOST_HELD = 64 << 10


def socket_of(transport: asyncio.BaseTransport) -> int:
    """The socket to which uvloop's transport writes as it is given; negative for any other."""
    if type(transport).__name__ not in ("TCPTransport", "UnixTransport"):  # TLS is another
        return -1
    sock = transport.get_extra_info("socket")
    return -1 if sock is None else sock.fileno()


class ChunkedBody:
    """The body of the response of ``cycle``. ``fd``: see `Port.socket`."""

    __slots__ = ("_buffer", "_cycle", "_fd", "_flow", "_loop", "_write", "port")

    def __init__(
        self, cycle: RequestResponseCycle, loop: asyncio.AbstractEventLoop, fd: int = -1
    ) -> None:
        self._cycle, self._flow, self._loop = cycle, cycle.flow, loop
        self._write = cycle.transport.write
        self.port = Port(self._write)
        self.port.unsent = cycle.transport.get_write_buffer_size
        self.port.socket = self._fd = fd
        self._buffer: _Buffer | None = None

    def ready(self) -> bool:
        """See `ResponseBody`."""
        cycle = self._cycle
        self.port.is_open = is_ready = (
            cycle.chunked_encoding is True
            and cycle.response_started
            and not cycle.response_complete
            and not cycle.disconnected
            and not self._flow.write_paused
        )
        return is_ready

    def write(self, data: bytes) -> None:
        """See `ResponseBody`."""
        self.port.fd = -1
        self._write(b"%x\r\n%b\r\n" % (len(data), data))

    def hold(self) -> None:
        """See `ResponseBody`."""
        if self._buffer is None:
            self._buffer = buffer = _Buffer(self._cycle.transport)
            self._cycle.transport = buffer  # type: ignore[assignment]
            self._write = self.port.send = buffer.write
            self.port.fd = self.port.socket = -1
            self._loop.call_soon(self._turn, buffer, TURNS - 1)

    def release(self) -> None:
        """Write what is held; from here on nothing is."""
        buffer, self._buffer = self._buffer, None
        if buffer is not None:
            self._cycle.transport = buffer.transport
            self._write = self.port.send = buffer.transport.write
            self.port.socket = self._fd
            buffer.flush()
        if self._cycle.response_complete:
            self.close()

    def close(self) -> None:
        """The response is over, or its connection: nothing more is written past it."""
        self.port.is_open = False
        self.port.fd = self.port.socket = self._fd = -1

    def _turn(self, buffer: _Buffer, turns: int) -> None:
        if self._buffer is not buffer:
            return
        if turns:
            self._loop.call_soon(self._turn, buffer, turns - 1)
        else:
            self.release()


class _Buffer:
    """A transport whose bytes wait. uvicorn's cycle writes its head and chunks to it."""

    __slots__ = ("_pieces", "_size", "transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._pieces: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        pieces, self._pieces, self._size = self._pieces, [], 0
        if pieces and not self.transport.is_closing():
            self.transport.write(b"".join(pieces))

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)
