"""What a remote task waits for, put to a person of ours, and the answer as parts of a message.

Always true: nothing is answered that a person did not decide; an agent of tokenwire is answered by
the names of its approvals, any other one in words.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from tokenwire.agents.a2a.task import Question
from tokenwire.agents.context import Approval, RunContext
from tokenwire.errors import TokenwireError
from tokenwire.events.model import ApprovalAnswer
from tokenwire.wire.a2a.request import ANSWER, INPUT, QUESTION

__all__ = ["Answer", "ask"]

_log = logging.getLogger("tokenwire.agents")

#: Names of the questions that a person of ours sees.
RESULT, AUTH = "tool-result", "authorise"


class Answer(msgspec.Struct):
    """``parts``: of the message that answers; none where the agent goes on by itself."""

    parts: list[dict[str, Any]] = []
    is_refused: bool = False


async def ask(ctx: RunContext, question: Question, watch: Callable[[], Awaitable[None]]) -> Answer:
    """Ask a person. ``watch``: returns when the remote agent is authorised in another way."""
    if question.state == "AUTH_REQUIRED":
        return await _authorise(ctx, question, watch)
    if not question.approvals and not question.tools:
        return Answer([{"text": await _words(ctx, question)}])
    parts: list[dict[str, Any]] = []
    for approval in question.approvals:
        decision = await ctx.request_approval(
            approval["name"],
            approval.get("arguments"),
            reason=_text(approval.get("reason")),
            timeout=_seconds(approval.get("expires")),
        )
        parts.append(_data(_decision(approval, decision)))
    for call in question.tools:
        arguments = {"tool": call["name"], "arguments": call.get("arguments"), "content": None}
        decision = await ctx.request_approval(RESULT, arguments, reason=question.text or None)
        content = decision.arguments.get("content") if decision.approved else None
        if not decision.approved:
            content = {"error": decision.reason or "a person did not give the result"}
        parts.append(_data({"callId": call["callId"], "content": content}))
    return Answer(parts)


def _decision(approval: dict[str, Any], decision: Approval) -> dict[str, Any]:
    value: dict[str, Any] = {
        "approvalId": approval["approvalId"],
        "approved": decision.approved,
    }
    if decision.reason:
        value["reason"] = decision.reason
    if decision.approved and decision.arguments != (approval.get("arguments") or {}):
        value["arguments"] = decision.arguments
    return value


async def _words(ctx: RunContext, question: Question) -> str:
    """The answer to a question in words: the edited ``answer``, else yes or no."""
    arguments = {QUESTION: question.text, ANSWER: ""}
    decision = await ctx.request_approval(INPUT, arguments, reason=question.text or None)
    if not decision.approved:
        return decision.reason or "no"
    answer = decision.arguments.get(ANSWER) if isinstance(decision.arguments, dict) else None
    return answer if isinstance(answer, str) and answer.strip() else "yes"


async def _authorise(
    ctx: RunContext, question: Question, watch: Callable[[], Awaitable[None]]
) -> Answer:
    """Wait until a person says that the agent is authorised, or it is."""
    watching = asyncio.create_task(_until_authorised(ctx, watch))
    try:
        decision = await ctx.request_approval(
            AUTH, {"message": question.text}, reason=question.text or None
        )
    finally:
        watching.cancel()
    return Answer(is_refused=not decision.approved)


async def _until_authorised(ctx: RunContext, watch: Callable[[], Awaitable[None]]) -> None:
    """Answer the question where the agent goes on without us."""
    try:
        await watch()
        waiting = set(ctx.engine.fold.waiting)
        for call_id, tool in ctx.engine.fold.tools.items():
            if tool.approval_id in waiting:
                answer = ApprovalAnswer(
                    approval_id=tool.approval_id,
                    call_id=call_id,
                    approved=True,
                    reason="the remote agent is authorised",
                )
                await ctx.engine.send(answer)
    except TokenwireError as error:
        _log.warning("run %s: the remote agent cannot be watched: %s", ctx.run, error)


def _data(value: dict[str, Any]) -> dict[str, Any]:
    return {"data": value, "mediaType": "application/json"}


def _text(value: Any) -> str | None:
    return value[:2000] if isinstance(value, str) and value else None


def _seconds(expires: Any) -> float | None:
    """Seconds until a time in Unix milliseconds."""
    if not isinstance(expires, int | float):
        return None
    return max(1.0, expires / 1000 - time.time())
