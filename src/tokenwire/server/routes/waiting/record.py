"""Recording what a client of a foreign wire sends to a run that waits.

Always true: an approval needs the role ``approve``, the result of a client's tool the role
``write``, and both are checked for all decisions of a request before the first one is recorded.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenwire.server.edge.guard import RequestInfo
from tokenwire.server.state import State
from tokenwire.wire.fields import ClientToolResult, Decision

__all__ = ["record_decision", "require_roles"]


def require_roles(info: RequestInfo, decisions: Iterable[Decision | ClientToolResult]) -> None:
    """Raise `RoleError` where the caller of the request lacks the role for one of ``decisions``."""
    for decision in decisions:
        info.identity.require("approve" if isinstance(decision, Decision) else "write")


async def record_decision(
    state: State,
    info: RequestInfo,
    principal: str,
    run: str,
    decision: Decision | ClientToolResult,
) -> bool:
    """`Runs.approve` or `Runs.answer_tool` in the name of the request's caller. False where the
    process of the run has not confirmed the decision yet. Raises as they do."""
    if isinstance(decision, ClientToolResult):
        return await state.runs.answer_tool(
            run, decision.name, content=decision.content, by=info.by, principal=principal
        )
    return await state.runs.approve(
        run,
        decision.name,
        approved=decision.approved,
        reason=decision.reason,
        arguments=decision.arguments,
        by=info.by,
        principal=principal,
    )
