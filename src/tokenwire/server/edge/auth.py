"""Authentication: API keys, signed session cookies for the page, and tokens that read one run.

Always true: a key is kept only as its SHA-256; every comparison takes the same time wherever it
fails; a session or token names its principal and its end and is worth nothing when altered; what
cannot be checked is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tokenwire.errors import ConfigError, NotAuthenticatedError
from tokenwire.server.settings import Settings

__all__ = ["ATTACH", "SESSION_COOKIE", "Auth", "Verify", "read_key_file"]

SESSION_COOKIE = "tokenwire_session"
#: Begins every token that reads one run.
ATTACH = "attach_"
_SESSION_SECONDS = 12 * 3600
_ATTACH_SECONDS = 600
_LEAST_KEY = 16

#: A hook of the application's own: a bearer credential to a principal, or None to refuse it.
Verify = Callable[[str], str | None]


def read_key_file(path: str | Path) -> list[str]:
    """The lines of a key file. Refuses one that others may read."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the API key file {path.name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the API key file {path.name} is not text") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(
            f"API key file {path.name} is readable by other users; run chmod 600 {path.name}"
        )
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


class Auth:
    """The keys of a server. Without any (and without ``verify``) everybody is principal ``""``."""

    def __init__(self, keys: list[str] | None = None, *, verify: Verify | None = None) -> None:
        self._digests: dict[bytes, str] = {}
        for key in keys or []:
            name, digest = _parse(key)
            if digest in self._digests:
                raise ConfigError("an API key is listed twice")
            self._digests[digest] = name
        self._verify = verify
        # Every process with the same keys signs alike, so that a cookie works on all of them.
        seed = b"".join(sorted(self._digests)) if self._digests else os.urandom(32)
        self._secret = hashlib.sha256(b"tokenwire session" + seed).digest()

    @classmethod
    def from_settings(cls, settings: Settings) -> Auth:
        """The keys of the settings and of their key file."""
        keys = list(settings.api_keys)
        if settings.api_key_file:
            file_keys = read_key_file(settings.api_key_file)
            if not file_keys:
                raise ConfigError("the API key file holds no key")
            keys += file_keys
        return cls(keys)

    @property
    def on(self) -> bool:
        """Whether a key is needed."""
        return bool(self._digests) or self._verify is not None

    def check_key(self, key: str) -> str:
        """The principal of a key. Raises `NotAuthenticatedError`."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        principal: str | None = None
        for known_digest, name in self._digests.items():
            if hmac.compare_digest(known_digest, digest):
                principal = name
        if principal is None and self._verify is not None:
            principal = self._verify(key)
        if principal is None:
            raise NotAuthenticatedError("unknown API key")
        return principal

    def principal(self, headers: Mapping[bytes, bytes]) -> tuple[str, str]:
        """``(principal, how)`` of a request's headers; how: ``open``, ``key``, ``session``."""
        if not self.on:
            return "", "open"
        key = _bearer(headers)
        if key:
            return self.check_key(key), "key"
        session = _cookie(headers, SESSION_COOKIE)
        if session:
            ended = "invalid or expired session; sign in again"
            return self._open("session", session, ended), "session"
        raise NotAuthenticatedError("missing API key: send 'Authorization: Bearer KEY'")

    def session(self, principal: str) -> tuple[str, int]:
        """A signed session for a cookie, and how many seconds it is good for."""
        return self._sign("session", principal, _SESSION_SECONDS), _SESSION_SECONDS

    def attach_token(self, principal: str, run: str) -> tuple[str, int]:
        """A token that reads one run and does nothing else, and its seconds."""
        return self._sign(f"attach:{run}", principal, _ATTACH_SECONDS), _ATTACH_SECONDS

    def check_attach(self, token: str, run: str) -> str:
        """The principal whose run this token may read."""
        return self._open(f"attach:{run}", token, "invalid or expired token for this run")

    def _sign(self, purpose: str, principal: str, seconds: int) -> str:
        body = f"{int(time.time()) + seconds}:{principal}".encode()
        mac = hmac.new(self._secret, purpose.encode() + b"\0" + body, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac + body).decode().rstrip("=")

    def _open(self, purpose: str, token: str, refusal: str) -> str:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        except ValueError:
            raw = b""
        mac, body = raw[:32], raw[32:]
        expected = hmac.new(self._secret, purpose.encode() + b"\0" + body, hashlib.sha256).digest()
        ends, _, principal = body.decode("utf-8", "replace").partition(":")
        if not hmac.compare_digest(mac, expected) or not ends.isdigit() or int(ends) < time.time():
            raise NotAuthenticatedError(refusal)
        return principal


def _parse(entry: str) -> tuple[str, bytes]:
    name, colon, rest = entry.partition(":")
    if not colon or name == "sha256":
        name, rest = "", entry
    if rest.startswith("sha256:"):
        try:
            digest = bytes.fromhex(rest[7:])
        except ValueError:
            digest = b""
        if len(digest) != 32:
            raise ConfigError("an API key given as sha256: needs 64 hexadecimal digits after it")
    else:
        if len(rest) < _LEAST_KEY:
            raise ConfigError(f"an API key is too short: at least {_LEAST_KEY} characters")
        digest = hashlib.sha256(rest.encode()).digest()
    return name or f"key-{digest.hex()[:8]}", digest


def _bearer(headers: Mapping[bytes, bytes]) -> str | None:
    value = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, key = value.partition(" ")
    if key and scheme.lower() == "bearer":
        return key.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1") or None


def _cookie(headers: Mapping[bytes, bytes], name: str) -> str | None:
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return None
