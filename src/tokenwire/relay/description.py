"""A run's description: what callers see, and what the store keeps to resume it elsewhere."""

from __future__ import annotations

from copy import copy
from typing import Any, Final

import msgspec

from tokenwire.errors import InputError, StoreDamagedError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.model import RunOutcome, RunStatus
from tokenwire.events.reasons import OUTCOMES
from tokenwire.events.request import Request
from tokenwire.events.state import ToolState
from tokenwire.log.base import LogInfo
from tokenwire.observe.tracing import Trace
from tokenwire.relay.conversation.history import History
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.run.plan import LoopLimits

__all__ = [
    "Remote",
    "RunInfo",
    "RunMeta",
    "RunSnapshot",
    "checked_meta",
    "info_of",
    "meta_of",
    "scope_of_run",
    "snapshot_of",
]

#: How the store closed a log -> the outcome of its run.
_OUTCOMES: Final[dict[str, RunOutcome]] = {outcome: outcome for outcome in OUTCOMES}


class Remote(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A run that a producer outside of the server writes. ``leave_for``: seconds after the end of
    its lease during which another producer may take it over."""

    leave_for: float = 0.0


class RunMeta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Stored with the run's log, never sent to readers. ``request`` has the messages that are the
    run's own; with a ``history`` those before them are read from its conversation."""

    model: str
    request: Request
    principal: str = ""
    thread: str | None = None
    metadata: dict[str, Any] | None = None
    on_disconnect: str = "continue"
    #: Whether the server's own tools may be used.
    tools: bool = True
    #: The tools offered to the model: a worker that resumes the run should have them.
    tool_names: list[str] | None = None
    #: The version of the agent that makes the run; None for a model's.
    agent: str | None = None
    #: The version of the host's preparation that a model's run begins with; None for none.
    prepare: str | None = None
    #: The bounds of its tool loop, where the application chose them; None: the worker's.
    limits: LoopLimits | None = None
    #: Seconds until its approvals expire, where the caller wants less than the limits say.
    approval_timeout: float | None = None
    #: What it may use, where the caller wants less than the budgets say: ``1000`` (tokens) or
    #: ``$0.05``.
    budget: str | None = None
    #: The budgets of its principal and tenant, as `budgets_of` reads them, where authentication
    #: named some; None: those of the worker.
    budgets: list[str] | None = None
    #: What came before in the conversation; None where the request had everything.
    history: History | None = None
    #: The messages of a request with an idempotency key, as they came, where the application
    #: changed them: a repetition is compared with these.
    received: list[Message] | None = None
    #: Set for a run that no process of ours may work on.
    remote: Remote | None = None
    #: The name in the store of its conversation, where somebody else began that: ``thread`` is then
    #: what ``principal`` calls it.
    scope: str | None = None
    #: Where the run is in a trace (`tokenwire.observe.tracing`); None without one.
    trace: Trace | None = None
    #: Random per call of `start`; distinguishes the call that created the run from repetitions.
    nonce: str = ""


def scope_of_run(meta: RunMeta) -> str | None:
    """The name in the store of a run's conversation; None without one."""
    if meta.scope is not None or meta.thread is None:
        return meta.scope
    return scope_of(meta.principal, meta.thread)


def checked_meta(meta: RunMeta) -> bytes:
    """``meta`` as it is stored. Raises `InputError` for what could be stored and not be read
    again, or not be stored."""
    try:
        data = msgspec.json.encode(meta)
        msgspec.json.decode(data, type=RunMeta)
    except (TypeError, ValueError) as error:  # a ValidationError is a ValueError
        raise InputError(f"the run cannot be started with these values: {error}") from error
    return data


class RunInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``tail``: the offset of its newest event; ``created``: Unix seconds."""

    id: str
    state: RunStatus
    tail: int
    model: str
    created: float = 0.0
    thread: str | None = None
    principal: str = ""
    metadata: dict[str, Any] | None = None
    #: What of its conversation the model was given; None where the request had everything.
    history: History | None = None
    #: False when an idempotency key named an existing run.
    created_now: bool = True


class RunSnapshot(RunInfo, kw_only=True, omit_defaults=True):
    """A run so far: what its first ``tail`` events folded to. ``cursor`` continues after them;
    None before the first. ``message``: the answer in one message; ``messages``: as a conversation
    goes on with it; ``input``: the request's. ``usage``: tokens, ``usage_unknown``: it cost more,
    or may have; ``error``: the fields of the newest error event; ``waiting``: ids of the approvals
    and calls that it waits for."""

    cursor: str | None
    message: Message
    messages: list[Message]
    input: list[Message]
    finish_reason: str | None
    usage: dict[str, int]
    error: dict[str, Any] | None
    waiting: list[str]
    tools: list[ToolState]
    usage_unknown: bool = False


def meta_of(info: LogInfo) -> RunMeta:
    """The stored description. Raises `StoreDamagedError` when it cannot be decoded."""
    try:
        return msgspec.json.decode(info.meta, type=RunMeta)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreDamagedError(f"the description of run {info.log} cannot be read") from error


def info_of(
    info: LogInfo, meta: RunMeta, *, waiting: bool = False, thread: str | None = None
) -> RunInfo:
    """The description for callers; ``thread``: what its reader calls the conversation, where that
    may be another name than who started the run has for it. Raises `StoreDamagedError` for an end
    that no run has."""
    state: RunStatus = "waiting" if waiting else "running"
    if info.closed is not None:
        if info.closed not in _OUTCOMES:
            raise StoreDamagedError(f"run {info.log} ended as {info.closed!r}, which is no outcome")
        state = _OUTCOMES[info.closed]
    return RunInfo(
        id=info.log,
        state=state,
        tail=info.tail,
        model=meta.model,
        created=info.created,
        thread=thread or meta.thread,
        principal=meta.principal,
        metadata=meta.metadata,
        history=meta.history,
    )


def snapshot_of(
    info: LogInfo,
    meta: RunMeta,
    fold: Fold,
    *,
    tail: int,
    cursor: str | None,
    thread: str | None = None,
) -> RunSnapshot:
    """The description, and the run so far: ``fold``, after ``tail`` records. What becomes of the
    fold later does not change it."""
    described = info_of(info, meta, thread=thread)
    return RunSnapshot(
        id=described.id,
        state=fold.status,
        tail=tail,
        model=described.model,
        created=described.created,
        thread=described.thread,
        principal=described.principal,
        metadata=described.metadata,
        history=described.history,
        cursor=cursor,
        message=fold.message(),
        messages=fold.history(),
        input=meta.request.messages,
        finish_reason=fold.finish_reason,
        usage=fold.usage,
        error=fold.error,
        waiting=fold.waiting,
        tools=[copy(tool) for tool in fold.tools.values()],
        usage_unknown=fold.usage_unknown,
    )
