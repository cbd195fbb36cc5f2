"""Tokens that reach one run or one conversation: issue, refresh, check, redeem, revoke.

Always true: a token is signed with the store's secret and names its target, scopes and end; it
grants no more than its issuer may do and lasts no longer than the issuer's session; a ticket opens
one request, on one of all servers of the store; a token whose run was erased, or that was revoked,
counts nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import msgspec

from tokenwire.errors import (
    ForbiddenError,
    GoneError,
    InputError,
    NotAuthenticatedError,
    NotFoundError,
    RoleError,
)
from tokenwire.events.principal import PrincipalLimits
from tokenwire.relay import Store
from tokenwire.relay.description import meta_of, scope_of_run
from tokenwire.relay.members.members import Members
from tokenwire.relay.members.roster import MEMBER_ROLES, MemberRole
from tokenwire.server.edge.auth import Auth, Identity
from tokenwire.server.edge.sessions import MOST_CREDENTIAL, SKEW, Sessions
from tokenwire.server.tokens.grant import EXPIRED, Grant, Kind, Scope, scopes_of

__all__ = ["MOST_TTL", "TICKET", "TICKET_SECONDS", "TOKEN", "TTL", "Target", "Tokens"]

#: How tokens and tickets begin.
TOKEN, TICKET = "access_", "ticket_"
#: Seconds for which a token is good unless its issuer says otherwise, and at most; and within which
#: a ticket is to be used.
TTL, MOST_TTL, TICKET_SECONDS = 600, 12 * 3600, 60
_LABELS = {TOKEN: b"tokenwire access", TICKET: b"tokenwire ticket"}
_USED, _REVOKED, _GENERATION = "ticket-used", "token-revoked", "token-generation"
#: Between the parts of a document's name; no name has it.
_BETWEEN = "\x1f"
#: Documents that one sweep looks at.
_MOST_SWEPT = 100_000


class Target(msgspec.Struct, frozen=True):
    """What a token is for. ``created``: Unix seconds, of a run. ``role``: of its issuer in the
    conversation, by the membership ``member``; ``is_shared``: whether that has other members."""

    kind: Kind
    name: str
    created: float = 0.0
    role: MemberRole = "own"
    member: str = ""
    is_shared: bool = False

    def require(self, scope: Scope) -> None:
        """Raise `RoleError` unless the issuer's role permits ``scope``."""
        needed: MemberRole = "write" if scope == "produce" else scope
        if MEMBER_ROLES.index(self.role) < MEMBER_ROLES.index(needed):
            raise RoleError(
                f"this needs the role '{needed}' in this conversation; yours is '{self.role}'",
                role=needed,
            )


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    """What a token says. ``id``: its own, ``family``: that of the first which it was refreshed
    from. Times are Unix seconds; ``redeem``: up to when a ticket is good."""

    id: str
    family: str
    kind: Kind
    name: str
    scopes: tuple[Scope, ...]
    issued: int
    ends: int
    until: int
    redeem: int
    principal: str
    key: bytes
    sealed: bytes
    generation: bytes
    created: float
    session: str
    limits: PrincipalLimits | None
    tenant_limits: PrincipalLimits | None
    #: When what is behind it ends, of an issuer of tokens.
    issuer_until: float
    #: The membership of its conversation that it rests on (`tokenwire.relay.members`).
    member: str = ""


class _Generation(msgspec.Struct, frozen=True, array_like=True):
    """Which tokens of a target count. ``ends``: when no older one can be alive."""

    name: bytes
    ends: float


