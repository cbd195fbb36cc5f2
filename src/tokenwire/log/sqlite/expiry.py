"""What the retention is over for, in the SQLite file; and erasing a log.

Always true: a conversation is due by its row in ``thread``, a log without one by its end; each is
found by an index, so that neither what is kept nor what has long gone costs anything.
"""

from __future__ import annotations

import sqlite3

from tokenwire.errors import StoreDamagedError
from tokenwire.log.base import Due, private_kind
from tokenwire.log.sqlite.journal import Journal
from tokenwire.log.sqlite.pages import MOST_OFFSET, page_tail, place

__all__ = ["due", "erase", "is_due", "is_left", "postpone"]


def due(connection: sqlite3.Connection, before: float, most: int) -> list[Due]:
    """Up to ``most`` logs whose last use was before the Unix time ``before``."""
    execute = connection.execute
    alone = execute(
        "SELECT name FROM stream WHERE closed IS NOT NULL AND thread IS NULL AND closed_at < ?"
        " ORDER BY closed_at LIMIT ?",
        (before, most),
    ).fetchall()
    result = [Due([name]) for (name,) in alone]
    most -= len(result)
    threads = execute(
        "SELECT name FROM thread WHERE open <= 0 AND used < ? ORDER BY used LIMIT ?", (before, most)
    ).fetchall()
    for (thread,) in threads:
        logs = execute(
            "SELECT name FROM stream WHERE thread = ? ORDER BY sid LIMIT ?", (thread, most)
        ).fetchall()
        result.append(Due([name for (name,) in logs], thread))
        most -= max(1, len(logs))
        if most <= 0:
            break
    return result


def is_due(connection: sqlite3.Connection, one: Due, before: float) -> bool:
    """Whether it is still due: somebody may have used the conversation since."""
    if one.thread is None:
        row = connection.execute(
            "SELECT closed IS NOT NULL AND closed_at < ? FROM stream WHERE name = ?",
            (before, one.logs[0]),
        ).fetchone()
    else:
        row = connection.execute(
            "SELECT open <= 0 AND used < ? FROM thread WHERE name = ?", (before, one.thread)
        ).fetchone()
    return row is not None and bool(row[0])


def postpone(connection: sqlite3.Connection, later: list[Due], at: float) -> None:
    """Let these count as used last at the Unix time ``at``."""
    for one in later:
        if one.thread is None:
            connection.execute("UPDATE stream SET closed_at = ? WHERE name = ?", (at, one.logs[0]))
        else:
            connection.execute("UPDATE thread SET used = ? WHERE name = ?", (at, one.thread))


def is_left(connection: sqlite3.Connection, thread: str | None) -> bool:
    """Whether something is left of a conversation. A row of one without logs goes."""
    if thread is None:
        return False
    if connection.execute("SELECT 1 FROM stream WHERE thread = ?", (thread,)).fetchone():
        return True
    connection.execute("DELETE FROM thread WHERE name = ?", (thread,))
    return False


def erase(
    connection: sqlite3.Connection, journal: Journal, name: str
) -> tuple[int, str | None, int, int] | None:
    """Erase a log and all that belongs to it; its number, why it ended, and its records and bytes.
    None for an unknown one."""
    execute = connection.execute
    row = execute("SELECT sid, closed FROM stream WHERE name = ?", (name,)).fetchone()
    if row is None:
        return None
    sid, closed = row
    try:
        records, size = journal.tail(connection, sid, name)
    except StoreDamagedError:  # what is damaged can be erased, too
        records, size = page_tail(connection, sid)
    journal.erase(connection, sid)
    execute("DELETE FROM page WHERE id > ? AND id <= ?", (place(sid, 0), place(sid, MOST_OFFSET)))
    for table in ("command", "request_key", "stream"):
        execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))  # noqa: S608
    execute("DELETE FROM document WHERE kind = ?", (private_kind(name),))
    return sid, closed, records, size
