"""Commands to a run: their bytes in its owner's mailbox, and what an answer must fit.

Always true: of several answers to one approval or call the first one in the mailbox counts,
whichever process received it; an answer that fits no open approval or call is never recorded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from tokenwire.errors import ConflictError, InputError, NotFoundError
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, Control, ToolResult
from tokenwire.run.expiry import EXPIRED
from tokenwire.tools.check import check_edited

if TYPE_CHECKING:
    from tokenwire.tools.registry import ToolSet

__all__ = [
    "Answer",
    "Command",
    "approval_answer",
    "check_first",
    "decode_command",
    "denials",
    "encode_command",
    "is_cancel",
    "tool_answer",
]

#: What a person or a client decides: only the first of its kind counts.
Answer = ApprovalAnswer | ToolResult
Command = Control | Answer

_decoder = msgspec.json.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """A command as the bytes of the owner's mailbox."""
    return msgspec.json.encode(command)


def decode_command(data: bytes) -> Command | None:
    """The command of these bytes; None when they are none that this release knows."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def is_cancel(data: bytes) -> bool:
    """Whether a command cancels its run."""
    command = decode_command(data)
    return isinstance(command, Control) and command.command == "cancel"


def approval_answer(
    fold: Fold,
    tools: ToolSet | None,
    approval_id: str,
    *,
    has_ended: bool,
    approved: bool,
    by: str | None,
    reason: str | None,
    arguments: dict[str, Any] | None,
) -> ApprovalAnswer:
    """The decision on an open approval of the run of ``fold``. Raises `NotFoundError` for an
    approval that the run has not requested, `ConflictError` for one that is decided or whose time
    is over, and `InputError` for arguments that do not fit the tool, or are no JSON object."""
    tool = next((t for t in fold.tools.values() if t.approval_id == approval_id), None)
    if tool is None:
        raise NotFoundError("this run has no such approval", what="approval")
    answer = ApprovalAnswer(
        approval_id=approval_id,
        call_id=tool.call_id,
        approved=approved,
        by=by,
        reason=reason,
        arguments=arguments,
    )
    if tool.approved is not None or tool.done or has_ended:
        raise _conflict(answer)
    state = fold.approvals.get(approval_id)
    if state is not None and state.expires is not None and time.time() * 1000 >= state.expires:
        raise ConflictError("this approval has expired; nobody decided in time", reason=EXPIRED)
    if reason == EXPIRED:
        raise InputError(
            f"the reason '{EXPIRED}' is of approvals that nobody decided; write another",
            field="reason",
        )
    if arguments is not None and not isinstance(arguments, dict):
        raise InputError(
            f"edited arguments are an object, not {type(arguments).__name__}", field="arguments"
        )
    _check_form(answer, "the edited arguments")
    if approved and arguments is not None:
        check_edited(tools, tool.name, arguments)
    return answer


def denials(fold: Fold, *, by: str | None, reason: str | None) -> list[ApprovalAnswer]:
    """A no to each approval that the run of ``fold`` waits for."""
    return [
        ApprovalAnswer(
            approval_id=tool.approval_id,
            call_id=tool.call_id,
            approved=False,
            by=by,
            reason=reason,
        )
        for tool in fold.tools.values()
        if tool.approval_id is not None and tool.approved is None and not tool.done
    ]


def tool_answer(
    fold: Fold,
    tools: ToolSet | None,
    call_id: str,
    *,
    has_ended: bool,
    content: Any,
    by: str | None,
    principal: str,
) -> ToolResult:
    """The result of an open call of a client's tool in the run of ``fold``. Raises `NotFoundError`
    for a call that the run has not made, `ConflictError` for one that has a result and for a tool
    that ``principal`` may run on the server, and `InputError` for content without a JSON form."""
    parts = fold.parts.values()
    call = next((p for p in parts if p.attrs.get("call_id") == call_id), None)
    if call is None:
        raise NotFoundError("this run has no such tool call", what="tool_call")
    ours = tools.get(call.attrs.get("name", "")) if tools is not None else None
    if ours is not None and ours.executor == "server" and ours.allows(principal):
        raise ConflictError("this tool runs on the server, which alone can record its result")
    answer = ToolResult(call_id=call_id, content=content, by=by)
    tool = fold.tools.get(call_id)
    if has_ended or (tool is not None and tool.done):
        raise _conflict(answer)
    _check_form(answer, "the contents of the result")
    return answer


def _check_form(answer: Answer, what: str) -> None:
    """Raise `InputError` for an answer that no mailbox can hold; the question stays open."""
    try:
        encode_command(answer)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} have no JSON form: {error}") from None


def check_first(answer: Answer, mailbox: list[bytes]) -> None:
    """Raise `ConflictError` when a cancel, or another answer to the same question, stands before
    ``answer`` in the ``mailbox``."""
    for data in mailbox:
        earlier = decode_command(data)
        if isinstance(earlier, Control) and earlier.command == "cancel":
            raise ConflictError("this run was cancelled before the answer came")
        if _answers_same(earlier, answer):
            if data != encode_command(answer):
                raise _conflict(answer)
            return


def _answers_same(earlier: Command | None, answer: Answer) -> bool:
    """Whether an earlier command answers the same question as ``answer``."""
    if isinstance(earlier, ApprovalAnswer) and isinstance(answer, ApprovalAnswer):
        return earlier.approval_id == answer.approval_id
    if isinstance(earlier, ToolResult) and isinstance(answer, ToolResult):
        return earlier.call_id == answer.call_id
    return False


def _conflict(answer: Answer) -> ConflictError:
    if isinstance(answer, ApprovalAnswer):
        return ConflictError("this approval was already answered; the first answer counts")
    return ConflictError("this call already has a result; the first one counts")
