"""Renewing the leases of many logs at the price of few calls.

Always true: a lease is renewed in the log itself before the index says so; a log whose answer is
"lost" is nobody's here from then on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Set

from tokenwire.log.redis.appending.owned import clock
from tokenwire.log.redis.connection import Word
from tokenwire.log.redis.owner import OWNER
from tokenwire.log.redis.upkeep.expiry import KEEP_NAMES_MS, gather
from tokenwire.log.redis.upkeep.losses import Losses
from tokenwire.log.redis.upkeep.parts import Parts

__all__ = ["Renewals"]

#: Logs of one call: it blocks the server for some 10 us each.
MOST_LOGS = 64
#: Says of a log that it is not there.
ABSENT = 2


class Renewals:
    """Renews the leases of a store of ``parts``; ``losses`` are those of its servers."""

    def __init__(self, parts: Parts, losses: Losses) -> None:
        self._link, self._key, self._owned = parts.link, parts.key, parts.owned
        self._index, self._expiry = parts.index, parts.expiry
        self._is_cluster = parts.link.settings.kind == "cluster"
        self._fence = parts.owner.fence
        self._losses = losses
        #: `Losses.changes` when leases were renewed last.
        self._changes = 0

    async def renew(
        self, logs: dict[str, int], owner: str, lease: float, ttl: int, publish: str
    ) -> set[str]:
        """Renew the leases of ``logs``, by their epochs. Returns those that are lost."""
        await self._index.note_owner(owner)
        head = ["renew", ttl, KEEP_NAMES_MS, publish, "", "", owner, int(lease * 1000)]

        async def some(group: list[str]) -> set[str]:
            keys = [self._key(log, name) for log in group for name in ("meta", "log", "commands")]
            values: list[Word] = [*head]
            for log in group:
                values += (logs[log], self._channel(log))
            start = clock()
            reply, _ = await self._link.run(OWNER, keys + self._fence, values)
            answers: list[int] = reply
            states = dict(zip(group, answers, strict=True))
            renewed = [log for log in group if states[log] == 1]
            for log in group:  # one that Redis has lost is put back, as its owner is alive
                owned = self._owned.get(log)
                if owned is None or owned.epoch != logs[log]:
                    continue
                if states[log] == 1:
                    owned.lease_start, owned.lease = start, lease
                elif states[log] == ABSENT and await self._losses.put_back(log):
                    renewed.append(log)
            missing = set(group).difference(renewed)
            for log in missing:
                self._owned.pop(log, None)
            if renewed:
                await self._index.leases(renewed, lease)
            return missing

        groups = list(self._groups(list(logs)))
        losses = set[str]().union(*await gather(map(some, groups)))
        await self._settle([group[0] for group in groups], logs.keys() - losses)
        now = time.monotonic()
        ours = {log: owned for log in logs if (owned := self._owned.get(log)) is not None}
        due = [(log, owned) for log, owned in ours.items() if self._expiry.is_due(owned, now)]
        await gather(self._expiry.refresh(log, owned, now) for log, owned in due)
        return losses

    async def _settle(self, looks: list[str], logs: Set[str]) -> None:
        """Of ``logs``, whose leases were renewed, some may be shorter than they were: a run that
        has nothing to append, as it waits, would not find out. Servers are known by ``looks``."""
        changes = self._changes
        for log in looks:
            changes = await self._losses.changes(log)
        if changes != self._changes:
            self._changes = changes
            for log in logs & self._owned.keys():
                self._losses.write_again(log)

    def _groups(self, logs: list[str]) -> Iterator[list[str]]:
        most = 1 if self._is_cluster else MOST_LOGS  # a call may touch one slot only
        for start in range(0, len(logs), most):
            yield logs[start : start + most]

    def _channel(self, log: str) -> str:
        """The channel of a log whose readers elsewhere, if any, were not told of all appends."""
        owned = self._owned.get(log)
        if owned is None or owned.published_bytes >= owned.bytes:
            return ""
        owned.published_bytes = owned.bytes
        return self._key(log, "live")
