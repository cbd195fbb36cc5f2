"""How a run ends: its outcome and why; a failure as the events that end it, and a recorded one as
the exception that a caller of a function expects."""

from __future__ import annotations

import logging

from tokenwire.errors import (
    CancelledRunError,
    DeadlineError,
    ProviderError,
    TokenwireError,
    TruncatedError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import Event, RunOutcome, StepEnd
from tokenwire.events.order import Order, closing
from tokenwire.events.reasons import INCOMPLETE_REASONS
from tokenwire.run.call.attempt import error_event
from tokenwire.run.inbox import Inbox

__all__ = ["error_of", "failed_end", "public_error", "run_outcome"]

_log = logging.getLogger("tokenwire.run")


def run_outcome(
    fold: Fold, inbox: Inbox, *, in_doubt: bool, out_of_steps: bool, by_rule: bool
) -> tuple[RunOutcome, str | None]:
    """Outcome and reason. ``in_doubt``: a tool may have run whose worker was lost;
    ``out_of_steps``: the model called again beyond the limit; ``by_rule``: ``stop_when`` ended it.
    """
    step = fold.steps[-1] if fold.steps else None
    reason = fold.finish_reason
    # A cancel that came meanwhile is in the log, and decides, as it does after a takeover.
    if in_doubt and inbox.cancelled is None:
        return "interrupted", "tool_in_doubt"
    if out_of_steps:
        return "incomplete", "max_steps"
    if by_rule:
        return "complete", "stop_when"
    if inbox.cancelled is not None and not (
        step is not None and step.status == "complete" and reason != "tool_calls"
    ):
        return "cancelled", inbox.cancelled.reason
    if inbox.stopped is not None and (
        step is None or step.status != "complete" or reason in ("tool_calls", "pause")
    ):
        return "incomplete", inbox.stopped
    if step is None or step.status == "error":
        return "error", (fold.error or {}).get("code", "internal")
    if step.status != "complete" or reason in INCOMPLETE_REASONS:
        return "incomplete", reason
    return "complete", reason


def failed_end(
    order: Order, fold: Fold, error: TokenwireError, *, is_calling: bool = False
) -> list[Event]:
    """The events that end a run which failed: ends for what is open, why, and ``run-end``, of which
    ``is_calling`` is (`run_end`). They are not checked yet."""
    events = closing(order, part="truncated", step="error")
    where = len(events) - 1 if events and isinstance(events[-1], StepEnd) else len(events)
    events.insert(where, error_event(error, after_output=bool(fold.parts)))
    events.append(fold.end("error", error.code, is_calling=is_calling))
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


def public_error(error: Exception, run: str) -> TokenwireError:
    """``error`` as the run's end may say it; a fault of ours is logged."""
    if isinstance(error, TokenwireError):
        return error
    _log.error("run %s failed inside", run, exc_info=error)
    return TokenwireError("internal error; see the server's log")
