"""The failure that ended a run: one code and one status on every wire, streaming or not.

Always true: there is a failure exactly where `events.reasons.ending` is ``failed`` or
``cancelled``; its message is the error event's, which is safe to show.
"""

from __future__ import annotations

import msgspec

from tokenwire.events.fold import Fold
from tokenwire.events.model import Error, Finish
from tokenwire.events.reasons import FAILURE_REASONS, Ending, ending

__all__ = ["Failure", "failure_of", "fold_ending", "fold_failure"]

#: Statuses that say something to the caller about the request or about time. Whatever else went
#: wrong (a key of ours, a broken answer) is the upstream's: 502.
_PASSED_ON = frozenset({400, 404, 413, 422, 429, 503, 504})


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run has no answer to show. ``retry_after``: seconds, as the provider gave them."""

    code: str
    message: str
    http_status: int = 502
    retryable: bool = False
    retry_after: float | None = None


def failure_of(
    error: Error | None, finish: Finish | None, outcome: str, end_reason: str | None
) -> Failure:
    """The failure of a run that ended as ``failed`` or ``cancelled``."""
    if outcome == "cancelled":
        return Failure(code="cancelled", message=end_reason or "The run was cancelled.")
    if error is not None:
        status = error.http_status or 502
        return Failure(
            code=error.code,
            message=error.message,
            http_status=status if status in _PASSED_ON else 502,
            retryable=error.retryable,
            retry_after=error.retry_after,
        )
    if finish is not None and finish.reason in FAILURE_REASONS:
        word = finish.raw or finish.reason
        text = finish.message or f"the provider ended the answer with '{word}'"
        return Failure(code="provider_error", message=text)
    return Failure(code=outcome, message=f"The answer ended early: {end_reason or outcome}.")


def fold_ending(fold: Fold) -> Ending:
    """How a folded run ended."""
    return ending(
        fold.outcome, fold.finish_reason, fold.end_reason, has_error=fold.error is not None
    )


def fold_failure(fold: Fold) -> Failure | None:
    """The failure of a folded run; None where it has an answer to show, or has not ended."""
    if fold.outcome is None or fold_ending(fold) in ("complete", "cut"):
        return None
    error = msgspec.convert(fold.error, Error, strict=False) if fold.error else None
    finish = next((s.finish for s in reversed(fold.steps) if s.finish is not None), None)
    return failure_of(
        error,
        msgspec.convert(finish, Finish, strict=False) if finish is not None else None,
        fold.outcome,
        fold.end_reason,
    )
