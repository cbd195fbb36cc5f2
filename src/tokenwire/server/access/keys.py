"""The public keys of a token issuer, as a JSON Web Key Set has them.

Always true: a key verifies signatures of the algorithms that its own type and ``alg`` allow, and of
no others; symmetric, private, short and unknown keys are skipped, so that no key of a set can be
used for anything but checking.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import jiter
import msgspec

from tokenwire.errors import ConfigError

__all__ = ["ALGORITHMS", "Key", "jwt_module", "keys_of", "matching"]

_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
#: All that is accepted; nothing symmetric, and not ``none``.
ALGORITHMS = frozenset((*_RSA, *_CURVES.values(), "EdDSA"))
#: Keys of a set that are looked at, and bits of an RSA key.
_MOST_KEYS, _LEAST_BITS, _MOST_BITS = 100, 2048, 8192
#: What makes up a public key of each type, in the order in which its thumbprint has it (RFC 7638).
_MEMBERS = {"RSA": ("e", "kty", "n"), "EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x")}


class Key(msgspec.Struct, frozen=True):
    """One key. ``id``: its ``kid``, None without one; ``value``: as PyJWT takes it."""

    id: str | None
    algorithms: frozenset[str]
    value: Any
    thumbprint: bytes


def jwt_module() -> Any:
    """PyJWT. Raises `ConfigError` when it, or what it needs for public keys, is not installed."""
    try:
        import cryptography
        import jwt
    except ImportError as error:
        raise ConfigError("JSON Web Tokens need an extra: pip install 'tokenwire[jwt]'") from error
    assert cryptography
    return jwt


def keys_of(data: bytes) -> list[Key]:
    """The usable keys of a set. Raises `ConfigError` without one."""
    try:
        document = jiter.from_json(data, allow_inf_nan=False, catch_duplicate_keys=True)
    except ValueError:
        raise ConfigError("it is not valid JSON") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise ConfigError('it is no JSON Web Key Set: {"keys": [...]}')
    keys = [key for entry in entries[:_MOST_KEYS] if (key := _key_of(entry)) is not None]
    if not keys:
        raise ConfigError("it holds no public key that verifies signatures")
    return keys


def matching(keys: list[Key], id: str | None, algorithm: str) -> list[Key]:  # noqa: A002
    """The keys with which a token of this ``kid`` and ``alg`` may be signed. One without a ``kid``
    is for a set in which there is only one such key."""
    fitting = [key for key in keys if algorithm in key.algorithms]
    if id is None:
        return fitting if len(fitting) == 1 else []
    return [key for key in fitting if key.id == id]


def _key_of(entry: object) -> Key | None:
    """None for a key that does not verify signatures, or that cannot be read."""
    if not isinstance(entry, dict):
        return None
    kind, algorithm, name = entry.get("kty"), entry.get("alg"), entry.get("kid")
    operations = entry.get("key_ops")
    if entry.get("use", "sig") != "sig" or not isinstance(name, str | None):
        return None
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return None
    members = {member: entry.get(member) for member in _MEMBERS.get(str(kind), ())}
    if not members or not all(isinstance(value, str) for value in members.values()):
        return None
    try:
        value, fitting = _read(members)
    except Exception:  # the library names no closed set of errors, and a bad key is no key
        return None
    if algorithm is not None:
        fitting &= {algorithm}
    if not fitting:
        return None
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return Key(name, fitting, value, hashlib.sha256(text.encode()).digest())


def _read(members: dict[str, Any]) -> tuple[Any, frozenset[str]]:
    """The public key of its members alone, so that a private one is never loaded."""
    from jwt import algorithms

    if members["kty"] == "RSA":
        if not _LEAST_BITS <= _bits(members["n"]) <= _MOST_BITS:
            raise ValueError("an RSA key of this size is not used")
        return algorithms.RSAAlgorithm.from_jwk(members), frozenset(_RSA)
    if members["kty"] == "EC":
        return algorithms.ECAlgorithm.from_jwk(members), frozenset({_CURVES[members["crv"]]})
    if members["crv"] != "Ed25519":
        raise ValueError("another curve")
    return algorithms.OKPAlgorithm.from_jwk(members), frozenset({"EdDSA"})


def _bits(number: str) -> int:
    data = base64.urlsafe_b64decode(number + "=" * (-len(number) % 4))
    return int.from_bytes(data, "big").bit_length()
