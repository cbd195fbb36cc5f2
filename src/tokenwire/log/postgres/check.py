"""What a PostgreSQL store is and promises, asked of the server when the store is opened.

Always true: the level that is reported follows from the live server's settings; a stronger one that
the URL asks for is refused.
"""

from __future__ import annotations

from tokenwire.errors import ConfigError
from tokenwire.log.base import Durability
from tokenwire.log.postgres.link import Connection
from tokenwire.log.postgres.schema import quoted
from tokenwire.log.postgres.url import LEVELS

__all__ = ["Server", "ask", "check_rights"]

OLDEST = 140_000

SETTINGS = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
    current_setting('server_encoding'), current_setting('fsync'),
    current_setting('full_page_writes'), current_setting('synchronous_commit'),
    current_setting('synchronous_standby_names'), current_setting('data_checksums'),
    pg_backend_pid(), pg_is_in_recovery()
"""

RIGHTS = """
SELECT c.relname FROM pg_class c
WHERE c.relnamespace = to_regnamespace($1)::oid AND c.relkind = 'r' AND NOT (
    has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT')
    AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))
ORDER BY 1 LIMIT 1
"""


class Server:
    """What a server answered: the level, what is missing, and whether a pooler is between."""

    def __init__(self, level: Durability, notes: list[str], is_pooled: bool) -> None:
        self.level: Durability = level
        self.notes = notes
        self.is_pooled = is_pooled


async def ask(connection: Connection, least: Durability) -> Server:
    """What the server is. Raises `ConfigError` for one that is too old, cannot hold any text, or
    gives less than ``least``; what the driver raises."""
    row = await connection.fetchrow(SETTINGS)
    number, version, encoding, fsync, pages, commit, standbys, checksums, pid, is_standby = row
    if number < OLDEST:
        raise ConfigError(f"PostgreSQL {version} is too old; tokenwire needs PostgreSQL 14")
    if encoding != "UTF8":
        raise ConfigError(
            f"the database has the encoding {encoding}; make one for tokenwire with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    if is_standby:
        raise ConfigError(
            "the PostgreSQL server is a standby, which takes no writes; name the primary, or all "
            "hosts, in the store URL"
        )
    notes: list[str] = []
    level = _level(commit, fsync == "on", pages == "on", standbys, notes)
    if LEVELS.index(level) < LEVELS.index(least):
        raise ConfigError(
            f"the store URL requires durability={least}, but this PostgreSQL provides {level!r}. "
            + " ".join(notes)
        )
    if checksums != "on":
        notes.append(
            "data_checksums is off: PostgreSQL does not notice bytes that change on its disk "
            "(pg_checksums --enable)."
        )
    return Server(level, notes, is_pooled=pid != connection.get_server_pid())


def _level(
    commit: str, is_synced: bool, has_pages: bool, standbys: str, notes: list[str]
) -> Durability:
    if not is_synced or not has_pages:
        what = "full_page_writes" if is_synced else "fsync"
        notes.append(f"{what} is off: a power cut may damage or lose the database.")
    if commit == "off":
        notes.append(
            "synchronous_commit is off: a crash of PostgreSQL may take the last 0.6 s of tokens "
            "(ends and tool records are on the disk)."
        )
    if commit == "off" or not is_synced or not has_pages:
        return "process"
    if standbys.strip() and commit in ("on", "remote_apply", "remote_write"):
        if commit == "remote_write":
            notes.append("synchronous_commit is remote_write: standbys have it in memory.")
        return "replica"
    if standbys.strip():
        notes.append("synchronous_commit is local: commits do not wait for standbys.")
    else:
        notes.append("no synchronous standby is configured: a failover may lose the last records.")
    return "disk"


async def check_rights(connection: Connection, schema: str) -> None:
    """Raises `ConfigError` where this user may not do what a run does."""
    table = await connection.fetchval(RIGHTS, quoted(schema))
    if table is not None:
        raise ConfigError(
            f"the PostgreSQL user lacks a right on {schema}.{table}: GRANT SELECT, INSERT, UPDATE, "
            f"DELETE ON ALL TABLES IN SCHEMA {schema}, and USAGE on its sequences, to this user"
        )
