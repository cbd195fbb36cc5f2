"""Runs whose worker was lost: which process resumes them, and when.

Always true: a process takes a run over at once when it serves the run's model and has its tools;
one that it cannot resume waits for others for as long as an answer may take, and then ends as
``interrupted``; one that a producer outside of the server writes is never resumed here, and ends
as ``interrupted`` when its lease is over; a cancelled run, and one that has waited too long, is
ended by the first process that sees it; one whose records are damaged is retried less and less
often, with one line in the server's log.
"""

from __future__ import annotations

import asyncio
import logging
import math

import msgspec

from tokenwire.backoff import backoff
from tokenwire.errors import StoreDamagedError, TokenwireError
from tokenwire.events.model import Event
from tokenwire.log.base import Claim
from tokenwire.observe.endings import run_ended
from tokenwire.observe.facts import TakenOver
from tokenwire.observe.hooks import report
from tokenwire.observe.request_facts import request_facts
from tokenwire.relay.commands import counting, is_stop
from tokenwire.relay.conversation.turns import with_history
from tokenwire.relay.description import RunMeta, meta_of, scope_of_run
from tokenwire.relay.replay import Replay, read_run
from tokenwire.relay.takeover.ladder import (
    claim_of,
    ending,
    rung,
    start_of,
)
from tokenwire.relay.worker import Worker
from tokenwire.run.plan import Plan
from tokenwire.run.tool_phase import open_tools

__all__ = ["Orphans"]

_log = logging.getLogger("tokenwire.relay")

#: Maximum seconds between two tries of a damaged run: an operator may restore its records.
MOST_PAUSE = 3600.0


class _Deferral(msgspec.Struct):
    """A run that waits for another process until then."""

    until: float
    meta: RunMeta


class _Retry(msgspec.Struct):
    """A run that could not be taken over: when to retry, and the pause before that."""

    until: float
    pause: float
    damages: int


