"""A small HTTP proxy: CONNECT tunnels and forwarded requests, with or without a password."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

__all__ = ["HttpProxy", "http_proxy"]


class HttpProxy:
    """``password``: user and password that it wants (``user:secret``). ``names``: where it sends
    connections to a host that no DNS knows."""

    def __init__(self, password: str | None, names: dict[str, int]) -> None:
        self._password, self._names = password, names
        self.url = ""
        #: First lines of the requests that it got.
        self.lines: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()  # also when the test ends first

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.lines.append(head.partition("\r\n")[0])
        method, target, _ = self.lines[-1].split(" ")
        if self._password is not None:
            value = base64.b64encode(self._password.encode()).decode()
            if f"proxy-authorization: basic {value}".lower() not in head.lower():
                writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
        if method == "CONNECT":
            host = target.rpartition(":")[0]
            first = b""
        else:
            parts = urlsplit(target)
            host = parts.hostname or ""
            first = head.replace(target, parts.path, 1).encode("latin-1")
        if host not in self._names:
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            return
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._names[host])
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        up_writer.write(first)
        copies = [
            asyncio.ensure_future(_copy(reader, up_writer)),
            asyncio.ensure_future(_copy(up_reader, writer)),
        ]
        try:
            await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for copy in copies:
                copy.cancel()
            await asyncio.gather(*copies, return_exceptions=True)
            up_writer.close()

    async def aclose(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def http_proxy(
    names: dict[str, int], password: str | None = None
) -> AsyncIterator[HttpProxy]:
    """A proxy that knows the hosts of ``names``, by their port on this machine."""
    proxy = HttpProxy(password, names)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.aclose()
