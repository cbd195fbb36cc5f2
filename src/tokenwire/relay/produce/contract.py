"""A producer's limits, the protocols that it calls at the end of a run, and its errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

import msgspec

from tokenwire.errors import HookError, LogError
from tokenwire.events.model import RunEnd
from tokenwire.log.base import Appended, Inside

__all__ = [
    "EndTransaction",
    "Ending",
    "LastAppend",
    "OnEndError",
    "ProducerLimits",
    "RefusedAppendError",
]


class ProducerLimits(msgspec.Struct, kw_only=True, frozen=True):
    """Bounds of one run's log: ``records``, and ``bytes``, which count a model's pictures as base64
    (20 MB each). ``store_timeout``: seconds for which an append is repeated while the store does
    not answer; the provider waits meanwhile."""

    records: int = 200_000
    bytes: int = 64 << 20
    store_timeout: float = 10.0


#: Called with a run's id before its end is appended.
Ending = Callable[[str], Awaitable[None]]


class OnEndError(HookError):
    """An ``on_end`` that is part of the run's end failed: what it wrote is undone, and the run is
    to end as an error, without it."""

    code = "on_end_failed"


class RefusedAppendError(LogError):
    """The log has ended, or has another record at the offset of this append. With one owner, that
    was an append under way when its task was stopped."""


class LastAppend(NamedTuple):
    """The append that ends a run, as `Records.append` takes it; ``inside`` is called within its
    transaction."""

    run: str
    epoch: int
    first: int
    records: list[bytes]
    close: str | None
    inside: Inside


class EndTransaction(Protocol):
    """Ends a run and writes what an application has to write about it, both or neither
    (`relay.upkeep.closing`)."""

    async def prepare(self, run: str, end: RunEnd) -> Inside:
        """The function to call within the transaction that ends ``run``. Raises `LogError`."""
        ...

    async def append(self, last: LastAppend) -> Appended:
        """Append the end, with what ``last.inside`` writes. Raises `OnEndError`, `LogError`."""
        ...
