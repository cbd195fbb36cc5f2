"""How a run ends: its outcome and why, by what its loop has seen.

Always true: a cancel that is in the log decides, as it does after a takeover; only a whole answer
is ``complete``.
"""

from __future__ import annotations

from tokenwire.events.fold import Fold
from tokenwire.events.model import RunOutcome
from tokenwire.events.reasons import INCOMPLETE_REASONS
from tokenwire.run.inbox import Inbox

__all__ = ["run_outcome"]


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
