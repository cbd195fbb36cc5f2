"""A provider of raw bytes on a socket: it sends what a test says, and then holds, drips or closes.

Always true: it reads whole requests (by their content-length) and counts them; leaving closes all.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

__all__ = ["HEAD", "RawProvider", "chunked", "closing", "drip", "held", "raw_provider", "sse_head"]


def sse_head(content_type: str = "text/event-stream", *, status: str = "200 OK") -> bytes:
    """The head of a streamed response."""
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    ).encode()


HEAD = sse_head()


def chunked(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


#: Answers one request: ``(number from 0, writer)``; returning closes the connection.
Answer = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


def held(*pieces: bytes) -> Answer:
    """Send the pieces, then keep the connection open without a byte."""

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        await asyncio.Event().wait()

    return answer


def closing(*pieces: bytes) -> Answer:
    """Send the pieces, then close."""

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
        await writer.drain()

    return answer


def drip(first: bytes, piece: bytes, *, every: float = 0.02) -> Answer:
    """Send ``first``, then ``piece`` again and again."""

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every)

    return answer


class RawProvider:
    """What came in, and where it listens."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.connections = 0
        #: Heads of the requests, as they came.
        self.requests: list[bytes] = []
        #: Bodies of the requests.
        self.bodies: list[bytes] = []
        #: Set when a client closed a connection.
        self.left = asyncio.Event()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    await self._request(reader, writer)
        finally:
            self.left.set()
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        self.bodies.append(await reader.readexactly(int(length[1])) if length else b"")
        self.requests.append(head)
        answering = asyncio.ensure_future(self._answer(len(self.requests) - 1, writer))
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                answering.result()
            raise ConnectionError("one answer a connection")
        finally:
            for task in (answering, leaving):
                task.cancel()
            await asyncio.gather(answering, leaving, return_exceptions=True)

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def raw_provider(answer: Answer) -> AsyncIterator[RawProvider]:
    """A provider whose every request gets ``answer``."""
    provider = RawProvider(answer)
    server = await asyncio.start_server(provider.accept, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield provider
    finally:
        server.close()
        await provider.aclose()
        with contextlib.suppress(Exception):
            await server.wait_closed()
