"""The store's own schema in a database: made, brought up to date, or refused.

Always true: a schema of another program or of a newer tokenwire is refused by name, not changed;
of several processes that start at once, one makes it and the others find it.
"""

from __future__ import annotations

from pathlib import Path

from tokenwire.errors import ConfigError
from tokenwire.log.postgres.link import Connection

__all__ = ["PROGRAM", "VERSION", "migrate", "quoted"]

PROGRAM = "tokenwire"
VERSION = 1

#: The advisory lock under which a schema is made: of the transaction, so that a pooler may be
#: between, and of the schema's name.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended($1, 7301))"

#: From the schema of before to that of the key.
MIGRATIONS: dict[int, str] = {}


def quoted(schema: str) -> str:
    """The schema's name in a statement."""
    return '"' + schema.replace('"', '""') + '"'


def _script(name: str, schema: str) -> str:
    return Path(__file__).with_name(name).read_text().replace("{s}", quoted(schema))


async def migrate(connection: Connection, schema: str) -> None:
    """Bring the schema to the present version. Raises `ConfigError` for one that is not ours or is
    newer; what the driver raises."""
    if await _version(connection, schema) == VERSION:
        return
    async with connection.transaction():
        await connection.execute(LOCK, f"{PROGRAM} {schema}")
        version = await _version(connection, schema)
        if version == 0:
            await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            await connection.execute(_script("schema.sql", schema))
            await connection.execute(_script("functions.sql", schema))
            await connection.execute(
                f"INSERT INTO {quoted(schema)}.version VALUES ($1, $2)",  # noqa: S608
                PROGRAM,
                VERSION,
            )
            return
        for number in range(version + 1, VERSION + 1):
            await connection.execute(MIGRATIONS[number].replace("{s}", quoted(schema)))
        await connection.execute(
            f"UPDATE {quoted(schema)}.version SET number = $1",  # noqa: S608
            VERSION,
        )


async def _version(connection: Connection, schema: str) -> int:
    """The version of the schema; 0 where there is none, or an empty one."""
    has_version, has_tables = await connection.fetchrow(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid AND relname = 'version'"
        " AND relkind = 'r' AND (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = pg_class.oid AND attnum > 0) = '{program,number}'),"
        " EXISTS (SELECT FROM pg_class WHERE relnamespace = n.oid)"
        " FROM (SELECT to_regnamespace($1)::oid AS oid) n",
        quoted(schema),
    )
    if not has_tables:
        return 0
    row = None
    if has_version:
        row = await connection.fetchrow(
            f"SELECT program, number FROM {quoted(schema)}.version"  # noqa: S608
        )
    if row is None or row[0] != PROGRAM:
        raise ConfigError(
            f"the schema {schema} of the database is another program's; choose another name with "
            "?schema= in the store URL"
        )
    if row[1] > VERSION:
        raise ConfigError(
            f"the schema {schema} was made by a newer tokenwire (version {row[1]}, this one reads "
            f"{VERSION}); upgrade tokenwire, or choose another name with ?schema= in the store URL"
        )
    return row[1]
