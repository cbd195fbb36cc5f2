"""Wake-ups from Redis: one connection per server and process, however many streams are followed.

Always true: messages are only a hint; after a subscription is confirmed and after every broken
connection each affected stream is woken, so that a lost message is never a lost record.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from tokenwire.log.redis_link import Link

__all__ = ["WakeConnection", "WakeRouter"]

#: A connection that was silent this long is asked for a sign of life; the second time it is
#: given up. Half-open connections are noticed within twice this time.
SILENCE_SECONDS = 5.0


async def _end(task: asyncio.Task[None]) -> None:
    # The redis package takes a cancellation for a timeout when it falls into one of its writes.
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.1)


class WakeConnection:
    """``hear(channel, data)`` on every message (data b"" when a subscription has been confirmed);
    ``lost()`` when messages may have been missed on all channels."""

    def __init__(
        self,
        client: Redis,
        own_channel: str,
        *,
        hear: Callable[[str, bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self._client = client
        self._own = own_channel
        self._hear = hear
        self._lost = lost
        self._wanted: set[str] = {own_channel}
        self._dirty = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._heard = False

    def want(self, channel: str) -> None:
        self._wanted.add(channel)
        self._dirty.set()
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._run())

    def drop(self, channel: str) -> None:
        if channel != self._own:
            self._wanted.discard(channel)
        self._dirty.set()

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await _end(reader)

    async def _run(self) -> None:
        pause = 0.02
        while True:
            pubsub = self._client.pubsub()
            try:
                await self._listen(pubsub)
            except (exceptions.RedisError, OSError, TimeoutError):
                # Whatever broke, readers look for themselves until the connection is back.
                self._lost()
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            finally:
                await pubsub.aclose()

    async def _listen(self, pubsub: Any) -> None:
        """Until something breaks."""
        have = {self._own}
        self._leaving: Counter[str] = Counter()
        await pubsub.ssubscribe(self._own)
        self._heard = True
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(self._hear_all(pubsub, have)),
            loop.create_task(self._keep_up(pubsub, have)),
            loop.create_task(self._keep_alive(pubsub)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                await _end(task)

    async def _hear_all(self, pubsub: Any, have: set[str]) -> None:
        # Not `get_message`: it sets a timer for every message.
        while True:
            response = await pubsub.parse_response(block=True)
            self._heard = True
            if not isinstance(response, list) or len(response) < 3:
                continue  # the answer to a ping
            kind, channel = response[0], response[1].decode()
            if kind == b"smessage":
                self._hear(channel, response[2])
                continue
            await pubsub.handle_message(response)
            if kind == b"ssubscribe":
                self._hear(channel, b"")
            elif channel in self._leaving:  # we asked for it, and may have come back since
                self._leaving[channel] -= 1
                if not self._leaving[channel]:
                    del self._leaving[channel]
            elif channel in have:
                raise exceptions.ConnectionError("the channel has moved to another server")

    async def _keep_alive(self, pubsub: Any) -> None:
        while True:
            self._heard = False
            await asyncio.sleep(SILENCE_SECONDS)
            if not self._heard:
                await pubsub.ping()
                await asyncio.sleep(SILENCE_SECONDS)
                if not self._heard:
                    raise TimeoutError("the connection for wake-ups is silent")

    async def _keep_up(self, pubsub: Any, have: set[str]) -> None:
        """Bring the server's subscriptions to what is wanted, all changes of a turn at once."""
        while True:
            self._dirty.clear()
            more = self._wanted - have
            less = have - self._wanted
            have |= more
            have -= less
            if more:
                await pubsub.ssubscribe(*more)
            if less:
                self._leaving.update(less)
                await pubsub.sunsubscribe(*less)
            await self._dirty.wait()


class WakeRouter:
    """Which stream listens on which channel of which server.

    ``touched(stream, message)`` is called for every message; ``lost()`` when any may be missing.
    """

    def __init__(
        self,
        link: Link,
        key: Callable[[str, str], str],
        *,
        touched: Callable[[str, bytes], None],
        lost: Callable[[], None],
    ) -> None:
        self._link = link
        self._key = key
        self._touched = touched
        self._lost = lost
        self._connections: dict[str, WakeConnection] = {}
        self._channels: dict[str, tuple[str, str]] = {}

    def listen(self, stream: str, what: str) -> None:
        channel = self._key(stream, what)
        server, client = self._link.node_of(channel)
        connection = self._connections.get(server)
        if connection is None:
            # A channel to keep the connection used; in a cluster it has to be one of the server's.
            own = channel if server else self._key(secrets.token_hex(8), "live")
            connection = WakeConnection(client, own, hear=self._hear, lost=self._lost)
            self._connections[server] = connection
        self._channels[channel] = (stream, server)
        connection.want(channel)

    def unlisten(self, stream: str) -> None:
        for what in ("live", "control"):
            channel = self._key(stream, what)
            known = self._channels.pop(channel, None)
            if known is not None:
                self._connections[known[1]].drop(channel)

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()
        self._connections.clear()
        self._channels.clear()

    def _hear(self, channel: str, data: bytes) -> None:
        known = self._channels.get(channel)
        if known is not None:
            self._touched(known[0], data)
