"""The runs that this process works on: plan, own and release them.

Always true: only the process that holds a run's lease works on it; a run released on a shared store
can be resumed by another process; on a store of this process alone it gets an honest end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from tokenwire.errors import (
    AgentChangedError,
    ConflictError,
    LogError,
    StoreDamagedError,
    UnknownModelError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, RunStart
from tokenwire.events.names import names_of
from tokenwire.events.reasons import OUTCOMES
from tokenwire.log.base import LogInfo, Store
from tokenwire.observe.facts import RunLeft
from tokenwire.observe.hooks import report
from tokenwire.relay.census import Census
from tokenwire.relay.commands import encode_command
from tokenwire.relay.conversation.feed import Feeds
from tokenwire.relay.conversation.history import described
from tokenwire.relay.description import RunMeta, scope_of_run
from tokenwire.relay.documents.private import PrivateDocuments
from tokenwire.relay.feed.presence import Presence
from tokenwire.relay.outbox import OnEnd, OnEndAlone, Outbox
from tokenwire.relay.owned import OwnedRun, OwnMailbox
from tokenwire.relay.owner import new_owner
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.produce.producer import Producer
from tokenwire.relay.push.deliveries import PushDeliveries
from tokenwire.relay.readers import Readers
from tokenwire.relay.replay import Replay, read_run, waits
from tokenwire.relay.spending.allowance import SLICE
from tokenwire.relay.spending.allowances import Allowances
from tokenwire.relay.spending.budgets import Budget
from tokenwire.relay.spending.settling import Settling
from tokenwire.relay.takeover.abandoned import Abandoned
from tokenwire.relay.takeover.ladder import EndOf, Rung, claim_of, ending, start_of, write_end
from tokenwire.relay.thread_list.lists import Lists
from tokenwire.relay.upkeep.closing import OnEndInside, OnEndTransaction, takes_connection
from tokenwire.relay.waiting.index import RunWaits, WaitingIndex
from tokenwire.relay.webhooks.config import Webhooks
from tokenwire.run.call.deadlines import Deadlines
from tokenwire.run.call.recover import RetryPolicy
from tokenwire.run.engine import AgentSpec, Setup, make_engine
from tokenwire.run.hooks.hook import Hooks
from tokenwire.run.inbox import Inbox
from tokenwire.run.plan import LoopLimits, Plan
from tokenwire.run.step_request import stop_rule

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient
    from tokenwire.providers.registry import Registry
    from tokenwire.tools.registry import ToolSet

__all__ = ["LEASE", "WAIT_TIMEOUT", "Worker"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds after which a run may be claimed by others unless its lease is renewed.
LEASE = 15.0

#: Seconds after which a run that waits for a person or a client ends as ``expired``.
WAIT_TIMEOUT = 7 * 86_400.0


class Worker:
    """What works on the runs of one process. `tokenwire.relay.runs.Runs` makes one, and says what
    its options mean."""

    def __init__(
        self,
        store: Store,
        *,
        registry: Registry | None = None,
        tools: ToolSet | None = None,
        owner: str | None = None,
        http: HttpClient | None = None,
        deadlines: Deadlines | None = None,
        retry: RetryPolicy | None = None,
        limits: LoopLimits | None = None,
        stop_when: str | Iterable[str] | Callable[[Fold], bool] | None = None,
        lease: float = LEASE,
        fallbacks: Mapping[str, list[str]] | None = None,
        models: Iterable[str] | None = None,
        leave_for: float | None = None,
        bounds: ProducerLimits | None = None,
        wait_timeout: float = WAIT_TIMEOUT,
        agents: Mapping[str, AgentSpec] | None = None,
        app: object = None,
        on_end: OnEnd | None = None,
        prepare: AgentSpec | None = None,
        webhooks: Webhooks | None = None,
        hooks: Hooks | None = None,
    ) -> None:
        self.store = store
        self._registry = registry
        self.tools = tools
        self.owner = owner or new_owner()
        self.http = http
        self._own_http = http is None
        self._deadlines = deadlines or Deadlines()
        self._retry = retry or RetryPolicy()
        self._limits = limits or LoopLimits()
        self._stop_when = stop_rule(stop_when)
        self._bounds = bounds
        #: Seconds that a run may wait for a person or a client.
        self.wait_timeout = wait_timeout
        self.agents = agents or {}
        #: What runs of agents have begun elsewhere, and nobody works at any more.
        self.abandoned = Abandoned(store, self.agents, self._deadlines)
        #: The host's own object.
        self.app = app
        #: The functions of the application before a run and around its tools.
        self.hooks = hooks
        #: What each run of a model begins with.
        self.prepare = prepare
        self.outbox: Outbox | None = None
        #: What ends runs together with what the application writes.
        self.closing: OnEndTransaction | None = None
        if on_end is not None and takes_connection(on_end):
            self.closing, on_end = OnEndTransaction(store, cast(OnEndInside, on_end)), None
        self._on_end, self._webhooks = cast("OnEndAlone | None", on_end), webhooks
        self._settling: Settling | None = None
        self._push: PushDeliveries | None = None
        if on_end is not None or webhooks is not None:
            self._make_outbox()
        #: What runs may use.
        self.allowances = Allowances()
        #: What is told of conversations, and of lists of them.
        self.lists = Lists(store, self.waits)
        self.feeds = Feeds(store, self.lists)
        self.presence = Presence(store, self.owner)
        self.lease = lease
        self._fallbacks = {k: names_of(v, "fallbacks") for k, v in (fallbacks or {}).items()}
        self._models = None if models is None else frozenset(names_of(models, "models"))
        #: Seconds that a lost run which cannot go on here is left to others, before it is ended.
        self.leave_for = self._deadlines.total if leave_for is None else leave_for
        self.owned: dict[str, OwnedRun] = {}
        self.readers = Readers()
        #: What waits for people, in the store.
        self.waiting = WaitingIndex(store)
        self.census = Census()
        #: Runs that this process has claimed and not yet adopted, with their epochs.
        self.claims: dict[str, int] = {}
        self.draining = False
        #: Called with a conversation's name in the store, when a run of it is this process's no
        #: more.
        self.on_left: list[Callable[[str], None]] = []

    # --- life ----------------------------------------------------------------------------------

    def settle_with(
        self, settling: Settling, budgets: Iterable[Budget] = (), *, slice_tokens: int = SLICE
    ) -> None:
        """Count what runs use, and hold them to ``budgets``, from now on: before `open`. They
        reserve ``slice_tokens`` at a time."""
        self._settling = settling
        self.allowances = Allowances(settling, budgets, slice_tokens=slice_tokens)
        self._make_outbox()

    def push_with(self, push: PushDeliveries) -> None:
        """Tell who wants to hear of single runs, from now on: before `open`."""
        self._push = push
        self._make_outbox()

    def _make_outbox(self) -> None:
        self.outbox = Outbox(self.store, self._on_end, self._webhooks, self._settling, self._push)

    async def open(self) -> None:
        """Start the store; make a registry and an HTTP client unless the caller passed them."""
        from tokenwire.providers.http.client import HttpClient
        from tokenwire.providers.registry import Registry

        await self.store.start()
        if self._registry is None:
            self._registry = Registry()
        if self.http is None:
            self.http = HttpClient()
        if self.outbox is not None:
            self.outbox.open()

    async def drain(self, seconds: float = 8.0) -> None:
        """Accept no new runs. On a shared store, wait up to ``seconds`` for running tools, whose
        outcome would be unknown otherwise, and hand all runs over; on a store of this process only,
        wait up to ``seconds`` for the runs to end, and end the rest as ``interrupted``."""
        self.draining = True
        all_owned = list(self.owned.values())
        if self.store.shared:
            await _let_tools_finish(all_owned, seconds)
        elif waiting := [o.task for o in all_owned if o.state != "waiting"]:
            await asyncio.wait(waiting, timeout=seconds)
        for owned in all_owned:
            await owned.stop()
            try:
                if self.store.shared:
                    epoch = owned.producer.epoch
                    await self.store.release(owned.run, epoch=epoch, handed_over=True)
                    if owned.state not in OUTCOMES:
                        report(RunLeft(owned.run, "handed_over", epoch))
                else:
                    await self._end(owned, "interrupted")
            except LogError as error:
                _log.warning("run %s could not be released: %s", owned.run, error)

    async def expire(self, owned: OwnedRun) -> None:
        """End a run that nobody answers, unless somebody has in the last moment: the order of its
        mailbox decides. Raises `LogError`."""
        if not await owned.expire() or owned.task.done():
            return
        await owned.stop()
        await self._end(owned, "expired")

    async def _end(self, owned: OwnedRun, how: Rung) -> None:
        """End a stopped run that is not to be resumed."""
        replay = await read_run(self.store, owned.run)
        start = start_of(owned.run, owned.loop.plan)
        epoch = owned.producer.epoch
        replay = await self.end(replay, partial(ending, how=how), epoch, start)
        owned.loop.report_end(replay.fold)
        self._tell(owned.loop.plan)

    async def end(self, replay: Replay, end_of: EndOf, epoch: int, start: RunStart) -> Replay:
        """Write the end of a run that nobody works at, and tell of it; its log as it is then.
        Raises `LogError`."""
        outbox = self.outbox
        before = outbox.ending if outbox is not None else None
        work = await self.abandoned.of(start.run, start.model or "", self.http)
        replay = await write_end(
            self.store,
            replay,
            end_of,
            epoch=epoch,
            start=start,
            ending=before,
            closing=self.closing,
        )
        self.abandoned.stop(work)
        if replay.fold.approvals:
            listing = RunWaits(self.waiting, self.store, start.run, is_new=False)
            await listing.settle(replay.fold)
        if outbox is not None:
            outbox.ended(start.run)
        return replay

    async def aclose(self) -> None:
        """Release all runs and close the store."""
        if self.outbox is not None:
            await self.outbox.aclose()
        await self.drain(0.0)
        await self.feeds.aclose()
        await self.lists.aclose()
        await self.presence.aclose()
        self.readers.close()
        await self.abandoned.aclose()
        if self._own_http and self.http is not None:
            await self.http.aclose()
        await self.store.close()

    # --- runs ----------------------------------------------------------------------------------

    def serves(self, model: str) -> bool:
        """Whether lost runs of this model may be taken over here."""
        return self._models is None or model in self._models or model in self.agents

    def tool_names(self, principal: str) -> list[str]:
        """The tools of this process that a principal may use."""
        return self.tools.allowed(principal).names if self.tools is not None else []

    def complete(self, meta: RunMeta) -> None:
        """Add to the description of a new run what depends on this process, not on the caller."""
        if meta.agent is not None:
            meta.tool_names = []
            return
        meta.prepare = self.prepare.version if self.prepare is not None else None
        meta.tool_names = self.tool_names(meta.principal) if meta.tools else []

    def has_changed(self, meta: RunMeta) -> bool:
        """Whether the run's agent or preparation has another version here."""
        if meta.agent is not None:
            agent = self.agents.get(meta.model)
            return agent is not None and agent.version != meta.agent
        version = self.prepare.version if self.prepare is not None else None
        return meta.prepare is not None and meta.prepare != version

    def plan(self, run: str, meta: RunMeta) -> Plan:
        """The plan of a run, from its stored description. Raises `UnknownModelError`."""
        if self._registry is None:
            raise ConflictError("open the runs first: await runs.open()")
        if meta.agent is not None:
            return self._agent_plan(run, meta, self._registry)
        prepare = self.prepare if meta.prepare is not None else None
        if self.has_changed(meta):
            raise AgentChangedError(
                f"the run was started with version {meta.prepare} of a preparation that is not here"
            )
        names = [meta.model, *self._fallbacks.get(meta.model, [])]
        return Plan(
            run=run,
            request=meta.request,
            candidates=[self._registry.resolve(name) for name in names],
            model=meta.model,
            thread=meta.thread,
            scope=scope_of_run(meta),
            metadata=meta.metadata,
            history=described(meta.history),
            principal=meta.principal,
            deadlines=self._deadlines,
            retry=self._retry,
            limits=self._limits_of(meta),
            tools=self.tools if meta.tools else None,
            stop_when=self._stop_when,
            agent=prepare,
            registry=self._registry,
            app=self.app,
            hooks=self.hooks,
            allowance=self.allowances.of(run, meta),
        )

    def _agent_plan(self, run: str, meta: RunMeta, registry: Registry) -> Plan:
        agent = self.agents.get(meta.model)
        if agent is None or not agent.allows(meta.principal):
            raise UnknownModelError(f"unknown agent '{meta.model[:80]}'", field="model")
        if self.has_changed(meta):
            raise AgentChangedError(
                f"agent '{agent.name}' has version {agent.version} here; the run was started with "
                f"version {meta.agent}"
            )
        return Plan(
            run=run,
            request=meta.request,
            candidates=[],
            model=meta.model,
            thread=meta.thread,
            scope=scope_of_run(meta),
            metadata=meta.metadata,
            history=described(meta.history),
            principal=meta.principal,
            deadlines=self._deadlines,
            retry=self._retry,
            limits=self._limits_of(meta),
            agent=agent,
            registry=registry,
            app=self.app,
            hooks=self.hooks,
            allowance=self.allowances.of(run, meta),
        )

    def _limits_of(self, meta: RunMeta) -> LoopLimits:
        """The bounds of a run's tool loop. Of several times for approvals the shortest counts."""
        limits = meta.limits or self._limits
        times = [meta.approval_timeout, limits.approval_timeout, self._limits.approval_timeout]
        shortest = min((time for time in times if time is not None), default=None)
        if shortest == limits.approval_timeout:
            return limits
        return msgspec.structs.replace(limits, approval_timeout=shortest)

    async def unlist(self, info: LogInfo, meta: RunMeta) -> None:
        """Take what an open run waits for out of the index, before it is erased. Raises
        `LogError`."""
        if info.closed is None:
            with suppress(StoreDamagedError):  # whoever reads the index takes the rest out
                fold = (await read_run(self.store, info.log)).fold
                await self.waiting.forget(info.log, meta, fold)

    def is_waiting(self, run: str) -> bool:
        """Whether a run of this process waits for a person or a client."""
        owned = self.owned.get(run)
        return owned is not None and owned.state == "waiting"

    async def waits(self, info: LogInfo) -> bool:
        """Whether a run waits, of this process or of another."""
        if info.closed is not None or info.log in self.owned:
            return self.is_waiting(info.log)
        return await waits(self.store, info.log, info.tail)

    def adopt(
        self,
        plan: Plan,
        epoch: int,
        policy: str,
        replay: Replay | None = None,
        *,
        handed_over: bool = False,
    ) -> OwnedRun:
        """Own a run from now on; pass ``replay`` when another worker started it."""
        if self.http is None:
            raise ConflictError("open the runs first: await runs.open()")
        inbox = Inbox()
        records = replay.records if replay else None
        producer = Producer(self.store, plan.run, epoch, records=records, limits=self._bounds)
        producer.closing = self.closing
        if self.outbox is not None:
            producer.ending = self.outbox.ending
        first = []
        order = fold = None
        # Without records it was lost before its first one: it begins anew.
        if replay is not None and replay.records:
            order, fold = replay.order, replay.fold
            if plan.allowance is not None:
                plan.allowance.restore(replay.events(), plan.request)
            claim = claim_of(replay, self.owner, epoch, handed_over=handed_over)
            replay.apply(claim)
            first = [claim]
        setup = Setup(
            plan=plan,
            http=self.http,
            inbox=inbox,
            order=order,
            fold=fold,
            events=replay.events if replay is not None else None,
            documents=(
                PrivateDocuments(self.store, plan.run, epoch) if plan.agent is not None else None
            ),
            mailbox=OwnMailbox(self, plan.run),
        )
        loop = make_engine(setup)
        loop.sink = producer
        owned = OwnedRun(
            self.store,
            loop,
            inbox,
            producer,
            self,
            is_new=replay is None,
            first=[*first] or None,
        )
        if replay is not None:
            owned.waits_since(replay.waiting_since)
        self.owned[plan.run] = owned
        self.census.add(plan.principal, plan.run, owned)
        self.readers.own(plan.run, policy, owned.cancel_soon)
        self._tell(plan)
        return owned

    def _tell(self, plan: Plan) -> None:
        """The run's conversation hears what has become of it."""
        if plan.scope is not None:
            self.feeds.announce_run(plan.scope, plan.run)

    def waits_changed(self, plan: Plan, fold: Fold) -> None:
        """What a run of this process waits for is another now."""
        if self.outbox is not None:
            self.outbox.waits(plan.run, fold)
        if plan.scope is not None:
            self.feeds.announce_waits(plan.scope, plan.run, fold)

    def failed(self, run: str, error: Exception) -> None:
        """A run of this process failed without an end in its log: its readers here hear of it."""
        self.readers.fail(run, error)

    async def command(self, run: str, command: ApprovalAnswer) -> None:
        """A command of this process to a run of its own, in the order of the mailbox."""
        await self.store.command(run, encode_command(command))
        owned = self.owned.get(run)
        if owned is not None:
            await owned.check_commands()

    def ended(self, owned: OwnedRun) -> None:
        """A run is this process's no more: it has ended, or another one has it."""
        self.census.remove(owned.loop.plan.principal, owned.run, owned)
        if self.owned.get(owned.run) is owned:
            del self.owned[owned.run]
            self.readers.disown(owned.run)
            if self.outbox is not None:
                self.outbox.ended(owned.run)
            plan = owned.loop.plan
            self._tell(plan)
            if plan.scope is not None:
                for hook in self.on_left:
                    hook(plan.scope)


async def _let_tools_finish(all_owned: list[OwnedRun], seconds: float) -> None:
    busy = [owned for owned in all_owned if owned.in_tool]
    for owned in busy:
        owned.loop.leaving = True
    end = time.monotonic() + seconds
    while (busy := [owned for owned in busy if owned.in_tool]) and time.monotonic() < end:
        await asyncio.wait([owned.task for owned in busy], timeout=0.02)
