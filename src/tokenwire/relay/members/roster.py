"""Who belongs to a conversation, as one value, and how it may change.

Always true: pure; a conversation has an owner; the value changes as a whole, by compare and swap; a
principal is compared exactly, character by character, tenant included; nobody who was removed comes
in by an invitation from before.
"""

from __future__ import annotations

import secrets
from typing import Any, Literal

import msgspec

from tokenwire.errors import ConflictError, LimitError, NotFoundError
from tokenwire.events.principal import parts_of

__all__ = [
    "MEMBER_ROLES",
    "MOST_INVITES",
    "MOST_MEMBERS",
    "Invite",
    "Member",
    "MemberRole",
    "Roster",
    "unknown_invite",
]

#: What a member may do; each role includes those before it.
MemberRole = Literal["read", "write", "approve", "own"]
MEMBER_ROLES: tuple[MemberRole, ...] = ("read", "write", "approve", "own")
#: Members of one conversation, and invitations that are open at a time.
MOST_MEMBERS, MOST_INVITES = 256, 32


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """One membership. ``since``: Unix seconds; ``id``: another one each time that somebody joins,
    which tokens name; empty for whoever began the conversation; ``invite``: the name of the
    invitation that admitted them."""

    role: MemberRole
    since: float = 0.0
    id: str = ""
    invite: str = ""


class Invite(msgspec.Struct, frozen=True, omit_defaults=True):
    """An invitation. ``ends``: Unix seconds; ``uses``: how many people may still accept it; ``by``:
    the principal whose right it rests on; ``version``: of the roster that it was added to."""

    role: MemberRole
    ends: float
    uses: int
    by: str
    version: int = 0


class Roster(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``id``: of the conversation, unlike any other in the store; ``members`` by the principal's
    name. ``version``: grows with each change; ``barred``: who was removed, and the version then:
    no older invitation admits them. ``nonce``: another one with each change, so that a swap has
    one winner."""

    id: str
    members: dict[str, Member]
    invites: dict[str, Invite] = {}
    barred: dict[str, int] = {}
    version: int = 0
    nonce: str = ""

    def encoded(self) -> bytes:
        """The value as it is stored, unlike any other."""
        return msgspec.json.encode(msgspec.structs.replace(self, nonce=secrets.token_hex(8)))

    def put(self, principal: str, role: MemberRole, now: float) -> Roster:
        """``principal`` has ``role`` from now on, new or as before. Raises `LimitError`, and
        `ConflictError` for the last owner."""
        old = self.members.get(principal)
        if old is None:
            member = Member(role, now, secrets.token_hex(8))
        else:
            self._check_owner(principal, role)
            member = msgspec.structs.replace(old, role=role)
        if old is None and len(self.members) >= MOST_MEMBERS:
            raise LimitError(
                f"a conversation has at most {MOST_MEMBERS} members; remove some",
                limit="members",
                most=MOST_MEMBERS,
            )
        barred = {name: version for name, version in self.barred.items() if name != principal}
        return self._changed(members={**self.members, principal: member}, barred=barred)

    def remove(self, principal: str, *, bars: bool) -> Roster:
        """``principal`` is no member any more; ``bars``: and no open invitation admits them again.
        Raises `NotFoundError`, and `ConflictError` for the last owner."""
        if principal not in self.members:
            raise NotFoundError("no such member in this conversation", what="member")
        self._check_owner(principal, None)
        members = {name: member for name, member in self.members.items() if name != principal}
        changed = self._changed(members=members)
        # What they had invited others with ends with them; nobody is barred from what is over.
        invites = {name: one for name, one in self.invites.items() if one.by != principal}
        barred = {name: version for name, version in self.barred.items() if invites}
        if bars and invites:
            barred[principal] = changed.version
        return msgspec.structs.replace(changed, invites=invites, barred=barred)

    def invite(self, name: str, invite: Invite, now: float) -> Roster:
        """Add an invitation; those that are over are dropped. Raises `LimitError`."""
        invites = self.open_invites(now)
        if len(invites) >= MOST_INVITES:
            raise LimitError(
                f"{MOST_INVITES} invitations of this conversation are open; revoke some",
                limit="invites",
                most=MOST_INVITES,
            )
        changed = self._changed(invites=invites)
        invite = msgspec.structs.replace(invite, version=changed.version)
        return msgspec.structs.replace(changed, invites={**invites, name: invite})

    def uninvite(self, name: str) -> Roster:
        """Revoke an invitation. Raises `NotFoundError`."""
        if name not in self.invites:
            raise unknown_invite()
        invites = {other: one for other, one in self.invites.items() if other != name}
        return self._changed(invites=invites)

    def accept(self, name: str, principal: str, now: float) -> Roster | None:
        """``principal`` accepts an invitation; None where they are a member already, also by this
        very one, which changes nothing and uses nothing up. Raises `NotFoundError` for one that is
        over, `LimitError`."""
        member = self.members.get(principal)
        if member is not None and member.invite == name:
            return None  # the same request, sent again
        invite = self.open_invites(now).get(name)
        if invite is None or self.barred.get(principal, -1) >= invite.version:
            raise unknown_invite()
        if member is not None:
            return None
        joined = self.put(principal, invite.role, now)
        member = msgspec.structs.replace(joined.members[principal], invite=name)
        joined.members[principal] = member
        invites = {other: one for other, one in self.invites.items() if other != name}
        if invite.uses > 1:
            invites[name] = msgspec.structs.replace(invite, uses=invite.uses - 1)
        return msgspec.structs.replace(joined, invites=invites)

    def open_invites(self, now: float) -> dict[str, Invite]:
        """The invitations that count: their time is not over, and who invited is an owner still."""
        owners = {name for name, member in self.members.items() if member.role == "own"}
        return {
            name: one for name, one in self.invites.items() if now < one.ends and one.by in owners
        }

    def events(self, new: Roster, by: str) -> list[dict[str, Any]]:
        """What the feed of the conversation says of the change to ``new``, which ``by`` made."""
        events: list[dict[str, Any]] = []
        for name in self.members | new.members:
            before, after = self.members.get(name), new.members.get(name)
            if before == after:
                continue
            what = "left" if after is None else "joined" if before is None else "changed"
            user = parts_of(name)[0]
            event: dict[str, Any] = {
                "type": f"member-{what}",
                "principal": user,
                "by": parts_of(by)[0],
            }
            events.append(event if after is None else {**event, "role": after.role})
        return events

    def _check_owner(self, principal: str, role: MemberRole | None) -> None:
        others = (m for name, m in self.members.items() if name != principal)
        is_owner = self.members[principal].role == "own"
        if is_owner and role != "own" and not any(member.role == "own" for member in others):
            raise ConflictError(
                "a conversation needs an owner; make somebody else an owner before",
                reason="last_owner",
            )

    def _changed(
        self,
        *,
        members: dict[str, Member] | None = None,
        invites: dict[str, Invite] | None = None,
        barred: dict[str, int] | None = None,
    ) -> Roster:
        return Roster(
            id=self.id,
            members=self.members if members is None else members,
            invites=self.invites if invites is None else invites,
            barred=self.barred if barred is None else barred,
            version=self.version + 1,
        )


def unknown_invite() -> NotFoundError:
    """One answer for an invitation that never was, is over, was used up, or is for others."""
    return NotFoundError("this invitation does not count, or does not any more", what="invite")
