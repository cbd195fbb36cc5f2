"""Runs whose worker was lost: who goes on with them, and when.

Always true: a process takes a run over at once when it serves the run's model and has its tools;
one that it cannot go on with it leaves to others for as long as an answer may take, and then ends
it as ``interrupted``; a run that was asked to stop is ended by whoever sees it first; one whose
records are damaged is tried less and less often, and the server's log hears of it once.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from tokenwire.errors import StoreDamagedError, TokenwireError
from tokenwire.observe.facts import TakenOver
from tokenwire.observe.hooks import report
from tokenwire.relay.description import RunMeta, meta_of
from tokenwire.relay.takeover.ladder import (
    asks_to_stop,
    claim_of,
    ending,
    read_run,
    rung,
    start_of,
    write_end,
)
from tokenwire.relay.worker import Worker
from tokenwire.run.plan import Plan
from tokenwire.run.tool_phase import open_tools

__all__ = ["Orphans"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds between two tries of a damaged run, at most: somebody may bring back what it lacks.
MOST_PAUSE = 3600.0


class _Left(msgspec.Struct):
    """A run that is left to others until then."""

    until: float
    meta: RunMeta


class _Failed(msgspec.Struct):
    """A run that could not be taken over: when to try again, and how long that was put off."""

    until: float
    pause: float
    damaged: bool


class Orphans:
    """The lost runs that one process sees. Call `look` every second or so."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._left: dict[str, _Left] = {}
        #: Kept on while our own claim hides a run from the store's list of those without an owner.
        self._failed: dict[str, _Failed] = {}

    async def look(self, now: float) -> None:
        """Take over what can be gone on with, end what must end, leave the rest to others."""
        # What is left may be what the store names first; it must not hide the others.
        most = 100 + len(self._left) + len(self._failed)
        found = await self._worker.log.orphans(most=most)
        self._left = {run: left for run, left in self._left.items() if run in found}
        self._failed = {
            run: failed
            for run, failed in self._failed.items()
            if run in found or now < failed.until + failed.pause
        }
        for run in found:
            failed = self._failed.get(run)
            if run in self._worker.owned or (failed is not None and now < failed.until):
                continue
            try:
                await self._look_at(run, now)
            except TokenwireError as error:
                self._put_off(run, now, error)
            else:
                self._failed.pop(run, None)

    def _put_off(self, run: str, now: float, error: TokenwireError) -> None:
        """Try again after a lease; what is damaged, after twice as long as before."""
        before, damaged = self._failed.get(run), isinstance(error, StoreDamagedError)
        pause = self._worker.lease
        if damaged and before is not None and before.damaged:
            pause = min(2 * before.pause, MOST_PAUSE)
            _log.debug("run %s: %s; the next try is in %g s", run, error, pause)
        else:
            later = "; it is tried again, less and less often" if damaged else ""
            _log.warning("run %s could not be taken over: %s%s", run, error, later)
        self._failed[run] = _Failed(now + pause, pause, damaged)

    async def _look_at(self, run: str, now: float) -> None:
        left = self._left.get(run)
        if left is None:
            meta = meta_of(await self._worker.log.describe(run))
            left = _Left(now + await self._patience(run, meta), meta)
        if now < left.until and not await self._was_stopped(run):
            self._left[run] = left
            return
        self._left.pop(run, None)
        await self._claim(run, left.meta)

    async def _patience(self, run: str, meta: RunMeta) -> float:
        """How long others come first."""
        worker = self._worker
        if self._plan(run, meta) is None:
            return worker.leave_for
        lacking = self._lacking(meta)
        if not lacking:
            return 0.0
        # Without them the answer may be a poorer one, so whoever has them comes first.
        taken = await read_run(worker.log, run)
        return worker.leave_for if lacking & open_tools(taken.fold) else worker.lease

    def _plan(self, run: str, meta: RunMeta) -> Plan | None:
        if not self._worker.serves(meta.model):
            return None
        try:
            return self._worker.plan(run, meta)
        except TokenwireError as error:
            _log.info("run %s cannot go on here: %s", run, error)
            return None

    def _lacking(self, meta: RunMeta) -> set[str]:
        return set(meta.tool_names or []) - set(self._worker.tool_names(meta.principal))

    async def _was_stopped(self, run: str) -> bool:
        return any(asks_to_stop(data) for _, data in await self._worker.log.commands(run))

    async def _claim(self, run: str, meta: RunMeta) -> None:
        worker = self._worker
        claim = await worker.log.claim(run, owner=worker.owner, lease=worker.lease)
        if claim is None:
            return
        try:
            await self._go_on(run, meta, claim.epoch)
        except asyncio.CancelledError:
            if run not in worker.owned:  # this process stops: not without letting it go
                await worker.log.release(run, epoch=claim.epoch)
            raise

    async def _go_on(self, run: str, meta: RunMeta, epoch: int) -> None:
        worker = self._worker
        taken = await read_run(worker.log, run)
        commands = [data for _, data in await worker.log.commands(run)]
        how = rung(taken, commands)
        plan = self._plan(run, meta) if how == "go-on" else None
        if plan is not None and self._lacking(meta) & open_tools(taken.fold):
            plan = None
        if how == "go-on" and plan is None:
            how = "interrupted"
            _log.warning("run %s: nobody who can go on with it took it over; it ends here", run)
        report(TakenOver(run, epoch, how))
        if plan is not None:
            worker.adopt(plan, epoch, meta.on_disconnect, taken)
            return
        events = ending(taken, how)
        if taken.records:
            events.insert(0, claim_of(taken, worker.owner, epoch))
        start = start_of(run, meta)
        await write_end(worker.log, taken, events, epoch=epoch, start=start)
