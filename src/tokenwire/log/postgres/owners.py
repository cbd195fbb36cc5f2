"""Who owns which open log in PostgreSQL.

Always true: leases go by the server's clock, whatever the clocks of the processes say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set

from tokenwire.errors import TokenwireError
from tokenwire.log.base import Appended
from tokenwire.log.postgres.append import Owned
from tokenwire.log.postgres.link import Link
from tokenwire.log.postgres.names import from_text, to_text
from tokenwire.log.postgres.schema import quoted

__all__ = ["Owners"]


class Owners:
    """Statements on leases. ``restore(log)`` puts back a log of ``owned`` that a
    failover lost, and says what became of it."""

    def __init__(
        self,
        link: Link,
        owned: dict[str, Owned],
        *,
        restore: Callable[[str], Awaitable[Appended | TokenwireError]],
    ) -> None:
        self._link = link
        self._owned = owned
        self._restore = restore
        self._schema = quoted(link.settings.schema)

    async def claim(
        self, log: str, owner: str, lease: float, claim: int
    ) -> tuple[int, int, bool] | None:
        """The epoch, the tail, and whether the owner before handed it over."""
        rows = await self._link.fetch(
            f"SELECT * FROM {self._schema}.claim($1, $2, $3, $4)",  # noqa: S608
            to_text(log),
            to_text(owner),
            lease,
            claim,
        )
        return tuple(rows[0]) if rows else None

    async def renew(self, logs: dict[str, int], owner: str, lease: float) -> set[str]:
        """Those of ``logs`` that are lost."""
        losses = set(logs) - await self._renewals(logs, owner, lease)
        for log in list(losses):
            # A failover may have lost the log or our claim, while nobody else has taken it.
            owned = self._owned.get(log)
            if owned is None or (owned.epoch, owned.owner) != (logs[log], owner):
                continue
            state = await self._restore(log)
            if isinstance(state, Appended) and state.status == "gap":
                losses -= await self._renewals({log: logs[log]}, owner, lease)
        for log in losses:
            self._owned.pop(log, None)
        return losses

    async def _renewals(self, logs: dict[str, int], owner: str, lease: float) -> set[str]:
        names = {to_text(log): log for log in sorted(logs)}
        rows = await self._link.fetch(
            f"UPDATE {self._schema}.lease l SET until = now() + make_interval(secs => $4)"  # noqa: S608
            f" FROM unnest($1::text[], $2::int[]) AS i(name, epoch)"
            f" JOIN {self._schema}.stream s ON s.name = i.name"
            " WHERE l.sid = s.sid AND l.epoch = i.epoch AND l.owner = $3 RETURNING s.name",
            list(names),
            [logs[log] for log in names.values()],
            to_text(owner),
            lease,
        )
        return {names[row[0]] for row in rows}

    async def release(self, log: str, epoch: int, handed_over: bool) -> None:
        # An owner's name is never empty, so an empty one says that it was handed over.
        await self._link.fetch(
            f"UPDATE {self._schema}.lease l SET until = to_timestamp(0),"  # noqa: S608
            f" owner = CASE WHEN $3 THEN '' ELSE l.owner END FROM {self._schema}.stream s"
            " WHERE s.name = $1 AND l.sid = s.sid AND l.epoch = $2",
            to_text(log),
            epoch,
            handed_over,
        )

    async def orphans(self, most: int) -> list[str]:
        rows = await self._link.fetch(
            f"SELECT s.name FROM {self._schema}.lease l JOIN {self._schema}.stream s"  # noqa: S608
            " USING (sid) WHERE l.until <= now() ORDER BY l.until LIMIT $1",
            most,
        )
        return [from_text(row[0]) for row in rows]

    async def owners(self) -> set[str]:
        rows = await self._link.fetch(
            f"SELECT DISTINCT owner FROM {self._schema}.lease WHERE until > now()"  # noqa: S608
        )
        return {from_text(row[0]) for row in rows}

    async def leases(self, owners: Set[str], most: int) -> list[tuple[str, int]]:
        rows = await self._link.fetch(
            f"SELECT s.name, l.epoch FROM {self._schema}.lease l JOIN {self._schema}.stream s"  # noqa: S608
            " USING (sid) WHERE l.until > now() AND l.owner = ANY($1::text[]) LIMIT $2",
            [to_text(owner) for owner in owners],
            most,
        )
        return [(from_text(name), epoch) for name, epoch in rows]
