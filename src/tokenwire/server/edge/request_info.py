"""What the guard knows about a request; routes read it from ``scope["tokenwire"]``."""

from __future__ import annotations

import secrets
from hashlib import sha256
from typing import Any

from starlette.types import Scope

from tokenwire.events.principal import Principal
from tokenwire.server.edge.auth import How, Identity, vouched_of

__all__ = ["RequestInfo", "identity_of", "request_info"]

_KEY = "tokenwire"


class RequestInfo:
    """What the guard found out about a request; `request_info` reads it from the scope."""

    __slots__ = (
        "body",
        "client",
        "headers",
        "id",
        "identity",
        "json",
        "mount",
        "noted",
        "path",
        "secure",
        "status",
        "token",
        "user",
    )

    def __init__(
        self, headers: dict[bytes, bytes], client: str, secure: bool, mount: str, path: str
    ) -> None:
        self.id = secrets.token_hex(8)
        self.headers = headers
        self.client = client
        #: The request came over TLS, as far as a trusted proxy says.
        self.secure = secure
        #: Where an application around this one has put it, and the path below that.
        self.mount, self.path = mount, path
        self.identity = Identity()
        #: The principal that the application around this one named; None without one.
        self.user: Principal | None = None
        #: The token or ticket that it brings; None without one.
        self.token: str | None = None
        self.body = b""
        #: The parsed JSON body; None without one.
        self.json: Any = None
        self.status = 0
        #: Headers of the answer that were noted meanwhile.
        self.noted: list[tuple[bytes, bytes]] = []

    @property
    def principal(self) -> str:
        """Whose request it is: the name under which runs are stored, tenant included."""
        return self.identity.principal

    @property
    def reader(self) -> str:
        """What stands for whoever reads: tabs of one browser that got the same are of one
        principal."""
        return sha256(self.principal.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @property
    def by(self) -> str | None:
        """Who acts, for logs that readers of the same principal see; None without keys."""
        return self.identity.user or None

    @property
    def how(self) -> How:
        """How the principal is known."""
        return self.identity.how


def request_info(scope: Scope) -> RequestInfo:
    """The guard's knowledge of the request of ``scope``."""
    return scope[_KEY]


def identity_of(scope: Scope) -> Identity | None:
    """Who sends the request of ``scope``. In a route of an application's own, which no guard is
    before, whoever an `Auth` accepted there; None without one."""
    info: RequestInfo | None = scope.get(_KEY)
    if info is not None:
        return info.identity
    vouched = vouched_of(scope)
    return (
        None if vouched is None else Identity.of(vouched.identity.holder, "host").by_host(vouched)
    )
