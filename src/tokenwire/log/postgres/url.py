"""A PostgreSQL URL in, settings out.

Options after ``?`` that are the store's: ``schema`` (where its tables are, ``tokenwire``),
``timeout`` (seconds that an operation may take with all its repetitions, 10), ``connections`` (most
of them for this process, 8), ``durability`` (refuse to start on a server that gives less), and
``direct`` (an address without a pooler, for LISTEN: ``host:port``). Those of PostgreSQL for TLS,
several hosts and sockets (``sslmode``, ``target_session_attrs``, ``host``, ...) go to the driver.
"""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from tokenwire.errors import ConfigError
from tokenwire.log.base import Durability

__all__ = ["LEVELS", "SCHEMA", "PostgresSettings", "checked_schema", "parse_url"]

LEVELS: tuple[Durability, ...] = ("memory", "process", "disk", "replica")
#: The schema in which the tables are.
SCHEMA = "tokenwire"

#: Options of PostgreSQL that the driver takes.
OF_THE_DRIVER = {
    *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword"),
    *("ssl_min_protocol_version", "ssl_max_protocol_version", "passfile", "service", "servicefile"),
    *("host", "port", "user", "password", "dbname", "database", "target_session_attrs"),
}

#: Channels are named after the schema, and a name has at most 63 bytes.
_SCHEMA = re.compile(r"\A[A-Za-z_][A-Za-z0-9_]{0,47}\Z")


class PostgresSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``dsn`` and ``direct``: what the driver connects to."""

    dsn: str
    direct: str | None = None
    schema: str = SCHEMA
    timeout: float = 10.0
    connections: int = 8
    durability: Durability = "memory"


def checked_schema(name: str) -> str:
    """``name``, if a schema of ours can have it. Raises `ConfigError`."""
    if not _SCHEMA.match(name) or name.lower().startswith("pg_") or name == "public":
        raise ConfigError(
            "schema= in the store URL must be a name of its own: a letter, then letters, digits "
            "and underscores, at most 48, not public and not pg_..."
        )
    return name


def _number(options: dict[str, str], name: str, default: float, least: float) -> float:
    text = options.pop(name, None)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = -1.0
    if not least <= value < 1e6:
        raise ConfigError(f"{name}= in the store URL must be a number of at least {least:g}")
    return value


def parse_url(url: str) -> PostgresSettings:
    """Settings of a URL; a `ConfigError` never repeats the URL, which may hold a password."""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
    except ValueError:
        raise ConfigError("the store URL is no postgresql:// URL") from None
    durability = options.pop("durability", "memory")
    if durability not in LEVELS:
        raise ConfigError(f"durability= in the store URL must be one of {', '.join(LEVELS)}")
    schema = checked_schema(options.pop("schema", SCHEMA))
    direct = options.pop("direct", None)
    timeout = _number(options, "timeout", 10.0, 0.1)
    connections = int(_number(options, "connections", 8, 3))
    unknown = sorted(set(options) - OF_THE_DRIVER)
    if unknown:
        raise ConfigError(f"unknown option of a postgresql store: {', '.join(unknown)[:80]}")
    if "," in parts.netloc.rpartition("@")[2]:
        # Of several servers, the one that takes writes.
        options.setdefault("target_session_attrs", "read-write")
    parts = parts._replace(scheme="postgresql", query=urlencode(options), fragment="")
    return PostgresSettings(
        dsn=urlunsplit(parts),
        direct=None if direct is None else _direct(parts, direct),
        schema=schema,
        timeout=timeout,
        connections=connections,
        durability=LEVELS[LEVELS.index(durability)],
    )


def _direct(parts: SplitResult, address: str) -> str:
    """The same user and database at another address."""
    if not address or re.search(r"[/@?#\s]", address):
        raise ConfigError("direct= in the store URL must be host:port")
    user, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user}{at}{address}"))