class Tokens:
    """The tokens of one server; `open` it before use."""

    def __init__(self, auth: Auth, sessions: Sessions) -> None:
        self._auth, self._sessions = auth, sessions
        self._log: Store | None = None
        self._members: Members | None = None

    async def open(self, log: Store) -> None:
        """Use the documents of this store."""
        self._log, self._members = log, Members(log)

    # --- issuing -------------------------------------------------------------------------------

    async def issue(
        self,
        issuer: Identity,
        target: Target,
        *,
        scopes: Iterable[str] = ("read",),
        ttl: float | None = None,
        refresh: float | None = None,
        is_ticket: bool = False,
    ) -> tuple[str, Grant]:
        """A token (or ticket) for ``target``, good for ``ttl`` seconds and refreshable for
        ``refresh``. Raises `InputError`, and `ForbiddenError` for more than ``issuer`` may."""
        wanted = scopes_of(scopes)
        for scope in wanted:
            target.require(scope)
        now, by = int(time.time()), issuer.grant
        if by is None:
            for scope in wanted:
                issuer.require(scope)
        until = now + _seconds("refresh", refresh, MOST_TTL, least=0)
        ends = now + _seconds("ttl", ttl, TTL, least=1)
        if by is not None:
            _check_refresh(by, target, wanted, is_ticket=is_ticket, now=now)
            until, ends = min(until, by.until), min(ends, by.ends if is_ticket else by.until)
        else:
            for bound in filter(None, (issuer.ends, int(issuer.until))):
                until, ends = min(until, bound), min(ends, bound)
        name = os.urandom(16).hex()
        sealed = issuer.credential.encode("utf-8", "surrogateescape")
        if len(sealed) > MOST_CREDENTIAL:
            raise InputError("this key is too long for a token")
        # A refreshed one is of the generation that was checked, should it be revoked meanwhile.
        generation = by.generation if by is not None else await self._named(issuer, target)
        claims = _Claims(
            id=name,
            family=by.id if by is not None else name,
            kind=target.kind,
            name=target.name,
            scopes=wanted,
            issued=now,
            ends=ends,
            until=until,
            redeem=min(ends, now + TICKET_SECONDS),
            principal=issuer.principal,
            key=issuer.key,
            sealed=await self._sessions.crypt(name, sealed),
            generation=generation,
            created=by.created if by is not None else target.created,
            session=by.session if by is not None else issuer.session,
            limits=issuer.limits,
            tenant_limits=issuer.tenant_limits,
            issuer_until=issuer.until,
            member=by.member if by is not None else target.member,
        )
        prefix = TICKET if is_ticket else TOKEN
        text = await self._sessions.seal(_LABELS[prefix], msgspec.msgpack.encode(claims))
        return prefix + text, _grant_of(claims, is_ticket=is_ticket)

    async def _named(self, issuer: Identity, target: Target) -> bytes:
        generation = await self._generation(target.kind, issuer.principal, target.name)
        return generation.name if generation is not None else b""

    # --- checking ------------------------------------------------------------------------------

    async def check(self, text: str) -> Identity:
        """Who holds a token. Raises `NotAuthenticatedError`."""
        claims = await self._open(TOKEN, text)
        return await self._confirmed(self._identity(claims, is_ticket=False), claims.issued)

    async def redeem(self, text: str) -> Identity:
        """Who holds a ticket, which is used up by this. Raises `NotAuthenticatedError`."""
        claims = await self._open(TICKET, text)
        if time.time() >= claims.redeem:
            raise NotAuthenticatedError(EXPIRED)
        identity = await self._confirmed(self._identity(claims, is_ticket=True), claims.issued)
        if self._log is not None:
            mark = msgspec.msgpack.encode((claims.redeem, os.urandom(8)))
            if not await self._log.swap_document(_USED, claims.id, None, mark):
                raise NotAuthenticatedError("this ticket was used before")
        return identity

    async def confirm(self, identity: Identity) -> None:
        """Raise `NotAuthenticatedError` when a token that opened a connection no longer counts."""
        await self._confirmed(identity, int(time.time()))

    async def _open(self, prefix: str, text: str) -> _Claims:
        body = await self._sessions.unseal(_LABELS[prefix], text.removeprefix(prefix), EXPIRED)
        try:
            claims = msgspec.msgpack.decode(body, type=_Claims)
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise NotAuthenticatedError(EXPIRED) from None
        sealed = await self._sessions.crypt(claims.id, claims.sealed)
        return msgspec.structs.replace(claims, sealed=sealed)

    def _identity(self, claims: _Claims, *, is_ticket: bool) -> Identity:
        credential = claims.sealed.decode("utf-8", "surrogateescape")
        grant = _grant_of(claims, is_ticket=is_ticket)
        return Identity(
            claims.principal,
            "attach",
            claims.key,
            credential,
            roles=frozenset(claims.scopes),
            limits=claims.limits,
            tenant_limits=claims.tenant_limits,
            until=claims.issuer_until,
            grant=grant,
        )

    async def _confirmed(self, identity: Identity, issued: int) -> Identity:
        grant, now = identity.grant, time.time()
        if grant is None or not issued - SKEW <= now < grant.ends:
            raise NotAuthenticatedError(EXPIRED)
        if not identity.key and identity.until and now >= identity.until:
            raise NotAuthenticatedError(EXPIRED)  # the application's user had a token that ended
        if identity.key and not await self._auth.is_current(identity):
            raise NotAuthenticatedError(EXPIRED)
        # Of an issuer without a key: an application's user, or anybody where none is needed.
        if not identity.key and self._auth.on and not self._auth.takes_requests:
            raise NotAuthenticatedError(EXPIRED)
        if self._log is None:
            return identity
        if grant.session and await self._sessions.has_ended(grant.session):
            raise NotAuthenticatedError(EXPIRED)
        generation = await self._generation(grant.kind, identity.principal, grant.name)
        if generation is not None and generation.name != grant.generation:
            raise NotAuthenticatedError(EXPIRED)
        if await self._log.document(_REVOKED, grant.id) is not None:
            raise NotAuthenticatedError(EXPIRED)
        if not await self._is_there(grant, identity.principal):
            raise NotAuthenticatedError(EXPIRED)
        return identity

    async def _is_there(self, grant: Grant, principal: str) -> bool:
        """Whether the very run is there (one of the same id may have been begun after it), and the
        membership of its conversation, which may have ended, and another one begun."""
        assert self._log is not None
        assert self._members is not None
        if grant.kind == "thread":
            scope = await self._members.scope(principal, grant.name)
        else:
            try:
                info = await self._log.describe(grant.name)
            except (NotFoundError, GoneError):
                return False
            if info.created != grant.created:
                return False
            scope = scope_of_run(meta_of(info)) if info.meta else None
        if scope is None:
            return True
        access = await self._members.in_scope(scope, principal)
        return access is not None and access.member == grant.member

    # --- revoking ------------------------------------------------------------------------------

    async def revoke(self, kind: Kind, principal: str, name: str) -> None:
        """End all tokens and tickets for a run or a conversation, on every server of the store."""
        if self._log is not None:
            new = _Generation(os.urandom(8), time.time() + 2 * MOST_TTL)
            await self._log.set_document(
                _GENERATION, _document(kind, principal, name), msgspec.msgpack.encode(new)
            )

    async def revoke_one(self, grant: Grant) -> None:
        """End one token, and all that it was or will be refreshed to."""
        if self._log is not None:
            ends = max(grant.until, grant.ends)
            await self._log.set_document(_REVOKED, grant.id, msgspec.msgpack.encode((ends, b"")))

    async def revoke_text(self, text: str) -> None:
        """The same for a token as it was issued; nothing happens for one that does not count."""
        try:
            identity = await self.check(text)
        except NotAuthenticatedError:
            return
        if identity.grant is not None:
            await self.revoke_one(identity.grant)

    async def sweep(self) -> None:
        """Forget what only concerns tokens that would have ended by now."""
        if self._log is None:
            return
        now = time.time() - SKEW
        for kind in (_USED, _REVOKED, _GENERATION):
            for name, data in (await self._log.documents(kind, most=_MOST_SWEPT)).items():
                first, second = msgspec.msgpack.decode(data)
                if (second if kind == _GENERATION else first) < now:
                    await self._log.set_document(kind, name, None)

    async def _generation(self, kind: Kind, principal: str, name: str) -> _Generation | None:
        if self._log is None:
            return None
        data = await self._log.document(_GENERATION, _document(kind, principal, name))
        return None if data is None else msgspec.msgpack.decode(data, type=_Generation)


