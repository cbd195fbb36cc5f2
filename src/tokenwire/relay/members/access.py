"""What a principal may do in a conversation, as one value.

Always true: pure; it says what was so when it was read, and is read anew by every request.
"""

from __future__ import annotations

import msgspec

from tokenwire.errors import RoleError
from tokenwire.relay.members.roster import MEMBER_ROLES, MemberRole

__all__ = ["Access"]


class Access(msgspec.Struct, frozen=True):
    """What a principal may do in a conversation. ``scope``: its name in the store; ``thread``: what
    the principal calls it; ``id``: by which all of its members reach it, None where it is not
    shared; ``member``: of which membership the right comes, empty for whoever began it."""

    scope: str
    principal: str
    thread: str
    role: MemberRole = "own"
    id: str | None = None
    member: str = ""

    def permits(self, role: MemberRole) -> bool:
        """Whether the principal has this role."""
        return MEMBER_ROLES.index(self.role) >= MEMBER_ROLES.index(role)

    def require(self, role: MemberRole) -> None:
        """Raise `RoleError` unless the principal has this role."""
        if not self.permits(role):
            raise RoleError(
                f"this needs the role '{role}' in this conversation; yours is '{self.role}'",
                role=role,
            )

    @property
    def names(self) -> tuple[str, ...]:
        """All that the principal may call it."""
        return (self.thread,) if self.id in (None, self.thread) else (self.thread, self.id or "")
