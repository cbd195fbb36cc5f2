"""Calling webhooks: who may be called, how a call is signed, and the call itself.

Always true: only what the server's own settings name is called, at an address that was checked
after it was resolved; no redirect is followed, and what comes back is bounded in bytes and time;
the private key leaves neither the store nor the settings.

Signatures are Ed25519 over ``<seconds>.<body>``; the public keys are a JSON Web Key Set, old ones
until nobody may have a request signed with them any more.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import ipaddress
import os
import re
import socket
import ssl
import stat
import time
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import msgspec

from tokenwire.errors import ConfigError, NetworkError, ProviderError
from tokenwire.log.base import Index
from tokenwire.providers.http.connection import Connection, Route
from tokenwire.providers.http.pool import Pool

__all__ = ["CALL_SECONDS", "Signer", "Targets", "load_key_file", "post"]

_MOST_URL = 2048
#: What is read of an answer; longer ones count by their status alone.
_MOST_ANSWER = 64 << 10
_CONNECT_SECONDS = 5.0
#: For one call, from the name's look-up to the answer's end.
CALL_SECONDS = 30.0
_ENTRY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}|\*))?")
_KIND = "ds-key"
#: How long a key that signs no more is published.
_RETIRED_SECONDS = 86_400.0
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
    ``HOST:*``: that very port (any), also over http and at a private address. Raises
    `ConfigError` for an entry that is none of these."""

    def __init__(self, entries: list[str]) -> None:
        self._public: set[str] = set()
        self._vouched: set[tuple[str, str]] = set()
        for entry in entries:
            match = _ENTRY.fullmatch(entry)
            if match is None or ((match[2] or "").isdigit() and not 0 < int(match[2]) < 65536):
                raise ConfigError(
                    "--durable-streams-webhooks takes HOST, HOST:PORT or HOST:* (no scheme, no "
                    f"path), not '{entry[:80]}'"
                )
            host = _plain(match[1])
            if match[2] is None:
                self._public.add(host)
            else:
                self._vouched.add((host, match[2]))

    def __bool__(self) -> bool:
        return bool(self._public or self._vouched)

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
        if host not in self._public:
            return "host not allowed; add it with --durable-streams-webhooks"
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


# --- signing -----------------------------------------------------------------------------------


class _Keys(msgspec.Struct):
    """What the store has: the private key (none when the settings give it), the public one that
    signs now, and earlier ones with the time of their retirement."""

    private: bytes | None
    public: bytes
    retired: list[tuple[bytes, float]] = []


def load_key_file(path: str | None) -> bytes | None:
    """The 32 bytes of an Ed25519 private key in PEM (PKCS#8). Raises `ConfigError`."""
    serialization, private = _cryptography()
    if path is None:
        return None
    name = Path(path).name
    try:
        mode = os.stat(path).st_mode
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the webhook key file {name}: {error.strerror}") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"webhook key file {name} is readable by other users; run chmod 600 {name}"
        )
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"the webhook key file {name} holds no readable PEM key") from error
    if not isinstance(key, private):
        raise ConfigError(
            f"the webhook key file {name} holds another kind of key; an Ed25519 one is needed: "
            "openssl genpkey -algorithm ed25519"
        )
    return key.private_bytes_raw()


class Signer:
    """Signs with the newest key; publishes it and the ones before."""

    def __init__(self, secret: bytes, keys: _Keys) -> None:
        self._key = _cryptography()[1].from_private_bytes(secret)
        self._keys = keys
        self.kid = _kid(keys.public)

    @classmethod
    async def open(cls, store: Index, private: bytes | None) -> Signer:
        """The key that was ``given``, else the store's, made when there is none. All processes of
        one store have the same."""
        private_key = _cryptography()[1]
        while True:
            data = await store.document(_KIND, "webhook")
            stored = msgspec.msgpack.decode(data, type=_Keys) if data is not None else None
            if private is None and stored is not None and stored.private is not None:
                return cls(stored.private, stored)
            secret = private or os.urandom(32)
            public = private_key.from_private_bytes(secret).public_key().public_bytes_raw()
            if stored is not None and stored.public == public:
                return cls(secret, stored)
            retired = list(stored.retired) if stored is not None else []
            if stored is not None:
                retired.append((stored.public, time.time()))
            keys = _Keys(None if private is not None else secret, public, retired[-16:])
            if await store.swap_document(_KIND, "webhook", data, msgspec.msgpack.encode(keys)):
                return cls(secret, keys)

    def sign(self, body: bytes, now: float) -> str:
        """The value of ``Webhook-Signature``."""
        seconds = int(now)
        signature = self._key.sign(b"%d.%b" % (seconds, body))
        return f"t={seconds},kid={self.kid},ed25519={_base64(signature)}"

    def jwks(self, now: float) -> dict[str, Any]:
        """The public keys, the newest first."""
        keys = [self._keys.public]
        keys += [k for k, at in reversed(self._keys.retired) if now - at < _RETIRED_SECONDS]
        return {"keys": [_jwk(key) for key in dict.fromkeys(keys)]}


def _jwk(public: bytes) -> dict[str, str]:
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": _kid(public),
        "use": "sig",
        "alg": "EdDSA",
        "x": _base64(public),
    }


def _kid(public: bytes) -> str:
    # The thumbprint of RFC 7638: these members, in this order, without spaces.
    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64(public)}"}}'
    return "ds_" + _base64(hashlib.sha256(text.encode()).digest())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise ConfigError(
            "Webhooks are signed with the cryptography package: pip install 'tokenwire[webhooks]'."
        ) from error
    return serialization, Ed25519PrivateKey
