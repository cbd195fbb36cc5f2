"""The application's own data, in one SQLite file: people, their files, and what was answered.

Nothing here knows of tokenwire. Every call opens a connection of its own, so that any thread may
call.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

_TABLES = """
CREATE TABLE IF NOT EXISTS person (name TEXT PRIMARY KEY, password TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS message (
    run TEXT PRIMARY KEY, person TEXT NOT NULL, thread TEXT NOT NULL, question TEXT NOT NULL,
    answer TEXT NOT NULL, outcome TEXT NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX IF NOT EXISTS message_of ON message (person, thread);
CREATE VIRTUAL TABLE IF NOT EXISTS file USING fts5 (person UNINDEXED, path, text);
"""
_FILES = {
    "cats.md": "Cats purr when they are content. A cat sleeps up to sixteen hours a day.",
    "report.txt": "The report of the year: sales grew by a tenth, costs by a twentieth.",
    "holidays.md": "Everybody has thirty days of holiday a year. Ask for them two weeks before.",
}


class Database:
    """The file at ``path``, made when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path, self._hasher = path, PasswordHasher()
        self._nobodys = self._hasher.hash("nobody has this password")
        with closing(self._open()) as base:
            base.executescript(f"PRAGMA journal_mode = WAL; {_TABLES}")

    def add_person(self, name: str, password: str) -> bool:
        """Whether the name was free; a new person has three files."""
        try:
            self._do("INSERT INTO person VALUES (?, ?)", name, self._hasher.hash(password))
        except sqlite3.IntegrityError:
            return False
        for path, text in _FILES.items():
            self._do("INSERT INTO file VALUES (?, ?, ?)", name, path, text)
        return True

    def has_password(self, name: str, password: str) -> bool:
        """Whether this is the person's password. An unknown name takes as long as a wrong one."""
        rows = self._do("SELECT password FROM person WHERE name = ?", name)
        try:
            self._hasher.verify(rows[0]["password"] if rows else self._nobodys, password)
        except VerifyMismatchError:
            return False
        return bool(rows)

    def search(self, person: str, question: str) -> list[dict[str, Any]]:
        """The three files of a person that fit a question best."""
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w{3,}", question)[:50])
        return self._do(
            "SELECT path, text FROM file WHERE file MATCH ? AND person = ? ORDER BY rank LIMIT 3",
            words or '""',
            person,
        )

    def files(self, person: str) -> list[str]:
        """The paths of a person's files."""
        rows = self._do("SELECT path FROM file WHERE person = ? ORDER BY path", person)
        return [row["path"] for row in rows]

    def delete_file(self, person: str, path: str) -> bool:
        """Whether there was such a file."""
        is_there = path in self.files(person)
        self._do("DELETE FROM file WHERE person = ? AND path = ?", person, path)
        return is_there

    def save(self, **message: str) -> None:
        """Keep an answer under its run's id, once however often it comes."""
        self._do(
            "INSERT OR REPLACE INTO message (run, person, thread, question, answer, outcome) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            *(message[k] for k in ("run", "person", "thread", "question", "answer", "outcome")),
        )

    def conversations(self, person: str) -> list[dict[str, Any]]:
        """A person's conversations by their first question, the newest first."""
        return self._do(
            "SELECT thread, question AS title, at FROM message WHERE person = ? "
            "GROUP BY thread HAVING min(rowid) ORDER BY max(rowid) DESC",
            person,
        )

    def messages(self, person: str, thread: str) -> list[dict[str, Any]]:
        """What was asked and answered in one of them."""
        return self._do(
            "SELECT question, answer, outcome, at FROM message WHERE person = ? AND thread = ? "
            "ORDER BY rowid",
            person,
            thread,
        )

    def _open(self) -> sqlite3.Connection:
        base = sqlite3.connect(self._path, timeout=30)
        base.row_factory = sqlite3.Row
        return base

    def _do(self, sql: str, *values: str) -> list[dict[str, Any]]:
        with closing(self._open()) as base, base:
            return [dict(row) for row in base.execute(sql, values).fetchall()]
