"""The invariants I1-I11 of a run, checked on its final log, on what every client got, and on what
every worker wrote down. Pure: values in, complaints out.

The chain of checks and the text are worked out here by hand, not by the code under test.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from faults import graph
from faults.agent_steps import steps
from faults.graph_nodes import nodes
from faults.journal import CHECK, Line
from tokenwire.errors import OrderError, TokenwireError
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.events.fold import fold
from tokenwire.events.order import Order
from tokenwire.log.base import Store

#: Tries of one model call, over all workers.
MOST_ATTEMPTS = 2
#: Tries of an agent's step that may be done again: a run costs no more workers than that.
MOST_TRIES = 4


@dataclass
class Client:
    """One reader: what it got, over all of its connections."""

    items: list[tuple[str, bytes]] = field(default_factory=list)
    connections: int = 0
    ended: bool = False
    #: Makes its choices its own, and repeatable.
    seed: int = 0


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
    #: Codes of errors that it may end with, which a fault that the harness made explains; None:
    #: any, where the model fails.
    errors: frozenset[str] | None = frozenset()
    #: The agent that is asked for, in place of the model that it calls.
    agent: str = ""
    #: Names of the data that a complete run has sent, each once.
    data: frozenset[str] = frozenset()

    @property
    def asks_for(self) -> str:
        """The name that the request has as its model."""
        return self.agent or self.model


@dataclass
class Dump:
    """One run as the store has it at the end."""

    run: str
    records: list[bytes]
    epoch: int
    closed: str | None


@dataclass
class Evidence:
    """What was seen from outside of one case: the workers' journal lines about it, in order, and
    how often the provider was asked."""

    lines: list[Line] = field(default_factory=list)
    requests: int = 0

    def of(self, what: str) -> list[Line]:
        return [line for line in self.lines if line["what"] == what]


@dataclass
class Verdict:
    outcome: str = ""
    reason: str | None = None
    claims: int = 0
    resets: int = 0
    events: int = 0
    broken: list[str] = field(default_factory=list)


async def dump(log: Store, run: str) -> Dump:
    """All of a run, as it is."""
    info = await log.describe(run)
    records: list[bytes] = []
    while len(records) < info.tail:
        records += (await log.read(run, after=len(records), most=4096)).records
    return Dump(run, records, info.epoch, info.closed)


def check(case: Case, dumps: list[Dump], evidence: Evidence) -> Verdict:
    """Everything that must hold of one run. ``dumps``: all runs that its key named."""
    verdict = Verdict()
    if len(dumps) != 1:
        verdict.broken.append(f"I10: {len(dumps)} runs of one idempotency key")
        return verdict
    kept = dumps[0]
    complaints = list(_offsets(kept))
    if complaints:
        verdict.broken += complaints
        return verdict
    events: list[m.Event] = [decode(record[CHECK:]) for record in kept.records]  # type: ignore[misc]
    verdict.events = len(events)
    verdict.claims = sum(isinstance(e, m.RunClaim) for e in events)
    verdict.resets = sum(isinstance(e, m.StepReset) for e in events)
    last = events[-1] if events else None
    if isinstance(last, m.RunEnd):
        verdict.outcome, verdict.reason = last.outcome, last.reason
    for part in (
        _epochs(events, kept, evidence),
        _end(events, kept),
        _clients(case, kept),
        _text(case, events),
        _tools(events, evidence) if case.agent != graph.NAME else (),
        steps(case, events, evidence),
        nodes(case, events, evidence),
        _fences(evidence),
        _attempts(events, evidence, is_graph=case.agent == graph.NAME),
        _cancel(case, events, evidence),
        _explained(case, events),
    ):
        verdict.broken += part
    return verdict


def _offsets(kept: Dump) -> Iterable[str]:
    """I2: offsets 1..n, the chain holds, and the events come in a legal order."""
    last = hashlib.blake2b(kept.run.encode(), digest_size=8).hexdigest().encode()
    order = Order()
    for number, record in enumerate(kept.records, 1):
        last = hashlib.blake2b(last + record[CHECK:], digest_size=8).hexdigest().encode()
        if record[:CHECK] != last:
            yield f"I2: record {number} fails its check"
            return
        try:
            event = decode(record[CHECK:])
            if event.seq != number:
                yield f"I2: record {number} says that it is {event.seq}"
                return
            if not (isinstance(event, m.Event) and order.state == "ended"):  # that is I3
                order.check(event)
        except (TokenwireError, OrderError) as error:
            yield f"I2: record {number}: {error}"
            return


def _epochs(events: list[m.Event], kept: Dump, evidence: Evidence) -> Iterable[str]:
    """I1: epochs never fall along the log, and each has one owner."""
    claims = [event.epoch for event in events if isinstance(event, m.RunClaim)]
    if claims != sorted(set(claims)) or (claims and claims[-1] > kept.epoch):
        yield f"I1: epochs along the log are {claims}, the store's is {kept.epoch}"
    owners: dict[int, set[str]] = {}
    for line in evidence.lines:
        if line["what"] in ("own", "append") and line.get("status") not in ("fenced", "closed"):
            owners.setdefault(line["epoch"], set()).add(line["who"])
    for epoch, names in owners.items():
        if len(names) > 1:
            yield f"I1: epoch {epoch} had {len(names)} owners"
    reached = 0
    for line in sorted(_accepted(evidence), key=lambda line: line["first"]):
        if line["epoch"] < reached:
            yield f"I1: record {line['first']} is of epoch {line['epoch']}, after {reached}"
        reached = max(reached, line["epoch"])


def _accepted(evidence: Evidence) -> list[Line]:
    return [line for line in evidence.of("append") if line["status"] == "ok"]


def _end(events: list[m.Event], kept: Dump) -> Iterable[str]:
    """I3: exactly one terminal event, and it is the last."""
    ends = [number for number, event in enumerate(events, 1) if isinstance(event, m.RunEnd)]
    if ends != [len(events)]:
        yield f"I3: ends at {ends} of {len(events)}"
    elif kept.closed != events[-1].outcome:  # type: ignore[attr-defined]
        yield f"I3: the last event is {events[-1]}, the store says {kept.closed}"


def _clients(case: Case, kept: Dump) -> Iterable[str]:
    """I4: what each client got is the log, from its first record to its last."""
    truth = [
        (f"{number}-{record[:CHECK].decode()}", record[CHECK:])
        for number, record in enumerate(kept.records, 1)
    ]
    for number, client in enumerate(case.clients, 1):
        if not client.ended:
            yield f"I4: client {number} got no end"
        if client.items != truth:
            same = 0
            while client.items[same : same + 1] == truth[same : same + 1] != []:
                same += 1
            yield (
                f"I4: client {number} got {len(client.items)} events, the log has {len(truth)}; "
                f"they differ from event {same + 1} on"
            )


def texts_by_hand(events: list[m.Event], *, of_root: bool = False) -> str:
    """The text a reader ends with, told without the fold: parts in order, those that a reset
    names thrown away. ``of_root``: without what a subagent says."""
    parts: dict[int, str] = {}
    others: set[int] = set()
    for event in events:
        if isinstance(event, m.TextStart) and event.agent is not None and event.agent.parent:
            others.add(event.part)
        if isinstance(event, m.TextDelta) and not (of_root and event.part in others):
            parts[event.part] = parts.get(event.part, "") + event.text
        elif isinstance(event, m.StepReset):
            for part in event.discard_parts:
                parts.pop(part, None)
    return "".join(parts.values())


def _text(case: Case, events: list[m.Event]) -> Iterable[str]:
    """I5: the visible text is that of each step's last attempt."""
    opened: dict[int, list[int]] = {}
    step = 0
    for event in events:
        if isinstance(event, m.StepStart) and event.kind != "task":
            step = event.step
        elif isinstance(event, m.PartStart):
            opened.setdefault(step, []).append(event.part)
        elif isinstance(event, m.StepReset):
            shown = opened.pop(event.step, [])
            if sorted(event.discard_parts) != sorted(shown):
                yield f"I5: the reset of step {event.step} keeps parts of an attempt that failed"
    text = texts_by_hand(events)
    if fold(list(events)).text != texts_by_hand(events, of_root=True):
        yield "I5: the folded text is not that of the last attempts"
    ended = events[-1] if events else None
    whole = isinstance(ended, m.RunEnd) and ended.outcome == "complete"
    if whole and case.expected is not None and text != case.expected:
        yield "I5: the text is not what the model said"