class Orphans:
    """The lost runs that one process sees. Call `look` every second or so."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._deferrals: dict[str, _Deferral] = {}
        #: Survives while our own claim hides a run from the store's list of orphans.
        self._retries: dict[str, _Retry] = {}

    async def look(self, now: float) -> None:
        """Resume what this process can, end what must end, leave the rest to others."""
        # Deferred runs may come first in the store's list; they must not hide the others.
        most = 100 + len(self._deferrals) + len(self._retries)
        orphans = await self._worker.store.orphans(most=most, lease=self._worker.lease)
        self._deferrals = {
            run: deferral for run, deferral in self._deferrals.items() if run in orphans
        }
        self._retries = {
            run: retry
            for run, retry in self._retries.items()
            if run in orphans or now < retry.until + retry.pause
        }
        for run in orphans:
            retry = self._retries.get(run)
            if run in self._worker.owned or (retry is not None and now < retry.until):
                continue
            try:
                await self._look_at(run, now)
            except TokenwireError as error:
                self._postpone(run, now, error)
            else:
                self._retries.pop(run, None)

    def _postpone(self, run: str, now: float, error: TokenwireError) -> None:
        """Retry after a lease; a damaged run, after twice the pause before."""
        before, damaged = self._retries.get(run), isinstance(error, StoreDamagedError)
        damages = (before.damages if before is not None else 0) + 1 if damaged else 0
        pause = lease = self._worker.lease
        if damages > 1:
            pause = backoff(damages, first=lease, longest=max(lease, MOST_PAUSE))
            _log.debug("run %s: %s; the next try is in %g s", run, error, pause)
        else:
            later = "; it is retried, less and less often" if damaged else ""
            _log.warning("run %s could not be taken over: %s%s", run, error, later)
        self._retries[run] = _Retry(now + pause, pause, damages)

    async def _look_at(self, run: str, now: float) -> None:
        deferral = self._deferrals.get(run)
        if deferral is None:
            meta = meta_of(await self._worker.store.describe(run))
            deferral = _Deferral(now + await self._patience(run, meta), meta)
        is_ours = self._worker.store.shared or deferral.meta.remote is not None
        if now < deferral.until and not (is_ours and await self._was_stopped(run)):
            self._deferrals[run] = deferral
            return
        self._deferrals.pop(run, None)
        await self._claim(run, deferral.meta)

    async def _patience(self, run: str, meta: RunMeta) -> float:
        """How long other processes have precedence."""
        worker = self._worker
        if meta.remote is not None:
            return meta.remote.leave_for
        if not worker.store.shared:
            return math.inf  # no other process has such a run, and this one has lost none
        if self._plan(run, meta) is None:
            return worker.leave_for
        if not self._may_restart(meta):
            return 0.0  # nobody can: it is ended at once
        lacking = self._lacking(meta)
        if not lacking:
            return 0.0
        # Without them the answer may be poorer: a process that has them takes precedence.
        replay = await read_run(worker.store, run)
        return worker.leave_for if lacking & open_tools(replay.fold) else worker.lease

    def _plan(self, run: str, meta: RunMeta) -> Plan | None:
        if meta.remote is not None or not self._worker.serves(meta.model):
            return None
        try:
            return self._worker.plan(run, meta)
        except TokenwireError as error:
            _log.info("run %s cannot be resumed here: %s", run, error)
            return None

    def _may_restart(self, meta: RunMeta) -> bool:
        agent = self._worker.agents.get(meta.model) if meta.agent is not None else None
        return agent is None or agent.restart

    def _why(self, meta: RunMeta) -> str:
        """Why a run ends here: its worker was lost, or its agent is another one now."""
        return "agent_changed" if self._worker.has_changed(meta) else "worker_lost"

    def _lacking(self, meta: RunMeta) -> set[str]:
        return set(meta.tool_names or []) - set(self._worker.tool_names(meta.principal))

    async def _was_stopped(self, run: str) -> bool:
        return any(map(is_stop, counting(await self._worker.store.commands(run))))

    async def _claim(self, run: str, meta: RunMeta) -> None:
        worker = self._worker
        claim = await worker.store.claim(run, owner=worker.owner, lease=worker.lease)
        if claim is None:
            return
        worker.claims[run] = claim.epoch  # a long log takes its time to read
        try:
            await self._resume(run, meta, claim)
        except asyncio.CancelledError:
            if run not in worker.owned:  # this process stops: not without letting it go
                await worker.store.release(run, epoch=claim.epoch)
            raise
        finally:
            del worker.claims[run]

    async def _resume(self, run: str, meta: RunMeta, claim: Claim) -> None:
        worker = self._worker
        replay = await read_run(worker.store, run)
        commands = await worker.store.commands(run)
        epoch, handed_over = claim.epoch, claim.handed_over
        how = rung(replay, commands, handed_over=handed_over)
        meta = await with_history(worker.store, run, meta)
        plan = self._plan(run, meta) if how == "go-on" else None
        if plan is not None and self._lacking(meta) & open_tools(replay.fold):
            plan = None
        if plan is not None and replay.records and not self._may_restart(meta):
            plan = None
        if how == "go-on" and plan is None:
            how = "interrupted"
            _log.warning("run %s: no worker could resume it; marked interrupted", run)
        agent = meta.model if meta.agent is not None else None
        if plan is not None and plan.agent is not None:
            agent = plan.agent.name
        facts = plan.request_facts() if plan is not None else request_facts(meta.request)
        report(TakenOver(run, epoch, how, meta.model, meta.thread, agent, facts, meta.trace))
        if plan is not None:
            worker.adopt(plan, epoch, meta.on_disconnect, replay, handed_over=handed_over)
            return

        def end_of(replay: Replay) -> list[Event]:
            events = ending(replay, how, self._why(meta))
            if replay.records:
                events.insert(0, claim_of(replay, worker.owner, epoch, handed_over=handed_over))
            return events

        replay = await worker.end(replay, end_of, epoch, start_of(run, meta))
        if (scope := scope_of_run(meta)) is not None:
            worker.feeds.announce_run(scope, run)
        fold, seconds = replay.fold, replay.now() / 1000
        report(run_ended(run, meta.model, fold, seconds, thread=meta.thread, agent=agent))
