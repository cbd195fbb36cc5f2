"""Wake-ups from Redis: one connection per server and process, however many logs are followed.

Always true: messages are only a hint; after a subscription is confirmed, after every broken
connection and after every move of a slot each affected log is woken, so that a lost message is
never a lost record.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from tokenwire.backoff import backoff
from tokenwire.errors import ConfigError
from tokenwire.log.redis.connection import Address, ReplyError, WakeWire, encode
from tokenwire.log.redis.link import Link
from tokenwire.log.redis.nodes import slot_of

__all__ = ["WakeConnection", "WakeRouter"]

#: A connection that was silent this long is asked for a sign of life; the second time it is
#: given up. Half-open connections are noticed within twice this time.
SILENCE_SECONDS = 5.0

#: Seconds before a lost connection is opened again: at first, and at most.
_PAUSES = 0.02, 1.0

#: Channels in one command, where they may be of several slots.
MOST_CHANNELS = 500


class WakeConnection:
    """All subscriptions at one server (``address`` None: at whichever is the primary).

    ``hear(channel, data)`` is called on every message (data b"" when a subscription has been
    confirmed); ``moved(channels)`` when another server has these now; ``lost(connection)``, each
    time that there is no connection, says whether there should be one.
    """

    def __init__(
        self,
        link: Link,
        address: Address | None,
        *,
        hear: Callable[[str, bytes], None],
        on_moved: Callable[[list[str]], None],
        on_lost: Callable[[WakeConnection], Awaitable[bool]],
    ) -> None:
        self._link = link
        self.address = address
        self._hear = hear
        self._on_moved = on_moved
        self._on_lost = on_lost
        self.channels: set[str] = set()
        self._have: set[str] = set()
        self._leaving: Counter[str] = Counter()
        self._wire: WakeWire | None = None
        self._at: Address | None = None
        self._scheduled = False
        self._heard = False
        self._failures = 0
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())

    def want(self, *channels: str) -> None:
        self.channels.update(channels)
        self._schedule()

    def drop(self, channel: str) -> None:
        self.channels.discard(channel)
        self._schedule()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                wire = await self._open()
                try:
                    await self._watch(wire)
                finally:
                    self._wire = None
                    wire.abort("the store is closed")
            except (OSError, ReplyError, ConfigError):
                # Whatever broke, readers look for themselves until the connection is back.
                if self._at is not None and self._link.nodes is not None:
                    self._link.nodes.suspect(self._at)
            if not await self._on_lost(self):
                return
            self._failures += 1
            first, longest = _PAUSES
            await asyncio.sleep(backoff(self._failures, first=first, longest=longest))

    async def _open(self) -> WakeWire:
        nodes = self._link.nodes
        if nodes is None:
            raise ConnectionError("the store is closed")
        self._at = self.address or await nodes.find("")
        wire, _ = await nodes.open(WakeWire, self._at, [encode("PING")])
        wire.listen(self._take)
        self._have.clear()
        self._leaving.clear()
        self._wire = wire
        self._schedule()
        return wire

    async def _watch(self, wire: WakeWire) -> None:
        """Until the connection is lost or silent."""
        asked = False
        while True:
            self._heard = False
            try:
                async with asyncio.timeout(SILENCE_SECONDS):
                    await wire.ended()
                    raise ConnectionError("the connection for wake-ups was lost")
            except TimeoutError:
                if self._heard:
                    asked = False
                elif asked:
                    raise
                else:
                    asked = True
                    wire.write(encode("PING"))

    # Subscriptions: all changes of one turn of the loop at once.

    def _schedule(self) -> None:
        if not self._scheduled and self._wire is not None:
            self._scheduled = True
            self._loop.call_soon(self._keep_up)

    def _keep_up(self) -> None:
        self._scheduled = False
        if self._wire is None:
            return
        more, less = self.channels - self._have, self._have - self.channels
        self._have |= more
        self._have -= less
        self._leaving.update(less)
        for command, channels in (("SSUBSCRIBE", more), ("SUNSUBSCRIBE", less)):
            # In a cluster the channels of one command are of one slot.
            most = 1 if self._link.settings.kind == "cluster" else MOST_CHANNELS
            names = list(channels)
            for start in range(0, len(names), most):
                self._wire.write(encode(command, *names[start : start + most]))

    def _take(self, answer: Any) -> None:
        self._heard = True
        if isinstance(answer, ReplyError):
            self._refused(answer)
            return
        if not isinstance(answer, list) or len(answer) < 3:
            return  # the answer to a ping
        kind, channel = answer[0], answer[1].decode()
        if kind == b"smessage":
            self._hear(channel, answer[2])
        elif kind == b"ssubscribe":
            self._failures = 0
            self._hear(channel, b"")
        elif channel in self._leaving:  # we asked for it, and may have come back since
            self._leaving[channel] -= 1
            if not self._leaving[channel]:
                del self._leaving[channel]
        elif channel in self._have:
            # The slot has moved. Asked again, the server says where.
            self._have.discard(channel)
            self._schedule()

    def _refused(self, error: ReplyError) -> None:
        wire, nodes, at = self._wire, self._link.nodes, self._at
        if wire is None or nodes is None or at is None:
            return
        if error.code != "MOVED":
            wire.abort(str(error))
            return
        nodes.redirected(error, at)
        slot = int(str(error).split(" ")[1])
        channels = [channel for channel in self.channels if slot_of(channel) == slot]
        self._have.difference_update(channels)
        self.channels.difference_update(channels)
        self._on_moved(channels)


class WakeRouter:
    """Which log listens on which channel of which server.

    ``touched(log, message)`` is called for every message, and with an empty message when any
    may have been missed.
    """

    def __init__(
        self,
        link: Link,
        key: Callable[[str, str], str],
        *,
        touched: Callable[[str, bytes], None],
    ) -> None:
        self._link = link
        self._key = key
        self._touched = touched
        self._connections: dict[Address | None, WakeConnection] = {}
        self._channels: dict[str, tuple[str, WakeConnection]] = {}

    def listen(self, log: str, what: str) -> None:
        channel = self._key(log, what)
        connection = self._connection(channel)
        self._channels[channel] = (log, connection)
        connection.want(channel)

    def unlisten(self, log: str) -> None:
        for what in ("live", "control"):
            channel = self._key(log, what)
            entry = self._channels.pop(channel, None)
            if entry is not None:
                entry[1].drop(channel)

    async def close(self) -> None:
        for connection in list(self._connections.values()):
            await connection.close()
        self._connections.clear()
        self._channels.clear()

    def _connection(self, channel: str) -> WakeConnection:
        address = self._link.place(channel) if self._link.settings.kind == "cluster" else None
        connection = self._connections.get(address)
        if connection is None:
            connection = self._connections[address] = WakeConnection(
                self._link, address, hear=self._hear, on_moved=self._moved, on_lost=self._lost
            )
        return connection

    def _hear(self, channel: str, data: bytes) -> None:
        entry = self._channels.get(channel)
        if entry is not None:
            self._touched(entry[0], data)

    def _moved(self, channels: Iterable[str]) -> None:
        for channel in channels:
            entry = self._channels.get(channel)
            if entry is not None:
                self._touched(entry[0], b"")
                self._channels[channel] = (entry[0], self._connection(channel))
                self._channels[channel][1].want(channel)

    async def _lost(self, connection: WakeConnection) -> bool:
        """Readers look for themselves, and what other servers have now is subscribed to there."""
        for channel in list(connection.channels):
            self._hear(channel, b"")
        nodes, address = self._link.nodes, connection.address
        if address is None or nodes is None:
            return True
        try:
            await nodes.refresh()
        except (OSError, ReplyError, ConfigError):
            return True  # nobody knows yet; asked again before the next connection
        elsewhere = [name for name in connection.channels if nodes.place(name) != address]
        for channel in elsewhere:
            connection.drop(channel)
        self._moved(elsewhere)
        if connection.channels:
            return True
        self._connections.pop(address, None)
        return False