def _grant_of(claims: _Claims, *, is_ticket: bool) -> Grant:
    return Grant(
        kind=claims.kind,
        name=claims.name,
        scopes=claims.scopes,
        id=claims.family,
        ends=claims.ends,
        until=0 if is_ticket else claims.until,
        generation=claims.generation,
        created=claims.created,
        session=claims.session,
        member=claims.member,
        is_ticket=is_ticket,
    )


def _check_refresh(
    by: Grant, target: Target, scopes: tuple[Scope, ...], *, is_ticket: bool, now: int
) -> None:
    """Raise `ForbiddenError` unless a token may be made of the one behind ``by``."""
    if (target.kind, target.name) != (by.kind, by.name):
        raise ForbiddenError(f"this token is for one {by.kind}, and is refreshed there only")
    for scope in scopes:
        by.require(scope)
    if by.is_ticket or (not is_ticket and now >= by.until):
        raise ForbiddenError("this token cannot be refreshed any more; sign in")


def _document(kind: Kind, principal: str, name: str) -> str:
    return _BETWEEN.join((kind, principal, name))


def _seconds(field: str, value: float | None, usual: int, *, least: int) -> int:
    seconds = usual if value is None else value
    if isinstance(seconds, bool) or not least <= seconds <= MOST_TTL:
        raise InputError(f"'{field}' must be {least} to {MOST_TTL} seconds", field=field)
    return int(seconds)
