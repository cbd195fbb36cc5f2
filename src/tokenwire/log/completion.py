"""Where the outcome of something given to a store goes: a future, or a call in its place."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from tokenwire.log.base import Appended, Then
from tokenwire.log.spool import Batch, Outcome, Spools

__all__ = ["Answer", "Callback", "Landing"]

_log = logging.getLogger("tokenwire.log")


class Answer(Protocol):
    """A future, or what acts as one. Called on the loop."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """It was done."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """It could not be done."""
        ...


class Callback:
    """For who is to be called and does not wait. What the call raises is logged: others' answers
    come after it."""

    __slots__ = ("_then",)

    def __init__(self, then: Then) -> None:
        self._then = then

    def done(self) -> bool:
        """Never: it cannot be cancelled."""
        return False

    def set_result(self, result: Appended) -> None:
        """None for an append that is in the log, else what became of it."""
        self._tell(None if result.status in ("ok", "duplicate") else result)

    def set_exception(self, error: BaseException) -> None:
        """What stood in the way."""
        self._tell(error)

    def _tell(self, problem: Appended | BaseException | None) -> None:
        try:
            self._then(problem)
        except Exception:
            _log.exception("the callback of an append failed")


class Landing:
    """An `Answer` to a group: it hears what became of it."""

    __slots__ = ("_batch", "_spools")

    def __init__(self, spools: Spools, batch: Batch) -> None:
        self._spools, self._batch = spools, batch

    @property
    def is_late(self) -> bool:
        """Whether it was answered before it was done."""
        return self._batch.has_failed

    def done(self) -> bool:
        """Never: it cannot be cancelled."""
        return False

    def set_result(self, outcomes: Sequence[Outcome] | None) -> None:
        """It is in the store, but for those items that were refused."""
        self._spools.land(self._batch, outcomes)

    def set_exception(self, error: BaseException) -> None:
        """What stood in the way."""
        self._spools.fail(self._batch, error)
