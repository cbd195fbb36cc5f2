"""API keys and checks of the application's own: which principal sends a request.

Always true: a key is kept only as its SHA-256; every comparison takes the same time wherever it
fails; whatever a check returns that is not the name of a principal is a refusal.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Literal, cast

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from tokenwire.errors import ConfigError, NotAuthenticatedError, RoleError, TokenwireError
from tokenwire.events.names import TENANT_END, names_of, principal_fault
from tokenwire.events.principal import Principal, PrincipalLimits
from tokenwire.exits import EXITS, is_by_signal
from tokenwire.observe.line_limit import LineLimit
from tokenwire.server.access.api_keys import KeyFile, digests_of
from tokenwire.server.access.jwt_issuer import JwtIssuer, issuer_of
from tokenwire.server.hosted import User, ask, call
from tokenwire.server.settings import Settings
from tokenwire.server.tokens.grant import Grant

__all__ = [
    "Auth",
    "How",
    "Identity",
    "KeyCheckError",
    "Role",
    "Verify",
    "Vouched",
    "credential_of",
    "vouched_of",
]

#: Seconds until ``verify`` is asked again about the key behind a session that is in use.
RECHECK_SECONDS = 60.0
_MOST_VERDICTS = 10_000
_VOUCHED = "tokenwire.vouched"
#: Lines about a check of the application's own: every wrong key can cause one.
_REFUSED = LineLimit(logging.getLogger("tokenwire.server"), logging.ERROR)
_FAILED = LineLimit(logging.getLogger("tokenwire.server"), logging.ERROR)

#: A check of the application's own: a bearer credential to its principal, or the name of one, or
#: None to refuse it. It may be a coroutine function; any other runs in a thread.
Verify = Callable[[str], str | Principal | Awaitable[str | Principal | None] | None]

#: How a principal is known: ``open``: no key is needed; ``later``: a WebSocket's first message
#: brings the key; ``token``: the route checks a token of its own; ``host``: the application around
#: the server says so.
How = Literal["open", "key", "session", "attach", "later", "token", "host"]


Role = Literal["read", "write", "approve", "admin", "produce"]


class KeyCheckError(TokenwireError):
    """The application's own check raised an exception."""


class Identity(msgspec.Struct, frozen=True):
    """Who sends a request. ``principal``: its name, tenant included; ``key``: the SHA-256 of the
    credential behind it (of a JSON Web Token, the thumbprint of the key that signed it), empty
    without one; ``credential``: itself, only where ``verify`` vouches for it and may be asked
    again; ``roles``: None permits everything; ``until``: Unix seconds at which a JSON Web Token
    counts no more, 0 for what has no such end."""

    principal: str = ""
    how: How = "open"
    key: bytes = b""
    credential: str = ""
    roles: frozenset[str] | None = None
    limits: PrincipalLimits | None = None
    tenant_limits: PrincipalLimits | None = None
    until: float = 0.0
    #: The session that it comes from, and the Unix seconds at which that ends.
    session: str = ""
    ends: int = 0
    #: What a token lets its holder do; None where it is all that the principal may.
    grant: Grant | None = None
    #: Of a user that the application around the server names: what that rests on, None without.
    vouched: Vouched | None = None

    @property
    def is_listed(self) -> bool:
        """Whether a key of a list or a file is behind it, and nothing that could be asked."""
        return bool(self.key) and not self.credential and not self.until

    def __repr__(self) -> str:
        return f"Identity({self.principal!r}, {self.how!r})"

    @classmethod
    def of(cls, who: Principal, how: How, key: bytes = b"", credential: str = "") -> Identity:
        """The identity of ``who``."""
        return cls(who.name, how, key, credential, who.roles, who.limits, who.tenant_limits)

    def by_host(self, vouched: Vouched | None) -> Identity:
        """This identity as the application around the server names it. Its credential stays with
        ``vouched``, which is asked again while a connection is open."""
        until = 0.0 if vouched is None else vouched.identity.until
        return msgspec.structs.replace(self, until=until, vouched=vouched)

    @property
    def tenant(self) -> str | None:
        """The principal's tenant; None without one."""
        tenant, end, _ = self.principal.rpartition(TENANT_END)
        return tenant if end else None

    @property
    def user(self) -> str:
        """The principal's id, without its tenant."""
        return self.principal.rpartition(TENANT_END)[2]

    @property
    def holder(self) -> Principal:
        """The principal itself. Raises `ConfigError` where everybody is one."""
        roles = None if self.roles is None else self.roles - {"produce"}
        return Principal(
            self.user, self.tenant, roles, self.limits, tenant_limits=self.tenant_limits
        )

    def permits(self, role: Role) -> bool:
        """Whether the principal has this role. Each role includes ``read``, ``admin`` all, and
        ``write`` also ``produce``, which only tokens have by itself."""
        if self.roles is None or "admin" in self.roles:
            return True
        if role == "produce" and "write" in self.roles:
            return True
        return bool(self.roles) if role == "read" else role in self.roles

    def require(self, role: Role) -> None:
        """Raise `RoleError` unless the principal has this role."""
        if not self.permits(role):
            raise RoleError(f"this needs the role '{role}', which you do not have", role=role)


