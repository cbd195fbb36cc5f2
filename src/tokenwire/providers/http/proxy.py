"""Which proxy a request takes, by the usual environment variables.

Always true: pure; a loopback address is never reached by way of a proxy; a proxy's user and
password are in no text of an error or a repr.

``HTTPS_PROXY`` and ``HTTP_PROXY`` (small letters count first), ``ALL_PROXY`` for both; ``NO_PROXY``
lists hosts, domains with all below them, addresses, networks, each with a port if need be, or
``*``. ``HTTP_PROXY`` in capitals is ignored in a CGI process, where a client could set it.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from tokenwire.errors import NetworkError
from tokenwire.events.validation import whole_number

__all__ = ["Proxies", "Proxy"]

_SEPARATORS = re.compile(r"[\s,]+")


class Proxy(NamedTuple):
    """An HTTP proxy. ``authorization``: the value of ``proxy-authorization``, a secret."""

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.name})"

    @property
    def name(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


class Proxies:
    """The proxies of an environment; of an empty one, none."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._urls: dict[bool, tuple[str, str]] = {}
        for tls, names in ((True, ("https_proxy", "HTTPS_PROXY")), (False, _plain_names(env))):
            for name in (*names, "all_proxy", "ALL_PROXY"):
                if env.get(name, "").strip():
                    self._urls[tls] = name, env[name].strip()
                    break
        listed = env.get("no_proxy") or env.get("NO_PROXY") or ""
        self._direct = [entry.lower() for entry in _SEPARATORS.split(listed) if entry]

    def of(self, host: str, port: int, *, tls: bool) -> Proxy | None:
        """The proxy for requests to a host; None is a direct connection. Raises `NetworkError`
        for a variable that holds no address of an HTTP proxy."""
        if tls not in self._urls or _is_loopback(host):
            return None
        if any(_matches(entry, host.lower().rstrip("."), port) for entry in self._direct):
            return None
        name, url = self._urls[tls]
        return _proxy(name, url)


def _plain_names(env: Mapping[str, str]) -> tuple[str, ...]:
    return ("http_proxy",) if "REQUEST_METHOD" in env else ("http_proxy", "HTTP_PROXY")


def _proxy(variable: str, url: str) -> Proxy:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port, user, password = parts.hostname, parts.port, parts.username, parts.password
        scheme = parts.scheme
    except ValueError:
        host, port, user, password, scheme = None, None, None, None, ""
    if not host or scheme != "http":
        raise NetworkError(
            f"{variable} is not the address of an HTTP proxy; write http://HOST:PORT",
            should_retry=False,
            reason="InvalidProxy",
        )
    authorization = ""
    if user is not None:
        pair = f"{unquote(user)}:{unquote(password or '')}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode()
    return Proxy(host, port or 80, authorization)


def _is_loopback(host: str) -> bool:
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    name, colon, number = entry.rpartition(":")
    entry_port = whole_number(number)
    if colon and entry_port is not None and (name.count(":") == 0 or name.endswith("]")):
        if entry_port != port:
            return False
        entry = name
    entry = entry.strip("[]")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        domain = entry.removeprefix("*").lstrip(".")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
