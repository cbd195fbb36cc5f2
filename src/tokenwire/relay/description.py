"""A run's description: what callers see, and what the store keeps to resume it elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import StoreDamagedError
from tokenwire.events.fold import Fold
from tokenwire.events.request import Request
from tokenwire.log.base import LogInfo

__all__ = ["RunInfo", "RunMeta", "info_of", "meta_of", "snapshot_of"]


class RunMeta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Stored with the run's log, never sent to readers."""

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
    #: Random per call of `start`; distinguishes the call that created the run from repetitions.
    nonce: str = ""


class RunInfo(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``state``: running, waiting, complete, incomplete, cancelled, error or interrupted.
    ``created``: Unix seconds."""

    id: str
    state: str
    tail: int
    model: str
    created: float = 0.0
    thread: str | None = None
    principal: str = ""
    metadata: dict[str, Any] | None = None
    #: False when an idempotency key named an existing run.
    created_now: bool = True


def meta_of(info: LogInfo) -> RunMeta:
    """The stored description. Raises `StoreDamagedError` when it cannot be decoded."""
    try:
        return msgspec.json.decode(info.meta, type=RunMeta)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreDamagedError(f"the description of run {info.log} cannot be read") from error


def info_of(info: LogInfo, meta: RunMeta, *, waiting: bool = False) -> RunInfo:
    """The description for callers."""
    return RunInfo(
        id=info.log,
        state=info.closed or ("waiting" if waiting else "running"),
        tail=info.tail,
        model=meta.model,
        created=info.created,
        thread=meta.thread,
        principal=meta.principal,
        metadata=meta.metadata,
    )


def snapshot_of(
    info: LogInfo, meta: RunMeta, fold: Fold, *, tail: int, cursor: str | None
) -> dict[str, Any]:
    """The description, and the run so far: ``fold``, after ``tail`` records."""
    described = info_of(info, meta)
    described.state, described.tail = fold.status, tail
    return {
        **msgspec.to_builtins(described),
        "cursor": cursor,
        "message": msgspec.to_builtins(fold.message()),
        "messages": msgspec.to_builtins(fold.history()),
        "input": msgspec.to_builtins(meta.request.messages),
        "finish_reason": fold.finish_reason,
        "usage": fold.usage,
        "error": fold.error,
        "waiting": fold.waiting,
        "tools": msgspec.to_builtins(list(fold.tools.values())),
    }
