"""Which providers take the credentials of a cloud, and which library finds them.

Always true: a library is used only where it is installed and no key is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from tokenwire.providers.compatible import Provider
from tokenwire.providers.credentials.credential import Credential

__all__ = ["cloud_credential", "extra_of"]

#: Extra of this package -> the module that it brings.
_MODULES = {"vertex": "google.auth", "bedrock": "botocore", "azure": "azure.identity"}


def extra_of(provider: Provider) -> str | None:
    """The extra whose library finds credentials for this provider; None for most."""
    if "vertex" in provider.quirks:
        return "vertex"
    if "bedrock" in provider.quirks or provider.dialect == "bedrock-converse":
        return "bedrock"
    return "azure" if provider.name in ("azure", "azure-responses") else None


def cloud_credential(provider: Provider, env: Mapping[str, str]) -> Credential | None:
    """The cloud's credentials for this provider; None where its library is not installed."""
    extra = extra_of(provider)
    if extra is None or not _is_installed(_MODULES[extra]):
        return None
    if extra == "vertex":
        from tokenwire.providers.credentials.google import google_credential

        return google_credential()
    if extra == "azure":
        from tokenwire.providers.credentials.azure import azure_credential

        return azure_credential()
    from tokenwire.providers.credentials.aws import AwsCredential

    return AwsCredential(env.get("AWS_REGION") or env.get("AWS_DEFAULT_REGION") or "us-east-1")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package that the module would be in
        return False
