"""The numbered commands of logs, also after Redis has lost some of them but not the log.

Always true: a command that the owner of a log has not read has a number higher than all that it has
read, and a command that it has read keeps a lower one. So after a failover, or a restart from an
older copy, the owner reads each new command once and no old one again.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import NamedTuple

from tokenwire.log.read_commands import ReadCommands
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.upkeep.parts import Parts

__all__ = ["Mailboxes"]

Commands = list[tuple[int, bytes]]


class _Page(NamedTuple):
    """What Redis has of a mailbox: the log's ``status`` ("ok", "gone", "none"), ``commands`` in
    order, and ``before``, the number of the one in front of them."""

    status: str
    commands: list[bytes]
    before: int


class Mailboxes:
    """The mailboxes of all logs of one store."""

    def __init__(self, parts: Parts) -> None:
        self._owner, self._owned = parts.owner, parts.owned
        self._lock = asyncio.Lock()

    async def read(self, log: str, after: int) -> tuple[str, Commands]:
        """The status of a log, and its commands with numbers above ``after``. Raises
        `LogError`."""
        owned = self._owned.get(log)
        last = owned.commands.last if owned is not None else 0
        # With the last one that was read, to see that it is still there.
        page = await self._page(log, max(0, min(after, last - 1)) if last else after)
        if owned is not None and not _holds(page, owned.commands):
            page = await self._renumber(log, owned)
        if page.status != "ok":
            return page.status, []
        commands = list(enumerate(page.commands, page.before + 1))
        if owned is not None:
            for number, data in commands:
                if number > owned.commands.last:
                    owned.commands.add(number, _check(data))
        return "ok", [command for command in commands if command[0] > after]

    async def _page(self, log: str, after: int) -> _Page:
        answer = await self._owner(log, "commands", after)
        return _Page(*answer) if answer[0] == "ok" else _Page(answer[0], [], 0)

    async def _renumber(self, log: str, owned: Owned) -> _Page:
        """Give the commands that the owner has not read numbers above those that it has read."""
        async with self._lock:
            page = await self._page(log, 0)
            if _holds(page, owned.commands):  # another task renumbered them
                return page
            _, commands, before = page
            marks = [_check(data) for data in commands]
            count = owned.commands.count(marks, before)
            number = owned.commands.last - count
            await self._owner(log, "renumber", owned.epoch, number)
            owned.commands.renumber(marks[:count])
            return _Page("ok", commands, number)


def _holds(page: _Page, read: ReadCommands) -> bool:
    """Whether the last command that was read is on the page, or the page begins behind it."""
    if page.status != "ok" or page.before >= read.last:
        return True
    index = read.last - page.before - 1
    return index < len(page.commands) and read.is_last(_check(page.commands[index]))


def _check(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
