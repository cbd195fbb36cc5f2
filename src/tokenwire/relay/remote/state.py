"""What a producer outside of the server says of its run, and is told of it."""

from __future__ import annotations

import msgspec

from tokenwire.events.model import Error, RunOutcome

__all__ = ["Finish", "RemoteState"]


class RemoteState(msgspec.Struct, kw_only=True):
    """What a producer must know. ``epoch`` and ``next``: for its next append; ``state``: of the
    run; ``lease``: seconds that are left; ``cancelled``: somebody wants it to end; ``duplicate``:
    the request was carried out before."""

    run: str
    epoch: int
    next: int
    state: str
    lease: float
    cancelled: bool
    duplicate: bool = False


class Finish(msgspec.Struct, kw_only=True, frozen=True):
    """How a producer ends its run. ``error``: what readers are told, with the outcome ``error``."""

    outcome: RunOutcome
    reason: str | None = None
    error: Error | None = None
