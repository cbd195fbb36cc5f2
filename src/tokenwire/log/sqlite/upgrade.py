"""Bringing the file of the SQLite log to the present schema.

Always true: the file is of one schema or of the other, whatever ends the process meanwhile; before
an older one is changed, a copy of it is complete beside it. A process of an older version that has
the file open can write nothing into it afterwards.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from tokenwire.errors import ConfigError, LogError, StoreFullError, StoreUnavailableError
from tokenwire.log.sqlite.lock import FileLock
from tokenwire.log.sqlite.pages import Page, cut, insert
from tokenwire.log.sqlite.schema import (
    APPLICATION_ID,
    CONVERSATIONS,
    JOURNAL,
    SCHEMA,
    VERSION,
    checksum,
)

__all__ = ["migrate"]

_log = logging.getLogger("tokenwire.log")

#: Seconds to wait for another process that upgrades the file, or makes it.
UPGRADE_SECONDS = 600.0
NEW_SECONDS = 5.0

#: Rows of the old table that are read at a time.
ROWS = 4096

#: From the schema of before to that of the key.
MIGRATIONS = {
    2: """
CREATE INDEX gone_at ON gone(at);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter SELECT 'logs', count(*) FROM stream;
INSERT INTO counter
    SELECT 'ended_records', coalesce(sum(
        (SELECT max(offset) FROM record WHERE sid = s.sid)), 0)
    FROM stream s WHERE closed IS NOT NULL;
INSERT INTO counter
    SELECT 'ended_bytes', coalesce(sum(
        (SELECT total FROM record WHERE sid = s.sid ORDER BY offset DESC LIMIT 1)), 0)
    FROM stream s WHERE closed IS NOT NULL;
""",
    3: f"""
DROP INDEX stream_closed;
INSERT INTO counter SELECT 'tombstones', count(*) FROM gone;
{CONVERSATIONS}
INSERT INTO thread
    SELECT thread, count(*), sum(closed IS NULL), max(max(created, coalesce(closed_at, 0)))
    FROM stream WHERE thread IS NOT NULL GROUP BY thread;
