"""The agent card: who the server is, and where and how it is reached.

Always true: the public card names no model or agent; the extended one, which needs a key where the
server does, names them all.
"""

from __future__ import annotations

from typing import Any

from tokenwire import __version__
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.state import State

__all__ = ["card_of"]

VERSION = "1.0"


def base_of(state: State, info: RequestInfo) -> str:
    """The server's own address, as its clients reach it."""
    if state.settings.public_url is not None:
        return state.settings.public_url.rstrip("/")
    host = info.headers.get(b"host", b"localhost").decode("latin-1")
    return f"{'https' if info.secure else 'http'}://{host}{info.mount}"


def card_of(state: State, info: RequestInfo, *, extended: bool = False) -> dict[str, Any]:
    """The card; ``extended``: with a skill for each agent and model."""
    url = f"{base_of(state, info)}/a2a"
    agents, principal = state.agents, info.principal
    names = [n for n in state.model_names if n not in agents or agents[n].allows(principal)]
    modes = ["text/plain", "application/json"]
    skills = [
        {
            "id": name,
            "name": name,
            "description": _about(state, name),
            "tags": ["agent" if name in state.agents else "model"],
        }
        for name in (names if extended else ())
    ]
    card: dict[str, Any] = {
        "name": "tokenwire",
        "description": "Agents and models, whose tasks survive cuts, restarts and takeovers.",
        "version": __version__,
        "supportedInterfaces": [
            {"url": url, "protocolBinding": binding, "protocolVersion": VERSION}
            for binding in ("JSONRPC", "HTTP+JSON")
        ],
        "capabilities": {
            "streaming": True,
            "pushNotifications": bool(state.settings.a2a_push),
            "extendedAgentCard": True,
        },
        "defaultInputModes": modes,
        "defaultOutputModes": modes,
        "skills": skills
        or [
            {
                "id": "answer",
                "name": "Answer",
                "description": "Answers a message, or does what it asks for.",
                "tags": ["chat"],
            }
        ],
    }
    if state.auth.on:
        scheme = {"httpAuthSecurityScheme": {"scheme": "Bearer", "description": "An API key."}}
        card["securitySchemes"] = {"key": scheme}
        card["securityRequirements"] = [{"schemes": {"key": {"list": []}}}]
    return card


def _about(state: State, name: str) -> str:
    if name in state.agents:
        return f"The agent {name}; name it as the request's tenant."
    return f"The model {name}; name it as the request's tenant."
