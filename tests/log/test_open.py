"""Store URLs: what is understood, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tokenwire.errors import ConfigError
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store, user_store
from tokenwire.log.sqlite.store import SQLiteStore


def test_memory() -> None:
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store("MEMORY://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:chat.db", "chat.db"),
        ("sqlite:data/my%20chat.db", "data/my chat.db"),
        ("sqlite:///var/lib/chat.db", "/var/lib/chat.db"),
        ("sqlite:/var/lib/chat.db?synchronous=NORMAL", "/var/lib/chat.db"),
    ],
)
def test_sqlite(url: str, path: str) -> None:
    log = open_store(url)
    assert isinstance(log, SQLiteStore)
    assert log.path == path


def test_a_user_has_a_store_of_their_own() -> None:
    given = user_store({"XDG_DATA_HOME": "/data/my 100%?"})
    log = open_store(given)
    assert isinstance(log, SQLiteStore)
    assert log.path == "/data/my 100%?/tokenwire/runs.db"
    home = user_store({"XDG_DATA_HOME": "relative"})
    assert home.endswith("/.local/share/tokenwire/runs.db")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "chat.db",
        "mysql://host/db",
        "postgresql://host/db?schema=public",
        "postgresql://host/db?colour=red",
        "postgresql://host/db?durability=eternal",
        "memory:something",
        "sqlite:",
        "sqlite://",
        "sqlite://chat.db",
        "sqlite::memory:",
        "sqlite:chat.db?synchronous=off",
        "sqlite:chat.db?mode=ro",
        "redis://host:port",
        "redis://host/zero",
        "redis://host?colour=red",
        "redis://host?timeout=soon",
        "redis://host?durability=eternal",
        "redis://host?prefix={x}",
        "redis+sentinel://host",
        "redis://host?ssl_ca_certs=ca.pem",
        "rediss://host?ssl_check_hostname=perhaps",
    ],
)
def test_what_is_not_understood_is_a_clear_error(url: str) -> None:
    with pytest.raises(ConfigError):
        open_store(url)


def test_errors_do_not_repeat_the_password() -> None:
    for url in ("redis://user:hunter2@host/x", "redis://user:hunter2@host?x=1"):
        with pytest.raises(ConfigError) as caught:
            open_store(url)
        assert "hunter2" not in str(caught.value)


def test_a_backend_is_imported_only_when_it_is_asked_for() -> None:
    code = (
        "import sys; from tokenwire.log.open import open_store; open_store('memory:');"
        "assert 'sqlite3' not in sys.modules and 'redis' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "src"})
