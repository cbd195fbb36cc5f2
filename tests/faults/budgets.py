"""Budgets under kills: runs use tokens and money until nothing is left, and a verdict on each sum.

Workers die at changes of the sums, of bills and of notes, before and after them, and at random;
some are stopped for longer than their lease. Each principal starts runs until two of them were
ended by a budget. When all is settled, by whoever lives, the sums are held against the logs. The
seed fixes every choice; the moments depend on the machine as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path

from faults import budget_worker
from faults.actors import Worker
from faults.budget_checker import Most, Settled, check_money
from faults.budget_worker import BUDGETS, CHEAP, DEAR, PRICES
from faults.checker import dump
from faults.herd import Herd, Hits
from faults.journal import CHECK
from tokenwire.errors import StoreUnavailableError
from tokenwire.events.codec import decode
from tokenwire.events.model import RunBudget, RunEnd
from tokenwire.events.names import TENANT_END
from tokenwire.events.principal import parts_of
from tokenwire.relay.conversation.scope import scope_of
from tokenwire.relay.runs import Runs
from tokenwire.relay.spending.budgets import account_of
from tokenwire.relay.spending.ledger import Account, StoredSum, accounts_of
from tokenwire.relay.spending.reserved import reserved_accounts
from tokenwire.relay.spending.settling import Settling, bill_in
from tokenwire.run.call.spending import BUDGET
from tokenwire.simulator.scenarios import SCENARIOS, Scenario
from tokenwire.simulator.script import Ask, Say, Script

#: Tenants at a time, the principals of each, and the runs that each has open.
TENANTS, PRINCIPALS, AT_ONCE = 2, 2, 2
#: Runs that a budget ended, after which a principal starts no more; and the most it starts.
STOPPED, MOST_RUNS = 2, 12
#: Runs of a conversation.
TURNS = 3
#: Seconds within which a run starts and ends, and is settled.
REST = 90.0
_SCENARIO = "used"
#: Tokens of an answer, a piece each.
ANSWER = 100
#: Tokens by which the estimate of a request may differ from what the provider says.
MISJUDGED = 10
#: The share of kills that come at a change of the money.
AIMED = 0.7
_PIECES = tuple(f"{number:03} " for number in range(ANSWER))


@dataclass
class BudgetReport(Hits):
    """What happened, for people and programs."""

    #: Kills of a worker at a change of the money.
    aimed: int = 0
    principals: int = 0
    runs: int = 0
    #: Runs, by how they ended.
    ends: dict[str, int] = field(default_factory=dict)
    sums: int = 0
    tokens: int = 0
    #: Of the sums that have a budget: how many were used up, and the most tokens beyond one.
    used_up: int = 0
    beyond: int = 0


class BudgetHarness(Herd):
    """One run of the harness on one store."""

    main = staticmethod(budget_worker.main)

    def __init__(
        self,
        store: str,
        folder: Path,
        *,
        seed: int,
        kills: int,
        workers: int = 3,
        tenants: int = TENANTS,
        restart_store: Callable[[], None] | None = None,
    ) -> None:
        self.report = BudgetReport(seed, store.partition(":")[0])
        super().__init__(
            self.report, store, folder, kills=kills, workers=workers, restart_store=restart_store
        )
        self._tenants = tenants

    async def run(self) -> BudgetReport:
        begun = time.monotonic()
        SCENARIOS[_SCENARIO] = Scenario(_SCENARIO, "What uses a budget.", _answer)
        try:
            async with self._at_work() as runs:
                self._money = Settling(runs.store, UTC, PRICES)  # here it only reads
                await self._money._load()
                killer = asyncio.create_task(self._kill())
                lanes = [self._lane(runs, killer, number) for number in range(self._tenants)]
                await asyncio.gather(killer, *lanes)
        finally:
            SCENARIOS.pop(_SCENARIO, None)
        self.report.seconds = time.monotonic() - begun
        return self.report

    # What hits them.

    async def _strike(self, victim: Worker) -> None:
        """Most die at one of their next changes of the money, where they make one soon enough."""
        if self._chance.random() < AIMED:
            changes, is_after = self._chance.randrange(8), self._chance.random() < 0.5
            try:
                victim.pipe.send({"do": "die", "changes": changes, "is_after": is_after})
                async with asyncio.timeout(3.0):
                    await victim.gone.wait()
                self.report.aimed += 1
            except (OSError, TimeoutError):
                pass
        await super()._strike(victim)

    # Who uses budgets.

    async def _lane(self, runs: Runs, killer: asyncio.Task[None], lane: int) -> None:
        """One tenant after the other, until the killing is done."""
        for number in itertools.count(1):
            if killer.done():
                return
            tenant, model = f"t{lane}-{number}", (DEAR if (lane + number) % 2 else CHEAP)
            names = [f"{tenant}{TENANT_END}p{one}" for one in range(PRINCIPALS)]
            threads = await asyncio.gather(*(self._use(runs, name, model) for name in names))
            await self._judge(runs, dict(zip(names, threads, strict=True)), model)

    async def _use(self, runs: Runs, principal: str, model: str) -> list[str]:
        """Start runs, some at a time, until budgets have ended some; the conversations of these."""
        numbers, stopped, threads = itertools.count(), 0, dict[str, None]()

        async def one_by_one() -> None:
            nonlocal stopped
            while stopped < STOPPED and (number := next(numbers)) < MOST_RUNS:
                thread = f"thread-{number // TURNS}"
                threads[thread] = None
                run = await self._start(principal, model, thread, f"key-{number}")
                if run is not None and await self._end(runs, run):
                    end = await _end_of(runs, run)
                    stopped += end.reason == BUDGET

        self.report.principals += 1
        await asyncio.gather(*(one_by_one() for _ in range(AT_ONCE)))
        return list(threads)

    async def _start(self, principal: str, model: str, thread: str, key: str) -> str | None:
        """Ask one worker after the other, under one key, until one has started the run."""
        order = {"do": "start", "principal": principal, "model": model, "thread": thread}
        until, error = time.monotonic() + REST, "no answer"
        while time.monotonic() < until:
            answer = await self._order(**order, key=key, text=f"scenario:{_SCENARIO} {key}")
            if answer is not None and "run" in answer:
                return answer["run"]
            error = error if answer is None else str(answer["error"])
            await asyncio.sleep(0.05)
        self.report.broken.append(f"{principal!r} {key}: not started in {REST:g} s: {error}")
        return None

    async def _end(self, runs: Runs, run: str) -> bool:
        """Wait for the end of a run; whether it came."""
        until = time.monotonic() + REST
        while time.monotonic() < until:
            with contextlib.suppress(StoreUnavailableError):
                if (await runs.store.describe(run)).closed is not None:
                    return True
            await asyncio.sleep(0.1)
        self.report.broken.append(f"{run}: no end in {REST:g} s")
        return False

    # Verdict.

    async def _judge(self, runs: Runs, threads: dict[str, list[str]], model: str) -> None:
        """Wait until all runs of a tenant's principals are settled, and check its sums."""
        scopes = [scope_of(who, thread) for who, names in threads.items() for thread in names]
        found = [name for scope in scopes for name in await runs.store.thread(scope, most=1000)]
        until = time.monotonic() + REST
        for run in found:
            if not await self._end(runs, run):
                return
            while await runs.store.document("unsettled", run) and time.monotonic() < until:
                await asyncio.sleep(0.1)
        settled = [await self._settled(runs, run) for run in found]
        sums = {account: await self._money.ledger.read(account) for account in _all(settled)}
        most = self._most(settled, model, set(sums))
        self.report.broken += check_money(settled, sums, most)
        self._count_in(settled, sums, most)

    async def _settled(self, runs: Runs, run: str) -> Settled:
        store = runs.store
        bill = await self._money._made(run, await store.describe(run))
        accounts = [*accounts_of(bill), *await reserved_accounts(store, run)]
        events = [decode(record[CHECK:]) for record in (await dump(store, run)).records]
        end = events[-1]
        return Settled(
            run=run,
            bill=bill,
            stored=await bill_in(store, run),
            accounts={one: _days_of(one) for one in accounts},
            is_noted=await store.document("unsettled", run) is not None,
            is_told=any(isinstance(event, RunBudget) and not event.left for event in events),
            end=end.reason if isinstance(end, RunEnd) else None,
        )

    def _most(self, settled: list[Settled], model: str, sums: set[Account]) -> list[Most]:
        """What each sum that has a budget may come to: beyond it are the answers that were open
        when it was used up, as each may have come with one read."""
        price, most = PRICES[f"demo/{model}"][0] // 1_000_000, dict[Account, Most]()
        for one in settled:
            who, tenant = one.bill.principal, parts_of(one.bill.principal)[1]
            for budget in BUDGETS:
                for day in {line.day for line in one.bill.lines}:
                    account = account_of(budget, day, who, tenant, one.bill.thread)
                    if account in sums:
                        at_once = AT_ONCE * (PRINCIPALS if budget.whose == "tenant" else 1)
                        beyond = at_once * (ANSWER + MISJUDGED)
                        beyond *= 1 if budget.unit == "tokens" else price
                        most[account] = Most(account, budget.unit, budget.most, beyond)
        return list(most.values())

    def _count_in(
        self, settled: list[Settled], sums: dict[Account, StoredSum], most: list[Most]
    ) -> None:
        report = self.report
        report.runs += len(settled)
        report.sums += len(sums)
        ends = Counter(report.ends)
        ends.update(one.end or "complete" for one in settled)
        report.ends = dict(ends)
        report.tokens += sum(line.sum.all_tokens for one in settled for line in one.bill.lines)
        for limit in most:
            over = sums[limit.account].committed(limit.unit) - limit.amount
            report.used_up += over >= 0
            if limit.unit == "tokens":
                report.beyond = max(report.beyond, over)


def _all(settled: list[Settled]) -> dict[Account, None]:
    return {account: None for one in settled for account in one.accounts}


def _days_of(account: Account) -> str:
    """What the days begin with that count in a sum."""
    return "" if account.kind == "spent-thread" else account.name.partition(".")[0]


async def _end_of(runs: Runs, run: str) -> RunEnd:
    end = decode((await dump(runs.store, run)).records[-1][CHECK:])
    assert isinstance(end, RunEnd)
    return end


def _answer(ask: Ask, seed: int) -> Script:
    return Script(steps=[Say("".join(_PIECES), _PIECES)])
