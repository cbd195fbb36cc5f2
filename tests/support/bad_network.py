"""TCP proxies that treat the server's answers badly: they cut them, or hold, break or mix them.

Always true: what the client says is passed on as it is.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Self

#: Bytes of the answer that the connection with this number (0, 1, ...) may bring; None: all.
Plan = Callable[[int], "int | None"]
MODES = ("latency", "slice", "hole", "corrupt", "replay", "swap")
#: Those that work on bytes, whatever is spoken.
ANY_WIRE = ("latency", "slice", "hole")


class Proxy:
    """``async with Proxy(port) as proxy``: `url` leads to the server at ``port``."""

    def __init__(self, port: int) -> None:
        self._port = port
        #: Connections so far.
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(self.connections, reader, writer))
        self.connections += 1
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        asking = asyncio.create_task(_copy(reader, up_writer))
        try:
            with suppress(ConnectionError):
                await self._answer(number, up_reader, writer)
        finally:
            asking.cancel()
            up_writer.close()
            writer.close()

    async def _answer(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        raise NotImplementedError


class CuttingProxy(Proxy):
    """Cuts, by a clean end (``fin``) or a reset (``rst``), after as many bytes as a test says."""

    def __init__(self, port: int, plan: Plan, how: str = "fin") -> None:
        super().__init__(port)
        self._plan, self._how = plan, how
        #: The bytes that each connection brought to the client.
        self.brought: dict[int, int] = {}

    async def _answer(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left = self._plan(number)
        self.brought[number] = 0
        while left is None or left > 0:
            data = await reader.read(65536 if left is None else left)
            if not data:
                return
            writer.write(data)
            self.brought[number] += len(data)
            if left is not None:
                left -= len(data)
            with suppress(ConnectionError):
                await writer.drain()
        if self._how == "rst":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class BadNetwork(Proxy):
    """``BadNetwork(port, "swap", at=3)``: treats answers badly, in one way.

    ``latency``: every piece comes late; ``slice``: a few bytes at a time; ``hole``: nothing more
    after so many bytes, and the connection stays open; ``corrupt``: one byte becomes 0xFF;
    ``replay``: the last events of a stream come again; ``swap``: two events change places. ``at``
    says where. The first connection is treated so, later ones are not (`latency` and `slice` treat
    all of them).
    """

    def __init__(self, port: int, mode: str, *, at: int = 0) -> None:
        super().__init__(port)
        self._mode, self._at = mode, at

    async def _answer(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        treat: Callable[[asyncio.StreamReader], AsyncIterator[bytes]] = self._plain
        if number == 0 or self._mode in ("latency", "slice"):
            treat = getattr(self, f"_{self._mode}")
        async for data in treat(reader):
            writer.write(data)
            await writer.drain()

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
