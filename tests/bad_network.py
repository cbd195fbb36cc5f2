"""A TCP proxy that treats the server's answers badly, in one way at a time.

``latency``: every piece comes late; ``slice``: a few bytes at a time; ``hole``: nothing more after
so many bytes, and the connection stays open; ``corrupt``: one byte becomes 0xFF; ``replay``: the
last events of a stream come again; ``swap``: two events change places. ``at`` says where. The first
connection is treated so, later ones are not (`latency` and `slice` treat all of them).

For cuts see `cutting_proxy`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

MODES = ("latency", "slice", "hole", "corrupt", "replay", "swap")
#: Those that work on bytes, whatever is spoken.
ANY_WIRE = ("latency", "slice", "hole")


class BadNetwork:
    """``async with BadNetwork(port, "swap", at=3) as network``: `url` leads to the server."""

    def __init__(self, port: int, mode: str, *, at: int = 0) -> None:
        self._port, self._mode, self._at = port, mode, at
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> BadNetwork:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        first = self.connections == 0
        self.connections += 1
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        asking = asyncio.create_task(_copy(reader, up_writer))
        treat: Callable[[asyncio.StreamReader], AsyncIterator[bytes]] = self._plain
        if first or self._mode in ("latency", "slice"):
            treat = getattr(self, f"_{self._mode}")
        try:
            with suppress(ConnectionError):
                async for data in treat(up_reader):
                    writer.write(data)
                    await writer.drain()
        finally:
            asking.cancel()
            up_writer.close()
            writer.close()

    async def _plain(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while data := await reader.read(65536):
            yield data

    async def _latency(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while data := await reader.read(65536):
            await asyncio.sleep(0.02)
            yield data

    async def _slice(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        while data := await reader.read(self._at):
            yield data
            await asyncio.sleep(0)

    async def _hole(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        left = self._at
        while left and (data := await reader.read(left)):
            left -= len(data)
            yield data
        await asyncio.get_running_loop().create_future()

    async def _corrupt(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        async for number, block in _blocks(reader):
            if number == self._at:
                where = block.index(b'{"type"') + 8  # the colon
                block = block[:where] + b"\xff" + block[where + 1 :]
            yield block

    async def _replay(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        kept: list[bytes] = []
        async for number, block in _blocks(reader):
            kept = [*kept[-19:], block]
            yield block
            if number == self._at:
                yield b"".join(kept[1:])

    async def _swap(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        held = b""
        async for number, block in _blocks(reader):
            if number == self._at:
                held = block
                continue
            yield block + held
            held = b""


async def _blocks(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """The head, and then event by event, numbered. A stream's chunks are broken up for it: what
    is passed on is a body that ends with its connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    chunked = b"chunked" in head.lower()
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"transfer-enc")]
    yield 0, b"\r\n".join([*lines[:-2], b"connection: close", b"", b""])
    number, rest = 0, b""
    while True:
        if chunked:
            size = int(await reader.readuntil(b"\r\n"), 16)
            data = (await reader.readexactly(size + 2))[:size]
        else:
            data = await reader.read(65536)
        rest += data
        *blocks, rest = rest.split(b"\n\n")
        for block in blocks:
            number += b"data:" in block
            yield number if b"data:" in block else 0, block + b"\n\n"
        if not data:
            return


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
