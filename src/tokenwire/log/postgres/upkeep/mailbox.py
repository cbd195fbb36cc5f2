"""The commands of logs, numbered, also where a failover has lost some of them.

Always true: a command that the owner of a log has not read has a number that it has not read
either, and none that it has read gets such a number: what a standby that was behind still has of
the mailbox is what was read, and the rest is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from tokenwire.errors import TokenwireError
from tokenwire.log.base import Appended
from tokenwire.log.postgres.append import Owned
from tokenwire.log.postgres.link import Connection, Link
from tokenwire.log.postgres.names import from_text, to_text
from tokenwire.log.postgres.schema import quoted

__all__ = ["Mailboxes"]

Commands = list[tuple[int, bytes]]


class _Mailbox(NamedTuple):
    """Commands of one log by number and nonce; the number of the first one that it has at all, and
    of the last one that it ever had."""

    first: int
    last: int
    commands: list[tuple[int, int, bytes]]


class Mailboxes:
    """Those of a store. ``restore(log)`` puts back a log of ``owned``, or the claim on it, that a
    failover lost."""

    def __init__(
        self,
        link: Link,
        owned: dict[str, Owned],
        *,
        restore: Callable[[str], Awaitable[Appended | TokenwireError]],
    ) -> None:
        self._link, self._owned, self._restore = link, owned, restore
        self._schema = quoted(link.settings.schema)
        self._lock = asyncio.Lock()

    async def send(self, log: str, data: bytes, nonce: int) -> bool:
        """Add a command; False for an unknown log."""
        number = await self._link.value(
            f"SELECT {self._schema}.command($1, $2, $3)", to_text(log), data, nonce
        )
        return number is not None

    async def read(self, log: str, after: int) -> Commands | None:
        """None for an unknown log."""
        mailbox = (await self._look({log: after})).get(log)
        return None if mailbox is None else await self._new(log, after, mailbox)

    async def read_all(self, places: Mapping[str, int]) -> dict[str, Commands]:
        """Commands of many logs, by log, where there are any."""
        mailboxes: dict[str, Commands] = {}
        for log, mailbox in (await self._look(places)).items():
            commands = await self._new(log, places[log], mailbox)
            if commands:
                mailboxes[log] = commands
        return mailboxes

    async def _look(self, places: Mapping[str, int]) -> dict[str, _Mailbox]:
        """The mailboxes with the commands after these, and with the last one that was read, to see
        that it is still there."""
        afters = []
        for log, after in places.items():
            owned = self._owned.get(log)
            last = owned.commands.last if owned is not None else 0
            afters.append(max(0, min(after, last - 1)) if last else after)
        rows = await self._link.fetch(
            "SELECT s.name, h.commands, c.number, c.nonce, c.data,"  # noqa: S608
            f" (SELECT min(m.number) FROM {self._schema}.command m WHERE m.sid = s.sid) AS first"
            " FROM unnest($1::text[], $2::integer[]) AS p(name, after)"
            f" JOIN {self._schema}.stream s ON s.name = p.name"
            f" JOIN {self._schema}.head h USING (sid)"
            f" LEFT JOIN {self._schema}.command c ON c.sid = s.sid AND c.number > p.after"
            " ORDER BY s.sid, c.number",
            [to_text(log) for log in places],
            afters,
        )
        mailboxes: dict[str, _Mailbox] = {}
        for name, last, number, nonce, data, first in rows:
            log = from_text(name)
            if log not in mailboxes:
                mailboxes[log] = _Mailbox(first or last + 1, last, [])
            if number is not None:
                mailboxes[log].commands.append((number, nonce, data))
        return mailboxes

    async def _new(self, log: str, after: int, mailbox: _Mailbox) -> Commands:
        """The commands after number ``after`` of a mailbox that was read from there at least."""
        owned = self._owned.get(log)
        if owned is not None:
            if not _holds(mailbox, owned):
                mailbox = await self._renumber(log, owned) or mailbox
            for number, nonce, _ in mailbox.commands:
                owned.commands.add(number, nonce)
        return [(number, data) for number, _, data in mailbox.commands if number > after]

    async def _renumber(self, log: str, owned: Owned) -> _Mailbox | None:
        """The whole mailbox, with numbers after the last one for what was not read; None where the
        log has another owner."""
        async with self._lock:
            outcome = await self._restore(log)
            if not isinstance(outcome, Appended) or outcome.status != "gap":
                return None

            async def work(connection: Connection) -> _Mailbox | None:
                async with connection.transaction():
                    return await self._renumber_in(connection, log, owned)

            mailbox, _ = await self._link.repeat(work)
            if mailbox is not None:
                marks = [nonce for number, nonce, _ in mailbox.commands]
                owned.commands.renumber(marks[: owned.commands.last - mailbox.first + 1])
            return mailbox

    async def _renumber_in(self, connection: Connection, log: str, owned: Owned) -> _Mailbox | None:
        head: Any = await connection.fetchrow(
            f"SELECT h.sid, h.commands FROM {self._schema}.stream s"  # noqa: S608
            f" JOIN {self._schema}.head h USING (sid)"
            " WHERE s.name = $1 AND h.epoch = $2 AND h.nonce = $3 FOR UPDATE OF h",
            to_text(log),
            owned.epoch,
            owned.nonce,
        )
        if head is None:
            return None
        sid, number_of_last = head
        rows = await connection.fetch(
            f"SELECT c.number, c.nonce, c.data FROM {self._schema}.command c"  # noqa: S608
            " WHERE c.sid = $1 ORDER BY c.number",
            sid,
        )
        before = rows[0][0] - 1 if rows else number_of_last
        count = owned.commands.count([row[1] for row in rows])
        shift = owned.commands.last - count - before
        if shift > 0:
            # By way of numbers that none has, as each row's is looked at by itself.
            for change in ("-number", f"{shift} - number"):
                await connection.execute(
                    f"UPDATE {self._schema}.command SET number = {change} WHERE sid = $1",  # noqa: S608
                    sid,
                )
            await connection.execute(
                f"UPDATE {self._schema}.head SET commands = commands + $2 WHERE sid = $1",  # noqa: S608
                sid,
                shift,
            )
        shift = max(0, shift)
        commands = [(number + shift, nonce, data) for number, nonce, data in rows]
        return _Mailbox(before + shift + 1, number_of_last + shift, commands)


def _holds(mailbox: _Mailbox, owned: Owned) -> bool:
    """Whether the last command that was read is in the mailbox, or is not looked for there."""
    read = owned.commands
    if mailbox.last < read.last or mailbox.first > read.last:
        return mailbox.last >= read.last
    return any(number == read.last and read.is_last(nonce) for number, nonce, _ in mailbox.commands)
