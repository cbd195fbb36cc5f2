"""What a token may be for, and how much of it: a run or a conversation that its issuer reaches.

Always true: a member's token permits no more than the membership does, and names it, so that it
ends with it and with nothing less, also where the same person joins again.
"""

from __future__ import annotations

from tokenwire.relay.description import meta_of, scope_of_run
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.members import Members
from tokenwire.relay.runs import Runs
from tokenwire.server.tokens.tokens import Target

__all__ = ["run_target", "thread_target"]


async def thread_target(members: Members, thread: str, principal: str) -> Target:
    """The conversation that ``principal`` calls ``thread``. Raises `NotFoundError`."""
    return _target(Target("thread", thread), await members.enter(principal, thread))


async def run_target(runs: Runs, run: str, principal: str) -> Target:
    """A run that ``principal`` sees. Raises `NotFoundError`."""
    await runs.info(run, principal=principal)
    info = await runs.store.describe(run)
    scope = scope_of_run(meta_of(info))
    access = None if scope is None else await runs.members.in_scope(scope, principal)
    return _target(Target("run", run, info.created), access)


def _target(target: Target, access: Access | None) -> Target:
    if access is None:
        return target
    return Target(
        target.kind,
        target.name,
        target.created,
        role=access.role,
        member=access.member,
        is_shared=access.id is not None,
    )
