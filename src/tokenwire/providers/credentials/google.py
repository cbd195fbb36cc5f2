"""Google's own credentials (service accounts, workload identity, the metadata server, a user's
login) as access tokens for Vertex AI."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from tokenwire.providers.credentials.credential import KeyCredential, Token, in_daemon

__all__ = ["google_credential"]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def google_credential() -> KeyCredential:
    """Application Default Credentials, by google-auth."""
    cache: list[Any] = []

    def refresh() -> Token:
        import google.auth
        from google.auth.transport.requests import Request

        if not cache:
            cache.append(google.auth.default(scopes=[_SCOPE])[0])
        credentials = cache[0]
        credentials.refresh(Request())
        expiry = credentials.expiry
        return Token(credentials.token, expiry.replace(tzinfo=UTC).timestamp() if expiry else None)

    async def fetch() -> Token:
        return await in_daemon(refresh)

    return KeyCredential("Google's application default credentials", fetch, is_bearer=True)