class Vouched(msgspec.Struct, frozen=True):
    """A credential that an `Auth` of the application accepted for a request; ``auth`` is asked
    again about ``identity``, whom it named."""

    auth: Auth
    identity: Identity


def vouched_of(scope: Scope) -> Vouched | None:
    """What the user of the request of ``scope`` rests on; None where no `Auth` accepted a
    credential of it."""
    return scope.get(_VOUCHED)


class Auth:
    """Who may send requests to a server: holders of ``keys`` (``NAME:KEY``, or a key alone), of
    JSON Web Tokens of the issuer ``jwt``, of credentials that ``verify`` knows, and whoever
    ``user`` recognizes by the whole request, such as by a cookie of its login. Without any of them
    everybody is principal ``""``.

    ``verify`` takes the credential of a request (a bearer token, or ``X-Api-Key``), ``user`` its
    ``starlette.requests.HTTPConnection``, which a WebSocket is as well. Both return a
    `tokenwire.Principal`, or the name of one, or None to refuse; either may be a coroutine
    function, any other runs in a thread. A credential is judged first; ``user`` is asked about
    requests that bring none, and about those whose credential nothing else knows.

    It goes to ``create_app(auth=...)``; wherever `Live` takes a ``user`` it takes an `Auth`. Raises
    `ConfigError` for keys that are none.
    """

    def __init__(
        self,
        keys: str | Iterable[str] | None = None,
        *,
        verify: Verify | None = None,
        user: User | None = None,
        jwt: JwtIssuer | None = None,
    ) -> None:
        self._fixed = digests_of(names_of(keys or (), "keys"))
        self._file: KeyFile | None = None
        self._verify, self._user, self.jwt = verify, user, jwt
        #: Digest of a credential -> its principal and until when that holds (monotonic time).
        self._verdicts: dict[bytes, tuple[Principal, float]] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Auth:
        """The keys of ``settings`` and of their key file, and their issuer of tokens. Raises
        `ConfigError`."""
        auth = cls(settings.api_keys, jwt=issuer_of(settings))
        if settings.api_key_file:
            auth._file = KeyFile(settings.api_key_file, auth._fixed)
        return auth

    def start(self) -> None:
        """Have the issuer's keys soon, without waiting for them."""
        if self.jwt is not None:
            self.jwt.keys.start()

    async def aclose(self) -> None:
        """Stop a fetch of keys that is under way."""
        if self.jwt is not None:
            await self.jwt.keys.aclose()

    @property
    def on(self) -> bool:
        """Whether a request must say who sends it."""
        return self.takes_keys or self._user is not None

    @property
    def takes_keys(self) -> bool:
        """Whether a credential is one of the ways."""
        return bool(self._fixed) or self.asks

    @property
    def takes_requests(self) -> bool:
        """Whether the whole request is one of the ways."""
        return self._user is not None

    @property
    def asks(self) -> bool:
        """Whether a credential that counts now may count no more a moment later: the application's
        own check vouches for it, an issuer of tokens, or a file."""
        return self._verify is not None or self.jwt is not None or self._file is not None

    async def __call__(self, connection: HTTPConnection) -> Principal | None:
        """The principal that sends a request, None to refuse it: an `Auth` is a ``user`` itself.
        Raises `KeyCheckError` when a check raises."""
        credential = credential_of(dict(connection.scope["headers"]))
        if credential:
            try:
                identity = await self.check_key(credential)
                connection.scope[_VOUCHED] = Vouched(self, identity)
                return identity.holder
            except NotAuthenticatedError:
                pass  # it may be for the application's own login
        return await self.check_request(connection)

    async def check_request(self, connection: HTTPConnection) -> Principal | None:
        """The principal that ``user`` names for ``connection``; None without one. Raises
        `KeyCheckError` when it raises, and `TokenwireError` for what is no name."""
        if self._user is None:
            return None
        try:
            return await ask(self._user, connection)
        except NotAuthenticatedError:
            return None
        except (TokenwireError, HTTPException):
            raise
        except (Exception, *EXITS) as error:
            if is_by_signal(error):
                raise
            raise _failure("user", error) from None

    def recheck_at(self, identity: Identity, since: float) -> float:
        """From when on (monotonic seconds) ``identity``, which was accepted at ``since`` at the
        latest, is to be checked again."""
        if identity.vouched is not None:
            return identity.vouched.auth.recheck_at(identity.vouched.identity, since)
        if identity.is_listed and self._listed().get(identity.key) != identity.principal:
            return -math.inf
        verdict = self._verdicts.get(identity.key)
        due = since + RECHECK_SECONDS if verdict is None else verdict[1]
        if identity.until:
            due = min(due, time.monotonic() + identity.until - time.time())
        return due

    async def check_key(self, key: str) -> Identity:
        """The identity of the holder of ``key``. Raises `NotAuthenticatedError`, `KeyCheckError`
        when ``verify`` raises, and `IssuerUnavailableError`."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        principal: str | None = None
        for known_digest, name in self._listed().items():
            if hmac.compare_digest(known_digest, digest):
                principal = name
        if principal is not None:
            return Identity(principal, "key", digest)
        refusal = NotAuthenticatedError("unknown API key")
        if self.jwt is not None and self.jwt.takes(key):
            try:
                token = await self.jwt.check(key)
            except NotAuthenticatedError as error:
                refusal = error
            else:
                identity = Identity.of(token.principal, "key", token.key)
                return msgspec.structs.replace(identity, until=token.until)
        who = None
        if self._verify is not None:
            who = await self._verified(self._verify, key, digest)
        if who is None:
            raise refusal
        return Identity.of(who, "key", digest, key)

    def knows(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with these ``headers`` is of somebody who may do everything, as far as
        that is known at once: it needs no key, or brings one of the list, or one that ``verify``
        took a minute ago at most."""
        if not self.on:
            return True
        credential = credential_of(headers)
        if not credential:
            return False
        digest = hashlib.sha256(credential.encode("utf-8", "surrogateescape")).digest()
        is_listed = False
        for listed in self._listed():
            is_listed |= hmac.compare_digest(listed, digest)
        if is_listed:
            return True
        who, until = self._verdicts.get(digest, (None, 0.0))
        return who is not None and who.roles is None and time.monotonic() < until

    async def is_current(self, identity: Identity) -> bool:
        """Whether what is behind a session, token or WebSocket still stands for the principal of
        ``identity``, with its roles. ``verify`` is asked again once a minute. Raises
        `KeyCheckError` when it raises, and `IssuerUnavailableError`."""
        if identity.vouched is not None:
            return await identity.vouched.auth.is_current(identity.vouched.identity)
        if (name := self._listed().get(identity.key)) is not None:
            return name == identity.principal
        if identity.until:
            return self.jwt is not None and await self.jwt.is_current(identity.until, identity.key)
        if self._verify is None or not identity.credential:
            return False
        who, until = self._verdicts.get(identity.key, (None, 0.0))
        if time.monotonic() >= until:
            who = await self._verified(self._verify, identity.credential, identity.key)
        return who is not None and who.name == identity.principal and _has_still(who, identity)

    def may_change(self, identity: Identity) -> bool:
        """Whether what ``identity`` rests on may count no more while it is in use."""
        if identity.credential or identity.until or identity.vouched is not None:
            return True
        return identity.is_listed and self._file is not None

    def _listed(self) -> Mapping[bytes, str]:
        """The names of the keys of the list and the file, by digest."""
        return self._fixed if self._file is None else self._file.digests()

    def with_limits(self, identity: Identity) -> Identity:
        """``identity``, which is current, with the limits that ``verify`` names for its key."""
        who, _ = self._verdicts.get(identity.key, (None, 0.0))
        if who is None:
            return identity
        return msgspec.structs.replace(identity, limits=who.limits, tenant_limits=who.tenant_limits)

    async def _verified(self, verify: Verify, key: str, digest: bytes) -> Principal | None:
        self._verdicts.pop(digest, None)
        try:
            principal = await _principal_of(verify, key)
        except ConfigError as error:  # of a Principal that is not valid
            raise _failure("verify", error) from None
        except (TokenwireError, HTTPException):
            raise
        except (Exception, *EXITS) as error:
            if is_by_signal(error):
                raise
            raise _failure("verify", error) from None
        if principal is not None:
            if len(self._verdicts) >= _MOST_VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[digest] = principal, time.monotonic() + RECHECK_SECONDS
        return principal