""",  # noqa: S608 - a constant
    4: f"""
{JOURNAL}
INSERT INTO counter SELECT 'numbers', coalesce(max(sid), 0) FROM stream;
""",  # noqa: S608 - a constant
}


def migrate(connection: sqlite3.Connection, path: str, *, upgrade: bool = True) -> None:
    """Bring a file to the present schema; refuse one that is not ours or is newer, and one that is
    older where it is not to be upgraded."""
    execute = connection.execute
    ours = execute("PRAGMA application_id").fetchone()[0]
    tables = execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    file = os.path.basename(path)
    if tables and ours != APPLICATION_ID:
        raise ConfigError(f"{file} is a database of another program; choose another file")
    version = _version(connection, file)
    if not upgrade and 0 < version < VERSION:
        raise ConfigError(
            f"{file} is of an older tokenwire (schema {version}, this one writes {VERSION}), and "
            "a server of that version may use it: use that version here too, or start the new "
            "server on the file once, which upgrades it"
        )
    if not tables:
        execute("PRAGMA auto_vacuum=INCREMENTAL")
    mode = execute("PRAGMA journal_mode=WAL").fetchone()[0]
    if mode != "wal":
        raise ConfigError(f"{file} is on a file system without shared memory; choose another")
    if version == VERSION:
        return
    # Others that write, or upgrade too, wait here; those that read go on.
    lock = FileLock(path, UPGRADE_SECONDS if version else NEW_SECONDS)
    try:
        lock.take()
        _to_present(connection, path, file)
    finally:
        lock.close()


def _version(connection: sqlite3.Connection, file: str) -> int:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        raise ConfigError(
            f"{file} was written by a newer tokenwire (schema {version}, this one reads "
            f"{VERSION}); upgrade tokenwire or choose another file"
        )
    return version


def _to_present(connection: sqlite3.Connection, path: str, file: str) -> None:
    execute = connection.execute
    execute("BEGIN IMMEDIATE")
    copy = None
    try:
        version = _version(connection, file)
        if version == VERSION:  # another process was faster
            execute("COMMIT")
            return
        if not version:
            _run(connection, SCHEMA)
            execute(f"PRAGMA application_id={APPLICATION_ID}")
        else:
            copy = _copy(path, version)
            for number in range(version + 1, VERSION + 1):
                _run(connection, MIGRATIONS[number])
            _move_records(connection)
            copy = _place(copy, path, version)
        execute(f"PRAGMA user_version={VERSION}")
        execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            execute("ROLLBACK")
        if copy is not None:
            os.unlink(copy)
        if isinstance(error, OSError):
            raise _no_copy(error, file) from error
        raise
    if copy is not None:
        _log.warning(
            "the store file %s was upgraded from schema %d to %d; as it was before, it is kept in"
            " %s: delete that file when you need no way back. What is deleted from the store stays"
            " in it",
            file,
            version,
            VERSION,
            os.path.basename(copy),
        )


def _copy(path: str, version: int) -> str:
    """A whole copy of the file as it is now, on the disk; its path, not yet the final one."""
    part = f"{path}.schema-{version}.part"
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    source, target = sqlite3.connect(path), sqlite3.connect(part)
    try:
        source.backup(target)
    except BaseException:
        os.unlink(part)
        raise
    finally:
        target.close()
        source.close()
    return part


def _no_copy(error: OSError, file: str) -> LogError:
    kind = StoreFullError if error.errno == errno.ENOSPC else StoreUnavailableError
    reason = error.strerror or type(error).__name__
    return kind(f"cannot copy the store {file}, which an upgrade begins with: {reason}")


def _place(part: str, path: str, version: int) -> str:
    """Give the copy a name that no file has."""
    name, number = f"{path}.schema-{version}", 1
    while os.path.exists(name):
        number += 1
        name = f"{path}.schema-{version}-{number}"
    os.rename(part, name)
    if os.name == "posix":
        folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return name


def _move_records(connection: sqlite3.Connection) -> None:
    """From a row for each record to pages. Without ``wake``, which each of its transactions looks
    at first, a process of an older version that has the file open is refused by the database."""
    pages: list[Page] = []
    for sid, rows in groupby(_old_rows(connection), itemgetter(0)):
        log = list(rows)
        start = 0
        while start < len(log):
            end = start + 1
            while end < len(log) and log[end][1] == log[end - 1][1] + 1:
                end += 1  # after a hole, which only damage makes, another page begins
            _, first, total, _, record = log[start]
            some = log[start:end]
            records, checks = [row[4] for row in some], [row[3] for row in some]
            pages += cut(sid, first, total - len(record), records, checks, unchecked=True)
            start = end
        if len(pages) >= 64:
            insert(connection, pages)
    insert(connection, pages)
    connection.execute("DROP TABLE record")
    connection.execute("DROP TABLE wake")


def _old_rows(connection: sqlite3.Connection) -> Iterator[tuple[int, int, int, int, bytes]]:
    cursor = connection.execute(
        "SELECT sid, offset, total, checksum, data FROM record ORDER BY sid, offset"
    )
    while rows := cursor.fetchmany(ROWS):
        for row in rows:
            sid, offset, total, check, data = row
            if type(sid) is not int or type(offset) is not int:
                continue  # damage: there is a hole then
            if type(data) is not bytes or type(check) is not int or check >> 32:
                data, check = b"", checksum(b"", sid, offset) ^ 1  # it must go on failing
            yield sid, offset, total if type(total) is int else 0, check, data


def _run(connection: sqlite3.Connection, statements: str) -> None:
    """`executescript` would commit first."""
    statement = ""
    for line in statements.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):  # it knows triggers, too
            connection.execute(statement)
            statement = ""
