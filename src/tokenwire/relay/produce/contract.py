"""What a run's producer is bound by, who ends runs with it, and what it refuses."""

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
    """Bounds of one run's log. ``bytes``: a model's pictures are in it, of 20 MB as base64 each.
    ``store_timeout``: seconds to keep trying while the store does not answer; the provider waits
    meanwhile."""

    records: int = 200_000
    bytes: int = 64 << 20
    store_timeout: float = 10.0


#: What hears that the end of a run is about to be written.
Ending = Callable[[str], Awaitable[None]]


class OnEndError(HookError):
    """An ``on_end`` that is part of the run's end failed: what it wrote is undone, and the run is
    to end as an error, without it."""

    code = "on_end_failed"


class RefusedAppendError(LogError):
    """Another record is where this append's was to go, or the log has ended: of one owner, an
    append that was under way when its task was stopped."""


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
