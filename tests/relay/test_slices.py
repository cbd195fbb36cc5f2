"""Budgets end runs in their middle: slices that runs reserve, count down, and give back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC
from typing import Any, cast

import msgspec

from support.spine import run_async, simulator
from support.unsteady import Unsteady
from tokenwire.agents.functions import agent
from tokenwire.agents.load import agents_of
from tokenwire.events.codec import decode
from tokenwire.events.estimate import estimate_tokens
from tokenwire.events.message import user
from tokenwire.events.model import (
    RunBudget,
    RunEnd,
    RunStart,
    StepEnd,
    StepReset,
    StepStart,
    TextDelta,
    TextEnd,
    TextStart,
    ToolResult,
    Usage,
)
from tokenwire.events.principal import Principal
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.log.memory import MemoryStore
from tokenwire.providers.base import Target
from tokenwire.providers.registry import Registry
from tokenwire.relay.description import RunMeta
from tokenwire.relay.record import Chain
from tokenwire.relay.runs import Runs
from tokenwire.relay.spending.allowance import RunAllowance
from tokenwire.relay.spending.allowances import Allowances
from tokenwire.relay.spending.bill import day_of
from tokenwire.relay.spending.budgets import budgets_of
from tokenwire.relay.spending.ledger import StoredSum, owner_account
from tokenwire.relay.spending.meter import Meter
from tokenwire.relay.spending.settling import Settling
from tokenwire.tools.registry import tool


@asynccontextmanager
async def server(
    store: Store, *budgets: str, slice_tokens: int = 100, **options: Any
) -> AsyncIterator[tuple[Runs, Settling]]:
    async with simulator() as models:
        registry = Registry(demo_url=models.url + "/v1", env={})
        runs, settling = Runs(store, registry=registry, **options), Settling(store, UTC)
        runs.worker.settle_with(settling, budgets_of(budgets), slice_tokens=slice_tokens)
        async with runs:
            yield runs, settling


async def events_of(runs: Runs, run: str) -> list[object]:
    follower = await runs.follow(run)
    try:
        while (await follower.next()) is not None:
            pass
    finally:
        follower.close()
    return list((await runs.replay(run)).events())


async def day_sum(settling: Settling, principal: str = "") -> StoredSum:
    account = owner_account("day", day_of(time.time(), UTC), "p", principal)
    return await settling.ledger.read(account)


async def settled_sum(settling: Settling, runs: int, principal: str = "") -> StoredSum:
    while (entry := await day_sum(settling, principal)).runs < runs:
        await asyncio.sleep(0.01)
    return entry


def test_a_run_ends_in_its_middle() -> None:
    async def main() -> None:
        store = MemoryStore()
        async with server(store, "principal/day=50", slice_tokens=10) as (runs, settling):
            run = await runs.start(Request(messages=[user("scenario:slow")]), model="demo")
            events = await events_of(runs, run.id)
            end, estimate, step = events[-1], events[-2], events[-3]
            assert isinstance(estimate, Usage)
            assert (estimate.source, estimate.input_tokens) == ("estimated", 11)
            assert isinstance(end, RunEnd)
            assert (end.outcome, end.reason) == ("incomplete", "budget")
            assert isinstance(step, StepEnd)
            assert (step.status, step.terminal_seen) == ("incomplete", False)
            budgets = [event for event in events if isinstance(event, RunBudget)]
            assert [event.name for event in budgets] == ["principal/day"] * 2
            assert 0 < budgets[0].left <= 10
            assert budgets[1].left == 0
            entry = await settled_sum(settling, 1)
            assert entry.holdings == {}
            assert 50 <= entry.all_tokens <= 55

    run_async(main())


async def asker(ctx: Any) -> None:
    for _ in range(5):
        async with ctx.stream("scenario:slow", model="demo") as stream:
            async for _ in stream:
                pass


def test_an_agents_inner_calls_count() -> None:
    async def main() -> None:
        async with server(
            MemoryStore(),
            "principal/day=30",
            slice_tokens=10,
            agents=agents_of([agent("asker")(asker)]),
        ) as (runs, settling):
            run = await runs.start(Request(messages=[user("hi")]), model="asker")
            events = await events_of(runs, run.id)
            end = events[-1]
            assert isinstance(end, RunEnd)
            assert (end.outcome, end.reason) == ("incomplete", "budget")
            over = [e for e in events if isinstance(e, RunBudget) and not e.left]
            assert len(over) == 1
            assert len([e for e in events if isinstance(e, StepStart)]) == 1
            assert (await settled_sum(settling, 1)).holdings == {}

    run_async(main())


# --- what all workers use together ----------------------------------------------------------------

MOST, SLICE = 700, 100
ASKED = Request(messages=[user("a question")])
TARGET = Target(provider="demo", dialect="openai-chat", model="demo", base_url="")


class World:
    """Workers of one store, which say text, end, die, take over and settle, in an order of its own.
    All runs are one principal's, who may use `MOST` tokens."""

    def __init__(self, store: Store, seed: int, runs: int) -> None:
        self.dice = random.Random(seed)
        self.store = store
        self.settling = Settling(cast("Store", Unsteady(store, seed)), UTC)
        self.budgets = budgets_of([f"principal/day={MOST}", "principal/month=100000"])
        self.logs: dict[str, list[Any]] = {f"run-{seed:06d}{n:010d}": [] for n in range(runs)}
        #: The largest read of a run, by run: with it the run finds out that nothing is left.
        self.reads = dict.fromkeys(self.logs, 0)
        self.lost: list[asyncio.Task[None]] = []

    def used(self, run: str) -> int:
        """What the log says that the run used."""
        meter = Meter()
        for event in self.logs[run]:
            meter.apply(event)
        calls = meter.calls(estimate_tokens(ASKED))
        return sum(c.counts.total if c.counts else 0 for c in calls) + sum(
            c.estimate.total if c.estimate else 0 for c in calls
        )

    def check(self) -> None:
        """What all runs used together."""
        assert sum(map(self.used, self.logs)) <= MOST + sum(self.reads.values())

    async def live(self, run: str) -> None:
        """A run, from its note to its sums; its workers may be killed."""
        await self.settling.expect(run)
        meta = RunMeta(model="demo", request=ASKED, principal="eve")
        await self.store.create(run, owner="w", meta=msgspec.json.encode(meta))
        attempt, is_over = 1, False
        while not is_over:
            is_over = await self.work(run, attempt)
            attempt += 1
        end = RunEnd(outcome="incomplete", reason="budget")
        records = Chain(run).seal_all([*self.logs[run], end])
        await self.store.append(run, epoch=1, first=1, records=records, close="incomplete")
        for _ in range(self.dice.randrange(1, 3)):
            await self.settling._look_at_all([run])

    async def work(self, run: str, attempt: int) -> bool:
        """One worker's part of a run; whether it brought it to its end."""
        log = self.logs[run]
        allowance = RunAllowance(
            self.settling,
            run,
            principal="eve",
            thread=None,
            budgets=self.budgets,
            slice_tokens=SLICE,
        )
        if log:
            allowance.restore(log, ASKED)
        is_over = await self.speak(run, attempt, allowance)
        if not is_over and self.dice.random() < 0.5:
            self.lost.append(asyncio.create_task(self.late(allowance)))
        else:
            allowance.close()
        return is_over

    async def late(self, allowance: RunAllowance) -> None:
        """A worker that another has replaced, and that does not know it yet."""
        for _ in range(self.dice.randrange(300)):
            await asyncio.sleep(0)
        await allowance._reserve()
        allowance.close()

    async def speak(self, run: str, attempt: int, allowance: RunAllowance) -> bool:
        log, dice, part = self.logs[run], self.dice, attempt - 1

        def write(event: Any) -> None:
            event.seq = len(log) + 1
            log.append(event)
            if isinstance(event, TextDelta):
                allowance.count_text(len(event.text))
            else:
                allowance.apply(event)
            self.check()

        if not log:
            write(RunStart(run=run, time=int(time.time() * 1000)))
        elif attempt > 1 and len(log) > 1:
            write(StepReset(step=1, attempt=attempt, discard_parts=[part - 1]))
        if await allowance.begin(ASKED, TARGET) is not None:
            return True
        write(StepStart(step=1, attempt=attempt, provider="demo", model="demo"))
        write(TextStart(part=part, step=1))
        for _ in range(dice.randrange(1, 40)):
            size = dice.choice([4, 8, 40, 160])
            self.reads[run] = max(self.reads[run], size // 4)
            write(TextDelta(part=part, text="x" * size))
            await asyncio.sleep(0)
            while allowance.is_due:
                event = await allowance.more()
                if event is not None and not event.left:
                    return True
            if dice.random() < 0.03:
                return False  # killed, with what it has reserved
        if dice.random() < 0.5:
            write(Usage(input_tokens=dice.randrange(1, 8), output_tokens=dice.randrange(60)))
            write(TextEnd(part=part))
            write(StepEnd(step=1, status="complete", terminal_seen=True))
        return True


async def all_in_their_order(store: Store, seed: int, runs: int = 6) -> None:
    world = World(store, seed, runs)
    await asyncio.gather(*(world.live(run) for run in world.logs))
    await asyncio.gather(*world.lost)
    for period in ("day", "month"):
        day = day_of(time.time(), UTC)
        entry = await world.settling.ledger.read(owner_account(period, day, "p", "eve"))
        assert entry.holdings == {}, seed
        assert entry.all_tokens == sum(map(world.used, world.logs)), seed
        assert entry.runs <= runs


def test_workers_together_use_no_more_than_the_budget_and_their_last_reads() -> None:
    for seed in range(60):
        run_async(all_in_their_order(MemoryStore(), seed))


def test_every_store_holds_a_budget(every_log: Callable[[], Store]) -> None:
    async def main() -> None:
        store = every_log()
        await store.start()
        try:
            await all_in_their_order(store, 1)
        finally:
            await store.close()

    run_async(main())


def test_a_tool_that_runs_is_finished_where_a_budget_stops_the_run() -> None:
    """One answer of an agent has called a tool; another uses up what is left meanwhile."""
    begun, may_end = asyncio.Event(), asyncio.Event()

    @tool
    async def get_weather(city: str) -> str:
        """The weather, later."""
        begun.set()
        await may_end.wait()
        return f"It rains in {city}."

    async def both(ctx: Any) -> None:
        async def one(prompt: str, **options: Any) -> None:
            async with ctx.stream(prompt, model="demo", **options) as stream:
                async for _ in stream:
                    pass

        calling = asyncio.create_task(one("scenario:tool", tools=[get_weather]))
        await begun.wait()
        await asyncio.gather(calling, one("scenario:long"))

    async def main() -> None:
        async with server(
            MemoryStore(),
            "principal/day=300",
            slice_tokens=10,
            agents=agents_of([agent("both")(both)]),
        ) as (runs, settling):
            run = await runs.start(Request(messages=[user("hi")]), model="both")
            follower = await runs.follow(run.id)
            while not may_end.is_set():
                batch = await follower.next()
                assert batch is not None, "it ended before its tool did"
                told = [decode(data) for _, data in batch.items()]
                if any(isinstance(event, RunBudget) and not event.left for event in told):
                    assert begun.is_set()
                    may_end.set()
            follower.close()
            events = await events_of(runs, run.id)
            kinds = [type(event) for event in events]
            over = max(n for n, event in enumerate(events) if isinstance(event, RunBudget))
            (result,) = [n for n, event in enumerate(events) if isinstance(event, ToolResult)]
            assert over < result
            assert events[result].content == "It rains in Paris."  # type: ignore[attr-defined]
            # Nothing is asked of a model with it.
            assert StepStart not in kinds[over:]
            end = events[-1]
            assert isinstance(end, RunEnd)
            assert (end.outcome, end.reason) == ("incomplete", "budget")
            assert (await settled_sum(settling, 1)).holdings == {}

    run_async(main())


async def allowance_of(store: Store, *budgets: str) -> RunAllowance:
    """Of a run of eve of acme, which has begun."""
    settling, run = Settling(store, UTC), "run-00000000000000001"
    await settling.expect(run)
    eve = Principal("eve", tenant="acme").name
    await store.create(
        run,
        owner="w",
        meta=msgspec.json.encode(RunMeta(model="demo", request=ASKED, principal=eve)),
    )
    allowance = RunAllowance(
        settling,
        run,
        principal=eve,
        thread=None,
        budgets=budgets_of(budgets),
        slice_tokens=SLICE,
    )
    assert await allowance.begin(ASKED, TARGET) is None
    for event in (
        RunStart(run=run),
        StepStart(step=1, provider="demo", model="demo"),
        TextStart(part=0, step=1),
    ):
        allowance.apply(event)
    return allowance


async def said_of(allowance: RunAllowance) -> list[tuple[str, bool]]:
    """What is said of budgets, and whether something is left."""
    said: list[tuple[str, bool]] = []
    while allowance.is_due:
        event = await allowance.more()
        if event is not None:
            said.append((event.name, event.left > 0))
            if not event.left:
                break
    return said


def test_one_read_beyond_a_slice_and_near_the_end_goes_on() -> None:
    """Another slice is reserved before anybody says that nothing is left."""

    async def main() -> None:
        allowance = await allowance_of(MemoryStore(), "principal/day=2000")
        allowance.count_text(4 * 1700)
        assert await said_of(allowance) == [("principal/day", True)]
        assert allowance.remaining >= 4 * SLICE - 4
        allowance.count_text(4 * 200)
        assert await said_of(allowance) == []
        allowance.count_text(4 * 150)
        assert await said_of(allowance) == [("principal/day", False)]
        allowance.close()

    run_async(main())


def test_the_budget_that_is_used_up_is_named_not_one_whose_slice_is() -> None:
    async def main() -> None:
        budgets = ("principal/day=100000", "tenant/month=600", "principal/month=50000")
        allowance = await allowance_of(MemoryStore(), *budgets)
        allowance.count_text(4 * 700)
        assert await said_of(allowance) == [("tenant/month", False)]
        allowance.close()
        allowance = await allowance_of(MemoryStore(), *budgets)
        allowance.count_text(4 * 500)
        assert await said_of(allowance) == [("tenant/month", True)]
        allowance.count_text(4 * 200)
        assert await said_of(allowance) == [("tenant/month", False)]
        allowance.close()

    run_async(main())


def test_what_is_reserved_and_not_used_is_a_figure() -> None:
    async def main() -> None:
        store = MemoryStore()
        settling, run = Settling(store, UTC), "run-00000000000000001"
        budgets = budgets_of(["principal/day=150", "thread=$5"])
        allowances = Allowances(settling, budgets, slice_tokens=SLICE)
        assert allowances.reserved_tokens == 0
        await settling.expect(run)
        meta = RunMeta(model="demo", request=ASKED, principal="eve", thread="talk")
        await store.create(run, owner="w", meta=msgspec.json.encode(meta))
        allowance = allowances.of(run, meta)
        assert allowance is not None
        assert await allowance.begin(ASKED, TARGET) is None
        assert allowances.reserved_tokens == SLICE
        for event in (RunStart(run=run), StepStart(step=1), TextStart(part=0, step=1)):
            allowance.apply(event)
        allowance.count_text(4 * 30)
        assert allowances.reserved_tokens == SLICE - 30
        allowance.count_text(4 * 90)  # more than it has reserved
        assert allowances.reserved_tokens == 0
        allowance.close()
        assert allowances.reserved_tokens == 0

    run_async(main())
