"""What the retention is over for in PostgreSQL, erasing it, and how much there is.

Always true: a conversation is due by its row in ``thread``, a log without one by its end; each is
found by an index, so that what is kept costs nothing. The times are those of the server's clock.
"""

from __future__ import annotations

from typing import Any

from tokenwire.log.base import Due
from tokenwire.log.postgres.link import Link
from tokenwire.log.postgres.names import from_text, to_text
from tokenwire.log.postgres.schema import quoted

__all__ = ["Expiry"]

#: How long names of expired logs answer "gone" instead of "never was".
KEEP_NAMES_SECONDS = 30 * 86400.0
#: How long it is remembered that an open log was deleted, should its owner be away.
KEEP_ERASED_SECONDS = 2 * 86400.0

FORGET = """
WITH old AS (
    DELETE FROM {s}.gone WHERE name IN (
        SELECT name FROM {s}.gone WHERE at < now() - make_interval(secs => $1) LIMIT 10000)
    RETURNING 1
), erased AS (
    DELETE FROM {s}.erased WHERE at < now() - make_interval(secs => $2)
)
SELECT {s}.add_up(0, 0, 0, -count(*)) FROM old HAVING count(*) > 0
"""

COUNTS = """
SELECT coalesce(sum(c.logs), 0)::bigint, coalesce(sum(c.ended_records), 0)::bigint,
    coalesce(sum(c.ended_bytes), 0)::bigint, coalesce(sum(c.tombstones), 0)::bigint,
    o.logs, o.records, o.bytes
FROM (SELECT count(*) AS logs, coalesce(sum(h.tail), 0)::bigint AS records,
    coalesce(sum(h.total), 0)::bigint AS bytes
    FROM {s}.lease l JOIN {s}.head h USING (sid)) o
LEFT JOIN {s}.counter c ON true GROUP BY o.logs, o.records, o.bytes
"""


class Expiry:
    """Erases, puts off, counts."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._schema = quoted(link.settings.schema)

    async def _rows(self, query: str, *values: Any) -> list[Any]:
        return await self._link.fetch(query.replace("{s}", self._schema), *values)

    async def due(self, retention: float, most: int) -> list[Due]:
        alone = await self._rows(
            "SELECT name FROM {s}.stream WHERE closed_at IS NOT NULL AND thread IS NULL"
            " AND closed_at < now() - make_interval(secs => $1) ORDER BY closed_at LIMIT $2",
            retention,
            most,
        )
        due = [Due([from_text(row[0])]) for row in alone]
        most -= len(due)
        if most <= 0:
            return due
        threads = await self._rows(
            "SELECT name FROM {s}.thread WHERE open <= 0"
            " AND used < now() - make_interval(secs => $1) ORDER BY used LIMIT $2",
            retention,
            most,
        )
        for (thread,) in threads:
            logs = await self._rows(
                "SELECT name FROM {s}.stream WHERE thread = $1 ORDER BY sid LIMIT $2", thread, most
            )
            due.append(Due([from_text(row[0]) for row in logs], from_text(thread)))
            most -= max(1, len(logs))
            if most <= 0:
                break
        return due

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        erased: list[Due] = []
        alone = [one.logs[0] for one in due if one.thread is None]
        if alone:
            erased += [Due([log]) for log in await self._erase(alone, None, retention)]
        for one in due:
            if one.thread is None:
                continue
            logs = await self._erase(one.logs, one.thread, retention)
            if logs:
                rest = await self._rows(
                    "SELECT 1 FROM {s}.thread WHERE name = $1", to_text(one.thread)
                )
                erased.append(Due(logs, one.thread, is_all=not rest))
        return erased

    async def _erase(self, logs: list[str], thread: str | None, retention: float) -> list[str]:
        rows = await self._rows(
            "SELECT * FROM {s}.erase_due($1, $2, $3)",
            [to_text(log) for log in logs],
            None if thread is None else to_text(thread),
            retention,
        )
        return [from_text(row[0]) for row in rows]

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        alone = [to_text(one.logs[0]) for one in due if one.thread is None]
        threads = [to_text(one.thread) for one in due if one.thread is not None]
        later = retention - seconds
        if alone:
            await self._rows(
                "UPDATE {s}.stream SET closed_at = now() - make_interval(secs => $2)"
                " WHERE name = ANY($1::text[]) AND closed_at IS NOT NULL",
                alone,
                later,
            )
        if threads:
            await self._rows(
                "UPDATE {s}.thread SET used = now() - make_interval(secs => $2)"
                " WHERE name = ANY($1::text[])",
                threads,
                later,
            )

    async def forget_names(self) -> None:
        """Forget names of logs that were erased long ago."""
        await self._rows(FORGET, KEEP_NAMES_SECONDS, KEEP_ERASED_SECONDS)

    async def counts(self) -> dict[str, int]:
        row = (await self._rows(COUNTS))[0]
        return {
            "streams": row[0],
            "open": row[4],
            "records": row[5] + row[1],
            "bytes": row[6] + row[2],
            "tombstones": row[3],
        }
