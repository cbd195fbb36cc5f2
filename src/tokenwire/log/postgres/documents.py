"""What is found by another name in PostgreSQL: keys, conversations, small documents."""

from __future__ import annotations

from typing import Any

from tokenwire.log.postgres.link import Link
from tokenwire.log.postgres.names import from_text, to_text
from tokenwire.log.postgres.schema import quoted

__all__ = ["Documents"]

#: The bounds let the key find the names; the comparison of the beginnings is what counts.
PREFIX = "name >= $2 AND ($2 = '' OR name < $2 || chr(1114111)) AND starts_with(name, $2)"


class Documents:
    """Statements on documents and names; all of them may be repeated."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._schema = quoted(link.settings.schema)

    async def _rows(self, query: str, *values: Any) -> list[Any]:
        return await self._link.fetch(query.replace("{s}", self._schema), *values)

    async def named(self, key: str) -> str | None:
        rows = await self._rows(
            "SELECT s.name FROM {s}.request_key k JOIN {s}.stream s USING (sid) WHERE k.key = $1",
            to_text(key),
        )
        return from_text(rows[0][0]) if rows else None

    async def thread(self, thread: str, most: int, before: str) -> list[str]:
        rows = await self._rows(
            "SELECT name FROM {s}.stream WHERE thread = $1 AND ($2 = '' OR"
            " sid < (SELECT sid FROM {s}.stream WHERE name = $2)) ORDER BY sid DESC LIMIT $3",
            to_text(thread),
            to_text(before),
            most,
        )
        return [from_text(row[0]) for row in rows]

    async def set(self, kind: str, name: str, data: bytes | None) -> None:
        if data is None:
            await self._rows(
                "DELETE FROM {s}.document WHERE kind = $1 AND name = $2",
                to_text(kind),
                to_text(name),
            )
        else:
            await self._rows(
                "SELECT {s}.set_document($1, $2, $3)", to_text(kind), to_text(name), data
            )

    async def swap(self, kind: str, name: str, old: bytes | None, new: bytes | None) -> bool:
        rows = await self._rows(
            "SELECT {s}.swap_document($1, $2, $3, $4)", to_text(kind), to_text(name), old, new
        )
        return rows[0][0]

    async def get(self, kind: str, name: str) -> bytes | None:
        rows = await self._rows(
            "SELECT data FROM {s}.document WHERE kind = $1 AND name = $2",
            to_text(kind),
            to_text(name),
        )
        return rows[0][0] if rows else None

    async def count(self, kind: str, prefix: str) -> int:
        rows = await self._rows(
            "SELECT count(*) FROM {s}.document WHERE kind = $1 AND " + PREFIX,  # noqa: S608
            to_text(kind),
            to_text(prefix),
        )
        return rows[0][0]

    async def list(
        self, kind: str, prefix: str, most: int, after: str | None = None
    ) -> dict[str, bytes]:
        if after is not None:
            rows = await self._rows(
                "SELECT name, data FROM {s}.document WHERE kind = $1 AND "  # noqa: S608
                + PREFIX
                + " AND name > $4 ORDER BY name LIMIT $3",
                to_text(kind),
                to_text(prefix),
                most,
                to_text(after),
            )
            return {from_text(name): data for name, data in rows}
        rows = await self._rows(
            "SELECT name, data FROM {s}.document WHERE kind = $1 AND "  # noqa: S608
            + PREFIX
            + " ORDER BY changed DESC LIMIT $3",
            to_text(kind),
            to_text(prefix),
            most,
        )
        return {from_text(name): data for name, data in rows}
