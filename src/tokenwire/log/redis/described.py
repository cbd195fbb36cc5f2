"""What owner.lua answers about a log, as a value of ours."""

from __future__ import annotations

from typing import Any

from tokenwire.log.base import LogInfo
from tokenwire.log.redis.appending.owned import missing

__all__ = ["info_of", "key_of", "thread_of"]


def info_of(log: str, answer: Any) -> LogInfo:
    """The description of ``log``. Raises `NotFoundError`, `GoneError`."""
    if answer[0] != "ok":
        raise missing(answer[0])
    _, epoch, owner, tail, closed, meta, created, size, lease, thread, *_ = answer
    return LogInfo(
        log=log,
        epoch=int(epoch),
        owner=owner.decode(),
        tail=tail,
        closed=closed.decode() or None,
        meta=meta,
        created=int(created) / 1e6,
        bytes=int(size),
        lease_until=int(lease) / 1000,
        thread=thread.decode() or None,
    )


def key_of(answer: Any) -> str | None:
    """The idempotency key that the log of a description was created with."""
    return answer[10].decode() or None


def thread_of(answer: Any) -> str | None:
    """The conversation of the log of a description."""
    return answer[9].decode() or None
