"""Appends to PostgreSQL: those of one turn of the loop are one statement.

Always true: an append whose answer was lost is sent again and comes out as what it was; one that
finds its log or claim lost by a failover puts these back and says from where to send.
"""

from __future__ import annotations

import secrets
import zlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tokenwire.errors import GoneError, LogError, NotFoundError, TokenwireError
from tokenwire.log.base import Appended, Inside
from tokenwire.log.lane import Lane
from tokenwire.log.postgres.link import Connection, Link
from tokenwire.log.postgres.names import to_text
from tokenwire.log.postgres.schema import quoted
from tokenwire.log.read_commands import ReadCommands
from tokenwire.log.tail import Tails

__all__ = ["Appends", "Heads", "Item", "Owned", "missing", "nonce"]

#: Appends of one statement.
MOST_APPENDS = 2000
#: Statements under way at a time: while the server works on one, the next one gathers.
LANES = 2
#: Numbers of logs that are remembered.
MOST_HEADS = 50_000

#: One append as it was given: log, epoch, first, records, close, durable.
Item = tuple[str, int, int, list[bytes], str | None, bool]


def nonce() -> int:
    """A number that nobody else draws."""
    return secrets.randbits(63)


def missing(state: str) -> TokenwireError:
    """The error for a log that is not there."""
    if state == "gone":
        return GoneError("the log has expired; its records are no longer stored")
    return NotFoundError("no log has this name", what="log")


class Owned:
    """A log that this process created or claimed: enough to put it back after a failover."""

    __slots__ = (
        "claim",
        "commands",
        "epoch",
        "key",
        "key_hash",
        "lease",
        "meta",
        "nonce",
        "owner",
        "thread",
    )

    def __init__(
        self,
        owner: str,
        nonce: int,
        lease: float,
        *,
        claim: int = 0,
        epoch: int = 1,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        key_hash: str = "",
    ) -> None:
        self.owner = owner
        self.nonce = nonce
        self.lease = lease
        self.claim = claim
        self.epoch = epoch
        self.meta = meta
        self.thread = thread
        self.key = key
        self.key_hash = key_hash
        #: The commands that this process has read.
        self.commands = ReadCommands()


class Heads:
    """The number and nonce of the logs that this process writes."""

    def __init__(self) -> None:
        self._heads: dict[str, tuple[int, int]] = {}
        self.get = self._heads.get

    def put(self, log: str, sid: int, nonce: int) -> None:
        if len(self._heads) >= MOST_HEADS:
            self._heads.clear()
        self._heads[log] = (sid, nonce)

    def forget(self, log: str) -> None:
        self._heads.pop(log, None)


class _Plain:
    """Appends to one log that follow each other, as one."""

    __slots__ = ("bytes", "epoch", "first", "head", "items", "records")

    def __init__(self, number: int, item: Item, head: tuple[int, int]) -> None:
        self.items = [number]
        self.head = head
        self.epoch = item[1]
        self.first = item[2]
        self.records = item[3]
        self.bytes = 0

    def take(self, number: int, item: Item) -> bool:
        """Add an append that goes on where this one ends."""
        if item[1] != self.epoch or item[2] != self.first + len(self.records):
            return False
        self.items.append(number)
        self.records = self.records + item[3]
        return True


