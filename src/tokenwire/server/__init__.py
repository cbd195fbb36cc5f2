"""The HTTP server: runs over SSE, WebSocket and the wires of other clients.

``create_app`` gives the whole server as an ASGI application; ``stream_response`` streams a run of
your own from a route of your own application; `Live` does the same with a log behind it; `Auth`
says who may ask; ``respond`` sends a run in any wire, and `OwnWire` is one of your own.
`Watchdog` names code that blocks the event loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenwire.server.access.jwt_issuer import JwtIssuer
    from tokenwire.server.app import create_app
    from tokenwire.server.configuration import load_settings
    from tokenwire.server.edge.auth import Auth
    from tokenwire.server.embed.live import Live
    from tokenwire.server.embed.own_route import respond
    from tokenwire.server.embed.unlogged import stream_response
    from tokenwire.server.settings import Settings
    from tokenwire.server.watchdog import Watchdog
    from tokenwire.wire.own import OwnWire

__all__ = [
    "Auth",
    "JwtIssuer",
    "Live",
    "OwnWire",
    "Settings",
    "Watchdog",
    "create_app",
    "load_settings",
    "respond",
    "stream_response",
]

_HOMES = {
    "Auth": "server.edge.auth",
    "JwtIssuer": "server.access.jwt_issuer",
    "Live": "server.embed.live",
    "OwnWire": "wire.own",
    "Settings": "server.settings",
    "Watchdog": "server.watchdog",
    "create_app": "server.app",
    "load_settings": "server.configuration",
    "respond": "server.embed.own_route",
    "stream_response": "server.embed.unlogged",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"tokenwire.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'tokenwire.server' has no attribute '{name}'")
