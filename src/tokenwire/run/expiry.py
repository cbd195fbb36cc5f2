"""Approvals that nobody decides in time: when they end, and as what.

Always true: an approval that expires is denied, never approved; its end is a decision like any
other, so that the first one wins, whoever gives it and in whichever process; the time is Unix time
that the request itself says, so it passes while no process is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from tokenwire.errors import LogError
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, ToolError

__all__ = ["EXPIRED", "Expiry", "Send", "denied_call", "expires_at"]

_log = logging.getLogger("tokenwire.run")

#: The reason of an approval that nobody decided in time.
EXPIRED = "expired"
#: Seconds until an expiry that could not be recorded is tried again.
RETRY_SECONDS = 1.0

#: Gives a decision to the run as a person would. Raises `LogError`.
Send = Callable[[ApprovalAnswer], Awaitable[None]]


def expires_at(*timeouts: float | None) -> int | None:
    """Unix milliseconds at which an approval that is requested now expires: the shortest of
    ``timeouts``, in seconds, counts; None without one."""
    seconds = [timeout for timeout in timeouts if timeout is not None]
    return int((time.time() + min(seconds)) * 1000) if seconds else None


def denied_call(call_id: str, name: str, answer: ApprovalAnswer) -> ToolError:
    """The end of a call that a person denied, or that nobody decided in time."""
    if answer.reason == EXPIRED:
        message = "nobody decided on this in time"
    else:
        message = "a person denied this call" + (f": {answer.reason}" if answer.reason else "")
    return ToolError(call_id=call_id, code="denied", message=message, name=name)


class Expiry:
    """The approvals of the run of ``fold`` that expire. ``send`` records their end."""

    def __init__(self, run: str, fold: Fold, send: Send) -> None:
        self._run, self._fold, self._send = run, fold, send
        #: Approvals whose end was sent: monotonic seconds at which it is sent again.
        self._sent: dict[str, float] = {}

    def seconds(self, calls: Iterable[str]) -> float | None:
        """Seconds until the first open approval of ``calls`` expires; None where none does."""
        now, monotonic = time.time(), time.monotonic()
        pauses = [
            max(expires / 1000 - now, self._sent.get(name, monotonic) - monotonic, 0.0)
            for _, name, expires in self._open(calls)
        ]
        return min(pauses, default=None)

    async def end_due(self, calls: Iterable[str]) -> None:
        """Deny the approvals of ``calls`` whose time is over."""
        now = time.time() * 1000
        for call_id, name, expires in list(self._open(calls)):
            if expires > now or self._sent.get(name, 0.0) > time.monotonic():
                continue
            self._sent[name] = time.monotonic() + RETRY_SECONDS
            answer = ApprovalAnswer(
                approval_id=name, call_id=call_id, approved=False, reason=EXPIRED
            )
            try:
                await self._send(answer)
            except LogError as error:
                _log.warning("run %s: an approval cannot expire now: %s", self._run, error)

    def _open(self, calls: Iterable[str]) -> Iterable[tuple[str, str, int]]:
        for call_id in calls:
            tool = self._fold.tools.get(call_id)
            if tool is None or tool.approval_id is None or tool.approved is not None or tool.done:
                continue
            state = self._fold.approvals.get(tool.approval_id)
            if state is not None and state.expires is not None:
                yield call_id, tool.approval_id, state.expires