def _failure(check: str, error: BaseException) -> KeyCheckError:
    """What a client is told of ``error``. Its text may be the key itself, as that of a KeyError is:
    the log gets the place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    _FAILED.log(
        "Auth(%s=...) raised %s in %s, line %d; the key is refused",
        check,
        type(error).__name__,
        place.name,
        place.lineno or 0,
    )
    return KeyCheckError("the key cannot be checked; the server's log says why")


def _has_still(who: Principal, identity: Identity) -> bool:
    """Whether ``who`` has every role that ``identity`` was given; each role includes ``read``."""
    if who.roles is None or "admin" in who.roles:
        return True
    roles = identity.roles
    return roles is not None and bool(who.roles) and _needed(roles) <= who.roles


def _needed(roles: frozenset[str]) -> frozenset[str]:
    """The roles of a principal that may give ``roles`` to a token."""
    return frozenset("write" if role == "produce" else role for role in roles - {"read"})


async def _principal_of(verify: Verify, key: str) -> Principal | None:
    verdict = await call(verify, key)
    if verdict is None or isinstance(verdict, Principal):
        return verdict
    fault = principal_fault(verdict)
    if fault is None:
        return Principal(cast(str, verdict))
    if isinstance(verdict, Coroutine):  # of a coroutine function that returned one
        verdict.close()
    _REFUSED.log(
        "Auth(verify=...) must return a Principal, its name or None: the name %s; the key is "
        "refused",
        fault,
    )
    return None


def credential_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The credential that a request's headers bring: a bearer token, else ``X-Api-Key``."""
    value = headers.get(b"authorization", b"").decode("latin-1")
    scheme, _, key = value.partition(" ")
    if key and scheme.lower() == "bearer":
        return key.strip()
    return headers.get(b"x-api-key", b"").decode("latin-1") or None
