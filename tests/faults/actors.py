"""Who takes part in a fault run: worker processes with a pipe, and clients that come back."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from multiprocessing import forkserver
from typing import Any

from faults import worker as fault_worker
from faults.checker import Case, Client, Evidence
from faults.journal import Journal, Line
from faults.worker import Place
from tokenwire.errors import NotFoundError
from tokenwire.relay.runs import Runs

Seen = Callable[[list[tuple[str, bytes]]], Awaitable[None]]


def context() -> Any:
    """Processes are forked from one that has imported all: a new one costs milliseconds."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["faults.worker", "faults.thread_worker", "faults.budget_worker"])
    # Python before 3.13 does not tell that process where modules are; the environment does.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return made


class Worker:
    """One process and its pipe. `heard` is called with each of its answers."""

    def __init__(
        self,
        made: Any,
        place: Place,
        heard: Callable[[Worker, dict[str, Any]], None],
        main: Callable[[Any, Place], None],
    ) -> None:
        self.pipe, theirs = made.Pipe()
        self.process = made.Process(target=main, args=(theirs, place), daemon=True)
        self.process.start()
        theirs.close()
        self._heard = heard
        #: Ready, and not stopped.
        self.able = False
        self.sprung = asyncio.Event()
        self.gone = asyncio.Event()

    @classmethod
    async def start(
        cls,
        made: Any,
        place: Place,
        heard: Callable[[Worker, dict[str, Any]], None],
        main: Callable[[Any, Place], None] = fault_worker.main,
    ) -> Worker:
        worker = await asyncio.to_thread(cls, made, place, heard, main)
        asyncio.get_running_loop().add_reader(worker.pipe.fileno(), worker._hear)
        return worker

    def _hear(self) -> None:
        try:
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self._deaf()
            self.gone.set()
            return
        self.able = self.able or "ready" in answer
        if "sprung" in answer:
            self.sprung.set()
        self._heard(self, answer)

    def _deaf(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            asyncio.get_running_loop().remove_reader(self.pipe.fileno())

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    async def end(self) -> None:
        """kill -9, and wait until it is gone."""
        self._deaf()
        self.gone.set()
        self.signal(signal.SIGCONT)
        self.process.kill()
        await asyncio.to_thread(self.process.join, 10)
        self.pipe.close()


async def read(
    runs: Runs,
    run: str,
    key: str,
    client: Client,
    *,
    pieces: tuple[int, ...] = (1, 3, 10, 1_000_000),
    seen: Seen | None = None,
) -> None:
    """Follow a run to its end, leaving after some pieces and coming back with the last cursor."""
    chance = random.Random(f"{run}{client.seed}")
    while not client.ended:
        after = client.items[-1][0] if client.items else None
        try:
            follower = await runs.follow(run, after=after, principal=key)
        except NotFoundError:
            await asyncio.sleep(0.02)
            continue
        client.connections += 1
        try:
            for _ in range(chance.choice(pieces)):
                batch = await follower.next()
                if batch is None:
                    client.ended = True
                    break
                items = batch.items()
                client.items += items
                if seen is not None:
                    await seen(items)
        finally:
            follower.close()


def evidence_of(cases: list[Case], journal: Journal, requests: dict[str, int]) -> list[Evidence]:
    """What was written down of each case, in the order of ``cases``."""
    found = {case.key: Evidence(requests=requests.get(case.model, 0)) for case in cases}
    keys = {case.model: case.key for case in cases}
    keys |= {run: case.key for case in cases for run in case.runs}
    for line in journal.lines():
        key = line.get("key") or keys.get(line.get("run") or line.get("model") or "")
        if key in found:
            found[key].lines.append(line)
    return [found[case.key] for case in cases]


__all__ = ["Line", "Worker", "context", "evidence_of", "read"]
