"""A row of the view ``described``, as a value of ours."""

from __future__ import annotations

from typing import Any

from tokenwire.log.base import LogInfo
from tokenwire.log.postgres.names import from_text

__all__ = ["info_of"]


def info_of(row: Any) -> LogInfo:
    """The description of a log."""
    return LogInfo(
        log=from_text(row["name"]),
        epoch=row["epoch"],
        owner=from_text(row["owner"]),
        tail=row["tail"],
        closed=None if row["closed"] is None else from_text(row["closed"]),
        meta=row["meta"],
        created=row["created"],
        bytes=row["bytes"],
        lease_until=row["lease_until"],
        thread=None if row["thread"] is None else from_text(row["thread"]),
    )
