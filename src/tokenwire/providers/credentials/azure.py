"""Azure's own credentials (managed identity, workload identity, a service principal, a login) as
tokens for Azure OpenAI."""

from __future__ import annotations

from typing import Any

from tokenwire.providers.credentials.credential import KeyCredential, Token, in_daemon

__all__ = ["azure_credential"]

_SCOPE = "https://cognitiveservices.azure.com/.default"


def azure_credential(credential: Any = None) -> KeyCredential:
    """``credential`` of azure-identity (a blocking one); default its DefaultAzureCredential."""
    cache: list[Any] = [] if credential is None else [credential]

    def refresh() -> Token:
        if not cache:
            from azure.identity import DefaultAzureCredential

            cache.append(DefaultAzureCredential())
        token = cache[0].get_token(_SCOPE)
        return Token(token.token, float(token.expires_on))

    async def fetch() -> Token:
        return await in_daemon(refresh)

    return KeyCredential("Azure's credentials", fetch, is_bearer=True)
