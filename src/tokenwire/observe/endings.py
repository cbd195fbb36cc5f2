"""The fact that a run or an agent's answer ended, from its folded events.

Always true: each process that writes an end reports the same of it: outcome, tokens, why the model
stopped, and no content.
"""

from __future__ import annotations

from typing import Any

from tokenwire.events.fold import Fold
from tokenwire.observe.facts import AnswerEnded, RunEnded

__all__ = ["answer_ended", "run_ended"]


def run_ended(
    run: str,
    model: str,
    fold: Fold,
    seconds: float,
    *,
    thread: str | None = None,
    agent: str | None = None,
    trace: dict[str, str] | None = None,
) -> RunEnded:
    """The end of ``run``, which ``fold`` has reached. ``model``: as the caller named it; ``trace``:
    as it is stored with the run."""
    fields = _fields(fold)
    return RunEnded(run, model, **fields, seconds=seconds, thread=thread, agent=agent, trace=trace)


def answer_ended(
    run: str, operation: int, model: str, fold: Fold, seconds: float, *, thread: str | None = None
) -> AnswerEnded:
    """The end of an answer inside of the agent's ``run``, which ``fold`` has reached."""
    fields = _fields(fold)
    return AnswerEnded(run, model, **fields, seconds=seconds, thread=thread, operation=operation)


def _fields(fold: Fold) -> dict[str, Any]:
    usage, error = fold.usage, fold.error or {}
    is_stopped = fold.outcome == "incomplete" and fold.end_reason == "budget"
    step = next((step for step in reversed(fold.steps) if step.response_id is not None), None)
    return {
        "outcome": fold.status,
        "code": error.get("code") if fold.outcome == "error" else None,
        "events": fold.seq,
        "input_tokens": usage.get("input_tokens", 0),
        "output_tokens": usage.get("output_tokens", 0),
        "cached_input_tokens": usage.get("cached_input_tokens"),
        "cache_write_tokens": usage.get("cache_write_tokens"),
        "reasoning_tokens": usage.get("reasoning_tokens"),
        "usage_unknown": fold.usage_unknown,
        "finish_reason": fold.finish_reason,
        "budget": (fold.budget or {}).get("name", "") if is_stopped else None,
        # Without an id nothing says that the name is the provider's own, and not the caller's.
        "response_model": None if step is None else step.model,
        "response_id": None if step is None else step.response_id,
    }
