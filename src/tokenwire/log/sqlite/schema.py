"""The file behind the SQLite log: tables, connections, checksums, and what its errors mean.

Always true: a file of another program or of a newer tokenwire is refused, not changed; files that
we make are readable by their owner only.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import zlib
from pathlib import Path

from tokenwire.errors import (
    ConfigError,
    LogError,
    StoreDamagedError,
    StoreFullError,
    StoreUnavailableError,
)

__all__ = [
    "APPLICATION_ID",
    "CONVERSATIONS",
    "JOURNAL",
    "SCHEMA",
    "VERSION",
    "checksum",
    "connect",
    "damaged",
    "explain",
    "prepare",
    "seeds",
]

APPLICATION_ID = 0x746F6B77  # "tokw", so that file(1) and we know our files
VERSION = 4

#: Conversations with their last use, whole and part of `SCHEMA`. Triggers keep them, so that they
#: are right whichever version of tokenwire writes.
CONVERSATIONS = """
CREATE TABLE thread (
    name TEXT PRIMARY KEY, logs INTEGER NOT NULL, open INTEGER NOT NULL, used REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX thread_idle ON thread(used) WHERE open <= 0;
CREATE INDEX stream_ended ON stream(closed_at) WHERE closed IS NOT NULL AND thread IS NULL;
CREATE TRIGGER thread_joined AFTER INSERT ON stream WHEN new.thread IS NOT NULL BEGIN
    INSERT INTO thread VALUES (new.thread, 1, 1, new.created) ON CONFLICT (name)
    DO UPDATE SET logs = logs + 1, open = open + 1, used = max(used, excluded.used); END;
CREATE TRIGGER thread_ended AFTER UPDATE OF closed ON stream
    WHEN old.closed IS NULL AND new.closed IS NOT NULL AND new.thread IS NOT NULL BEGIN
    UPDATE thread SET open = open - 1, used = max(used, new.closed_at) WHERE name = new.thread; END;
CREATE TRIGGER thread_left AFTER DELETE ON stream WHEN old.thread IS NOT NULL BEGIN
    UPDATE thread SET logs = logs - 1, open = open - (old.closed IS NULL) WHERE name = old.thread;
    DELETE FROM thread WHERE name = old.thread AND logs <= 0; END;
"""

#: Where records are: each commit writes one row of ``journal``, with all of its records; later they
#: move to ``page``, up to 64 of one log in a row. ``hashes``: the name hashes of logs that were
#: touched otherwise; other processes wake their readers by both. ``page.total``: bytes of the log
#: up to the page's end. ``counter``: the highest number of a log; the number of logs and of names
#: of expired ones, and the records and bytes of those that have ended, so that figures cost the
#: same however many there are.
JOURNAL = """
CREATE TABLE journal (
    id INTEGER PRIMARY KEY, writer TEXT NOT NULL, checksum INTEGER NOT NULL,
    hashes BLOB NOT NULL, entries BLOB NOT NULL, data BLOB NOT NULL
);
CREATE TABLE page (
    id INTEGER PRIMARY KEY, total INTEGER NOT NULL, entries BLOB NOT NULL, data BLOB NOT NULL
);
"""

SCHEMA = (
    """
CREATE TABLE stream (
    sid INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, epoch INTEGER NOT NULL,
    owner TEXT NOT NULL, lease_until REAL NOT NULL, closed TEXT, closed_at REAL,
    created REAL NOT NULL, thread TEXT, meta BLOB NOT NULL, meta_check INTEGER NOT NULL
);
CREATE INDEX stream_thread ON stream(thread, sid) WHERE thread IS NOT NULL;
CREATE INDEX stream_open ON stream(lease_until) WHERE closed IS NULL;
CREATE TABLE command (
    sid INTEGER NOT NULL, number INTEGER NOT NULL, checksum INTEGER NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (sid, number)
) WITHOUT ROWID;
CREATE TABLE request_key (
    key TEXT PRIMARY KEY, sid INTEGER NOT NULL, hash TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX request_key_stream ON request_key(sid);
CREATE TABLE gone (name TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX gone_at ON gone(at);
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE document (
    kind TEXT NOT NULL, name TEXT NOT NULL, changed INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
CREATE INDEX document_changed ON document(kind, changed);
"""
    + JOURNAL
    + CONVERSATIONS
)

STREAM_STEP, OFFSET_STEP = 0x9E3779B1, 0x85EBCA6B

_FULL = sqlite3.SQLITE_FULL
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def checksum(data: bytes, sid: int, number: int) -> int:
    """CRC of a record in its place: a record that strays to another offset fails it too."""
    return zlib.crc32(data, (sid * STREAM_STEP + number * OFFSET_STEP) & 0xFFFFFFFF)


def seeds(sid: int, number: int) -> itertools.count[int]:
    """What the checksums from ``number`` on begin with (`zlib.crc32` takes the lowest 32 bits)."""
    return itertools.count(sid * STREAM_STEP + number * OFFSET_STEP, OFFSET_STEP)


def damaged(what: str, log: str, number: int) -> StoreDamagedError:
    """The error for something that fails its checksum, or is missing."""
    return StoreDamagedError(
        f"{what} {number} of log {log} fails its checksum; the store is damaged",
        stream=log,
        offset=number,
    )


def explain(error: Exception, path: str) -> LogError:
    """The error of our tree that an exception of the sqlite3 module amounts to."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    file = os.path.basename(path)
    if code == _FULL or (code == sqlite3.SQLITE_IOERR and _no_space(path)):
        return StoreFullError(f"no space left on the device of the store {file}", sqlite=name)
    if code in _DAMAGED:
        return StoreDamagedError(
            f"the store {file} is damaged ({name}); restore it from a backup", sqlite=name
        )
    if code in _BUSY:
        return StoreUnavailableError(f"the store {file} is locked by another program", sqlite=name)
    return StoreUnavailableError(f"the store {file} is unavailable ({name})", sqlite=name)


def _no_space(path: str) -> bool:
    try:
        space = os.statvfs(os.path.dirname(os.path.abspath(path)))
    except (OSError, AttributeError):
        return False
    return space.f_bavail * space.f_frsize < 64 * 1024


def connect(path: str, *, writer: bool, synchronous: str, busy: float) -> sqlite3.Connection:
    """A connection to an existing file. Only writers checkpoint; readers cannot write."""
    uri = Path(path).absolute().as_uri() + "?mode=rw"
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=busy,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    connection.execute(f"PRAGMA synchronous={synchronous}")
    connection.execute("PRAGMA cache_size=-16000")
    # What is erased is overwritten, whatever this SQLite was compiled to do.
    connection.execute("PRAGMA secure_delete=ON")
    if not writer:
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA wal_autocheckpoint=0")
    return connection


def prepare(path: str) -> None:
    """Make the file (and its folder) when missing, with modes that keep others out."""
    folder = os.path.dirname(os.path.abspath(path))
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(
            f"cannot open the store file {os.path.basename(path)}: {error.strerror}; "
            "choose another store (--store sqlite:FILE) or none (--store memory:)"
        ) from error
