"""Sessions of the page and tokens that read one run: signed with a secret that the store holds.

Always true: the secret is random and made in the store, so that all processes of one store share it
and nobody can work it out from a key; a session or token names the key behind it, its beginning and
its end, and counts for no longer than that key does (the credential that the application's own
check vouched for is in it, sealed, and is checked again once a minute); a session that was ended
counts nowhere; what cannot be checked is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import time
from collections.abc import Mapping

import msgspec

from tokenwire.errors import InputError, NotAuthenticatedError
from tokenwire.relay import Store
from tokenwire.server.edge.auth import Auth, How, Identity

__all__ = ["ATTACH", "MOST_CREDENTIAL", "SKEW", "Sessions", "cookie_of", "rotate_secret"]

#: Begins every token that reads one run.
ATTACH = "attach_"
#: Seconds for which a session lasts, and a token that reads one run.
_SESSION_SECONDS = 12 * 3600
_ATTACH_SECONDS = 600
#: How far the clocks of two servers may differ, in seconds.
SKEW = 60
#: Seconds after which the secret is read again: until then a rotated one still counts.
_REREAD_SECONDS = 1.0
_KIND, _NAME, _ENDED = "server-secret", "sessions", "session-ended"
#: Ended sessions that one sweep looks at.
_MOST_SWEPT = 100_000
_MOST_TOKEN = 3600
#: Bytes of a credential that a cookie, of at most 4 KiB, has room for.
MOST_CREDENTIAL = 1200
_SESSION = b"tokenwire session"


class _Secret(msgspec.Struct, frozen=True):
    """``id`` is public: cookies are named after it."""

    id: str
    key: bytes


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    """What a session or token says."""

    purpose: str
    id: str
    issued: int
    ends: int
    principal: str
    key: bytes
    #: The credential behind it, sealed; only where the application's own check vouches for it.
    sealed: bytes = b""
    #: When the JSON Web Token behind it ends; and the roles of the principal, None for all.
    until: float = 0.0
    roles: list[str] | None = None

    def identity(self, how: How) -> Identity:
        """Whose it is, once the credential is open."""
        credential = self.sealed.decode("utf-8", "surrogateescape")
        roles = None if self.roles is None else frozenset(self.roles)
        if how == "attach":
            roles = frozenset({"read"})
        return Identity(self.principal, how, self.key, credential, roles, until=self.until)


class Sessions:
    """The sessions and tokens of one server. Until `open` it has a secret of its own."""

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._log: Store | None = None
        self._secret = _new_secret()
        self._reread_at = 0.0

    async def open(self, log: Store) -> None:
        """Take the store's secret, made when there is none."""
        self._log = log
        self._secret = await _stored_secret(log)
        self._reread_at = time.monotonic() + _REREAD_SECONDS

    def cookie_name(self, *, secure: bool, mount: str) -> str:
        """The cookie of a session. Browsers do not tell ports and paths of a host apart as strictly
        as origins, so every store and mount has a name of its own; over TLS its prefix keeps other
        hosts of the domain from setting it."""
        place = hashlib.sha256(f"{self._secret.id}{mount}".encode()).hexdigest()[:12]
        return f"{'__Host-' if secure else ''}tokenwire_session_{place}"

    async def sign_in(self, identity: Identity) -> tuple[str, int]:
        """A signed session for a cookie, and the seconds that it lasts."""
        seconds = _SESSION_SECONDS
        if identity.until:  # it counts for no longer than the token behind it
            seconds = max(1, min(seconds, int(identity.until - time.time())))
        return await self._sign("session", identity, seconds), seconds

    async def check(self, token: str) -> Identity:
        """The identity behind a session. Raises `NotAuthenticatedError`."""
        refusal = "invalid or expired session; sign in again"
        claims = await self._open("session", token, _SESSION_SECONDS, refusal)
        if await self.has_ended(claims.id):
            raise NotAuthenticatedError(refusal)
        identity = self._auth.with_limits(claims.identity("session"))
        return msgspec.structs.replace(identity, session=claims.id, ends=claims.ends)

    async def end(self, token: str) -> str | None:
        """End a session, on every server of the store: its id. Nothing happens for an invalid
        one."""
        try:
            claims = await self._open("session", token, _SESSION_SECONDS, "")
        except NotAuthenticatedError:
            return None
        if self._log is not None:
            await self._log.set_document(_ENDED, claims.id, b"%d" % claims.ends)
        return claims.id

    async def attach_token(self, identity: Identity, run: str) -> tuple[str, int]:
        """A token that reads one run and does nothing else, and the seconds that it lasts."""
        token = await self._sign(f"attach:{run}", identity, _ATTACH_SECONDS)
        return ATTACH + token, _ATTACH_SECONDS

    async def check_attach(self, token: str, run: str) -> Identity:
        """The identity whose run this token may read. Raises `NotAuthenticatedError`."""
        refusal = "invalid or expired token for this run"
        token = token.removeprefix(ATTACH)
        claims = await self._open(f"attach:{run}", token, _ATTACH_SECONDS, refusal)
        return claims.identity("attach")

    async def sweep(self) -> None:
        """Forget ended sessions that would be over by now."""
        if self._log is None:
            return
        now = time.time() - SKEW
        for name, data in (await self._log.documents(_ENDED, most=_MOST_SWEPT)).items():
            if not data.isdigit() or int(data) < now:
                await self._log.set_document(_ENDED, name, None)

    async def seal(self, label: bytes, body: bytes) -> str:
        """``body``, signed for what ``label`` says, as a text for headers and addresses."""
        secret = await self._current_secret()
        return base64.urlsafe_b64encode(_mac(secret, body, label) + body).decode().rstrip("=")

    async def unseal(self, label: bytes, text: str, refusal: str) -> bytes:
        """The body of what `seal` made. Raises `NotAuthenticatedError` for anything else."""
        try:
            if len(text) > _MOST_TOKEN:
                raise ValueError
            raw = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True)
        except ValueError:
            raise NotAuthenticatedError(refusal) from None
        mac, body = raw[:32], raw[32:]
        if not hmac.compare_digest(mac, _mac(await self._current_secret(), body, label)):
            raise NotAuthenticatedError(refusal)
        return body

    async def crypt(self, name: str, data: bytes) -> bytes:
        """Hide the credential behind the token called ``name``, or show it again."""
        return _crypt(await self._current_secret(), name, data)

    async def has_ended(self, session: str) -> bool:
        """Whether somebody ended the session with this id."""
        return self._log is not None and await self._log.document(_ENDED, session) is not None

    async def _sign(self, purpose: str, identity: Identity, seconds: int) -> str:
        now = int(time.time())
        name = os.urandom(16).hex()
        sealed = await self.crypt(name, identity.credential.encode("utf-8", "surrogateescape"))
        if len(sealed) > MOST_CREDENTIAL:
            raise InputError("this key is too long for a session; send it with each request")
        claims = _Claims(
            purpose,
            name,
            now,
            now + seconds,
            identity.principal,
            identity.key,
            sealed,
            identity.until,
            None if identity.roles is None else sorted(identity.roles),
        )
        return await self.seal(_SESSION, msgspec.msgpack.encode(claims))

    async def _open(self, purpose: str, token: str, most_seconds: int, refusal: str) -> _Claims:
        body = await self.unseal(_SESSION, token, refusal)
        try:
            claims = msgspec.msgpack.decode(body, type=_Claims)
        except msgspec.DecodeError:
            raise NotAuthenticatedError(refusal) from None
        now = time.time()
        is_timely = claims.issued <= now + SKEW and now < claims.ends
        if claims.purpose != purpose or not is_timely or claims.ends - claims.issued > most_seconds:
            raise NotAuthenticatedError(refusal)
        sealed = await self.crypt(claims.id, claims.sealed)
        claims = msgspec.structs.replace(claims, sealed=sealed)
        if self._auth.on and not await self._auth.is_current(claims.identity("session")):
            raise NotAuthenticatedError(refusal)
        return claims

    async def _current_secret(self) -> _Secret:
        if self._log is not None and time.monotonic() >= self._reread_at:
            self._secret = await _stored_secret(self._log)
            self._reread_at = time.monotonic() + _REREAD_SECONDS
        return self._secret


