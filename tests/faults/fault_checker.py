"""The invariants I1-I10 of a run, checked on its final log and on what every client got."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.events.fold import fold
from tokenwire.log.base import Log
from tokenwire.relay.record import CHECK, cursor_of
from tokenwire.relay.runs import _scoped
from tokenwire.relay.takeover import read_run


@dataclass
class Client:
    """One reader: what it got, over all of its connections."""

    items: list[tuple[str, bytes]] = field(default_factory=list)
    connections: int = 0
    ended: bool = False


@dataclass
class Case:
    """One run as the harness knows it from outside."""

    key: str
    scenario: str
    model: str
    expected: str | None
    runs: set[str] = field(default_factory=set)
    clients: list[Client] = field(default_factory=list)
    cancelled: bool = False


@dataclass
class Verdict:
    outcome: str = ""
    claims: int = 0
    resets: int = 0
    events: int = 0
    broken: list[str] = field(default_factory=list)


def texts_by_hand(events: list[m.Event]) -> str:
    """The text a reader ends with, told without the fold: parts in order, those that a reset
    names thrown away."""
    parts: dict[int, str] = {}
    for event in events:
        if isinstance(event, m.TextDelta):
            parts[event.part] = parts.get(event.part, "") + event.text
        elif isinstance(event, m.StepReset):
            for part in event.discard_parts:
                parts.pop(part, None)
    return "".join(parts.values())


async def check(log: Log, case: Case, requests: Counter[str], effects: Counter[str]) -> Verdict:
    """Everything that must hold of one run."""
    verdict = Verdict()
    broken = verdict.broken
    names = case.runs | set(await log.thread(_scoped(case.key, case.key) or ""))
    if len(names) != 1:
        broken.append(f"I10: {len(names)} runs of one idempotency key")
        return verdict
    run = names.pop()
    taken = await read_run(log, run)  # I2: the chain and the order table hold, offsets are dense
    info = await log.describe(run)
    events = _events(taken.records)
    verdict.events = len(events)
    claims = [event.epoch for event in events if isinstance(event, m.RunClaim)]
    verdict.claims = len(claims)
    verdict.resets = sum(isinstance(event, m.StepReset) for event in events)
    if claims != sorted(set(claims)) or (claims and claims[-1] > info.epoch):
        broken.append(f"I1: epochs along the log are {claims}, the store's is {info.epoch}")
    ends = [number for number, event in enumerate(events) if isinstance(event, m.RunEnd)]
    if ends != [len(events) - 1] or info.closed is None:
        broken.append(f"I3: ends at {ends} of {len(events)}, closed {info.closed}")
        return verdict
    verdict.outcome = events[-1].outcome
    truth = [(cursor_of(n, r), r[CHECK:]) for n, r in enumerate(taken.records, 1)]
    for client in case.clients:
        if not client.ended or client.items != truth:
            broken.append(f"I4: a client got {len(client.items)} events, not the {len(truth)}")
    text = texts_by_hand(events)
    if fold(events).text != text:
        broken.append("I5: the folded text is not that of the last attempts")
    if verdict.outcome == "complete" and case.expected is not None and text != case.expected:
        broken.append("I5: the text is not what the model said")
    results = Counter(e.call_id for e in events if isinstance(e, m.ToolResult))
    started = {e.call_id for e in events if isinstance(e, m.ToolStart)}
    for call in started | set(results):
        done = effects[f"{case.key} {call}"]
        if results[call] > 1 or done > 1:
            broken.append(f"I6: call {call} has {results[call]} results and {done} effects")
    attempts = sum(isinstance(e, m.StepStart | m.StepReset) for e in events)
    if requests[case.model] > attempts:
        broken.append(f"I8: {requests[case.model]} provider calls, {attempts} attempts recorded")
    cancels = [
        n for n, e in enumerate(events) if isinstance(e, m.Control) and e.command == "cancel"
    ]
    if cancels and any(isinstance(e, m.StepStart) for e in events[cancels[0] :]):
        broken.append("I9: a step began after the cancel")
    if cancels and verdict.outcome not in ("cancelled", "complete"):
        broken.append(f"I9: a cancelled run ended as {verdict.outcome}")
    return verdict


def _events(records: list[bytes]) -> list[m.Event]:
    return [decode(record[CHECK:]) for record in records]  # type: ignore[misc]