class Appends:
    """Groups appends and judges the answers. ``restore(log)`` is awaited for a log that a failover
    lost; what it returns is the append's outcome. ``touched(log)`` is told of each that grew."""

    def __init__(
        self,
        link: Link,
        owned: dict[str, Owned],
        heads: Heads,
        tails: Tails,
        *,
        restore: Callable[[str], Awaitable[Appended | TokenwireError]],
        touched: Callable[[str], None],
    ) -> None:
        self._link = link
        self._owned = owned
        self._heads = heads
        self._tails = tails
        self._restore = restore
        self._touched = touched
        schema = quoted(link.settings.schema)
        self._append = f"SELECT {schema}.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        self._each = f"SELECT * FROM {schema}.append_each($1, $2, $3, $4, $5, $6, $7, $8)"  # noqa: S608
        self._find = (
            f"SELECT s.name, s.sid, h.nonce FROM {schema}.stream s"  # noqa: S608
            f" JOIN {schema}.head h USING (sid) WHERE s.name = ANY($1::text[])"
        )
        self._lanes: list[Lane] = []

    def lane(self, log: str) -> Lane:
        """Where appends to a log are given (an `Item` each); they keep their order."""
        if not self._lanes:
            self._lanes = [Lane(self._batch, MOST_APPENDS) for _ in range(LANES)]
        return self._lanes[zlib.crc32(log.encode()) % LANES]

    async def drain(self) -> None:
        for lane in self._lanes:
            await lane.drain()

    async def _batch(self, items: list[Item]) -> Sequence[Any]:
        async def work(connection: Connection) -> list[tuple[str, int, int]]:
            return await self._send(connection, items)

        try:
            outcomes, is_repeat = await self._link.repeat(work)
        except LogError:
            if len(items) == 1:
                raise
            # What one append cannot do must not be the others' fault.
            return [await self._alone(item) for item in items]
        return await self._judge(items, outcomes, is_repeat)

    async def inside(self, item: Item, inside: Inside, seconds: float) -> Appended:
        """One append in a transaction in which ``inside`` is called, for ``seconds`` at most."""

        async def work() -> list[Any]:
            async with self._link.connections.transaction() as (connection, application):
                outcomes = await self._send_each(connection, [item])
                if outcomes[0][0] == "ok":
                    await inside(application)
                return outcomes

        limit = seconds + self._link.settings.timeout / 3
        outcomes, is_repeat = await self._link.attempts(work, limit)
        [result] = await self._judge([item], outcomes, is_repeat)
        if isinstance(result, BaseException):
            raise result
        return result

    async def _alone(self, item: Item) -> Any:
        try:
            return (await self._batch([item]))[0]
        except TokenwireError as error:
            return error

    async def _send(self, connection: Connection, items: list[Item]) -> list[Any]:
        """What became of each: status, tail, epoch."""
        outcomes: list[Any] = [None] * len(items)
        unknown = {i[0] for i in items if i[4] is None and self._heads.get(i[0]) is None}
        unknown -= {i[0] for i in items if i[4] is not None}
        if unknown:
            names = {to_text(log): log for log in unknown}
            for name, sid, number in await connection.fetch(self._find, list(names)):
                self._heads.put(names[name], sid, number)
        plain, rest = self._sort(items)
        if plain:
            stored = await self._send_plain(connection, list(plain.values()))
            for one in plain.values():
                if one.head[0] in stored:
                    tail = one.first - 1
                    for number in one.items:
                        tail += len(items[number][3])
                        outcomes[number] = ("ok", tail, one.epoch)
                else:
                    rest += one.items
        if rest:
            # In the order of the names, so that processes do not wait for each other in a ring;
            # those of one log in the order in which they were given.
            rest.sort(key=lambda number: (items[number][0], number))
            judged = await self._send_each(connection, [items[number] for number in rest])
            for number, outcome in zip(rest, judged, strict=True):
                outcomes[number] = outcome
        return outcomes

    def _sort(self, items: list[Item]) -> tuple[dict[str, _Plain], list[int]]:
        """The plain appends, one per log, and the numbers of the others."""
        plain: dict[str, _Plain] = {}
        rest: list[int] = []
        waiting: set[str] = set()
        for number, item in enumerate(items):
            log, _, _, records, close, durable = item
            head = self._heads.get(log)
            if close is not None or durable or not records or head is None or log in waiting:
                rest.append(number)
                waiting.add(log)  # what follows must not overtake it
            elif log not in plain:
                plain[log] = _Plain(number, item, head)
            elif not plain[log].take(number, item):
                rest.append(number)
                waiting.add(log)
        return plain, rest

    async def _send_plain(self, connection: Connection, plain: list[_Plain]) -> set[int]:
        plain.sort(key=lambda one: one.head[0])
        sids: list[int] = []
        offsets: list[int] = []
        totals: list[int] = []
        data: list[bytes] = []
        for one in plain:
            total, offset = 0, one.first
            for record in one.records:
                total += len(record)
                sids.append(one.head[0])
                offsets.append(offset)
                totals.append(total)
                offset += 1
            one.bytes = total
            data += one.records
        rows = await connection.fetch(
            self._append,
            [one.head[0] for one in plain],
            [one.head[1] for one in plain],
            [one.epoch for one in plain],
            [one.first for one in plain],
            [len(one.records) for one in plain],
            [one.bytes for one in plain],
            sids,
            offsets,
            totals,
            data,
        )
        return {row[0] for row in rows}

    async def _send_each(self, connection: Connection, items: list[Item]) -> list[Any]:
        nonces = []
        for log, epoch, *_ in items:
            owned = self._owned.get(log)
            nonces.append(owned.nonce if owned is not None and owned.epoch == epoch else None)
        return await connection.fetch(
            self._each,
            [to_text(item[0]) for item in items],
            nonces,
            [item[1] for item in items],
            [item[2] for item in items],
            [len(item[3]) for item in items],
            [None if item[4] is None else to_text(item[4]) for item in items],
            [record for item in items for record in item[3]],
            any(item[5] for item in items),
        )

    async def _judge(self, items: list[Item], outcomes: list[Any], is_repeat: bool) -> list[Any]:
        tails, results = self._tails, []
        for item, (status, reached, newest) in zip(items, outcomes, strict=True):
            log, epoch, first, records, close, _ = item
            last = first + len(records) - 1
            # Sent twice by us after a lost answer, it is no duplicate for the caller.
            is_ours = is_repeat and (records or close) and reached == last
            if status != "ok" and not (status == "duplicate" and is_ours):
                results.append(await self._refused(log, epoch, status, reached, newest))
                continue
            if log in tails:
                tails.came(log, records, reached, close)
            self._touched(log)
            if close is not None:
                self._owned.pop(log, None)
                self._heads.forget(log)
            results.append(Appended("ok", reached, epoch))
        return results

    async def _refused(self, log: str, epoch: int, status: str, tail: int, newest: int) -> Any:
        self._tails.forget(log)
        owned = self._owned.get(log)
        if status in ("none", "behind") and owned is not None and owned.epoch == epoch:
            # A failover lost what we hold; put it back and let the caller send from there.
            try:
                return await self._restore(log)
            except TokenwireError as error:
                return error  # of this log only
        if status in ("none", "gone"):
            self._heads.forget(log)
            return missing(status)
        if status == "behind":
            status = "fenced"
        if status == "fenced" and owned is not None and owned.epoch <= epoch:
            self._owned.pop(log, None)
        return Appended(status, tail, newest)  # type: ignore[arg-type]
