"""The signed text of approval links: which link of which run, for an address.

Always true: it is signed with the store's secret, as tokens are, under a label of its own, so that
neither counts as the other, nor on a server of another store; what it may do is in the store, so a
link can be revoked; it counts for no longer than the key of its maker.
"""

from __future__ import annotations

import secrets

import msgspec

from tokenwire.errors import ConfigError, InputError, NotAuthenticatedError
from tokenwire.relay.waiting.links import Choice, Link, Links
from tokenwire.server.edge.auth import Auth, Identity
from tokenwire.server.edge.sessions import MOST_CREDENTIAL, Sessions

__all__ = ["LINK_PATH", "ApprovalLinks", "checked_base"]

#: Where links lead; the signed text follows.
LINK_PATH = "/v1/approval-links/"
_LABEL = b"tokenwire approval link"
_REFUSAL = "this link does not count here"


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    run: str
    id: str


class ApprovalLinks:
    """The links of one server. ``public_url``: its address for people, None: that of requests."""

    def __init__(self, auth: Auth, sessions: Sessions, public_url: str | None) -> None:
        self._auth, self._sessions = auth, sessions
        self._base = checked_base(public_url)
        self.links: Links | None = None

    def open(self, links: Links) -> None:
        """Use these links."""
        self.links = links

    async def make(
        self,
        identity: Identity,
        run: str,
        approval: str,
        *,
        choice: Choice | None,
        seconds: float,
    ) -> Link:
        """A link that decides for ``identity``, which may. Raises as `Links.make`."""
        assert self.links is not None
        sealed, name = b"", secrets.token_hex(16)
        # What is behind a JSON Web Token, or a user whom the application names, ends within
        # minutes; a link has an end of its own, and can be revoked.
        has_key = bool(identity.key) and not identity.until and identity.vouched is None
        if has_key and identity.credential:
            credential = identity.credential.encode("utf-8", "surrogateescape")
            if len(credential) > MOST_CREDENTIAL:
                raise InputError("this key is too long for a link")
            sealed = await self._sessions.crypt(f"link {name}", credential)
        return await self.links.make(
            run,
            approval,
            principal=identity.principal,
            maker=identity.user,
            choice=choice,
            seconds=seconds,
            key=identity.key if has_key else b"",
            sealed=sealed,
            name=name,
        )

    async def url(self, link: Link, base: str | None = None) -> str:
        """The address of a link; ``base``: of the server, where no setting says it."""
        text = await self._sessions.seal(_LABEL, msgspec.msgpack.encode(_Claims(link.run, link.id)))
        return f"{self._base or base or ''}{LINK_PATH}{text}"

    async def read(self, text: str) -> Link:
        """The link behind a signed text. Raises `NotAuthenticatedError` for what is none of this
        store's, was forgotten after its end, or was made with a key that counts no more."""
        assert self.links is not None
        body = await self._sessions.unseal(_LABEL, text, _REFUSAL)
        claims = msgspec.msgpack.decode(body, type=_Claims)
        link = await self.links.get(claims.run, claims.id)
        if link is None or not await self._is_current(link):
            raise NotAuthenticatedError(_REFUSAL)
        return link

    async def for_webhook(
        self, run: str, approval: str, principal: str, message: str, at: float
    ) -> str:
        """The address of the link that the webhook ``message`` of the Unix time ``at`` carries: the
        same each time that it is sent."""
        assert self.links is not None
        link = await self.links.make(
            run, approval, principal=principal, maker="webhook", name=message, now=at
        )
        return await self.url(link)

    async def _is_current(self, link: Link) -> bool:
        if not link.key:
            return True
        credential = await self._sessions.crypt(f"link {link.id}", link.sealed)
        identity = Identity(
            link.principal, "attach", link.key, credential.decode("utf-8", "surrogateescape")
        )
        return await self._auth.is_current(identity)


def checked_base(url: str | None) -> str | None:
    """The address of this server without its last slash. Raises `ConfigError`."""
    if url is None:
        return None
    scheme, _, rest = url.partition("://")
    is_plain = rest.isascii() and rest.isprintable() and not set(rest) & set(" ?#@\\<>\"'")
    if scheme not in ("http", "https") or not rest.partition("/")[0] or not is_plain:
        raise ConfigError(
            "public_url must be an address such as https://host or https://host/prefix, without "
            f"user, query or fragment, not '{url[:80]}'"
        )
    return url.rstrip("/")