async def rotate_secret(log: Store) -> None:
    """A new secret: every session and every token that reads a run ends, on every server of the
    store, within a second."""
    while True:
        data = await log.document(_KIND, _NAME)
        new = _new_secret()
        if data is not None:  # cookies keep their name
            new = _Secret(msgspec.msgpack.decode(data, type=_Secret).id, new.key)
        if await log.swap_document(_KIND, _NAME, data, msgspec.msgpack.encode(new)):
            return


async def _stored_secret(log: Store) -> _Secret:
    while True:
        data = await log.document(_KIND, _NAME)
        if data is not None:
            return msgspec.msgpack.decode(data, type=_Secret)
        new = _new_secret()
        if await log.swap_document(_KIND, _NAME, None, msgspec.msgpack.encode(new)):
            return new


def _new_secret() -> _Secret:
    return _Secret(os.urandom(8).hex(), os.urandom(32))


def _mac(secret: _Secret, body: bytes, label: bytes) -> bytes:
    return hmac.new(secret.key, label + b"\0" + body, hashlib.sha256).digest()


def _crypt(secret: _Secret, name: str, data: bytes) -> bytes:
    """Seal a credential, or open it: a keystream that each token has of its own, as its id is
    random and used once."""
    seed = b"tokenwire credential\0" + secret.key + name.encode()
    stream = hashlib.shake_256(seed).digest(len(data))
    return bytes(byte ^ key for byte, key in zip(data, stream, strict=True))


def cookie_of(headers: Mapping[bytes, bytes], name: str) -> str | None:
    """The value of a cookie."""
    for pair in headers.get(b"cookie", b"").decode("latin-1").split(";"):
        key, _, value = pair.strip().partition("=")
        if key == name:
            return value
    return None
