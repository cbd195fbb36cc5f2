"""The commands of logs, numbered, also where Redis has lost some of them and not the log.

Always true: a command that the owner of a log has not read has a number that it has not read
either, and none that it has read gets such a number: what a server that took the place of another
one, or started from an older copy, still has of the mailbox is what was read, and the rest is new.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from tokenwire.log.read_commands import ReadCommands
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.upkeep.parts import Parts

__all__ = ["Mailboxes"]

Commands = list[tuple[int, bytes]]


class Mailboxes:
    """Those of a store of ``parts``."""

    def __init__(self, parts: Parts) -> None:
        self._owner, self._owned = parts.owner, parts.owned
        self._lock = asyncio.Lock()

    async def read(self, log: str, after: int) -> tuple[str, Commands]:
        """The state of a log, and its commands after number ``after``."""
        owned = self._owned.get(log)
        last = owned.commands.last if owned is not None else 0
        # With the last one that was read, to see that it is still there.
        answer = await self._owner(log, "commands", max(0, min(after, last - 1)) if last else after)
        if owned is not None and not _holds(answer, owned.commands):
            answer = await self._renumber(log, owned)
        if answer[0] != "ok":
            return answer[0], []
        commands = list(enumerate(answer[1], answer[2] + 1))
        if owned is not None:
            for number, data in commands:
                if number > owned.commands.last:
                    owned.commands.add(number, _check(data))
        return "ok", [command for command in commands if command[0] > after]

    async def _renumber(self, log: str, owned: Owned) -> Any:
        async with self._lock:
            answer = await self._owner(log, "commands", 0)
            if _holds(answer, owned.commands):  # meanwhile
                return answer
            _, commands, before = answer
            marks = [_check(data) for data in commands]
            count = owned.commands.count(marks, before)
            number = owned.commands.last - count
            await self._owner(log, "renumber", owned.epoch, number)
            owned.commands.renumber(marks[:count])
            return "ok", commands, number


def _holds(answer: Any, read: ReadCommands) -> bool:
    """Whether the last command that was read is in the mailbox, or is not looked for there."""
    if answer[0] != "ok" or answer[2] >= read.last:
        return True
    place, commands = read.last - answer[2] - 1, answer[1]
    return place < len(commands) and read.is_last(_check(commands[place]))


def _check(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
