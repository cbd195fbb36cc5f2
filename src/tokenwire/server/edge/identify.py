"""Who sends a request: by key, session, or a token for one run or conversation; wrong keys are
slowed.

Always true: a right key is never refused because of wrong ones; wrong ones of one address (of one
/64 in IPv6) are counted, and beyond the limit answered with 429; a token opens the paths of its
scopes and no others, also where the application around the server names a user.
"""

from __future__ import annotations

import re
import time

from starlette.requests import HTTPConnection
from starlette.types import Scope

from tokenwire.errors import NotAuthenticatedError
from tokenwire.relay import Store
from tokenwire.server.access.jwt_issuer import MOST_TOKEN
from tokenwire.server.edge.auth import (
    Auth,
    Identity,
    KeyCheckError,
    credential_of,
    vouched_of,
)
from tokenwire.server.edge.limits import Limits
from tokenwire.server.edge.problems import HTTPProblem
from tokenwire.server.edge.request_info import RequestInfo
from tokenwire.server.edge.sessions import ATTACH, Sessions, cookie_of
from tokenwire.server.tokens.rules import check_path
from tokenwire.server.tokens.tokens import TICKET, Tokens

__all__ = ["Identify", "check_reader"]

_EVENTS = re.compile(r"/v1/runs/([A-Za-z0-9_-]{16,64})/events")
_MOST_KEY = 1000


def check_reader(info: RequestInfo) -> None:
    """Refuse what is not sent as whom it was written by: a page that outlived its session. A socket
    whose first message brings the key cannot say yet who it is."""
    reader = info.headers.get(b"tokenwire-reader")
    if reader is not None and reader.decode("latin-1") != info.reader:
        message = "the caller is another principal than the 'Tokenwire-Reader' of this request"
        raise HTTPProblem(412, "other_reader", message)


class Identify:
    """The check of one server, for HTTP and WebSockets."""

    def __init__(
        self, auth: Auth, sessions: Sessions, limits: Limits, *, hosted: bool = False
    ) -> None:
        self.auth, self.sessions, self._limits = auth, sessions, limits
        self.tokens = Tokens(auth, sessions)
        #: Whether the application around this one says who its users are.
        self.hosted = hosted

    async def open(self, log: Store) -> None:
        """Use the secret and the documents of this store."""
        await self.sessions.open(log)
        await self.tokens.open(log)

    async def by_key(self, key: str, address: str, scope: Scope | None = None) -> Identity:
        """The holder of a key, or whoever the application recognizes by the request of ``scope``.
        Raises `NotAuthenticatedError`, or `BusyError` for one wrong key too many of that address;
        `KeyCheckError` when the application's own check raises."""
        try:
            try:
                if len(key) > (_MOST_KEY if self.auth.jwt is None else MOST_TOKEN):
                    raise NotAuthenticatedError("unknown API key")
                return await self.auth.check_key(key)
            except NotAuthenticatedError:
                identity = None if scope is None else await self._by_request(scope)
                if identity is None:
                    raise
                return identity
        except (NotAuthenticatedError, KeyCheckError):
            self._limits.wrong_key(address)
            raise

    async def _by_request(self, scope: Scope) -> Identity | None:
        """Who sends a request, as the application recognizes it."""
        principal = await self.auth.check_request(HTTPConnection(scope))
        return (
            None if principal is None else Identity.of(principal, "host").by_host(vouched_of(scope))
        )

    async def confirm(self, identity: Identity) -> None:
        """Raise `NotAuthenticatedError` when the key or the session of a connection that stays open
        no longer counts."""
        if identity.grant is not None:
            await self.tokens.confirm(identity)
            return
        if self.auth.may_change(identity) and not await self.auth.is_current(identity):
            raise NotAuthenticatedError("the key behind this connection is no longer valid")
        if identity.session:
            is_over = time.time() >= identity.ends
            if is_over or await self.sessions.has_ended(identity.session):
                raise NotAuthenticatedError("the session behind this connection has ended")

    async def of_request(self, info: RequestInfo, scope: Scope) -> Identity:
        """The sender of a request. Raises as `by_key` does."""
        if info.token is not None and self._counts(info.token):
            return await self.by_token(info.token, info, scope["method"])
        if info.user is not None:
            return Identity.of(info.user, "host").by_host(vouched_of(scope))
        if not self.auth.on and not self.hosted:
            return Identity()
        credential = credential_of(info.headers)
        if credential:
            return await self.by_key(credential, info.client, scope)
        session, identity = self.session_of(info), await self._by_request(scope)
        if identity is not None:
            return identity
        if session:
            return await self.sessions.check(session)
        if not self.auth.takes_keys:
            raise NotAuthenticatedError("sign in first")
        raise NotAuthenticatedError(
            "missing API key; send it as 'Bearer KEY' in the Authorization header"
        )

    async def of_socket(self, info: RequestInfo, scope: Scope) -> Identity:
        """The sender of a WebSocket's upgrade; ``later`` when its first message brings the key.
        Cookies of others, or an expired session, do not keep it from doing so."""
        if info.token is not None and self._counts(info.token):
            return await self.by_token(info.token, info, "WEBSOCKET")
        if info.user is not None:
            return Identity.of(info.user, "host").by_host(vouched_of(scope))
        if self.hosted:
            raise NotAuthenticatedError("sign in first")
        if not self.auth.on:
            return Identity()
        credential = credential_of(info.headers)
        if credential:
            return await self.by_key(credential, info.client, scope)
        session = self.session_of(info)
        if session:
            try:
                return await self.sessions.check(session)
            except NotAuthenticatedError:
                pass
        identity = await self._by_request(scope)
        if identity is None and not self.auth.takes_keys:
            raise NotAuthenticatedError("sign in first")
        return identity or Identity(how="later")

    async def by_token(self, token: str, info: RequestInfo, method: str) -> Identity:
        """The holder of a token or ticket, where it opens the path. Raises
        `NotAuthenticatedError`, `ForbiddenError`, and `NotFoundError` for what it does not reach.
        """
        if token.startswith(ATTACH):
            run = _EVENTS.fullmatch(info.path)
            if run is None or method != "GET":
                raise NotAuthenticatedError("this token only reads the events of one run")
            return await self.sessions.check_attach(token, run[1])
        if token.startswith(TICKET):
            if method not in ("GET", "WEBSOCKET"):
                raise NotAuthenticatedError("a ticket opens a stream; send a token in a header")
            identity = await self.tokens.redeem(token)
        else:
            identity = await self.tokens.check(token)
        if identity.grant is not None:
            check_path(identity.grant, method, info.path)
        return identity

    def _counts(self, token: str) -> bool:
        """Without keys nobody is kept out, and a token that only reads changes nothing."""
        return self.auth.on or self.hosted or not token.startswith(ATTACH)

    def session_of(self, info: RequestInfo) -> str | None:
        """The value of the session's cookie."""
        name = self.sessions.cookie_name(secure=info.secure, mount=info.mount)
        return cookie_of(info.headers, name)
