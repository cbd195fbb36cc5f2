"""The lease as it is set by default (15 s), with workers as if on other machines, whose death only
their lease tells: how long a takeover takes, and what a worker does that slept for 30 s.

* ``killed``: kill -9 in the middle of a text;
* ``asleep``: stopped for 30 s while its model speaks, then woken;
* ``silent``: the same while its model says nothing.
"""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import worker as fault_worker
from faults.actors import Worker, context, evidence_of, read
from faults.checker import Case, Client, check, dump
from faults.journal import Journal, Trap
from faults.worker import Place
from tokenwire.events.codec import decode
from tokenwire.events.model import RunClaim
from tokenwire.relay.runs import Runs
from tokenwire.relay.worker import LEASE
from tokenwire.run.stream import new_run_id
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.settings import Settings

#: Seconds within which another worker must go on.
TAKEOVER = 20.0
ASLEEP = 30.0

_NUMBERS = "".join(f"{number} " for number in range(1, 91))
CASES = {
    "killed": ("scenario:slow?rate=30", _NUMBERS, "kill"),
    "asleep": ("scenario:slow?rate=2.5", _NUMBERS, "stop"),
    "silent": ("scenario:stall", None, "stop"),
}


@dataclass
class LeaseReport:
    #: Case -> seconds until another worker went on.
    takeovers: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


async def lease_run(store: str, folder: Path) -> LeaseReport:
    """All cases at once; takes about a minute."""
    report = LeaseReport()
    journal = Journal(str(folder / "journal"))
    made = context()
    async with SimulatorServer(Settings()) as model:
        place = Place(store, model.url, journal.path, lease=LEASE, far=True)
        runs = fault_worker.make_runs(place, journal, owner="heir:0:0")
        await runs.open()
        try:
            cases = (_One(report, journal, made, model, runs, place, name) for name in CASES)
            await asyncio.gather(*(case.run() for case in cases))
        finally:
            await fault_worker.leave(runs)
            journal.close()
    return report


class _One:
    """One case, from its start to its verdict."""

    def __init__(
        self,
        report: LeaseReport,
        journal: Journal,
        made: Any,
        model: SimulatorServer,
        runs: Runs,
        place: Place,
        name: str,
    ) -> None:
        prompt, expected, self._action = CASES[name]
        self._report, self._journal, self._model = report, journal, model
        self._runs, self._place, self._made, self._name = runs, place, made, name
        self._run = new_run_id()
        self._case = Case(f"key-{name}", prompt, f"model-{name}", expected, {self._run})
        self._case.clients = [Client()]
        self._claimed = asyncio.Event()
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def run(self) -> None:
        case, runs = self._case, self._runs
        trap = Trap(self._action, "text-delta")
        place = Place(self._place.store, self._model.url, self._journal.path, trap, LEASE, far=True)
        worker = await Worker.start(self._made, place, lambda _, said: self._told.put_nowait(said))
        order = {"key": case.key, "prompt": case.scenario, "model": case.model, "run": self._run}
        worker.pipe.send(order)
        reading = asyncio.create_task(
            read(runs, self._run, case.key, case.clients[0], seen=self._seen)
        )
        try:
            async with asyncio.timeout(180):
                await worker.sprung.wait()
                begun = time.monotonic()
                await self._claimed.wait()
                took = self._report.takeovers[self._name] = time.monotonic() - begun
                if took > TAKEOVER:
                    self._complain(f"G5: {took:.1f} s until another worker went on")
                if self._action == "stop":
                    await asyncio.sleep(max(0.0, begun + ASLEEP - time.monotonic()))
                    await self._wake(worker)
                if case.expected is None:
                    await runs.cancel(self._run, principal=case.key)
                    self._journal.write("cancel", run=self._run)
                await reading
            await self._judge()
        except TimeoutError:
            self._complain("G5: no end within 180 s")
        finally:
            reading.cancel()
            await worker.end()

    async def _seen(self, items: list[tuple[str, bytes]]) -> None:
        if any(isinstance(decode(data), RunClaim) for _, data in items):
            self._claimed.set()

    async def _wake(self, worker: Worker) -> None:
        """After it woke it lets go of its run, and of its provider."""
        first = next(r for r in self._model.requests if r.model == self._case.model)
        if first.outcome != "running":
            self._complain(f"the provider's stream had ended before: {first.outcome}")
        worker.signal(signal.SIGCONT)
        owned = 1
        while owned or first.outcome == "running":
            worker.pipe.send({"ask": "owned"})
            while "owned" not in (said := await self._told.get()):
                pass
            owned = said["owned"]
            await asyncio.sleep(0.02)

    async def _judge(self) -> None:
        case = self._case
        asked = sum(record.model == case.model for record in self._model.requests)
        [evidence] = evidence_of([case], self._journal, {case.model: asked})
        verdict = check(case, [await dump(self._runs.store, self._run)], evidence)
        for text in verdict.broken:
            self._complain(text)
        refused = [line for line in evidence.of("append") if line["status"] == "fenced"]
        if len(refused) > 1:
            self._complain(f"I7: {len(refused)} appends after the takeover")
        wanted = "cancelled" if case.expected is None else "complete"
        if (verdict.outcome, verdict.claims) != (wanted, 1):
            self._complain(f"it ended as {verdict.outcome} after {verdict.claims} takeovers")

    def _complain(self, text: str) -> None:
        self._report.broken.append(f"{self._name}: {text}")
