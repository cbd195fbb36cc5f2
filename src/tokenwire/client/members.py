"""The members of a conversation, and invitations to it, over HTTP.

Always true: a change that is sent again after its answer was lost is the same change; a removal
that finds nobody the second time has taken place.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec

from tokenwire.client.requests import Requests
from tokenwire.errors import InputError, NotFoundError, ServerProtocolError

__all__ = ["Invite", "Member", "MemberList", "Sharing", "accepted"]

T = TypeVar("T")
MemberRole = Literal["read", "write", "approve", "own"]


class Member(msgspec.Struct, kw_only=True):
    """A member: the id of the ``principal``, its ``role``, and ``since`` when, in Unix seconds (0:
    from the beginning)."""

    principal: str
    role: MemberRole
    since: float = 0.0


class MemberList(msgspec.Struct, kw_only=True):
    """Who belongs to a conversation: its ``members``. ``thread``: what its reader calls it; ``id``:
    by which every member reaches it, once it is shared; ``role``: the reader's own."""

    thread: str
    role: MemberRole
    members: list[Member]
    id: str | None = None


class Invite(msgspec.Struct, kw_only=True):
    """An invitation. ``invite``: its name, to revoke it; ``role``: what it gives; ``token``: what
    admits, said when it is made only; ``thread``: the conversation's id; ``expires_in``: seconds;
    ``uses``: how many people may still accept it; ``by``: who invited."""

    invite: str
    role: MemberRole
    expires_in: int
    uses: int
    token: str | None = None
    thread: str | None = None
    by: str | None = None


class _Invites(msgspec.Struct):
    invites: list[Invite]


class Sharing:
    """What `tokenwire.client.Thread` does with members, from its ``requests`` and ``path``. Methods
    raise `ForbiddenError` where the caller's role is not enough, and `NotFoundError` for a
    conversation of others."""

    def __init__(self, requests: Requests, path: str) -> None:
        self._requests, self._path = requests, path

    async def members(self) -> MemberList:
        """Who belongs to the conversation."""
        path = f"{self._path}/members"
        return _of_type(await self._requests.send("GET", path), MemberList)

    async def put_member(self, principal: str, role: MemberRole) -> MemberList:
        """Add the ``principal`` with this id, or change its role: ``read``, ``write``, ``approve``
        or ``own``. Raises `ConflictError` for the last owner, `LimitError` for a full
        conversation."""
        path = self._member(principal)
        return _of_type(await self._requests.send("PUT", path, {"role": role}), MemberList)

    async def remove_member(self, principal: str) -> None:
        """Remove a member, or leave, with one's own id. Raises `ConflictError` for the last
        owner."""
        await self._requests.send("DELETE", self._member(principal), effected=NotFoundError)

    async def invite(
        self,
        role: Literal["read", "write", "approve"] = "read",
        *,
        ttl: int | None = None,
        uses: int = 1,
    ) -> Invite:
        """A new invitation, whose ``token`` admits ``uses`` people for ``ttl`` seconds (None: the
        server's seven days). Sent again after its answer was lost, it is another one."""
        body: dict[str, Any] = {"role": role, "uses": uses}
        body |= {} if ttl is None else {"ttl": ttl}
        return _of_type(await self._requests.send("POST", f"{self._path}/invites", body), Invite)

    async def invites(self) -> list[Invite]:
        """The open invitations, without their tokens."""
        path = f"{self._path}/invites"
        return _of_type(await self._requests.send("GET", path), _Invites).invites

    async def revoke_invite(self, invite: str | Invite) -> None:
        """Revoke an invitation; who has joined stays."""
        name = invite.invite if isinstance(invite, Invite) else invite
        path = f"{self._path}/invites/{quote(name, safe='')}"
        await self._requests.send("DELETE", path, effected=NotFoundError)

    def _member(self, principal: str) -> str:
        if not isinstance(principal, str) or not principal.strip() or principal in (".", ".."):
            raise InputError("expected the id of a principal", field="principal")
        return f"{self._path}/members/{quote(principal, safe='')}"


def accepted(value: Any) -> MemberList:
    """The conversation that an accepted invitation opens. Raises `ServerProtocolError`."""
    return _of_type(value, MemberList)


def _of_type(value: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        name = "list of members" if kind is MemberList else "invitation"
        raise ServerProtocolError(f"the server's response is not a {name}") from error
