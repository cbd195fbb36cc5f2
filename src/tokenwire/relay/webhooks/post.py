"""Calling webhooks: which addresses may be called, and the call itself.

Always true: only what the server's own settings name is called, at an address that was checked
after it was resolved; no redirect is followed and no proxy is used; the response is bounded in
bytes and time.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from tokenwire.errors import ConfigError, NetworkError, ProviderError
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.providers.http.pool import Pool

__all__ = ["CALL_SECONDS", "Targets", "post"]

_MOST_URL = 2048
#: What is read of a response; longer ones count by their status alone.
_MOST_ANSWER = 64 << 10
_CONNECT_SECONDS = 5.0
#: For one call, from the name's look-up to the response's end.
CALL_SECONDS = 30.0
_ENTRY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}|\*))?")
#: IPv6 addresses that carry an IPv4 address behind them.
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
#: Not for the public, though not every version of the standard library says so: protocol
#: assignments, relays, translation within a site, documentation, segment routing, old site-local.
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24 192.88.99.0/24 240.0.0.0/4 64:ff9b:1::/48 100::/64 "
        "2001::/23 2001:db8::/32 3fff::/20 5f00::/16 fec0::/10"
    ).split()
)

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Targets:
    """The allow-list. ``HOST``: https on the usual port, at a public address. ``HOST:PORT`` and
    ``HOST:*``: that very port (any), also over http and at a private address; ``*``: every host,
    https on the usual port, at a public address. ``option``: where the settings have it. Raises
    `ConfigError` for an entry that is none of these."""

    def __init__(self, entries: list[str], *, option: str = "--durable-streams-webhooks") -> None:
        self._option = option
        self._any_public = "*" in entries and option == "--a2a-push"
        self._public: set[str] = set()
        self._vouched: set[tuple[str, str]] = set()
        for entry in entries:
            if entry == "*" and self._any_public:
                continue
            match = _ENTRY.fullmatch(entry)
            if match is None or ((match[2] or "").isdigit() and not 0 < int(match[2]) < 65536):
                raise ConfigError(
                    f"{option} takes HOST, HOST:PORT or HOST:* (no scheme, no "
                    f"path), not '{entry[:80]}'"
                )
            host = _plain(match[1])
            if match[2] is None:
                self._public.add(host)
            else:
                self._vouched.add((host, match[2]))

    @classmethod
    def of_urls(cls, urls: Iterable[str]) -> Targets:
        """The hosts and ports of addresses that the settings give whole, private or not."""
        targets = cls([])
        for url in urls:
            parts = urlsplit(url)
            targets._vouched.add((_plain(parts.hostname or ""), str(_port(parts))))
        return targets

    def __bool__(self) -> bool:
        return bool(self._public or self._vouched or self._any_public)

    def check(self, url: str) -> str | None:
        """Why an address may not be called, or None."""
        try:
            parts = urlsplit(url)
            host, port = _plain(parts.hostname or ""), _port(parts)
        except ValueError:
            return "it is not a valid address"
        if len(url) > _MOST_URL or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
            return f"it must be at most {_MOST_URL} ASCII characters without spaces"
        if parts.scheme not in ("https", "http") or not host:
            return "it must begin with https:// (or, where the server's settings say so, http://)"
        if parts.username is not None or parts.password is not None or parts.fragment:
            return "it must hold no user, password or fragment"
        if self._is_vouched(host, port):
            return None
        if host not in self._public and not self._any_public:
            return f"host not allowed; add it with {self._option}"
        if parts.scheme != "https" or port != 443:
            return "that host is allowed with https on port 443 only"
        address = _address(host)
        if address is not None and not _is_public(address):
            return "that address is not a public one"
        return None

    async def resolve(self, host: str, port: int) -> list[str]:
        """The addresses of a checked host. Raises `NetworkError` when one of them is not public
        and the place is not vouched for."""
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        except OSError as error:
            raise NetworkError("cannot resolve the host", reason=type(error).__name__) from error
        addresses = list(dict.fromkeys(str(item[4][0]) for item in infos))
        if not self._is_vouched(_plain(host), port):
            for text in addresses:
                address = _address(text)
                if address is None or not _is_public(address):
                    raise NetworkError("the host resolves to an address that is not public")
        return addresses

    def _is_vouched(self, host: str, port: int) -> bool:
        return (host, str(port)) in self._vouched or (host, "*") in self._vouched


def _plain(host: str) -> str:
    return host.strip("[]").rstrip(".").lower()


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _address(text: str) -> _Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_public(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner is not None:
            return _is_public(inner)
    if any(address in network for network in _NOT_PUBLIC):
        return False
    return address.is_global and not address.is_multicast


# --- the call ----------------------------------------------------------------------------------


class _Pinned(Pool):
    """Connects to addresses that were checked, under the name that was asked for."""

    def __init__(self, targets: Targets) -> None:
        super().__init__()
        self._targets = targets

    async def _connect(self, route: Route) -> Connection:
        host, port, tls, _ = route
        failure: OSError | None = None
        for address in await self._targets.resolve(host, port):
            try:
                return await self._open(route, address, tls, host)
            except OSError as error:
                failure = error
        raise failure or OSError("no address")

    async def _open(self, route: Route, address: str, tls: bool, host: str) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self, route),
            address,
            route.port,
            ssl=_tls() if tls else None,
            server_hostname=host if tls else None,
        )
        self._all.add(connection)
        return connection


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def post(
    targets: Targets, url: str, body: bytes, headers: dict[str, str]
) -> tuple[int, bytes | None]:
    """Send ``body``; the status, and what was answered (None when that is too long). Raises
    `NetworkError` or `ProtocolError`, in words that may be shown to who gave the address."""
    refused = targets.check(url)  # the settings may have changed since it was given
    if refused is not None:
        raise NetworkError(refused)
    pool = _Pinned(targets)
    all_headers = {"content-type": "application/json", "accept-encoding": "identity", **headers}
    all_headers |= {"user-agent": "tokenwire", "connection": "close"}
    try:
        async with asyncio.timeout(CALL_SECONDS):
            answer = await pool.request(
                "POST", url, all_headers, body, connect_timeout=_CONNECT_SECONDS
            )
            pieces: list[bytes] = []
            size = 0
            while data := await answer.read():
                size += len(data)
                if size > _MOST_ANSWER:
                    return answer.status, None
                pieces.append(data)
            return answer.status, b"".join(pieces)
    except ProviderError:
        raise
    except TimeoutError as error:
        raise NetworkError("no response in time") from error
    except (OSError, ValueError) as error:
        raise NetworkError(
            "cannot connect: refused or timed out", reason=type(error).__name__
        ) from error
    finally:
        pool.close()
