"""A worker is hit after every single record of a run, and in the middle of every tool.

The run has text, a tool that may run again, one that may not, one that needs a yes, and a last
answer; other runs end in other ways. For each record n a worker of its own starts the run and is
hit right after record n was accepted, in one of these ways; another worker is there to go on:

* ``kill``: kill -9;
* ``stop``: stopped until another has taken over, then woken: a zombie;
* ``cancel``: stopped; somebody cancels the run; then kill -9;
* ``drain``: asked to stop gracefully;
* ``twice``: kill -9, and the next worker as well, some records later.

What must come of it follows from the records before the hit, and is checked exactly.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faults import clerk, graph
from faults import worker as fault_worker
from faults.actors import Worker, context, evidence_of, read
from faults.agent_steps import open_steps
from faults.checker import CHECK, Case, Client, Verdict, check, dump, texts_by_hand
from faults.journal import Journal, Trap
from faults.worker import Place
from tokenwire.errors import ConflictError
from tokenwire.events import model as m
from tokenwire.events.codec import decode
from tokenwire.relay.runs import Runs
from tokenwire.run.stream import new_run_id
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.scenarios import SCENARIOS, Scenario
from tokenwire.simulator.script import Ask, Call, Say, Script
from tokenwire.simulator.settings import Settings

MODES = ("kill", "stop", "cancel", "drain", "twice")
TOOLS = ("read_stock", "send_order", "delete_file")
INSIDE = {
    "scenario:sweep": TOOLS,
    "agent": tuple(step.name for step in clerk.STEPS),
    "graph": graph.EFFECTS,
}
#: How many records after its takeover the second worker is killed, in mode ``twice``.
LATER = (1, 2, 3, 5, 8)

#: Why a run is given up that cost a worker or two.
GIVEN_UP = ("tool_in_doubt", "step_in_doubt", "worker_lost")

#: Runs without tools that end in their own ways.
OTHER_ENDS = ("scenario:length", "scenario:error", "scenario:refusal", "scenario:empty")

#: What a sweep is asked to hit in place of a model's run.
AGENT = "agent"
#: The same of LangGraph's graph.
GRAPH = "graph"

_SAID = (("I look ", "first. "), (), ("May I ", "tidy up? "), ("All ", "of it ", "is done."))
EXPECTED = "".join("".join(parts) for parts in _SAID)


def _sweep(ask: Ask, seed: int) -> Script:
    stage = len(ask.results)
    calls = (
        Call("read_stock", {"item": "tea"}),
        Call("send_order", {"item": "tea"}),
        Call("delete_file", {"path": "list.txt"}),
    )
    words = [Say("".join(_SAID[stage]), _SAID[stage])] if _SAID[stage] else []
    return Script(steps=[*words, *calls[stage : stage + 1]])


@dataclass(frozen=True)
class Point:
    """One hit: ``mode``, after which record or in which tool; ``then``: how many records later the
    second worker is hit. Types are counted, as pieces of text may come joined."""

    mode: str
    kind: str = ""
    nth: int = 1
    tool: str = ""
    then: int = 0

    def trap(self) -> Trap:
        action = {"cancel": "stop", "twice": "kill"}.get(self.mode, self.mode)
        return Trap(action, self.kind, self.nth, tool=self.tool)

    def __str__(self) -> str:
        where = f"in {self.tool}" if self.tool else f"after {self.kind} {self.nth}"
        return f"{self.mode} {where}" + (f" and {self.then} later" if self.then else "")


@dataclass
class Hit:
    """What became of one point."""

    point: Point
    case: Case
    #: How many of its workers were hit: 0 when the run had ended before.
    sprung: int = 0
    verdict: Verdict = field(default_factory=Verdict)


@dataclass
class SweepReport:
    store: str
    prompt: str
    #: The run that nobody hits: the types of its records, its end, its text.
    kinds: list[str] = field(default_factory=list)
    outcome: str = ""
    text: str = ""
    hits: list[Hit] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def broken(self) -> list[str]:
        return [f"{hit.point}: {text}" for hit in self.hits for text in hit.verdict.broken]

    def table(self) -> list[tuple[str, int, int, dict[str, int]]]:
        """(mode, points, hits, outcomes)."""
        rows = []
        for mode in MODES:
            hits = [hit for hit in self.hits if hit.point.mode == mode]
            ends = Counter(_end(hit.verdict) for hit in hits)
            rows.append((mode, len(hits), sum(hit.sprung for hit in hits), dict(ends)))
        return [row for row in rows if row[1]]


def _end(verdict: Verdict) -> str:
    told = verdict.outcome == "interrupted" and verdict.reason
    return f"{verdict.outcome} ({verdict.reason})" if told else verdict.outcome


class Sweep:
    """All points of some modes on one store."""

    def __init__(
        self,
        store: str,
        folder: Path,
        *,
        modes: Iterable[str] = MODES,
        prompt: str = "scenario:sweep",
        every: int = 1,
        at_once: int = 12,
    ) -> None:
        self.report = SweepReport(store.partition(":")[0], prompt)
        self._store, self._modes = store, list(modes)
        #: Every how many-th record.
        self._every, self._at_once = every, at_once
        self._journal = Journal(str(folder / "journal"))
        self._checkpoints = str(folder / "graph.db") if prompt == GRAPH else ""
        self._context = context()
        #: Runs that the heir may take over: not those for which a second victim is meant.
        self._free: set[str] = set()

    async def run(self) -> SweepReport:
        begun = time.monotonic()
        SCENARIOS["sweep"] = Scenario("sweep", "All that a run can have.", _sweep)
        clerk.add_scenario()
        try:
            async with SimulatorServer(Settings(rate=300.0)) as model:
                self._model = model
                place = Place(
                    self._store,
                    model.url,
                    self._journal.path,
                    only=self._free,
                    checkpoints=self._checkpoints,
                )
                self._place = place
                runs = fault_worker.make_runs(place, self._journal, owner="heir:0:0")
                connection = None
                if self._checkpoints:
                    connection = await fault_worker.add_graph(
                        runs, place, self._journal, lambda: None
                    )
                await runs.open()
                try:
                    await self._all(runs)
                finally:
                    await fault_worker.leave(runs)
                    if connection is not None:
                        await connection.close()
        finally:
            del SCENARIOS["sweep"]
            clerk.remove_scenario()
            self._journal.close()
        self.report.seconds = time.monotonic() - begun
        return self.report

    async def _all(self, runs: Runs) -> None:
        await self._one(runs, Point("none", "no such"))
        gate = asyncio.Semaphore(self._at_once)

        async def gated(point: Point) -> Hit:
            async with gate:
                return await self._one(runs, point)

        points = [p for mode in self._modes for p in self._points(mode)]
        self.report.hits = list(await asyncio.gather(*map(gated, points)))

    def _points(self, mode: str) -> list[Point]:
        seen: Counter[str] = Counter()
        where: list[tuple[str, int]] = []
        for kind in self.report.kinds:
            seen[kind] += 1
            where.append((kind, seen[kind]))
        where = where[:: self._every]
        if mode == "twice":
            return [Point(mode, kind, nth, then=n) for kind, nth in where for n in LATER]
        inside = INSIDE.get(self.report.prompt, ())
        points = [Point(mode, kind, nth) for kind, nth in where]
        return points + [Point(mode, tool=name) for name in inside]

    async def _one(self, runs: Runs, point: Point) -> Hit:
        run = new_run_id()
        prompt = self.report.prompt
        expected = EXPECTED if prompt == "scenario:sweep" else None
        case = Case(f"key-{run}", prompt, f"model-key-{run}", expected, {run})
        if prompt in OTHER_ENDS:
            case.errors = None  # the model's own
        if prompt == AGENT:
            case.agent, case.expected, case.data = clerk.NAME, clerk.EXPECTED, clerk.DATA
        elif prompt == GRAPH:
            case.agent, case.expected = graph.NAME, graph.EXPECTED
        case.clients = [Client(seed=0), Client(seed=1)]
        hit = Hit(point, case)
        told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        worker = await self._worker(point.trap(), told)
        worker.pipe.send(
            {"key": case.key, "prompt": case.scenario, "model": case.asks_for, "run": run}
        )
        events = _Seen(runs, case)
        readers = [
            asyncio.create_task(read(runs, run, case.key, client, seen=seen))
            for client, seen in zip(case.clients, (events, None), strict=True)
        ]
        hitting = asyncio.create_task(self._hit(runs, hit, worker, told, events))
        try:
            async with asyncio.timeout(90):
                await asyncio.gather(*readers)
                await hitting
                late = Client(seed=2)
                await read(runs, run, case.key, late)
                case.clients.append(late)
            await self._judge(runs, hit)
        except TimeoutError:
            hit.verdict.broken.append("G5: no end within 90 s")
        finally:
            for task in (*readers, hitting):
                task.cancel()
            await worker.end()
        return hit

    async def _worker(
        self, trap: Trap, told: asyncio.Queue[dict[str, Any]], only: frozenset[str] | None = None
    ) -> Worker:
        place = replace(self._place, trap=trap, only=only)
        worker = await Worker.start(self._context, place, lambda _, said: told.put_nowait(said))
        await told.get()  # ready
        return worker

    async def _hit(
        self,
        runs: Runs,
        hit: Hit,
        worker: Worker,
        told: asyncio.Queue[dict[str, Any]],
        events: _Seen,
    ) -> None:
        """Do to the workers what the point says, in step with what happens."""
        run, mode = next(iter(hit.case.runs)), hit.point.mode
        if hit.point.kind == "run-end":
            await worker.sprung.wait()  # its readers may hear of the end before we hear of the hit
        elif not await _first(worker.sprung.wait(), events.ended.wait()):
            return
        hit.sprung += 1
        if mode == "twice":
            tail = (await runs.info(run, principal=hit.case.key)).tail
            trap = Trap("kill", at=tail + hit.point.then)
            second = await self._worker(trap, asyncio.Queue(), frozenset({run}))
            try:
                hit.sprung += await _first(second.sprung.wait(), events.ended.wait())
            finally:
                await second.end()
        elif mode == "cancel":
            await runs.cancel(run, by="somebody", principal=hit.case.key)
            self._journal.write("cancel", run=run)
            await worker.end()
        self._free.add(run)
        if mode == "stop":
            await _first(events.claimed.wait(), events.ended.wait())
            await self._until_idle(worker, told)

    async def _until_idle(self, worker: Worker, told: asyncio.Queue[dict[str, Any]]) -> None:
        """Until the zombie has let go of its run, and its provider's stream is closed."""
        owned = 1
        while owned:
            worker.signal(signal.SIGCONT)  # it says that it stops a moment before it does
            worker.pipe.send({"ask": "owned"})
            try:
                async with asyncio.timeout(0.5):
                    owned = (await told.get()).get("owned", 1)
            except TimeoutError:
                continue
            await asyncio.sleep(0.02)

    async def _judge(self, runs: Runs, hit: Hit) -> None:
        [run] = hit.case.runs
        kept = await dump(runs.store, run)
        asked = [r for r in self._model.requests if r.model == hit.case.model]
        [evidence] = evidence_of([hit.case], self._journal, {hit.case.model: len(asked)})
        hit.verdict = check(hit.case, [kept], evidence)
        events: list[m.Event] = [decode(record[CHECK:]) for record in kept.records]  # type: ignore[misc]
        claims = [line for line in evidence.of("own") if line["epoch"] > 1]
        before = events[: claims[0]["tail"]] if claims else events
        report, text = self.report, texts_by_hand(events)
        if hit.point.mode == "none":
            report.kinds = [event.type for event in events]
            report.outcome, report.text = hit.verdict.outcome, text
        elif hit.verdict.outcome == report.outcome and text != report.text:
            hit.verdict.broken.append(f"I5: the text is {text!r}")
        hit.verdict.broken += _expectations(hit, before, len(claims), report.outcome)
        lost_twice = (
            len(claims) == 2
            and hit.case.agent != graph.NAME
            and _second_try(events[: claims[1]["tail"]])
        )
        if lost_twice and hit.verdict.reason not in GIVEN_UP:
            hit.verdict.broken.append("I8: a step that cost two workers was tried again")
        if hit.point.mode == "stop":
            refused = [line for line in evidence.of("append") if line["status"] == "fenced"]
            if len(refused) > 1:
                hit.verdict.broken.append(f"I7: {len(refused)} appends after the takeover")
        if any(record.outcome == "running" for record in asked):
            hit.verdict.broken.append("I7: a stream of the provider is still open")


