"""Where a request has its token: a header, a subprotocol, or (a ticket) its address.

Always true: a ticket is taken out of the address before anything else sees it.
"""

from __future__ import annotations

from starlette.types import Scope

from tokenwire.server.edge.auth import credential_of
from tokenwire.server.edge.sessions import ATTACH
from tokenwire.server.tokens.tokens import TICKET, TOKEN

__all__ = ["PROTOCOL", "take_token"]

#: A WebSocket of a page has no headers of its own; one of the subprotocols that it offers is this,
#: then the token. The server answers with another one, ``tokenwire``.
PROTOCOL = "tokenwire.token."
_PARAMETER = f"ticket={TICKET}".encode()
_TAKEN = "tokenwire.token"


def take_token(scope: Scope) -> str | None:
    """The token or ticket of a request or WebSocket; None where it brings none."""
    if _TAKEN in scope:
        return scope[_TAKEN]
    token = _in_headers(scope)
    query = scope.get("query_string", b"")
    if _PARAMETER in query:
        fields = query.split(b"&")
        tickets = [field for field in fields if field.startswith(_PARAMETER)]
        scope["query_string"] = b"&".join(field for field in fields if field not in tickets)
        if token is None and tickets:
            token = tickets[0].partition(b"=")[2].decode("latin-1")
    scope[_TAKEN] = token
    return token


def _in_headers(scope: Scope) -> str | None:
    credential = credential_of(dict(scope["headers"]))
    if credential and credential.startswith((TOKEN, ATTACH)):
        return credential
    for name in scope.get("subprotocols", ()):
        if name.startswith(PROTOCOL + TOKEN):
            return name.removeprefix(PROTOCOL)
    return None
