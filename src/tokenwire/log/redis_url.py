"""A Redis URL in, settings and a client of the redis package out.

Options after ``?``: ``prefix`` (of all keys, default ``tw``), ``timeout`` (seconds that an
operation may take with all its repetitions, 10), ``ttl`` (seconds that a stream is kept after its
last sign of life, 7 days), ``replicas`` (how many must confirm every append, 0), ``durability``
(refuse to start on a store that gives less), ``ssl_ca_certs`` (a file, for rediss).
"""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from tokenwire.errors import ConfigError

__all__ = ["RedisSettings", "make_client", "parse_url"]

LEVELS = ("memory", "process", "disk", "replica")


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    kind: str
    hosts: list[tuple[str, int]]
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    service: str = ""
    prefix: str = "tw"
    timeout: float = 10.0
    ttl: float = 7 * 86400.0
    replicas: int = 0
    durability: str = "memory"
    ssl_ca_certs: str | None = None


def _number(options: dict[str, str], name: str, default: float, least: float) -> float:
    text = options.pop(name, None)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < 1e12:
        raise ConfigError(f"{name}= in the store URL is a number of at least {least:g}.")
    return value


def _hosts(text: str, port: int) -> list[tuple[str, int]]:
    found = []
    for item in text.split(","):
        try:
            parts = urlsplit("//" + item)
            found.append((parts.hostname or "localhost", parts.port or port))
        except ValueError:
            raise ConfigError("A host of the store URL is not host:port.") from None
    return found


def parse_url(url: str) -> RedisSettings:
    """Settings of a URL; a `ConfigError` never repeats the URL, which may hold a password."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    kind = kind or "single"
    user, at, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":") if at else ("", "", "")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    path = unquote(parts.path.strip("/"))
    database = path if kind == "single" else options.pop("db", "")
    if database and not database.isdigit():
        raise ConfigError("The database in the store URL is a number: redis://host:6379/0.")
    if kind == "sentinel" and not path:
        raise ConfigError("A Sentinel URL names its service: redis+sentinel://host:26379/service.")
    durability = options.pop("durability", "memory")
    if durability not in LEVELS:
        raise ConfigError(f"durability= in the store URL is one of {', '.join(LEVELS)}.")
    settings = RedisSettings(
        kind=kind,
        hosts=_hosts(hosts, 26379 if kind == "sentinel" else 6379),
        tls=scheme == "rediss",
        username=unquote(username) or None,
        password=unquote(password) or None,
        database=int(database or 0),
        service=path if kind == "sentinel" else "",
        prefix=options.pop("prefix", "tw"),
        timeout=_number(options, "timeout", 10.0, 0.1),
        ttl=_number(options, "ttl", 7 * 86400.0, 1.0),
        replicas=int(_number(options, "replicas", 0, 0)),
        durability=durability,
        ssl_ca_certs=options.pop("ssl_ca_certs", None),
    )
    if options:
        raise ConfigError(f"Unknown option for redis: {', '.join(sorted(options))[:80]}.")
    if "{" in settings.prefix or "}" in settings.prefix:
        raise ConfigError("prefix= in the store URL holds no braces.")
    if settings.replicas and kind == "cluster":
        raise ConfigError(
            "replicas= needs one connection per primary and is not offered for Cluster; "
            "set min-replicas-to-write on the servers."
        )
    return settings


def make_client(settings: RedisSettings) -> Any:
    """A client that never repeats a command by itself: repeating is decided here, with a clock."""
    options: dict[str, Any] = {
        "username": settings.username,
        "password": settings.password,
        "socket_connect_timeout": min(2.0, settings.timeout / 2),
        "socket_timeout": settings.timeout / 3,
        "socket_keepalive": True,
        "protocol": 2,
    }
    if settings.tls:
        options["ssl"] = True
        if settings.ssl_ca_certs:
            options["ssl_ca_certs"] = settings.ssl_ca_certs
    if settings.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in settings.hosts]
        return RedisCluster(startup_nodes=nodes, **options)
    options |= {"retry": Retry(cast(Any, NoBackoff()), 0), "db": settings.database}
    if settings.kind == "sentinel":
        short = {"socket_connect_timeout": 1.0, "socket_timeout": 1.0}
        sentinel = Sentinel(settings.hosts, sentinel_kwargs=short)
        return sentinel.master_for(settings.service, redis_class=Redis, **options)
    host, port = settings.hosts[0]
    return Redis(host=host, port=port, **options)
