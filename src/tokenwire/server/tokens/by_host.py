"""Tokens that the application around the server issues, for whom it has signed in."""

from __future__ import annotations

from typing import Any

from tokenwire.errors import InputError
from tokenwire.events.names import checked_principal, checked_thread
from tokenwire.events.principal import Principal
from tokenwire.relay.description import RunInfo, meta_of
from tokenwire.relay.runs import Runs
from tokenwire.server.edge.auth import Identity
from tokenwire.server.tokens.targets import run_target, thread_target
from tokenwire.server.tokens.tokens import Tokens

__all__ = ["issue_for"]


async def issue_for(
    tokens: Tokens,
    runs: Runs,
    *,
    run: str | RunInfo | None,
    thread: str | None,
    principal: str | Principal | None,
    how: dict[str, Any],
) -> str:
    """A token of ``principal`` for the run or the thread; ``how`` as in `Tokens.issue`. Raises
    `InputError`, and `NotFoundError` for an unknown run."""
    if (run is None) == (thread is None):
        raise InputError("a token is for a run or for a thread; pass one of them")
    who = principal if isinstance(principal, Principal) else None
    name = who.name if who is not None else principal
    if thread is not None:
        checked_thread(thread)
        target = await thread_target(runs.members, thread, str(name or ""))
    else:
        run_id = run.id if isinstance(run, RunInfo) else str(run)
        log_info = await runs.store.describe(run_id)
        if principal is None and log_info.meta:
            name = meta_of(log_info).principal
        target = await run_target(runs, run_id, str(name or ""))
    if who is not None:
        issuer = Identity.of(who, "host")
    else:
        issuer = Identity(checked_principal(str(name or "")), "host")
    text, _ = await tokens.issue(issuer, target, **how)
    return text
