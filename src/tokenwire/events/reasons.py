"""What the end of a run means to a reader: one table for every wire.

Always true: only `ending` decides it, for streams and for whole answers alike; an answer that was
cut by a failure, or of which nobody knows whether it is whole, is never ``complete`` or ``cut``.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

from tokenwire.events.model import RunOutcome

__all__ = [
    "CUT_REASONS",
    "FAILURE_REASONS",
    "INCOMPLETE_REASONS",
    "OUTCOMES",
    "Ending",
    "ending",
]

#: Every way in which a run can end; a run in none of these states goes on.
OUTCOMES: Final[tuple[RunOutcome, ...]] = get_args(RunOutcome)

#: Finish reasons after which an answer is not whole, although its wire ended in good order.
INCOMPLETE_REASONS: Final = frozenset(
    {"length", "content_filter", "context_overflow", "malformed_tool_call"}
)

#: Finish reasons with which a provider reports that it failed, whatever its stream looked like.
FAILURE_REASONS: Final = frozenset({"error", "cancelled", "malformed_tool_call"})

#: Reasons of an incomplete run that is an answer all the same: a limit that is known ended it, and
#: the wire has a word for that.
CUT_REASONS: Final = frozenset(
    {"length", "content_filter", "context_overflow", "refusal", "pause", "max_steps", "budget"}
)

#: ``complete``: whole. ``cut``: ended by a known limit, shown as such. ``cancelled``: a person or
#: a rule stopped it. ``failed``: an error to every reader.
Ending = Literal["complete", "cut", "cancelled", "failed"]


def ending(
    outcome: str | None, finish_reason: str | None, end_reason: str | None, *, has_error: bool
) -> Ending:
    """How a run ended, by its outcome, the model's finish reason, the reason of ``run-end``, and
    whether an error event stands before it."""
    if outcome == "cancelled":
        return "cancelled"
    if outcome not in ("complete", "incomplete") or finish_reason in FAILURE_REASONS:
        return "failed"
    if outcome == "complete":
        is_cut = finish_reason in INCOMPLETE_REASONS or finish_reason == "pause"
        return "cut" if is_cut else "complete"
    if has_error:
        return "failed"
    return "cut" if end_reason in CUT_REASONS or finish_reason in CUT_REASONS else "failed"
