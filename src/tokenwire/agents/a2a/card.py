"""The card of a remote agent: what of it counts, and what is refused.

Always true: pure; an interface at another origin than the configured address is never used.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.agents.a2a.address import Address, origin_of
from tokenwire.errors import ProtocolError

__all__ = ["Peer", "peer_of"]

_BINDINGS = ("JSONRPC", "HTTP+JSON")


class Peer(msgspec.Struct, frozen=True):
    """How a remote agent is spoken to. ``url``: of the interface, without a slash at its end."""

    url: str
    is_rpc: bool
    tenant: str
    streams: bool


def peer_of(card: Any, address: Address) -> Peer:
    """The first interface of a ``card`` that is spoken here. Raises `ProtocolError`."""
    host = address.host
    if not isinstance(card, dict):
        raise ProtocolError(f"the agent card of {host} is not a JSON object")
    interfaces = card.get("supportedInterfaces")
    if not isinstance(interfaces, list):
        version = card.get("protocolVersion")
        release = f"; it is of release {str(version)[:20]}" if version else ""
        raise ProtocolError(f"the agent card of {host} is not one of A2A 1.0{release}")
    _check_extensions(card, host)
    elsewhere = ""
    for interface in interfaces:
        if not isinstance(interface, dict):
            continue
        binding, version = interface.get("protocolBinding"), interface.get("protocolVersion")
        url, tenant = interface.get("url"), interface.get("tenant") or ""
        if binding not in _BINDINGS or str(version or "1.0").split(".")[0] != "1":
            continue
        if not isinstance(url, str) or not isinstance(tenant, str):
            continue
        if origin_of(url) != origin_of(address.url):
            elsewhere = elsewhere or url
            continue
        path = url.partition("#")[0].partition("?")[0].rstrip("/")
        streams = _capabilities(card).get("streaming") is True
        return Peer(path, binding == "JSONRPC", address.tenant or tenant, streams)
    if elsewhere:
        raise ProtocolError(
            f"the agent card of {host} names the address {elsewhere[:200]!r}, which is not at this "
            "host and port; configure the address at which the agent answers"
        )
    raise ProtocolError(
        f"the agent card of {host} has no interface of A2A 1.x over JSON-RPC or HTTP+JSON"
    )


def _capabilities(card: dict[str, Any]) -> dict[str, Any]:
    value = card.get("capabilities")
    return value if isinstance(value, dict) else {}


def _check_extensions(card: dict[str, Any], host: str) -> None:
    extensions = _capabilities(card).get("extensions")
    for extension in extensions if isinstance(extensions, list) else []:
        if isinstance(extension, dict) and extension.get("required") is True:
            raise ProtocolError(
                f"the agent at {host} requires the extension {str(extension.get('uri'))[:120]!r}, "
                "which is not supported"
            )
