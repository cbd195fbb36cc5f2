"""Signatures of webhooks, in the form of Standard Webhooks.

Always true: what is signed is id, time and body, with HMAC-SHA256; while a secret is replaced, each
request carries one signature for every secret.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from tokenwire.errors import ConfigError

__all__ = ["Signatures"]

_PREFIX = "whsec_"
#: Bytes of a secret.
_LEAST, _MOST = 24, 64


class Signatures:
    """Signs with ``secrets``, each ``whsec_`` and the base64 of 24 to 64 bytes. Raises
    `ConfigError`, which does not show them."""

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise ConfigError(
                "webhooks are signed, and there is no secret: set TOKENWIRE_WEBHOOK_SECRETS to "
                "'whsec_' and the base64 of 32 random bytes (openssl rand -base64 32)"
            )
        self._keys = [_key(secret) for secret in secrets]

    def headers(self, message: str, body: bytes, now: float) -> dict[str, str]:
        """The headers that identify and sign ``body``, sent ``now`` (Unix seconds)."""
        seconds = str(int(now))
        content = b".".join([message.encode(), seconds.encode(), body])
        digests = [hmac.digest(key, content, hashlib.sha256) for key in self._keys]
        return {
            "webhook-id": message,
            "webhook-timestamp": seconds,
            "webhook-signature": " ".join(f"v1,{base64.b64encode(d).decode()}" for d in digests),
        }


def _key(secret: str) -> bytes:
    error = ConfigError(
        f"a webhook secret must be '{_PREFIX}' and the base64 of {_LEAST} to {_MOST} bytes"
    )
    if not secret.startswith(_PREFIX):
        raise error
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise error from None
    if not _LEAST <= len(key) <= _MOST:
        raise error
    return key
