"""Readers in other processes say that they are there, so that owners tell nobody where none is.

Always true: a message that is lost delays and never loses: an owner that is not sure tells readers
of every append, and one that is sure that there are none still tells them now and then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from tokenwire.errors import TokenwireError
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.connection import encode
from tokenwire.log.redis.link import Link

__all__ = ["FOLLOW", "Presence"]

#: What a reader says to the owner of a log, on the channel that owners listen to.
FOLLOW = b"follow"
#: What an owner says to readers that may have missed something. (Any word makes them read.)
LOOK = "look"


class Presence:
    """``key(log, what)`` gives channels' names; ``owned`` are the logs of this process."""

    def __init__(
        self, link: Link, key: Callable[[str, str], str], owned: dict[str, Owned], publish: str
    ) -> None:
        self._link, self._key, self._owned, self._publish = link, key, owned, publish
        # In a cluster owners tell of every append: while a slot moves, listeners of two servers
        # are to be counted.
        self._is_off = link.settings.kind == "cluster"
        self._messages: list[tuple[str, str | bytes]] = []
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._task is not None:
            await asyncio.wait([self._task])

    def begin(self, log: str) -> None:
        """The subscription to ``log`` has begun, or something may have been missed on it."""
        if self._is_off:
            return
        if log in self._owned:
            self.add_reader(log)
        else:
            self._say(self._key(log, "control"), FOLLOW)

    def add_reader(self, log: str) -> None:
        """A reader in another process follows ``log``, or one may."""
        owned = self._owned.get(log)
        if owned is None:
            return
        owned.announced_at = time.monotonic()
        if not owned.has_readers:
            owned.has_readers = True
            self._say(self._key(log, "live"), LOOK)

    def _say(self, channel: str, word: str | bytes) -> None:
        """All of one turn of the loop in one write."""
        self._messages.append((channel, word))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._messages:
                messages, self._messages = self._messages, []
                data = [encode(self._publish, *message) for message in messages]
                try:
                    await self._link.fetch(messages[0][0], b"".join(data), len(data))
                except (OSError, TokenwireError):
                    pass  # whoever subscribes anew says so again
        finally:
            self._task = None