def _tools(events: list[m.Event], evidence: Evidence) -> Iterable[str]:
    """I6: one result a call, one effect where it may not be repeated; and what a lost worker had
    begun and must not be repeated is left in doubt."""
    results = Counter(e.call_id for e in events if isinstance(e, m.ToolResult))
    ends = Counter(e.call_id for e in events if isinstance(e, m.ToolResult | m.ToolError))
    starts = Counter(e.call_id for e in events if isinstance(e, m.ToolStart))
    once = {e.call_id for e in events if isinstance(e, m.ToolStart) and not e.idempotent}
    effects = Counter(line["call"] for line in evidence.of("tool"))
    for call in sorted(set(starts) | set(ends) | set(effects)):
        if results[call] > 1 or ends[call] > 1:
            yield f"I6: call {call} has {ends[call]} results"
        if effects[call] and not starts[call]:
            yield f"I6: call {call} ran and its start is not in the log"
        if call in once and (effects[call] > 1 or starts[call] > 1):
            yield f"I6: call {call} was started {starts[call]} times, {effects[call]} effects"
        if results[call] and starts[call] and not effects[call]:
            yield f"I6: call {call} has a result and never ran"
    open_calls: dict[str, bool] = {}
    doubt = False
    for event in events:
        if isinstance(event, m.ToolStart):
            open_calls[event.call_id] = event.idempotent
        elif isinstance(event, m.ToolResult | m.ToolError):
            open_calls.pop(event.call_id, None)
        elif isinstance(event, m.RunClaim):
            doubt = doubt or not all(open_calls.values())
    last = events[-1] if events else None
    if doubt and isinstance(last, m.RunEnd) and last.outcome not in ("interrupted", "cancelled"):
        yield f"I6: a call is in doubt, and the run ended as {last.outcome}"


