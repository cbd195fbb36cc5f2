"""Pages from Redis: those of one turn of the loop in one script call, long ones by plain commands.

Always true: a page is one snapshot of its log. A script that hands out thousands of records
holds the server up six times as long as LRANGE does, so for those it only says that they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenwire.errors import CursorError, LogError
from tokenwire.log.base import Page
from tokenwire.log.lane import Lane
from tokenwire.log.redis.connection import ReplyError, encode
from tokenwire.log.redis.link import Link, Script
from tokenwire.log.redis.upkeep.losses import Losses

__all__ = ["READ", "Reads"]

READ = Script("read.lua")

#: Of one round trip.
MOST_READS = 32

MULTI, EXEC = encode("MULTI"), encode("EXEC")


class Reads:
    """`page` is the store's answer; one lane per server."""

    def __init__(self, link: Link, key: Callable[[str, str], str], losses: Losses) -> None:
        self._link, self._losses = link, losses
        self._key = key
        self._lanes: dict[Any, Lane] = {}

    async def page(self, log: str, after: int, most: int, most_bytes: int) -> Page:
        """Records after ``after``; errors as in `Log.read`."""
        place = self._link.place(self._key(log, "meta"))
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(self._batch, MOST_READS)
        answer = await lane.ask((log, after, most, most_bytes, 1))
        if answer[0] == b"long":
            page = await self._long(log, after, most, most_bytes)
            if page is not None:
                return page
            answer = await lane.ask((log, after, most, most_bytes, 0))
        if answer[0] == b"beyond":
            error = await self._losses.not_yet(log)
            if error is not None:
                raise error
            raise CursorError("the offset is beyond the tail of this log", tail=answer[1])
        if answer[0] != b"ok":
            raise await self._losses.error(log, answer[0].decode())
        return Page(answer[3], after + 1, answer[1], answer[2].decode() or None)

    async def drain(self) -> None:
        for lane in self._lanes.values():
            await lane.drain()

    async def _batch(self, items: list[Any]) -> list[Any]:
        keys = [[self._key(item[0], "meta"), self._key(item[0], "log")] for item in items]
        if self._link.settings.kind == "cluster":  # a call may touch one slot only
            calls = [READ.call(pair, item[1:]) for pair, item in zip(keys, items, strict=True)]
            answers, _ = await self._link.send_all([pair[0] for pair in keys], calls)
            return [answer for one in answers for answer in one]
        bounds = [bound for item in items for bound in item[1:]]
        answers, _ = await self._link.run(READ, [key for pair in keys for key in pair], bounds)
        return answers

    async def _long(self, log: str, after: int, most: int, most_bytes: int) -> Page | None:
        """None when the log is not what it was a moment ago: then the script judges."""
        meta, log = self._key(log, "meta"), self._key(log, "log")
        fields = encode("HMGET", meta, "epoch", "closed", "gone", "tail")
        content = encode("LRANGE", log, after, after + most - 1)
        block = b"".join((MULTI, fields, encode("LLEN", log), content, EXEC))
        try:
            answers = await self._link.fetch(meta, block, 5)
        except (OSError, LogError):
            return None
        if isinstance(answers[-1], ReplyError) or answers[-1] is None:
            return None
        (epoch, closed, mark, last), tail, records = answers[-1]
        if mark or epoch is None or after > tail or (closed and tail < int(last)):
            return None
        size = 0
        for count, record in enumerate(records):
            size += len(record)
            if size > most_bytes and count:
                del records[count:]
                break
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, closed.decode() if closed and reached else None)
