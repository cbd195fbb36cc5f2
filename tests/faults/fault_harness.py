"""Kills, stops and cuts under load, repeatable by their seed, and a verdict on every run.

Workers are processes that share one store. Clients follow runs from the harness, break off at any
moment and come back with their last cursor. Afterwards every client's history is held against the
final log. The seed fixes every choice; the moments depend on the machine as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import fault_worker
from faults.fault_checker import Case, Client, check
from tokenwire.errors import NotFoundError, TokenwireError
from tokenwire.relay.runs import Runs
from tokenwire.run.stream import new_run_id
from tokenwire.simulator import samples
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.settings import Settings

RUNS_AT_ONCE = 8
CLIENTS = 2


@dataclass
class Report:
    """What happened, for people and programs."""

    seed: int
    store: str
    kills: int = 0
    stops: int = 0
    store_kills: int = 0
    runs: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    takeovers: int = 0
    resets: int = 0
    events: int = 0
    connections: int = 0
    cancels: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


class Worker:
    """One process and its pipe."""

    def __init__(self, context: Any, arguments: tuple[str, str, str]) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=fault_worker.main, args=(theirs, *arguments), daemon=True
        )
        self.process.start()
        theirs.close()
        #: Ready, and not stopped.
        self.able = False

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def end(self) -> None:
        self.process.kill()
        self.process.join(10)
        self.pipe.close()


class Harness:
    """One run of the harness on one store."""

    def __init__(
        self,
        store: str,
        folder: Path,
        *,
        seed: int,
        kills: int,
        workers: int,
        restart_store: Callable[[], None] | None = None,
    ) -> None:
        self.report = Report(seed, store.partition(":")[0])
        self._store = store
        self._ledger = str(folder / "ledger")
        self._chance = random.Random(seed)
        self._kills = kills
        self._restart_store = restart_store
        self._count = workers
        self._workers: list[Worker] = []
        self._cases: list[Case] = []
        self._answers: dict[str, asyncio.Event] = {}
        self._delivered = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["faults.fault_worker"])

    async def run(self) -> Report:
        begun = time.monotonic()
        Path(self._ledger).touch()
        settings = Settings(rate=400.0, jitter=0.3, seed=self._chance.randrange(1 << 30))
        async with SimulatorServer(settings) as model:
            self._model = model
            runs = fault_worker.make_runs(self._store, model.url, self._ledger)
            await runs.open(take_over=False)
            try:
                await self._under_load(runs)
                await self._judge(runs)
            finally:
                for worker in self._workers:
                    asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
                    worker.end()
                await runs.aclose()
        self.report.seconds = time.monotonic() - begun
        return self.report

    async def _under_load(self, runs: Runs) -> None:
        for _ in range(self._count):
            await self._spawn()
        killer = asyncio.create_task(self._kill())
        lanes = [
            asyncio.create_task(self._lane(runs, killer, number)) for number in range(RUNS_AT_ONCE)
        ]
        await asyncio.gather(killer, *lanes)

    # Workers.

    async def _spawn(self) -> None:
        arguments = (self._store, self._model.url, self._ledger)
        worker = await asyncio.to_thread(Worker, self._context, arguments)
        self._workers.append(worker)
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.pipe.fileno(), self._hear, worker)

    def _hear(self, worker: Worker) -> None:
        try:
            answer = worker.pipe.recv()
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(worker.pipe.fileno())
            return
        worker.able = worker.able or "ready" in answer
        if "key" in answer:
            case = next(case for case in self._cases if case.key == answer["key"])
            if "run" in answer:
                case.runs.add(answer["run"])
                self._answers[case.key].set()

    async def _kill(self) -> None:
        chance = self._chance
        while self.report.kills < self._kills:
            await self._some_progress(chance.randint(1, 600))
            if self._restart_store is not None and chance.random() < 0.06:
                self.report.store_kills += 1
                await asyncio.to_thread(self._restart_store)
                continue
            able = [worker for worker in self._workers if worker.able]
            if not able:
                continue
            victim = chance.choice(able)
            if chance.random() < 0.12:
                asyncio.get_running_loop().create_task(self._stop_a_while(victim))
                continue
            self._workers.remove(victim)
            asyncio.get_running_loop().remove_reader(victim.pipe.fileno())
            if not victim.process.is_alive():
                self.report.broken.append("a worker ended by itself")
            await asyncio.to_thread(victim.end)
            self.report.kills += 1
            await self._spawn()

    async def _some_progress(self, events: int) -> None:
        """Until clients got that many events more, however fast the machine is; not for ever, as
        the runs that wait for a dead worker bring none."""
        end = time.monotonic() + 1.0
        target = self._delivered + events
        while self._delivered < target and time.monotonic() < end:
            await asyncio.sleep(0.005)

    async def _stop_a_while(self, victim: Worker) -> None:
        """Longer than a lease: another worker takes over, and a zombie wakes up."""
        victim.able = False
        self.report.stops += 1
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(fault_worker.LEASE * self._chance.uniform(1.2, 1.8))
        victim.signal(signal.SIGCONT)
        victim.able = True

    # Runs and their clients.

    async def _lane(self, runs: Runs, killer: asyncio.Task[None], number: int) -> None:
        """One run after the other, until the killing is done."""
        turn = 0
        while not killer.done():
            turn += 1
            case = self._new_case(f"key-{number}-{turn}")
            await self._start(case)
            run = next(iter(case.runs))
            case.clients = [Client() for _ in range(CLIENTS)]
            tasks = [
                asyncio.create_task(self._read(runs, run, case.key, client))
                for client in case.clients
            ]
            if case.cancelled:
                await asyncio.sleep(self._chance.uniform(0.0, 0.5))
                await runs.cancel(run, by="harness", principal=case.key)
            _, late = await asyncio.wait(tasks, timeout=60)
            for task in late:
                task.cancel()
                self.report.broken.append(f"{case.key} ({case.scenario}): G5: no end in 60 s")

    def _new_case(self, key: str) -> Case:
        scenario = self._chance.choice(["text", "text", "tool", "reasoning"])
        case = Case(
            key=key,
            scenario=f"scenario:{scenario}",
            model=f"model-{key}",
            expected=samples.MARKDOWN if scenario == "text" else None,
            cancelled=self._chance.random() < 0.12,
        )
        self.report.runs += 1
        self.report.cancels += case.cancelled
        self._cases.append(case)
        self._answers[key] = asyncio.Event()
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
                order = {"key": case.key, "prompt": case.scenario, "model": case.model}
                try:
                    worker.pipe.send({**order, "run": new_run_id()})
                except OSError:
                    continue  # it was killed a moment ago
            try:
                async with asyncio.timeout(1.0):
                    await self._answers[case.key].wait()
            except TimeoutError:
                continue

    async def _read(self, runs: Runs, run: str, key: str, client: Client) -> None:
        chance = random.Random(f"{run}{id(client)}")
        while not client.ended:
            after = client.items[-1][0] if client.items else None
            try:
                follower = await runs.follow(run, after=after, principal=key)
            except NotFoundError:
                await asyncio.sleep(0.02)
                continue
            client.connections += 1
            try:
                for _ in range(chance.choice([1, 3, 10, 1_000_000])):
                    batch = await follower.next()
                    if batch is None:
                        client.ended = True
                        break
                    client.items += batch.items()
                    self._delivered += len(batch.records)
            finally:
                follower.close()

    # Verdict.

    async def _judge(self, runs: Runs) -> None:
        report = self.report
        requests = Counter(record.model for record in self._model.requests)
        effects = Counter(Path(self._ledger).read_text().splitlines())
        for case in self._cases:
            try:
                verdict = await check(runs.log, case, requests, effects)
            except TokenwireError as error:
                report.broken.append(f"{case.key} ({case.scenario}): I2: {error}")
                continue
            outcomes = report.outcomes
            outcomes[verdict.outcome] = outcomes.get(verdict.outcome, 0) + 1
            report.takeovers += verdict.claims
            report.resets += verdict.resets
            report.events += verdict.events
            report.connections += sum(client.connections for client in case.clients)
            report.broken += [f"{case.key} ({case.scenario}): {text}" for text in verdict.broken]