def _fences(evidence: Evidence) -> Iterable[str]:
    """I7: no append of a fenced owner is accepted; who was told so does nothing more."""
    claims = [line for line in evidence.of("own") if line["epoch"] > 1]
    for line in _accepted(evidence):
        last = line["first"] + line["count"] - 1
        for claim in claims:
            if line["epoch"] < claim["epoch"] and last > claim["tail"]:
                yield (
                    f"I7: record {last} of epoch {line['epoch']} was accepted though epoch "
                    f"{claim['epoch']} began after record {claim['tail']}"
                )
    fenced: set[tuple[str, int]] = set()
    newest: dict[str, int] = {}
    for line in evidence.lines:
        who = line.get("who", "")
        if line["what"] == "own":
            newest[who] = line["epoch"]
        # A worker may take a run over while its own task of an older epoch has not heard of that.
        epoch = line.get("epoch", newest.get(who, 0))
        if (who, epoch) in fenced and line["what"] in ("call", "tool", "step", "node", "append"):
            yield f"I7: {who} was fenced, and then: {line['what']}"
        if line["what"] == "append" and line["status"] == "fenced":
            fenced.add((who, epoch))


def _attempts(
    events: list[m.Event], evidence: Evidence, *, is_graph: bool = False
) -> Iterable[str]:
    """I8: each provider call was announced; and no step is tried without end."""
    starts = [event for event in events if isinstance(event, m.StepStart)]
    calls = max(evidence.requests, len(evidence.of("call")))
    attempts = sum(event.kind == "model" for event in starts)
    if calls > attempts:
        yield f"I8: {calls} provider calls, {attempts} attempts recorded"
    tries = Counter(event.step for event in starts)
    for step, count in tries.items():
        numbers = [event.attempt for event in starts if event.step == step]
        if numbers != list(range(1, count + 1)):
            yield f"I8: the attempts of step {step} are numbered {numbers}"
        # A graph's answer that is whole is said again where its node runs again.
        is_model = not is_graph and any(
            event.step == step and event.kind == "model" for event in starts
        )
        if count > (MOST_ATTEMPTS if is_model else MOST_TRIES):
            yield f"I8: step {step} was tried {count} times"
    yield from _usage(events)


