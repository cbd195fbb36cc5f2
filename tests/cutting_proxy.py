"""A TCP proxy that cuts: by a clean end or by a reset, after as many bytes as a test says."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

#: Bytes of the answer that the connection with this number (0, 1, ...) may bring; None: all.
Plan = Callable[[int], "int | None"]


class CuttingProxy:
    """``async with CuttingProxy(port, plan) as proxy``: `url` leads to the server at ``port``."""

    def __init__(self, port: int, plan: Plan, how: str = "fin") -> None:
        self.target, self.plan, self.how = port, plan, how
        #: Connections so far, and the bytes that each brought to the client.
        self.brought: list[int] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
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
        number = len(self.brought)
        self.brought.append(0)
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        asking = asyncio.create_task(_copy(reader, up_writer))
        try:
            await self._answer(number, up_reader, writer)
        finally:
            asking.cancel()
            up_writer.close()
            writer.close()

    async def _answer(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        left = self.plan(number)
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
        if self.how == "rst":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