def _second_try(events: list[m.Event]) -> bool:
    """Whether the second try of a step was under way."""
    tasks = {e.step for e in events if isinstance(e, m.StepStart) and e.kind == "task"}
    steps = [
        event
        for event in events
        if isinstance(event, m.StepStart | m.StepEnd) and event.step not in tasks
    ]
    last = steps[-1] if steps else None
    return isinstance(last, m.StepStart) and last.attempt > 1


def _expectations(hit: Hit, before: list[m.Event], claims: int, whole: str) -> Iterable[str]:
    """What must come of a run that was hit after the records ``before``."""
    verdict, mode, ended = hit.verdict, hit.point.mode, isinstance(before[-1], m.RunEnd)
    if mode != "twice" and claims != (hit.sprung > 0 and not ended):
        yield f"G5: {claims} takeovers"
    begun = {e.call_id for e in before if isinstance(e, m.ToolStart) and not e.idempotent}
    begun -= {e.call_id for e in before if isinstance(e, m.ToolResult | m.ToolError)}
    if hit.case.agent == graph.NAME:
        begun = set()  # a graph goes on from its checkpoint
    # A node that was given its answer and was over, while its checkpoint was not there yet.
    is_answered = hit.case.agent == graph.NAME and any(
        isinstance(e, m.ApprovalAnswer) for e in before
    )
    if mode == "twice":
        fine = verdict.outcome == whole or verdict.reason in GIVEN_UP
    elif ended or mode in ("none", "drain") or not hit.sprung:
        fine = verdict.outcome == whole
    elif mode == "cancel":
        fine = verdict.outcome == "cancelled"
    elif open_steps(before):
        # Its value may have been stored before its worker was hit: then it is known, and given.
        doubt = (verdict.outcome, verdict.reason) == ("interrupted", "step_in_doubt")
        fine = doubt or verdict.outcome == whole
    elif begun:
        fine = (verdict.outcome, verdict.reason) == ("interrupted", "tool_in_doubt")
    else:
        fine = verdict.outcome == whole
        fine = fine or (is_answered and verdict.reason == "worker_lost")
    if not fine:
        yield f"it ended as {_end(verdict)}, hit after {before[-1].type} with {begun} begun"


class _Seen:
    """What the first client saw; it says yes where it is asked."""

    def __init__(self, runs: Runs, case: Case) -> None:
        self._runs, self._case = runs, case
        self.claimed, self.ended = asyncio.Event(), asyncio.Event()

    async def __call__(self, items: list[tuple[str, bytes]]) -> None:
        for event in (decode(data) for _, data in items):
            if isinstance(event, m.RunClaim):
                self.claimed.set()
            elif isinstance(event, m.RunEnd):
                self.ended.set()
            elif isinstance(event, m.ApprovalRequest):
                [run] = self._case.runs
                with contextlib.suppress(ConflictError):  # cancelled meanwhile
                    await self._runs.approve(
                        run, event.approval_id, approved=True, principal=self._case.key
                    )


async def _first(one: Any, other: Any) -> bool:
    """Whether ``one`` came before ``other``."""
    tasks = [asyncio.ensure_future(one), asyncio.ensure_future(other)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done()
    finally:
        for task in tasks:
            task.cancel()
