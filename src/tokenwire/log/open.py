"""A store's URL in, its log out; a backend is imported only when its URL asks for it.

::

    memory:                           in this process, gone with it
    sqlite:chat.db                    a file, relative to the working directory (~ is the home)
    sqlite:///var/lib/chat.db         a file, from the root
    redis://host:6379/0               one Redis or Valkey (rediss:// for TLS)
    redis+sentinel://h1,h2:26379/name a primary found through Sentinel
    redis+cluster://h1,h2:6379        Redis Cluster
    postgresql://user@host/database   PostgreSQL
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tokenwire.errors import ConfigError
from tokenwire.log.base import Store

__all__ = ["file_of", "open_store", "store_over", "user_store"]

REDIS_SCHEMES = (
    "redis",
    "rediss",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)
POSTGRES_SCHEMES = ("postgresql", "postgres")
KNOWN = (
    "memory:, sqlite:FILE, postgresql://HOST/DATABASE, redis://HOST, rediss://HOST, "
    "redis+sentinel://, redis+cluster://"
)


def open_store(url: str, *, upgrade: bool = True) -> Store:
    """The log of ``url``, not yet started. ``upgrade``: whether its start brings a file of an older
    version to this one's format; without, it refuses it, as servers of that version could not go on
    with it. Raises `ConfigError` for what it does not know."""
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if not colon:
        raise ConfigError(f"a store URL needs a scheme: {KNOWN}")
    if scheme == "memory":
        return _memory(rest)
    if scheme == "sqlite":
        return _sqlite(rest, upgrade)
    if scheme in REDIS_SCHEMES:
        return _redis(url)
    if scheme in POSTGRES_SCHEMES:
        return _postgres(url)
    raise ConfigError(f"unknown store scheme {scheme[:20]!r}; choose one of {KNOWN}")


def user_store(environ: Mapping[str, str] = os.environ) -> str:
    """The URL of the file in which this user's server keeps its runs when told nothing else."""
    folder = environ.get("XDG_DATA_HOME", "")
    try:
        data = Path(folder) if os.path.isabs(folder) else Path.home() / ".local" / "share"
    except RuntimeError as error:
        raise ConfigError(
            "this user has no home folder to store runs in; choose a store with --store"
        ) from error
    return f"sqlite:{quote(str(data / 'tokenwire' / 'runs.db'))}"


def file_of(url: str) -> Path | None:
    """The file of a SQLite store's URL, None for other stores; it need not exist."""
    scheme, _, rest = url.partition(":")
    return Path(unquote(urlsplit(rest).path)).expanduser() if scheme.lower() == "sqlite" else None


def _memory(rest: str) -> Store:
    from tokenwire.log.memory import MemoryStore

    if rest not in ("", "//"):
        raise ConfigError("memory: takes nothing after the colon")
    return MemoryStore()


def _sqlite(rest: str, upgrade: bool) -> Store:
    from tokenwire.log.sqlite.store import SQLiteStore

    parts = urlsplit(rest)
    if parts.netloc:
        raise ConfigError("write sqlite:FILE (relative) or sqlite:///FILE (absolute)")
    path = unquote(parts.path)
    if not path or path in ("/", ":memory:"):
        raise ConfigError("sqlite: needs a file name; for a store in memory use memory:")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "full").lower()
    if synchronous not in ("full", "normal"):
        raise ConfigError("synchronous= must be full (default) or normal")
    if options:
        raise ConfigError(f"unknown option of a sqlite store: {', '.join(sorted(options))[:80]}")
    return SQLiteStore(path, synchronous=synchronous, upgrade=upgrade)


def _redis(url: str) -> Store:
    try:
        from tokenwire.log.redis.store import RedisStore
    except ImportError as error:
        raise ConfigError("a Redis store needs an extra: pip install 'tokenwire[redis]'") from error

    return RedisStore(url)


def _postgres(url: str) -> Store:
    if importlib.util.find_spec("asyncpg") is None:
        raise ConfigError("a PostgreSQL store needs an extra: pip install 'tokenwire[postgres]'")
    from tokenwire.log.postgres.store import PostgresStore
    from tokenwire.log.postgres.url import parse_url

    return PostgresStore(parse_url(url))


def store_over(pool: object, store: str | Store) -> Store:
    """``store`` itself, opened where it is a URL; with a ``pool`` the log in PostgreSQL over an
    application's connections: a pool of asyncpg, or an AsyncEngine of SQLAlchemy with that driver.
    ``store`` is ``postgresql:?schema=...`` with further options then, or ``memory:`` for none.
    Raises `ConfigError`."""
    if pool is None:
        return open_store(store) if isinstance(store, str) else store
    from tokenwire.log.postgres.shared import connections_of
    from tokenwire.log.postgres.store import PostgresStore
    from tokenwire.log.postgres.url import parse_url

    url = "postgresql:" if store == "memory:" else store
    if not isinstance(url, str) or not url.startswith("postgresql:"):
        raise ConfigError("with pool= the store is PostgreSQL; leave store= out")
    settings = parse_url(url)
    if urlsplit(settings.dsn).netloc or settings.direct is not None:
        raise ConfigError("with pool= the store has the pool's address; leave it out of store=")
    return PostgresStore(settings, connections=connections_of(pool))
