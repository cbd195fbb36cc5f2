"""Signing webhooks of subscriptions: Ed25519 over ``<seconds>.<body>``.

Always true: the private key leaves neither the store nor the settings; the public keys are a JSON
Web Key Set, old ones until nobody may have a request signed with them any more.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import Any

import msgspec

from tokenwire.errors import ConfigError
from tokenwire.log.base import Index

__all__ = ["Signer", "load_key_file"]

_KIND = "ds-key"
#: How long a key that signs no more is published.
_RETIRED_SECONDS = 86_400.0


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
