"""The runs of a server, as far as the grant of the request under way reaches.

Always true: no route can forget the check, as every access to a run comes through here; the tasks
of a run that a token starts are under no grant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tokenwire.events.request import Request
from tokenwire.relay.description import RunInfo
from tokenwire.relay.members.access import Access
from tokenwire.relay.members.checked import CheckedRun
from tokenwire.relay.members.roster import MemberRole
from tokenwire.relay.runs import Runs
from tokenwire.server.tokens.grant import (
    Scope,
    current_grant,
    only_by_login,
    thread_to_start,
    within,
)

__all__ = ["GrantedRuns"]


class GrantedRuns(Runs):
    """`tokenwire.relay.runs.Runs`, where a request that came with a token sees the runs of its
    grant. Raises `RoleError` for a scope that is not granted, before anything is looked up,
    and `NotFoundError` for any other run, as for an unknown one."""

    def __init__(self, *args: Any, when_erased: Callable[[str], None], **how: Any) -> None:
        super().__init__(*args, **how)
        #: Called with each run that was erased here.
        self._when_erased = when_erased

    async def start(self, request: Request, *, model: str, **how: Any) -> RunInfo:
        how["thread"] = thread_to_start(how.get("thread"))
        grant = current_grant()
        with within(None):
            info = await super().start(request, model=model, **how)
        if grant is not None:  # a key may name a run that was started before
            grant.require_run(info.id, (info.thread,))
        return info

    async def thread(self, thread: str, **page: Any) -> list[RunInfo]:
        grant = current_grant()
        if grant is not None and grant.kind == "thread" and grant.name != thread:
            return []  # as for a conversation that nobody has begun
        return await super().thread(thread, **page)

    async def cancel(self, run: str, **how: Any) -> RunInfo:
        _require("write")
        return await super().cancel(run, **how)

    async def approve(self, run: str, approval_id: str, **answer: Any) -> bool:
        _require("approve")
        return await super().approve(run, approval_id, **answer)

    async def answer_tool(self, run: str, call_id: str, **answer: Any) -> bool:
        _require("write")
        return await super().answer_tool(run, call_id, **answer)

    async def delete(self, run: str, *, principal: str = "") -> None:
        only_by_login()
        await super().delete(run, principal=principal)
        self._when_erased(run)

    async def _checked(
        self, run: str, principal: str, role: MemberRole = "read", *, access: Access | None = None
    ) -> CheckedRun:
        grant = current_grant()
        if grant is not None:
            grant.require("read")
        checked = await super()._checked(run, principal, role, access=access)
        if grant is not None:
            grant.require_run(run, checked.threads)
        return checked


def _require(scope: Scope) -> None:
    grant = current_grant()
    if grant is not None:
        grant.require(scope)
