"""A failure as the events that end a run, and a recorded one as the exception that a caller of a
function expects."""

from __future__ import annotations

from tokenwire.errors import (
    CancelledRunError,
    DeadlineError,
    ProviderError,
    TokenwireError,
    TruncatedError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import Event, RunEnd, StepEnd
from tokenwire.events.order import Order, closing
from tokenwire.run.call.attempt import error_event

__all__ = ["error_of", "failed_end"]


def failed_end(order: Order, fold: Fold, error: TokenwireError) -> list[Event]:
    """The events that end a run which failed: ends for what is open, why, and ``run-end``. They
    are not checked yet."""
    events = closing(order, part="truncated", step="error")
    where = len(events) - 1 if events and isinstance(events[-1], StepEnd) else len(events)
    events.insert(where, error_event(error, after_output=bool(fold.parts)))
    events.append(
        RunEnd(
            outcome="error",
            reason=error.code,
            usage=fold.usage or None,
            usage_unknown=fold.usage_unknown,
        )
    )
    return events


def error_of(fold: Fold) -> TokenwireError | None:
    """None for a complete or (by its own word) incomplete answer; else the error that ended it."""
    if fold.outcome in ("complete", "incomplete"):
        return None
    if fold.outcome is None:
        return TruncatedError("the run was closed before its end; the answer is incomplete")
    if fold.outcome == "cancelled":
        return CancelledRunError("the run was cancelled")
    if fold.error is None:
        return TokenwireError(f"the run ended as '{fold.outcome}' ({fold.end_reason})")
    code, message = fold.error["code"], fold.error["message"]
    should_retry = bool(fold.error.get("retryable", False))
    if code == "timeout":
        which = fold.error.get("which") or ""
        return DeadlineError(message, which=which, seconds=0.0, should_retry=should_retry)
    cls = _by_code().get(code, TokenwireError)
    if issubclass(cls, ProviderError):
        return cls(
            message,
            retry_after=fold.error.get("retry_after"),
            request_id=fold.error.get("request_id"),
            should_retry=should_retry,
        )
    return cls(message)


def _by_code() -> dict[str, type[TokenwireError]]:
    classes: dict[str, type[TokenwireError]] = {}
    queue: list[type[TokenwireError]] = [TokenwireError]
    while queue:
        cls = queue.pop()
        classes.setdefault(cls.code, cls)
        queue.extend(cls.__subclasses__())
    return classes
