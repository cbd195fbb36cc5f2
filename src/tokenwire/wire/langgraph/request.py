"""Requests of LangGraph's clients as ours: input of a run, and answers to its interrupts.

Always true: what cannot be done is refused by its name, before anything has started; a decision is
an exact word or a field, never guessed from a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, cast

import msgspec

from tokenwire.errors import InputError
from tokenwire.events.fold import Fold, ToolState
from tokenwire.events.message import Message
from tokenwire.wire.fields import ClientToolResult, Decision, Fields, refuse_routing
from tokenwire.wire.langgraph.encoder import STREAM_MODES
from tokenwire.wire.langgraph.messages import parse_messages
from tokenwire.wire.langgraph.state import is_graph_interrupt

__all__ = [
    "RunRequest",
    "answers_of",
    "checkpoint_of",
    "parse_modes",
    "parse_run",
    "parse_streaming",
]

#: What a client may ask for that is not done here.
_REFUSED = (
    "after_seconds",
    "context",
    "feedback_keys",
    "interrupt_after",
    "interrupt_before",
    "webhook",
)
_MULTITASK: dict[str, Literal["queue", "reject", "interrupt"]] = {
    "enqueue": "queue",
    "reject": "reject",
    "interrupt": "interrupt",
}
_YES = frozenset({"approve", "approved", "accept", "yes"})
_NO = frozenset({"deny", "denied", "reject", "rejected", "ignore", "no"})
#: Seconds for which a run goes on without a reader, whose client wants it cancelled with its
#: connection: after a cut, that client comes back within two.
_STOPS_AFTER = "stop:3"


class RunRequest(msgspec.Struct, kw_only=True):
    """The body of ``.../runs`` and its siblings. ``resume``: the answers of a command, where there
    is one; ``while_busy``: None: as nobody said; ``checkpoint``: where the thread goes on."""

    messages: list[Message]
    model: str | None = None
    modes: list[str] = []
    subgraphs: bool = False
    has_command: bool = False
    resume: Any = None
    while_busy: Literal["queue", "reject", "interrupt"] | None = None
    on_disconnect: str | None = None
    checkpoint: str | None = None
    metadata: dict[str, Any] | None = None


def parse_run(value: Any) -> RunRequest:
    """The body that starts a run or resumes one. Raises `InputError`."""
    body = Fields(value)
    refuse_routing(body)
    for name in _REFUSED:
        if body.value.get(name):
            raise body.fail(name, "is not supported")
    config = body.object("config")
    if config is not None:
        refuse_routing(config)
        options = {name: one for name, one in config.value.items() if one not in (None, {}, [])}
        if options:
            raise config.fail(next(iter(options)), "is not supported")
    command = body.object("command")
    if command is not None:
        for name in ("goto", "update"):
            if command.value.get(name):
                raise command.fail(name, "is not supported; 'resume' is")
        if "resume" not in command.value:
            raise command.fail("resume", "is missing")
    messages = _input(body)
    if command is not None and messages:
        raise body.fail("input", "and 'command' exclude each other")
    metadata = body.object("metadata")
    modes, subgraphs = parse_streaming(body)
    return RunRequest(
        messages=messages,
        model=body.text("assistant_id") or None,
        modes=modes,
        subgraphs=subgraphs,
        has_command=command is not None,
        resume=command.raw("resume") if command is not None else None,
        while_busy=_while_busy(body),
        on_disconnect=_on_disconnect(body),
        checkpoint=checkpoint_of(body),
        metadata=metadata.value if metadata is not None and metadata.value else None,
    )


def _input(body: Fields) -> list[Message]:
    if not body.has("input"):
        return []
    fields = body.object("input")
    assert fields is not None
    for name, value in fields.value.items():
        if name != "messages" and value is not None:
            raise fields.fail(name[:80], "is not supported; a run is given 'messages'")
    return parse_messages(fields, "messages") if fields.has("messages") else []


def parse_streaming(body: Fields) -> tuple[list[str], bool]:
    """The stream modes, and whether subgraphs are streamed. Raises `InputError`."""
    value = body.raw("stream_mode")
    modes = cast("list[Any]", value) if isinstance(value, list) else [value or "values"]
    return parse_modes(modes), body.flag("stream_subgraphs")


def parse_modes(modes: Iterable[Any]) -> list[str]:
    """Stream modes by their names. Raises `InputError`."""
    names: list[str] = []
    for mode in modes:
        if mode not in STREAM_MODES:
            raise InputError(
                f"stream mode '{str(mode)[:40]}' is not supported; choose from "
                f"{', '.join(STREAM_MODES)}",
                field="stream_mode",
            )
        names.append(mode)
    return list(dict.fromkeys(names)) or ["values"]


def _while_busy(body: Fields) -> Literal["queue", "reject", "interrupt"] | None:
    strategy = body.text("multitask_strategy")
    if strategy is None:
        return None
    if strategy not in _MULTITASK:
        raise body.fail("multitask_strategy", f"must be one of {', '.join(_MULTITASK)}")
    return _MULTITASK[strategy]


def _on_disconnect(body: Fields) -> str | None:
    mode = body.text("on_disconnect")
    if mode not in (None, "cancel", "continue"):
        raise body.fail("on_disconnect", "must be cancel or continue")
    return _STOPS_AFTER if mode == "cancel" else mode


def checkpoint_of(body: Fields) -> str | None:
    """The id of the checkpoint that a request names. Raises `InputError`."""
    name = body.text("checkpoint_id")
    if name or not body.has("checkpoint"):
        return name or None
    checkpoint = body.object("checkpoint")
    assert checkpoint is not None
    if checkpoint.text("checkpoint_ns"):
        raise checkpoint.fail("checkpoint_ns", "is not supported: subgraphs have no checkpoints")
    return checkpoint.text("checkpoint_id") or None


# --- answers to interrupts ------------------------------------------------------------------------


def answers_of(resume: Any, fold: Fold) -> list[Decision | ClientToolResult]:
    """What the value of a resume decides, or gives, in a run that waits. Raises `InputError` where
    that is not certain, before anything is recorded."""
    questions = {tool.approval_id: tool for tool in fold.tools.values() if tool.approval_id}
    all_ids = {*questions, *fold.waiting, *(n for n, tool in fold.tools.items() if tool.done)}
    values: dict[str, Any] = {}
    if isinstance(resume, dict) and resume and set(cast("dict[str, Any]", resume)) <= all_ids:
        values = cast("dict[str, Any]", resume)
    elif len(fold.waiting) == 1:
        values = {fold.waiting[0]: resume}
    else:
        raise InputError(
            f"{len(fold.waiting)} interrupts wait for an answer; give an object with one for each "
            f"of their ids: {', '.join(fold.waiting)[:300]}",
            field="command.resume",
        )
    open_names = [name for name in fold.waiting if name not in values]
    if open_names:
        raise InputError(
            f"interrupts {', '.join(open_names)[:300]} wait as well; answer all in one resume",
            field="command.resume",
        )
    answers: list[Decision | ClientToolResult] = []
    for name, value in values.items():
        question = questions.get(name)
        if question is None:
            one = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
            answers.append(ClientToolResult(name, one[name] if list(one) == [name] else value))
        else:
            answers.append(_decision(name, value, question))
    return answers


def _decision(name: str, value: Any, question: ToolState) -> Decision:
    arguments = question.approval_arguments
    if is_graph_interrupt(question.name, arguments):
        return Decision(name, True, arguments={**arguments, "resume": value})
    if isinstance(value, list) and len(cast("list[Any]", value)) == 1:
        value = cast("list[Any]", value)[0]
    if isinstance(value, dict) and isinstance(value.get("decisions"), list):
        decisions = cast("list[Any]", value["decisions"])
        if len(decisions) != 1:
            raise _unclear("has one action, so 'decisions' must have one entry")
        value = decisions[0]
    if isinstance(value, bool):
        return Decision(name, value)
    if isinstance(value, str) and value.lower() in _YES | _NO:
        return Decision(name, value.lower() in _YES)
    if not isinstance(value, dict):
        raise _unclear('waits for a decision: {"decisions": [{"type": "approve" or "reject"}]}')
    return _of_fields(name, Fields(value, "command.resume"), question)


def _of_fields(name: str, fields: Fields, question: ToolState) -> Decision:
    reason = fields.text("message") or fields.text("reason")
    if fields.has("approved"):
        edited = fields.object("arguments")
        return Decision(
            name, fields.flag("approved"), reason, edited.value if edited is not None else None
        )
    kind = fields.need("type")
    if kind in _YES:
        return Decision(name, True, reason)
    if kind in _NO:
        return Decision(name, False, reason)
    if kind != "edit":
        raise fields.fail("type", "must be approve, edit or reject")
    action = fields.object("edited_action") or fields.object("editedAction")
    if action is None:
        raise fields.fail("edited_action", "is missing")
    if (action.text("name") or question.name) != question.name:
        raise action.fail("name", "must be the tool that is asked for: another cannot be called")
    edited = action.object("args")
    if edited is None:
        raise action.fail("args", "is missing")
    return Decision(name, True, reason, edited.value)


def _unclear(what: str) -> InputError:
    return InputError(f"the interrupt {what}", field="command.resume")
