"""Care for the file of the SQLite store, outside of transactions of others.

Always true: each step holds the file for a bounded time.
"""

from __future__ import annotations

import sqlite3
import time

__all__ = ["empty_wal", "vacuum"]


def vacuum(connection: sqlite3.Connection, seconds: float) -> int:
    """Give free pages back to the file system for about ``seconds``; how many are left."""
    execute = connection.execute
    end = time.monotonic() + seconds
    execute("BEGIN IMMEDIATE")
    # One statement frees one page, whatever number it names.
    while execute("PRAGMA freelist_count").fetchone()[0] and time.monotonic() < end:
        execute("PRAGMA incremental_vacuum(1)")
    execute("COMMIT")
    return execute("PRAGMA freelist_count").fetchone()[0]


def empty_wal(connection: sqlite3.Connection, busy: float) -> bool:
    """Move everything into the file and empty the write-ahead log, which holds what was erased
    from the file. False while somebody reads an older state. ``busy``: the connection's own
    seconds of waiting for locks; this waits less."""
    connection.execute("PRAGMA busy_timeout=200")
    try:
        is_busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    finally:
        connection.execute(f"PRAGMA busy_timeout={int(busy * 1000)}")
    return not is_busy
