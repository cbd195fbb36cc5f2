"""A run as the server describes it, and what its log keeps to start it again elsewhere."""

from __future__ import annotations

from typing import Any

import msgspec

from tokenwire.errors import StoreDamagedError
from tokenwire.events.request import Request
from tokenwire.log.base import StreamInfo

__all__ = ["RunInfo", "RunMeta", "info_of", "meta_of"]


class RunMeta(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Kept with the stream, never sent to readers."""

    model: str
    request: Request
    principal: str = ""
    thread: str | None = None
    metadata: dict[str, Any] | None = None
    on_disconnect: str = "continue"
    #: Whether the server's own tools may be used.
    tools: bool = True
    #: The tools that the model was told of: who goes on with the run should have them.
    tool_names: list[str] | None = None
    #: Of the one call that made the run; tells it from those that ask for the same again.
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
    #: False when an idempotency key named a run that was there before.
    created_now: bool = True


def meta_of(info: StreamInfo) -> RunMeta:
    """The kept description. Raises `StoreDamagedError` when it cannot be read."""
    try:
        return msgspec.json.decode(info.meta, type=RunMeta)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StoreDamagedError(f"the description of run {info.stream} cannot be read") from error


def info_of(info: StreamInfo, meta: RunMeta, *, waiting: bool = False) -> RunInfo:
    """What callers are told of a run."""
    return RunInfo(
        id=info.stream,
        state=info.closed or ("waiting" if waiting else "running"),
        tail=info.tail,
        model=meta.model,
        created=info.created,
        thread=meta.thread,
        principal=meta.principal,
        metadata=meta.metadata,
    )
