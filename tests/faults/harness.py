"""Kills, stops and cuts under load, repeatable by their seed, and a verdict on every run.

Workers are processes that share one store. Clients follow runs from the harness, break off at any
moment and come back with their last cursor. Afterwards every client's history is held against the
final log. The seed fixes every choice; the moments depend on the machine as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import clerk, graph
from faults.actors import Worker, evidence_of, read
from faults.checker import Case, Client, Verdict, check, dump
from faults.herd import Herd, Hits
from tokenwire.errors import ConflictError, TokenwireError
from tokenwire.events.codec import decode
from tokenwire.events.model import ApprovalRequest
from tokenwire.relay.runs import Runs
from tokenwire.relay.starts.start import scoped
from tokenwire.run.stream import new_run_id
from tokenwire.simulator import samples

RUNS_AT_ONCE = 8
CLIENTS = 2


@dataclass
class Report(Hits):
    """What happened, for people and programs."""

    runs: int = 0
    #: How many of them were an agent's, and how many a graph's of LangGraph.
    agents: int = 0
    graphs: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    takeovers: int = 0
    resets: int = 0
    events: int = 0
    connections: int = 0
    cancels: int = 0


class Harness(Herd):
    """One run of the harness on one store."""

    most_progress, store_share, rate = 600, 0.06, 400.0

    def __init__(
        self,
        store: str,
        folder: Path,
        *,
        seed: int,
        kills: int,
        workers: int,
        restart_store: Callable[[], None] | None = None,
        skews: tuple[float, ...] = (0.0,),
        agents: bool = True,
        graphs: bool = False,
    ) -> None:
        self.report = Report(seed, store.partition(":")[0])
        super().__init__(
            self.report,
            store,
            folder,
            kills=kills,
            workers=workers,
            restart_store=restart_store,
            skews=skews,
        )
        self._agents, self._graphs = agents, graphs
        self._checkpoints = str(folder / "graph.db") if graphs else ""
        self._cases: list[Case] = []
        self._starts: dict[str, asyncio.Event] = {}
        self._delivered = 0

    async def run(self) -> Report:
        begun = time.monotonic()
        clerk.add_scenario()
        try:
            async with self._at_work(checkpoints=self._checkpoints) as runs:
                await self._under_load(runs)
                await self._judge(runs)
        finally:
            clerk.remove_scenario()
        self.report.seconds = time.monotonic() - begun
        return self.report

    async def _under_load(self, runs: Runs) -> None:
        killer = asyncio.create_task(self._kill())
        lanes = [
            asyncio.create_task(self._lane(runs, killer, number)) for number in range(RUNS_AT_ONCE)
        ]
        await asyncio.gather(killer, *lanes)

    # Workers.

    def _hear(self, worker: Worker, answer: dict[str, Any]) -> None:
        if "key" in answer:
            case = next(case for case in self._cases if case.key == answer["key"])
            if "run" in answer:
                case.runs.add(answer["run"])
                self._starts[case.key].set()

    async def _some_progress(self, events: int) -> None:
        """Until clients got that many events more, however fast the machine is; not for ever, as
        the runs that wait for a dead worker bring none."""
        end = time.monotonic() + 1.0
        target = self._delivered + events
        while self._delivered < target and time.monotonic() < end:
            await asyncio.sleep(0.005)

    # Runs and their clients.

    async def _lane(self, runs: Runs, killer: asyncio.Task[None], number: int) -> None:
        """One run after the other, until the killing is done."""
        turn = 0
        while not killer.done():
            turn += 1
            case = self._new_case(f"key-{number}-{turn}")
            await self._start(case)
            run = next(iter(case.runs))
            case.clients = [Client(seed=n) for n in range(CLIENTS)]
            tasks = [
                asyncio.create_task(
                    read(runs, run, case.key, client, seen=_Reader(self, runs, run, case))
                )
                for client in case.clients
            ]
            if case.cancelled:
                await asyncio.sleep(self._chance.uniform(0.0, 0.5))
                await runs.cancel(run, by="harness", principal=case.key)
                self._journal.write("cancel", run=run)
            _, late = await asyncio.wait(tasks, timeout=60)
            for task in late:
                task.cancel()
                self.report.broken.append(f"{case.key} ({case.scenario}): G5: no end in 60 s")

    def _new_case(self, key: str) -> Case:
        kinds = ["text", "text", "tool", "reasoning", *["agent"] * (2 * self._agents)]
        kinds += ["graph"] * (2 * self._graphs)
        scenario = self._chance.choice(kinds)
        case = Case(
            key=key,
            scenario=f"scenario:{scenario}",
            model=f"model-{key}",
            expected=samples.MARKDOWN if scenario == "text" else None,
            cancelled=self._chance.random() < 0.12,
            errors=frozenset({"store_unavailable"} if self._restart_store is not None else ()),
        )
        if scenario == "agent":
            case.agent, case.expected, case.data = clerk.NAME, clerk.EXPECTED, clerk.DATA
            self.report.agents += 1
        elif scenario == "graph":
            case.agent, case.expected = graph.NAME, graph.EXPECTED
            self.report.graphs += 1
        self.report.runs += 1
        self.report.cancels += case.cancelled
        self._cases.append(case)
        self._starts[key] = asyncio.Event()
        return case

    async def _start(self, case: Case) -> None:
        """Ask one worker, sometimes two at once, and again until one of them has answered."""
        while not case.runs:
            able = [worker for worker in self._workers if worker.able]
            if not able:
                await asyncio.sleep(0.02)
                continue
            count = min(len(able), self._chance.choice([1, 1, 1, 2]))
            for worker in self._chance.sample(able, count):
                order = {"key": case.key, "prompt": case.scenario, "model": case.asks_for}
                try:
                    worker.pipe.send({**order, "run": new_run_id()})
                except OSError:
                    continue  # it was killed a moment ago
            try:
                async with asyncio.timeout(1.0):
                    await self._starts[case.key].wait()
            except TimeoutError:
                continue

    def count(self, delivered: int) -> None:
        """Clients got so many events more."""
        self._delivered += delivered

    # Verdict.

    async def _judge(self, runs: Runs) -> None:
        report = self.report
        requests = Counter(record.model for record in self._model.requests)
        everything = evidence_of(self._cases, self._journal, requests)
        for case, evidence in zip(self._cases, everything, strict=True):
            names = case.runs | set(await runs.store.thread(scoped(case.key, case.key) or ""))
            try:
                dumps = [await dump(runs.store, name) for name in sorted(names)]
            except TokenwireError as error:
                report.broken.append(f"{case.key} ({case.scenario}): I2: {error}")
                continue
            self._count_in(case, check(case, dumps, evidence))

    def _count_in(self, case: Case, verdict: Verdict) -> None:
        report, outcomes = self.report, self.report.outcomes
        outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
        report.takeovers += verdict.claims
        report.resets += verdict.resets
        report.events += verdict.events
        report.connections += sum(client.connections for client in case.clients)
        report.broken += [f"{case.key} ({case.scenario}): {text}" for text in verdict.broken]


class _Reader:
    """What one client does with what it gets: it says yes where an agent asks."""

    def __init__(self, harness: Harness, runs: Runs, run: str, case: Case) -> None:
        self._harness, self._runs, self._run, self._case = harness, runs, run, case

    async def __call__(self, items: list[tuple[str, bytes]]) -> None:
        self._harness.count(len(items))
        if not self._case.agent:
            return
        for event in (decode(data) for _, data in items if b'"approval-request"' in data):
            if isinstance(event, ApprovalRequest):
                with contextlib.suppress(ConflictError):  # answered, or over
                    await self._runs.approve(
                        self._run, event.approval_id, approved=True, principal=self._case.key
                    )
