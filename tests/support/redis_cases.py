"""What the cases of the Redis log share: opening one, waiting for others, a proxy that swallows."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from support.redis import RedisServer
from tokenwire.errors import CursorError
from tokenwire.log.base import Store
from tokenwire.log.open import open_store
from tokenwire.log.redis.store import RedisStore

__all__ = ["Proxy", "append_all", "follow", "opened", "run", "until", "wait_for_replica"]


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisStore]:
    log = open_store(url)
    assert isinstance(log, RedisStore)
    await log.start()
    try:
        yield log
    finally:
        await log.close()


def run(url: str, case: Callable[[Any], Awaitable[None]]) -> None:
    async def main() -> None:
        async with opened(url) as log:
            await case(log)

    asyncio.run(main())


async def until(condition: Callable[[], Any], *, seconds: float = 20.0) -> Any:
    """Ask again until the answer is true; for what another process does in its own time."""
    end = asyncio.get_running_loop().time() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert asyncio.get_running_loop().time() < end, "it did not happen"
        await asyncio.sleep(0.02)


class Proxy:
    """A TCP proxy that can change its target, swallow answers, and hold commands back."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.swallow = 0
        #: What is in the next commands that do not arrive before `release`, while their sender's
        #: connection breaks.
        self.hold = b""
        self._held: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def release(self) -> int:
        """Let the commands arrive that were held back, and wait until they are done; how many
        connections they came over."""
        held, self._held = self._held, []
        for reader, writer, data in held:
            writer.write(data + b"*1\r\n$4\r\nQUIT\r\n")
            await reader.read()
            writer.close()
        return len(held)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, up_writer}
        answers = asyncio.ensure_future(self._pump(up_reader, writer, True))
        data = await self._pump(reader, up_writer, False)
        if data:
            self._writers.remove(up_writer)
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)
            self._held.append((up_reader, up_writer, data))
            writer.transport.abort()
        await asyncio.gather(answers, return_exceptions=True)
        self._writers -= {writer, up_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool
    ) -> bytes:
        """Returns what is to be held back."""
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if not answers and self.hold and self.hold in data:
                    self.hold = b""
                    return data
                if answers and self.swallow:
                    self.swallow -= 1
                    break
                writer.write(data)
                await writer.drain()
        for one in (writer, reader):
            if isinstance(one, asyncio.StreamWriter):
                one.transport.abort()
        if answers:
            self.cut()
        return b""


async def wait_for_replica(replica: RedisServer, primary: RedisServer) -> None:
    """Until both say so: the primary counts a replica, and sends it what is written, only after its
    first acknowledgement, which may come a second after the replica holds its link for good."""
    await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
    primary.ask("SETEX", "something-to-acknowledge", "1", "1")
    acknowledged = re.compile(rb"state=online,offset=[1-9]")
    await until(lambda: acknowledged.search(primary.ask("INFO", "replication")) is not None)


async def append_all(
    log: Store, stream: str, records: list[bytes], *, first: int = 1, epoch: int = 1
) -> int:
    """Append ``records`` (all of the stream's) from ``first`` on, one by one, as a writer that
    lives does: told of a gap, it sends again from there. How often it was told."""
    gaps, at = 0, first
    while at <= len(records):
        done = await log.append(stream, epoch=epoch, first=at, records=[records[at - 1]])
        assert done.status in ("ok", "duplicate", "gap"), done
        gaps += done.status == "gap"
        at = done.tail + 1
    return gaps


async def follow(log: Store, stream: str, count: int, seen: list[bytes]) -> None:
    """Read as a follower does, until ``count`` records are there; ``seen`` grows meanwhile."""
    woken = asyncio.Event()
    end = log.subscribe(stream, woken.set)
    while len(seen) < count:
        try:
            records = (await log.read(stream, after=len(seen))).records
        except CursorError:
            records = []  # a failover took what is here; the writer sends it again
        seen += records
        if not records:
            await asyncio.wait_for(woken.wait(), 60)
            woken.clear()
    end()
