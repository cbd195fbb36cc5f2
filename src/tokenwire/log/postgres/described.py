"""A row of the view ``described``, as a value of ours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokenwire.log.base import LogInfo
from tokenwire.log.postgres.names import from_text

__all__ = ["info_of", "split"]


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


def split(data: bytes, lengths: Iterable[int]) -> list[bytes]:
    """The records of a page."""
    records, start = [], 0
    for length in lengths:
        records.append(data[start : start + length])
        start += length
    return records
