"""Commands to a run: their bytes in its owner's mailbox, and what an answer must fit.

Always true: of several answers to one approval or call the first one in the mailbox counts,
whichever process received it; an answer that fits no open approval or call is never recorded, and
one that a run ended without is a conflict for who gave it, also while the end is being written. The
end of a wait that was too long is a command as well: what stands before it counts, nothing after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeGuard

import msgspec

from tokenwire.errors import ConflictError, InputError, NotFoundError, StoreUnavailableError
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, Control, ToolResult
from tokenwire.events.state import ToolState
from tokenwire.log.base import Store
from tokenwire.run.expiry import EXPIRED
from tokenwire.tools.check import check_edited

if TYPE_CHECKING:
    from tokenwire.tools.registry import ToolSet

__all__ = [
    "Answer",
    "Command",
    "approval_answer",
    "check_first",
    "check_taken",
    "counting",
    "decode_command",
    "denials",
    "encode_command",
    "expiry",
    "is_cancel",
    "is_expiry",
    "is_late",
    "is_stop",
    "not_taken",
    "tool_answer",
]

#: What a person or a client decides: only the first of its kind counts.
Answer = ApprovalAnswer | ToolResult
Command = Control | Answer

#: By which the end of a wait is known. It is a cancel to releases that do not know it: they refuse
#: an answer that comes after it, and end the run.
_EXPIRY = "expiry"

#: Seconds for which who answered waits to hear that the run has taken the answer.
_TAKEN_SECONDS = 0.5

#: Of a call whose result somebody sent, and the model does not get. Other errors are of calls that
#: nobody answered.
_ERRORS_OF_RESULTS = frozenset({"bad_result", "oversize"})

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
    return is_stop(decode_command(data))


def expiry(seen: int) -> Control:
    """The end of a run that waited too long, by an owner that has carried out the commands up to
    the number ``seen``: it has no effect where another command stands between that and it."""
    return Control(command="cancel", reason=EXPIRED, id=_EXPIRY, text=str(seen))


def is_expiry(command: Command | None) -> TypeGuard[Control]:
    """Whether a command ends a run that waited too long, should it count."""
    return is_stop(command) and command.id == _EXPIRY


def is_stop(command: Command | None) -> TypeGuard[Control]:
    """Whether a command ends its run."""
    return isinstance(command, Control) and command.command == "cancel"


def is_late(command: Command | None, before: int) -> bool:
    """Whether a command is an expiry that came after another command than its sender knew: the
    one before it in the mailbox has the number ``before``."""
    return is_expiry(command) and int(command.text or 0) < before


def counting(mailbox: Iterable[tuple[int, bytes]]) -> Iterator[Command]:
    """The commands of a whole mailbox that this release knows, in order; without an expiry that
    came too late."""
    before = 0
    for number, data in mailbox:
        command = decode_command(data)
        if command is not None and not is_late(command, before):
            yield command
        before = number


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
    if tool.approved is False and tool.approval_reason == EXPIRED:
        raise _expired()
    if tool.approved is not None:
        raise _conflict(answer)
    if has_ended or tool.done:
        raise _too_late(has_ended, tool)
    state = fold.approvals.get(approval_id)
    if state is not None and state.expires is not None and time.time() * 1000 >= state.expires:
        raise _expired()
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
        raise ConflictError(
            "this tool runs on the server, which alone can record its result", reason="server_tool"
        )
    answer = ToolResult(call_id=call_id, content=content, by=by)
    tool = fold.tools.get(call_id)
    if tool is not None and _has_result(tool):
        raise _conflict(answer)
    if has_ended or (tool is not None and tool.done):
        raise _too_late(has_ended, tool)
    _check_form(answer, "the contents of the result")
    return answer


def _check_form(answer: Answer, what: str) -> None:
    """Raise `InputError` for an answer that no mailbox can hold; the question stays open."""
    try:
        encode_command(answer)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} have no JSON form: {error}") from None


def check_first(answer: Answer, mailbox: Iterable[tuple[int, bytes]]) -> None:
    """Raise `ConflictError` when a cancel, the end of the wait, or another answer to the same
    question stands before ``answer`` in the ``mailbox``."""
    for earlier in counting(mailbox):
        if is_expiry(earlier):
            raise ConflictError("this run has expired; nobody answered in time", reason=EXPIRED)
        if is_stop(earlier):
            raise _cancelled()
        if _answers_same(earlier, answer):
            if isinstance(earlier, ApprovalAnswer) and earlier.reason == EXPIRED:
                raise _expired()
            if encode_command(earlier) != encode_command(answer):
                raise _conflict(answer)
            return


def _check_stored(answer: Answer, mailbox: Iterable[tuple[int, bytes]]) -> None:
    """Raise `StoreUnavailableError` when nothing in the ``mailbox`` answers the question of
    ``answer``, which was recorded there: the store has lost it."""
    if not any(_answers_same(decode_command(data), answer) for _, data in mailbox):
        raise StoreUnavailableError(
            "the store lost this answer before the run had it; send it again", retry_after=1.0
        )


async def check_taken(
    answer: Answer, store: Store, run: str, state: Callable[[], Awaitable[Fold]]
) -> bool:
    """Wait until the run takes ``answer``, for `_TAKEN_SECONDS` at most, and return whether it has:
    a run whose owner is busy or lost takes it later, or ends without it. ``state``: the run's, as
    far as this process knows it. Raises `ConflictError` when the run has ended, or is about to,
    without it, and `StoreUnavailableError` when the store has lost it."""
    end, pause, tail = time.monotonic() + _TAKEN_SECONDS, 0.001, -1
    fold = Fold()
    while True:
        info = await store.describe(run)
        # That of a run of this process changes by itself, and may be ahead of the log.
        if info.tail != tail:
            tail, fold = info.tail, await state()
        if _is_taken(answer, fold):
            return True
        if fold.outcome is not None or info.closed is not None:
            raise _too_late()
        if time.monotonic() >= end:
            _check_stored(answer, await store.commands(run))
            return False
        await asyncio.sleep(pause)
        pause = min(0.1, pause * 2)


def _is_taken(answer: Answer, fold: Fold) -> bool:
    tool = fold.tools.get(answer.call_id)
    if tool is None:
        return False
    return tool.approved is not None if isinstance(answer, ApprovalAnswer) else _has_result(tool)


def not_taken(fold: Fold, names: Iterable[str]) -> str | None:
    """The first of ``names``, approvals and calls of the run of ``fold``, that the run ended
    without an answer to; None while it may still take one."""
    if fold.outcome is None:
        return None
    answers = {tool.approval_id for tool in fold.tools.values() if tool.approved is not None}
    answers |= {call for call, tool in fold.tools.items() if _has_result(tool)}
    return next((name for name in names if name not in answers), None)


def _has_result(tool: ToolState) -> bool:
    """Whether the call has a result that somebody sent, and not an end that the run gave it."""
    return tool.done and (tool.error is None or tool.error in _ERRORS_OF_RESULTS)


def _answers_same(earlier: Command | None, answer: Answer) -> bool:
    """Whether an earlier command answers the same question as ``answer``."""
    if isinstance(earlier, ApprovalAnswer) and isinstance(answer, ApprovalAnswer):
        return earlier.approval_id == answer.approval_id
    if isinstance(earlier, ToolResult) and isinstance(answer, ToolResult):
        return earlier.call_id == answer.call_id
    return False


def _cancelled() -> ConflictError:
    return ConflictError("this run was cancelled before the answer came", reason="run_ended")


def _too_late(has_ended: bool = True, tool: ToolState | None = None) -> ConflictError:
    if tool is not None and tool.error == "cancelled":
        return _cancelled()  # its end may not be there yet
    if has_ended:
        return ConflictError("this run ended before the answer came", reason="run_ended")
    return ConflictError("this call ended before the answer came", reason="call_ended")


def _expired() -> ConflictError:
    return ConflictError("this approval has expired; nobody decided in time", reason=EXPIRED)


def _conflict(answer: Answer) -> ConflictError:
    """The only refusal without a reason: a client that lost the reply to its own answer takes it
    for that answer."""
    if isinstance(answer, ApprovalAnswer):
        return ConflictError("this approval was already answered; the first answer counts")
    return ConflictError("this call already has a result; the first one counts")
