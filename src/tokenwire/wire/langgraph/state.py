"""What a thread's state says of a run: its values, its interrupts, and its failure.

Always true: an interrupt is one approval or one call of a client's tool, and has its id, so that an
answer decides exactly what its reader was shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from tokenwire.events.fold import Fold
from tokenwire.wire.chunk_encoder import Chunk
from tokenwire.wire.failure import fold_ending, fold_failure

__all__ = ["INPUT", "ROOT", "failure_of_fold", "interrupts_of", "is_graph_interrupt", "values_of"]

#: The checkpoint before the first turn, and what the one of a turn's question ends with.
ROOT, INPUT = "root", ".input"


def values_of(messages: list[Chunk], shared: Any) -> Chunk:
    """The values of a state: what an agent shares, and the messages."""
    own = cast("Chunk", shared) if isinstance(shared, dict) else {}
    return {**own, "messages": messages}


def is_graph_interrupt(name: str, arguments: Any) -> bool:
    """Whether an approval is an ``interrupt(value)`` of a graph."""
    return name == "interrupt" and isinstance(arguments, dict) and "value" in arguments


def interrupts_of(fold: Fold, pending: Iterable[str]) -> list[Chunk]:
    """The interrupts that a run waits for. An approval is a request of LangChain's human in the
    loop; the call of a client's tool a headless tool; what a graph interrupts with is itself."""
    questions = {tool.approval_id: tool for tool in fold.tools.values() if tool.approval_id}
    calls = {p.attrs.get("call_id"): p for p in fold.parts.values() if p.kind == "tool-call"}
    interrupts: list[Chunk] = []
    for name in pending:
        question = questions.get(name)
        if question is not None:
            arguments = question.approval_arguments
            if is_graph_interrupt(question.name, arguments):
                interrupts.append({"value": arguments["value"], "id": name})
                continue
            approval = fold.approvals.get(name)
            reason = approval.reason if approval is not None else None
            about = reason or f"May the tool {question.name} run?"
            request = {"name": question.name, "args": arguments or {}, "description": about}
            decisions = ["approve", "edit", "reject"]
            review = {"action_name": question.name, "allowed_decisions": decisions}
            value: Chunk = {"action_requests": [request], "review_configs": [review]}
            interrupts.append({"value": value, "id": name})
            continue
        part = calls.get(name)
        call: Chunk = {"id": name, "name": "", "args": {}}
        if part is not None:
            call |= {"name": part.attrs.get("name", ""), "args": part.attrs.get("arguments") or {}}
        interrupts.append({"value": {"type": "tool", "tool_call": call}, "id": name})
    return interrupts


def failure_of_fold(fold: Fold) -> Chunk | None:
    """Why a run that has ended has no whole answer; None for one that has, or is cut at a limit of
    its words, which its message's ``finish_reason`` says."""
    if fold.outcome is None:
        return None
    failure = fold_failure(fold)
    if failure is not None:
        code = "UserInterrupt" if failure.code == "cancelled" else failure.code
        return {"error": code, "message": failure.message}
    if fold_ending(fold) == "cut" and fold.end_reason == "max_steps":
        return {"error": "GraphRecursionError", "message": "The run ended at its limit of steps."}
    return None
