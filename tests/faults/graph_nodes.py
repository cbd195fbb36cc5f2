"""I6 for the nodes of a graph of LangGraph: their effects, held against the checkpoints.

Pure: values in, complaints out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from faults import graph
from tokenwire.events import model as m

if TYPE_CHECKING:
    from faults.checker import Case, Evidence


def nodes(case: Case, events: list[m.Event], evidence: Evidence) -> Iterable[str]:
    """No node runs again that a checkpoint has as done when its worker began; none twice for one
    worker; each of them where the run is complete; and its tool's result is said once."""
    if case.agent != graph.NAME:
        return
    stored: list[tuple[int, str, int]] = []
    begun: dict[str, int] = {}
    ran: Counter[tuple[str, int, str]] = Counter()
    for number, line in enumerate(evidence.lines):
        if line["what"] == "own":
            begun[line["who"]] = number
        elif line["what"] == "checkpoint":
            stored.append((number, line["who"], line["step"]))
        elif line["what"] == "node":
            who, name = line["who"], line["name"]
            ran[who, begun.get(who, -1), name] += 1
            for at, by, step in stored:
                if step >= line["step"] and (by == who or at < begun[who]):
                    yield f"I6: node {name} ran again, and checkpoint {step} had it as done"
                    break
    for (_, _, name), count in ran.items():
        if count > 1:
            yield f"I6: one worker ran node {name} {count} times"
    results = Counter(e.call_id for e in events if isinstance(e, m.ToolResult | m.ToolError))
    for call, count in results.items():
        if count > 1:
            yield f"I6: call {call} has {count} results"
    last = events[-1] if events else None
    if isinstance(last, m.RunEnd) and last.outcome == "complete":
        missing = set(graph.EFFECTS) - {name for _, _, name in ran}
        if missing:
            yield f"I6: the run is complete, and its nodes {sorted(missing)} never ran"
