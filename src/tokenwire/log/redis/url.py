"""A Redis URL in, settings out.

Options after ``?``: ``prefix`` (of all keys, default ``tw``), ``timeout`` (seconds that an
operation may take with all its repetitions, 10), ``ttl`` (seconds that a log is kept after its
last sign of life, 7 days), ``replicas`` (how many must confirm every append, 0), ``durability``
(refuse to start on a store that gives less), and for TLS ``ssl_ca_certs``, ``ssl_certfile``,
``ssl_keyfile`` (PEM files) and ``ssl_check_hostname`` (yes or no).
"""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from tokenwire.errors import ConfigError
from tokenwire.events.validation import whole_number

__all__ = ["LEVELS", "RedisSettings", "parse_url"]

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
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None
    ssl_check_hostname: bool = True


def _number(options: dict[str, str], name: str, default: float, least: float) -> float:
    text = options.pop(name, None)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < 1e12:
        raise ConfigError(f"{name}= in the store URL must be a number of at least {least:g}")
    return value


def _yes(options: dict[str, str], name: str) -> bool:
    text = options.pop(name, "yes").lower()
    if text not in ("yes", "true", "1", "no", "false", "0"):
        raise ConfigError(f"{name}= in the store URL must be yes or no")
    return text in ("yes", "true", "1")


def _hosts(text: str, port: int) -> list[tuple[str, int]]:
    addresses = []
    for item in text.split(","):
        try:
            parts = urlsplit("//" + item)
            addresses.append((parts.hostname or "localhost", parts.port or port))
        except ValueError:
            raise ConfigError("a host of the store URL is not host:port") from None
    return addresses


def parse_url(url: str) -> RedisSettings:
    """Settings of a URL; a `ConfigError` never repeats the URL, which may hold a password."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    kind = kind or "single"
    user, at, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":") if at else ("", "", "")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    names = tuple(options)
    path = unquote(parts.path.strip("/"))
    database = path if kind == "single" else options.pop("db", "")
    if database and whole_number(database) is None:
        raise ConfigError("the database in the store URL must be a number: redis://host:6379/0")
    if kind == "sentinel" and not path:
        raise ConfigError(
            "a Sentinel URL must name its service: redis+sentinel://host:26379/service"
        )
    durability = options.pop("durability", "memory")
    if durability not in LEVELS:
        raise ConfigError(f"durability= in the store URL must be one of {', '.join(LEVELS)}")
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
        ssl_certfile=options.pop("ssl_certfile", None),
        ssl_keyfile=options.pop("ssl_keyfile", None),
        ssl_check_hostname=_yes(options, "ssl_check_hostname"),
    )
    if options:
        raise ConfigError(f"unknown option of a redis store: {', '.join(sorted(options))[:80]}")
    if "{" in settings.prefix or "}" in settings.prefix:
        raise ConfigError("prefix= in the store URL must not contain braces")
    if not settings.tls and any(name.startswith("ssl_") for name in names):
        raise ConfigError("ssl_... options in the store URL need rediss:// (TLS)")
    return settings
