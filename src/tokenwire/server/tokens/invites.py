"""Tokens that invite to a conversation: what is signed, and what counts of what comes back.

Always true: an invitation is signed with the store's secret, so that no other server's counts; what
it says is which invitation of which conversation it is, and the store says whether that is open;
whatever is wrong with one has the same answer.
"""

from __future__ import annotations

import msgspec

from tokenwire.errors import NotAuthenticatedError
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.members.roster import unknown_invite
from tokenwire.server.edge.sessions import Sessions

__all__ = ["INVITE", "accept_invite", "invite_token"]

#: How invitations begin.
INVITE = "invite_"
_LABEL = b"tokenwire invite"
_MOST_TOKEN = 400


class _Claims(msgspec.Struct, frozen=True, array_like=True):
    """``thread``: the id of the conversation; ``name``: of the invitation in it."""

    thread: str
    name: str


async def invite_token(sessions: Sessions, thread: str, name: str) -> str:
    """The token of an invitation to the conversation with the id ``thread``."""
    return INVITE + await sessions.seal(_LABEL, msgspec.msgpack.encode(_Claims(thread, name)))


async def accept_invite(sessions: Sessions, members: Members, token: str, principal: str) -> Access:
    """``principal`` joins the conversation of an invitation. Raises `NotFoundError` for one that
    does not count, and `LimitError` where the conversation is full."""
    if not token.startswith(INVITE) or len(token) > _MOST_TOKEN:
        raise unknown_invite()
    try:
        body = await sessions.unseal(_LABEL, token.removeprefix(INVITE), "")
        claims = msgspec.msgpack.decode(body, type=_Claims)
    except (NotAuthenticatedError, msgspec.DecodeError):
        raise unknown_invite() from None
    access = await members.accept(claims.thread, claims.name, principal)
    if access is None:
        raise unknown_invite()
    return access
