"""Worker processes that are killed and stopped at random, on one store, and the model they ask.

What harnesses share: each is a herd of its own kind, with a report that counts what hit it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faults import worker as fault_worker
from faults.actors import Worker, context
from faults.journal import Journal
from faults.worker import Place
from tokenwire.relay.runs import Runs
from tokenwire.simulator.app import SimulatorServer
from tokenwire.simulator.settings import Settings

__all__ = ["Herd", "Hits"]

#: Seconds within which an order is answered, unless its sender waits for good.
PATIENCE = 2.0
#: Bytes of a line of the journal.
_LINE = 150


@dataclass
class Hits:
    """What hit the workers of one run of a harness, and what is broken."""

    seed: int
    store: str
    kills: int = 0
    stops: int = 0
    store_kills: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


class Herd:
    """One run of a harness on one store."""

    #: What a worker process does; lines of progress between two hits, at most; the share of hits
    #: that restart the store; tokens a second of the model.
    main: Callable[..., None] = staticmethod(fault_worker.main)
    most_progress = 90
    store_share = 0.03
    rate = 120.0

    def __init__(
        self,
        hits: Hits,
        store: str,
        folder: Path,
        *,
        kills: int,
        workers: int,
        restart_store: Callable[[], None] | None = None,
        skews: tuple[float, ...] = (0.0,),
    ) -> None:
        self._hits, self._store, self._kills, self._count = hits, store, kills, workers
        self._journal = Journal(str(folder / "journal"))
        self._chance = random.Random(hits.seed)
        self._restart_store = restart_store
        #: How wrong the workers' clocks are, one after the other.
        self._skews: Iterator[float] = itertools.cycle(skews)
        self._workers: list[Worker] = []
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._context = context()

    @asynccontextmanager
    async def _at_work(self, **place: Any) -> AsyncIterator[Runs]:
        """The herd is there, and a door to its runs that takes over none."""
        settings = Settings(rate=self.rate, jitter=0.3, seed=self._chance.randrange(1 << 30))
        async with SimulatorServer(settings) as model:
            self._model = model
            self._place = Place(self._store, model.url, self._journal.path, **place)
            runs = fault_worker.make_runs(self._place, self._journal, owner="the harness")
            await runs.open(take_over=False)
            try:
                for _ in range(self._count):
                    await self._spawn()
                yield runs
            finally:
                await asyncio.gather(*(worker.end() for worker in self._workers))
                await fault_worker.leave(runs)
                self._journal.close()

    # What hits them.

    async def _spawn(self) -> None:
        place = replace(self._place, skew=next(self._skews))
        worker = await Worker.start(self._context, place, self._hear, type(self).main)
        self._workers.append(worker)

    async def _kill(self) -> None:
        chance, hits = self._chance, self._hits
        while hits.kills < self._kills:
            await self._some_progress(chance.randint(1, self.most_progress))
            if self._restart_store is not None and chance.random() < self.store_share:
                hits.store_kills += 1
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
            if not victim.process.is_alive():
                hits.broken.append("a worker ended by itself")
            await self._strike(victim)
            hits.kills += 1
            await self._spawn()

    async def _strike(self, victim: Worker) -> None:
        """Kill a worker."""
        await victim.end()

    async def _some_progress(self, lines: int) -> None:
        """Until the workers wrote down so much more of what they do, however fast the machine is;
        not for ever, as what waits for a dead worker brings nothing."""
        loop = asyncio.get_running_loop()
        end = loop.time() + 5.0
        target = os.path.getsize(self._journal.path) + lines * _LINE
        while os.path.getsize(self._journal.path) < target and loop.time() < end:
            await asyncio.sleep(0.005)

    async def _stop_a_while(self, victim: Worker) -> None:
        """Longer than a lease: another worker takes over, and a zombie wakes up."""
        victim.able = False
        self._hits.stops += 1
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(fault_worker.LEASE * self._chance.uniform(1.2, 1.8))
        victim.signal(signal.SIGCONT)
        victim.able = True

    # What they are told to do.

    def _hear(self, worker: Worker, answer: dict[str, Any]) -> None:
        future = self._answers.pop(answer.get("order", 0), None)
        if future is not None and not future.done():
            future.set_result(answer)

    async def _order(
        self, *, patience: float | None = PATIENCE, to: Worker | None = None, **order: Any
    ) -> dict[str, Any] | None:
        """What a worker answers; None: nothing, so that nobody knows whether it did it. Without
        ``patience`` it has then died, and does nothing of it any more."""
        able = [worker for worker in self._workers if worker.able]
        if not able:
            await asyncio.sleep(0.02)
            return None
        number = next(self._numbers)
        future = self._answers[number] = asyncio.get_running_loop().create_future()
        worker = to or self._chance.choice(able)
        try:
            worker.pipe.send({**order, "order": number})
        except OSError:
            return None
        gone = asyncio.create_task(worker.gone.wait())
        try:
            await asyncio.wait(
                [future, gone], timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            gone.cancel()
        answer = future.result() if future.done() else None
        if answer is not None and answer.get("error") == "bug":
            self._hits.broken.append(f"{order['do']}: {answer['message']}")
        return answer
