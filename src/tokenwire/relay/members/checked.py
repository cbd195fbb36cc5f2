"""Every access to a run: whose it is, and what its reader may do with it.

Always true: an unknown run and one of others raise the same error; a run of a conversation is
reached by the members of that, whoever started it, and by nobody else, also not by who did.
"""

from __future__ import annotations

from typing import NamedTuple

from tokenwire.errors import NotFoundError
from tokenwire.log.base import LogInfo, Store
from tokenwire.relay.description import RunMeta, meta_of, scope_of_run
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.members.roster import MemberRole
from tokenwire.relay.starts.start import RUN_ID

__all__ = ["CheckedRun", "checked_run", "unknown_run"]


class CheckedRun(NamedTuple):
    """A run that its reader may reach. ``access``: to its conversation; None without one."""

    info: LogInfo
    meta: RunMeta
    access: Access | None

    @property
    def thread(self) -> str | None:
        """What the reader calls its conversation."""
        return None if self.access is None else self.access.thread

    @property
    def threads(self) -> tuple[str, ...]:
        """All that the reader may call it."""
        return () if self.access is None else self.access.names


def unknown_run() -> NotFoundError:
    """One error for a run that never was and one of others."""
    return NotFoundError("no such run")


async def checked_run(
    store: Store,
    members: Members,
    run: str,
    principal: str,
    role: MemberRole,
    access: Access | None = None,
    member: str | None = None,
) -> CheckedRun:
    """The run, which ``principal`` reaches with ``role``. ``access``: to a conversation that it may
    be of, where that is known; ``member``: the membership by which it must be reached. Raises
    `NotFoundError`, and `RoleError` for a member with another role."""
    if not RUN_ID.fullmatch(run):
        raise unknown_run()
    try:
        info = await store.describe(run)
    except NotFoundError:
        raise unknown_run() from None
    if not info.meta:  # a log of something else: of a Durable Stream
        raise unknown_run()
    meta = meta_of(info)
    scope = scope_of_run(meta)
    if scope is None:
        if meta.principal != principal:
            raise unknown_run()
        return CheckedRun(info, meta, None)
    if access is None or access.scope != scope:
        access = await members.in_scope(scope, principal)
    if access is None or member not in (None, access.member):
        raise unknown_run()
    access.require(role)
    return CheckedRun(info, meta, access)
