"""Environment variables that lead the clients of providers to another address.

Always true: a variable that is set keeps its meaning: it is the address that is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from tokenwire.providers.clocks import variable_prefix
from tokenwire.providers.compatible import PROVIDERS
from tokenwire.providers.registry import Registry

__all__ = ["environment"]

#: Addresses of SDKs that do not read tokenwire's variables.
_SDKS = {"GOOGLE_GEMINI_BASE_URL": "https://generativelanguage.googleapis.com"}
_PROXIES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


def environment(
    replaced: Callable[[str], str], hosts: Set[str], env: Mapping[str, str]
) -> dict[str, str]:
    """The variables to set. ``replaced``: the address to use in place of one; ``hosts``: whose
    clients get a key, where none is set."""
    registry = Registry(env=env)
    changed: dict[str, str] = {}
    for provider in PROVIDERS.values():
        address = registry.address(provider)
        if address is None:
            continue
        for name in (f"{variable_prefix(provider.name)}_BASE_URL", *provider.urls):
            changed.setdefault(name, replaced(address))
        is_recorded = address.partition("://")[2].partition("/")[0] in hosts
        if is_recorded and provider.keys and not any(env.get(name) for name in provider.keys):
            changed[provider.keys[0]] = "replayed"
    for name, address in _SDKS.items():
        changed[name] = replaced(env.get(name) or address)
    if any(env.get(name) for name in _PROXIES):
        listed = [env.get("no_proxy") or env.get("NO_PROXY") or "", "127.0.0.1"]
        changed["NO_PROXY"] = changed["no_proxy"] = ",".join(filter(None, listed))
    return changed