def _usage(events: list[m.Event]) -> Iterable[str]:
    """I8: all attempts are paid for; one that was lost before it was counted is told of."""
    spent: Counter[str] = Counter()
    models = {e.step for e in events if isinstance(e, m.StepStart) and e.kind == "model"}
    now: dict[str, int] = {}
    lost = has_parts = False
    for event in events:
        has_parts = has_parts or isinstance(event, m.PartStart)
        if isinstance(event, m.Usage):
            told = {"input_tokens": event.input_tokens, "output_tokens": event.output_tokens}
            now |= {name: count for name, count in told.items() if count is not None}
        elif isinstance(event, m.StepReset | m.StepEnd) and event.step in models:
            cut = isinstance(event, m.StepReset) or not event.terminal_seen
            has_more = cut and (has_parts or "input_tokens" not in now)
            is_free = isinstance(event, m.StepReset) and event.reason == "refused"
            lost = lost or (not is_free and (has_more or not now))
            has_parts = False
            spent.update(now)
            now = {}
    last = events[-1] if events else None
    if not isinstance(last, m.RunEnd):
        return
    told = {name: (last.usage or {}).get(name, 0) for name in ("input_tokens", "output_tokens")}
    if told != {name: spent[name] for name in told}:
        yield f"I8: {dict(spent)} was spent, and {told} told"
    if last.outcome in ("complete", "interrupted") and last.usage_unknown != lost:
        yield f"I8: usage_unknown is {last.usage_unknown}"


def _explained(case: Case, events: list[m.Event]) -> Iterable[str]:
    """I11: a run ends as `error` for a reason: dead and stopped workers are survived."""
    last = events[-1] if events else None
    if not isinstance(last, m.RunEnd) or last.outcome != "error" or case.errors is None:
        return
    errors = [event for event in events if isinstance(event, m.Error)]
    if not errors or errors[-1].code not in case.errors:
        told = [f"{e.scope} {e.code}: {e.message} {e.raw or ''}" for e in errors]
        yield f"I11: the run ended as error ({last.reason}): {told or 'and says no error'}"


def _cancel(case: Case, events: list[m.Event], evidence: Evidence) -> Iterable[str]:
    """I9: after a cancel no step begins, whoever goes on with the run."""
    cancels = [
        n for n, e in enumerate(events) if isinstance(e, m.Control) and e.command == "cancel"
    ]
    last = events[-1] if events else None
    outcome = last.outcome if isinstance(last, m.RunEnd) else None
    if cancels and any(isinstance(e, m.StepStart) for e in events[cancels[0] :]):
        yield "I9: a step began after the cancel"
    if cancels and outcome not in ("cancelled", "complete"):
        yield f"I9: a cancelled run ended as {outcome}"
    asked = False
    late: set[int] = set()
    for line in evidence.lines:
        asked = asked or line["what"] == "cancel"
        if asked and line["what"] == "own":
            late.add(line["epoch"])
    claimed = False
    for event in events:
        claimed = claimed or (isinstance(event, m.RunClaim) and event.epoch in late)
        if claimed and isinstance(event, m.StepStart):
            yield "I9: a worker that took over after the cancel began a step"
