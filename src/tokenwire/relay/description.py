"""A run's description: what callers see, and what the store keeps to resume it elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import StoreDamagedError
from tokenwire.events.request import Request
from tokenwire.log.base import LogInfo

__all__ = ["RunInfo", "RunMeta", "info_of", "meta_of"]


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
