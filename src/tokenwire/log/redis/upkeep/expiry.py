"""What the retention is over for in Redis, and keeping alive what is still used.

Always true: every key has a time to live, so that nothing stays for ever should no server erase it;
a conversation that is used is kept alive a few times within it. The index of conversations holds
hints: whether one is due is asked of its logs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any

from tokenwire.log.base import Due, private_kind
from tokenwire.log.redis.appending.owned import Owned
from tokenwire.log.redis.create import Own
from tokenwire.log.redis.index import Index

__all__ = ["AT_ONCE", "KEEP_NAMES_MS", "Expiry", "gather"]

#: How long names of expired logs answer "gone" instead of "never was".
KEEP_NAMES_MS = 30 * 86_400_000
#: Names of erased logs that are remembered, at some 300 bytes each.
MOST_NAMES = 1_000_000

#: Seconds that a log is stored beyond the retention, should no server erase it.
RETENTION_SLACK = 600.0

#: Commands under way at a time.
AT_ONCE = 32


async def gather(works: Iterable[Awaitable[Any]]) -> list[Any]:
    """The results, a bounded number of commands at a time."""
    results: list[Any] = []
    pending = list(works)
    for start in range(0, len(pending), AT_ONCE):
        results += await asyncio.gather(*pending[start : start + AT_ONCE])
    return results


class Expiry:
    """Erases and keeps alive. ``own`` runs owner.lua, ``owned`` are the logs of this process."""

    def __init__(self, index: Index, own: Own, owned: dict[str, Owned]) -> None:
        self._index = index
        self._own = own
        self._owned = owned

    def retain(self, seconds: float) -> None:
        """What the times to live follow from. An ended log of a conversation is kept alive when one
        begins, and when the conversation is due while a log of it is open: at most a mark's life
        before its last use, which may lie a retention back."""
        mark = max(60.0, seconds / 4)
        self._index.ended_ttl = int((seconds + RETENTION_SLACK) * 1000)
        self._index.mark_ttl = int(mark * 1000)
        self._index.kept_ttl = int((2 * seconds + mark + RETENTION_SLACK) * 1000)

    # Keeping alive.

    async def keep(self, thread: str) -> None:
        """Give the ended logs of a conversation their time to live anew."""
        try:
            await self._index.keep_members(thread)
            await gather(self._keep_one(log) for log in await self._index.members(thread))
        except BaseException:
            await self._index.unmark(thread)
            raise

    async def _keep_one(self, log: str) -> None:
        life = self._index.kept_ttl
        answer = await self._own(log, "keep", life)
        if answer[0] == "ok" and answer[1]:
            await self._index.keep_key(answer[1].decode(), life)

    def is_due(self, owned: Owned, now: float) -> bool:
        """Whether `refresh` has something to do; ``now``: monotonic seconds."""
        return now >= owned.refreshed + self._index.mark_ttl / 1000

    async def refresh(self, log: str, owned: Owned, now: float) -> None:
        """A sign of life of what belongs to an open log elsewhere, every now and then."""
        owned.refreshed = now
        if owned.key is not None:
            await self._index.keep_key(owned.key)
        await self._index.keep_documents(private_kind(log))

    # Erasing.

    async def erase(self, log: str, mark: str = "deleted", *, alone: bool = False) -> bool:
        """Erase a log (``gone``: only one that has ended; ``alone``: only one without a thread) and
        what is noted of it. False when there is none."""
        answer = await self._own(log, "erase", mark, "alone" if alone else "", wait=True)
        if answer[0] == "thread":
            await self._adopt(log, *(part.decode() for part in answer[1:]))
            return False
        self._owned.pop(log, None)
        await self._index.forget(log)
        await self._index.drop_documents(private_kind(log))
        if answer[0] != "ok":
            return False
        await self._index.remember(log)
        thread, key = (part.decode() for part in answer[1:])
        if thread:
            await self._index.leave(thread, log)
        if key:
            await self._index.drop_key_of(key, log)
        return True

    async def _adopt(self, log: str, thread: str, key: str, closed_at: str) -> None:
        """An older tokenwire noted the end of a log of a conversation as that of one alone."""
        await self._index.use(thread, float(closed_at))
        await self._index.adopt(log, float(closed_at))
        await self._keep_one(log)

    async def due(self, retention: float, most: int) -> list[Due]:
        due = [Due([log]) for log in await self._index.ended(retention, most)]
        looked_at: set[str] = set()  # one that is used is not due again, unless clocks jump
        while len(due) < most:
            threads = await self._index.idle(retention, most - len(due))
            threads = [thread for thread in threads if thread not in looked_at]
            looked_at.update(threads)
            looked = await gather(self._conversation(thread, retention) for thread in threads)
            more = [one for one in looked if one is not None]
            due += more
            if not threads or more:
                break
        return due

    async def _conversation(self, thread: str, retention: float) -> Due | None:
        """A conversation that may be due; None where it is used."""
        members = (await self._index.members(thread))[::-1]
        answers = await gather(self._own(log, "describe") for log in members)
        logs: list[str] = []
        stale: list[str] = []
        last = now = 0.0
        for log, answer in zip(members, answers, strict=True):
            if answer[0] != "ok" or answer[9].decode() != thread:
                stale.append(log)  # or about to be made
                continue
            now = int(answer[11]) / 1000
            if not answer[4]:
                await self._index.use(thread)
                await self.keep(thread)
                return None
            last = max(last, int(answer[6]) / 1e6, float(answer[12]))
            logs.append(log)
        if logs and last > now - retention:
            await self._index.use(thread, last)
            return None
        # Who creates a log notes the use of its conversation first.
        if not await self._index.is_idle(thread, retention):
            return None
        for log in stale:
            await self._index.leave(thread, log)
        return Due(logs, thread)

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        alone = [one for one in due if one.thread is None]
        erasures = await gather(self.erase(one.logs[0], "gone", alone=True) for one in alone)
        erased = [one for one, is_gone in zip(alone, erasures, strict=True) if is_gone]
        for one in due:
            if one.thread is not None and await self._index.is_idle(one.thread, retention):
                erasures = await gather(self.erase(log, "gone") for log in one.logs)
                logs = [log for log, is_gone in zip(one.logs, erasures, strict=True) if is_gone]
                await self._index.end(one.thread, retention)
                is_all = not await self._index.members(one.thread)
                erased.append(Due(logs, one.thread, is_all=is_all))
        return erased

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        for one in due:
            log = one.logs[0] if one.thread is None else None
            await self._index.put_off(log, one.thread, retention - seconds)
            # Their keys must not end by themselves meanwhile.
            await gather(self._keep_one(log) for log in one.logs)

    async def forget_names(self) -> None:
        """Forget names of erased logs that are old, or too many."""
        for log in await self._index.too_many_names(KEEP_NAMES_MS / 1000, MOST_NAMES):
            await self._own(log, "forget")
            await self._index.disremember(log)
