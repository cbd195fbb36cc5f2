"""A key in a file, read again when the file changes.

Always true: the file is looked at before each call of the provider, by way of its links: a mounted
secret changes by a link that leads elsewhere.
"""

from __future__ import annotations

import os

from tokenwire.errors import AuthenticationError
from tokenwire.providers.credentials.credential import KeyCredential, Token, in_daemon

__all__ = ["key_file"]

_MOST = 64 << 10


def key_file(path: str, variable: str) -> KeyCredential:
    """The key in the file ``path``, which ``variable`` names. White space around it does not
    count."""
    name = f"the file of {variable}"

    def read() -> bytes:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(_MOST)

    async def fetch() -> Token:
        try:
            data = await in_daemon(read)  # a network file system may hang
        except OSError as error:
            reason = (error.strerror or "unreadable").lower()
            raise AuthenticationError(
                f"no key for the provider: {name} cannot be read: {reason}"
            ) from None
        return Token(data.decode("utf-8", "replace").strip())

    return KeyCredential(name, fetch)
