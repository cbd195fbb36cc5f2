"""I6 for the steps of an agent: what the log says of them, held against their effects outside.

Pure: values in, complaints out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from faults.clerk import STEPS
from tokenwire.events import model as m

if TYPE_CHECKING:
    from faults.checker import Case, Evidence

_IDEMPOTENT = {step.name for step in STEPS if step.idempotent}


def open_steps(events: list[m.Event]) -> set[str]:
    """Names of the steps that have begun, have no end, and must not be done again."""
    names: dict[int, str] = {}
    for event in events:
        if isinstance(event, m.StepStart) and event.kind == "task":
            names[event.step] = event.name or ""
        elif isinstance(event, m.StepEnd):
            names.pop(event.step, None)
    return set(names.values()) - _IDEMPOTENT


def steps(case: Case, events: list[m.Event], evidence: Evidence) -> Iterable[str]:
    """One effect where it may not be repeated, at least one where a step is done, and each by the
    worker that recorded its start; data and state once."""
    starts: dict[str, list[int]] = {}
    ends: Counter[str] = Counter()
    names: dict[int, str] = {}
    for number, event in enumerate(events, 1):
        if isinstance(event, m.StepStart) and event.kind == "task":
            names[event.step] = event.name or ""
            starts.setdefault(names[event.step], []).append(number)
        elif isinstance(event, m.StepEnd) and event.step in names and event.status == "complete":
            ends[names[event.step]] += 1
    effects = Counter(line["name"] for line in evidence.of("step"))
    for name in sorted({*starts, *effects}):
        once = name not in _IDEMPOTENT
        if effects[name] and name not in starts:
            yield f"I6: step {name} ran and its start is not in the log"
        if once and (effects[name] > 1 or len(starts.get(name, [])) > 1):
            yield (
                f"I6: step {name} was started {len(starts.get(name, []))} times, "
                f"{effects[name]} effects"
            )
        if ends[name] > 1:
            yield f"I6: step {name} has {ends[name]} ends"
        if ends[name] and not effects[name]:
            yield f"I6: step {name} is done and never ran"
    yield from _whose(starts, evidence)
    yield from _whole(case, events, set(starts) - set(ends))


def _whose(starts: dict[str, list[int]], evidence: Evidence) -> Iterable[str]:
    """A step is done by a worker that recorded its start."""
    owners: dict[int, str] = {}
    for line in evidence.of("append"):
        if line["status"] in ("ok", "duplicate"):
            for number in range(line["first"], line["first"] + line["count"]):
                owners.setdefault(number, line["who"])
    for line in evidence.of("step"):
        if line["who"] not in {owners.get(n) for n in starts.get(line["name"], [])}:
            yield f"I6: step {line['name']} was done by a worker that recorded no start of it"


def _whole(case: Case, events: list[m.Event], undone: set[str]) -> Iterable[str]:
    last = events[-1] if events else None
    sent = Counter(event.name for event in events if isinstance(event, m.Data))
    for name, count in sent.items():
        if case.agent and count > 1:
            yield f"I5: data {name} was sent {count} times"
    if not case.agent or not isinstance(last, m.RunEnd) or last.outcome != "complete":
        return
    if undone:
        yield f"I6: the run is complete, and not its steps {sorted(undone)}"
    if case.expected is not None and set(sent) != case.data:
        yield f"I5: the run is complete, with the data {sorted(sent)}"
