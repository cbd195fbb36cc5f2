"""Questions that an agent's run puts to people, and their decisions.

Always true: the first of decision and expiry wins, whoever gives it; a decision that comes before
its question is asked again (after a takeover) waits for it.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tokenwire.agents.journal import Operation
from tokenwire.agents.outlet import Outlet
from tokenwire.errors import LogError
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, RunWait, ToolError
from tokenwire.run.expiry import EXPIRED

__all__ = ["EXPIRED", "Approval", "Approvals", "denial", "recorded_approval"]

_log = logging.getLogger("tokenwire.agents")


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A person's decision; true if ``approved``, ``by`` whom and with which ``reason``.
    ``arguments``: as shown, or as edited."""

    approved: bool
    arguments: Any = None
    by: str | None = None
    reason: str | None = None

    def __post_init__(self) -> None:
        # The agent's own copy: what it does to the arguments must not reach what readers see.
        msgspec.structs.force_setattr(self, "arguments", copy.deepcopy(self.arguments))

    def __bool__(self) -> bool:
        return self.approved


class Approvals:
    """The open questions of one ``run``. ``send`` gives a decision to the run as a person would."""

    def __init__(
        self,
        run: str,
        fold: Fold,
        outlet: Outlet,
        send: Callable[[ApprovalAnswer], Awaitable[object]],
    ) -> None:
        self._run, self._fold, self._outlet, self._send = run, fold, outlet, send
        #: Questions that the agent waits for, and decisions that came before it asked again.
        self._pending: dict[str, asyncio.Future[ApprovalAnswer]] = {}
        self._early: dict[str, ApprovalAnswer] = {}

    def answer(self, answer: ApprovalAnswer) -> None:
        """An answer to an approval of the agent's own."""
        future = self._pending.get(answer.approval_id)
        if future is not None and not future.done():
            future.set_result(answer)
        else:
            self._early.setdefault(answer.approval_id, answer)

    async def wait(
        self, approval_id: str, call_id: str, expires: float | None = None
    ) -> ApprovalAnswer:
        """Wait for the decision; after ``expires`` (Unix seconds) it is a denial, ``expired``."""
        future = self._future(approval_id)
        pending = [name for name, f in self._pending.items() if not f.done()]
        if pending and self._fold.waiting != pending:
            self._outlet.emit(self._outlet.own, [RunWait(reason="approval", pending=pending)])
        try:
            if expires is not None:
                await asyncio.wait([future], timeout=max(0.0, expires - time.time()))
            while expires is not None and not future.done():
                # Like any other answer, so that the first one wins, whoever gives it.
                answer = ApprovalAnswer(
                    approval_id=approval_id, call_id=call_id, approved=False, reason=EXPIRED
                )
                try:
                    await self._send(answer)
                except LogError as error:
                    _log.warning("run %s: an approval cannot expire now: %s", self._run, error)
                await asyncio.wait([future], timeout=1.0)
            return await future
        finally:
            self._pending.pop(approval_id, None)

    def _future(self, approval_id: str) -> asyncio.Future[ApprovalAnswer]:
        """The answer to come; at once if it is there."""
        future: asyncio.Future[ApprovalAnswer] = asyncio.get_running_loop().create_future()
        self._pending[approval_id] = future
        early = self._early.pop(approval_id, None)
        if early is not None:
            future.set_result(early)
        return future


def denial(call_id: str, name: str, reason: str | None) -> ToolError:
    """The end of a call that nobody approved."""
    if reason == EXPIRED:
        message = "nobody decided on this in time"
    else:
        message = "a person denied this" + (f": {reason}" if reason else "")
    return ToolError(call_id=call_id, name=name, code="denied", message=message)


def recorded_approval(operation: Operation) -> Approval | None:
    """The decision that an operation has in its record; None before there is one."""
    if operation.value is None:
        return None
    return msgspec.json.decode(operation.value, type=Approval)
