"""Where a remote A2A agent is: ``a2a:https://HOST/PATH#TENANT``, and what is sent to it.

Always true: an address comes from the configuration alone; credentials come from the environment
and go to that origin only.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from tokenwire.errors import ConfigError
from tokenwire.observe.redact import keep_secret

__all__ = ["SCHEME", "Address", "address_of", "origin_of", "title_of"]

SCHEME = "a2a:"
CARD = "/.well-known/agent-card.json"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
#: Characters from which on the value of a header counts as a secret, and no word of others.
_LEAST_SECRET = 16
#: Headers that belong to the connection or to the protocol.
_RESERVED = frozenset(
    "host content-length content-type transfer-encoding connection accept accept-encoding "
    "a2a-version last-event-id".split()
)


class Address(msgspec.Struct, frozen=True):
    """``url``: without a slash at its end; ``tenant``: the agent of a server that has several."""

    url: str
    tenant: str = ""
    headers: dict[str, str] = {}

    @property
    def card(self) -> str:
        """Where the agent card is."""
        return self.url if self.url.endswith(".json") else f"{self.url}{CARD}"

    @property
    def version(self) -> str:
        """What a run is begun with: a worker with another address does not go on with its task."""
        return hashlib.sha256(f"{self.url}#{self.tenant}".encode()).hexdigest()[:12]

    @property
    def host(self) -> str:
        """Host and port, for people."""
        return urlsplit(self.url).netloc


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None for what is not an HTTP address."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        return None
    return parts.scheme, host, port or (443 if parts.scheme == "https" else 80)


def title_of(place: str) -> str:
    """The name of an agent that has no other: its tenant, or its host."""
    parts = urlsplit(place.removeprefix(SCHEME))
    name = unquote(parts.fragment) or parts.netloc.rpartition("@")[2].partition(":")[0]
    letters = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "-" for c in name)
    return letters.strip("-._")[:64] or "remote"


def address_of(place: str, name: str, env: Mapping[str, str]) -> Address:
    """The address of the agent ``name``; ``env`` has its credentials: ``A2A_NAME_API_KEY``, a
    bearer token, and ``A2A_NAME_HEADERS``, a JSON object. Raises `ConfigError`."""
    url, _, tenant = place.removeprefix(SCHEME).partition("#")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            f"the address of the A2A agent '{name}' holds a user or a password; set "
            f"{_variable(name, 'API_KEY')} instead"
        )
    if origin_of(url) is None or "?" in url or any(c <= " " or c > "~" for c in url):
        raise ConfigError(
            f"the address of the A2A agent '{name}' must be a2a:https://HOST/PATH, without a query"
        )
    return Address(url.rstrip("/"), unquote(tenant), _headers(name, env))


def _variable(name: str, what: str) -> str:
    return f"A2A_{re.sub('[^A-Z0-9]', '_', name.upper())}_{what}"


def _headers(name: str, env: Mapping[str, str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    key = env.get(_variable(name, "API_KEY"), "").strip()
    if key:
        keep_secret(key)
        headers["authorization"] = f"Bearer {key}"
    variable = _variable(name, "HEADERS")
    text = env.get(variable, "").strip()
    if text:
        try:
            more = msgspec.json.decode(text, type=dict[str, str])
        except msgspec.DecodeError:
            raise ConfigError(f"{variable} must be a JSON object of texts") from None
        for field, value in more.items():
            if not _TOKEN.fullmatch(field) or field.lower() in _RESERVED:
                raise ConfigError(f"{variable}: '{field[:40]}' is no header that may be set")
            if len(value) >= _LEAST_SECRET:
                keep_secret(value)
            headers[field.lower()] = value
    if any(not _is_value(value) for value in headers.values()):
        raise ConfigError(f"the credentials of the A2A agent '{name}' are no values of a header")
    return headers


def _is_value(value: Any) -> bool:
    return all(" " <= c <= "~" or c == "\t" for c in value)
