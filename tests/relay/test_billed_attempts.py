"""Attempts that were billed before their first word, in sums, bills and budgets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

import pytest

from support.agents import crash
from support.billing import Act, BillingPeer, Script, billing_peer
from support.spine import QUICK, run_async
from tokenwire.events import model as m
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.providers.base import Dialect, Target
from tokenwire.relay.runs import Runs
from tokenwire.relay.spending.bill import day_of
from tokenwire.relay.spending.budgets import budgets_of
from tokenwire.relay.spending.ledger import StoredSum, owner_account
from tokenwire.relay.spending.settling import Settling, bill_in


class Peers:
    """A registry of two providers, ``a`` and ``b``."""

    def __init__(self, *peers: BillingPeer) -> None:
        self._peers = dict(zip("ab", peers, strict=True))

    def resolve(self, name: str) -> tuple[Dialect, Target]:
        return self._peers[name[0]].candidate(name[0])


@asynccontextmanager
async def world(
    one: Script, two: Script, *budgets: str
) -> AsyncIterator[tuple[Runs, Settling, BillingPeer, BillingPeer]]:
    """Runs on two providers, of which the first costs ten times what the second does."""
    async with billing_peer("anthropic") as first, billing_peer("openai-chat") as second:
        first.script, second.script = one, two
        store = MemoryStore()
        rows = {"a/m": (10 * 10**9, 20 * 10**9), "b/m": (10**9, 2 * 10**9)}
        settling = Settling(store, UTC, rows)
        runs = Runs(store, registry=Peers(first, second), retry=QUICK, fallbacks={"ab": ["b"]})  # type: ignore[arg-type]
        runs.worker.settle_with(settling, budgets_of(budgets), slice_tokens=100)
        async with runs:
            yield runs, settling, first, second


async def played(runs: Runs, model: str) -> tuple[str, list[m.Event]]:
    """A run to its end, on ``a``, or on ``ab``, one after the other: its id and its log."""
    run = await runs.start(Request(messages=[user("Hi")]), model=model)
    follower = await runs.follow(run.id)
    while (await follower.next()) is not None:
        pass
    follower.close()
    return run.id, (await runs.replay(run.id)).events()


async def settled_sum(settling: Settling) -> StoredSum:
    account = owner_account("day", day_of(time.time(), UTC), "p", "")
    while (entry := await settling.ledger.read(account)).runs < 1:
        await asyncio.sleep(0.01)
    return entry


def test_each_attempt_has_the_price_of_its_own_model() -> None:
    async def main() -> None:
        one: Script = [("count", 1000, 1), ("count_error", 500, 2)]
        one.append(("refuse", 0, 0))
        async with world(one, [("answer", 300, 40)]) as (runs, settling, *_):
            run, events = await played(runs, "ab")
            entry = await settled_sum(settling)
            bill = await bill_in(settling.store, run)
        assert bill is not None
        lines = {line.model: line.sum for line in bill.lines}
        counted = {
            name: (one.calls, one.counts.input_tokens, one.counts.output_tokens)
            for name, one in lines.items()
        }
        assert counted == {"a/m": (2, 1500, 3), "b/m": (1, 300, 40)}
        assert {name: s.cost for name, s in lines.items()} == {
            "a/m": 1500 * 10_000 + 3 * 20_000,
            "b/m": 300 * 1_000 + 40 * 2_000,
        }
        assert entry.counts.total == 1843
        end = events[-1]
        assert isinstance(end, m.RunEnd)
        assert end.usage is not None
        assert (end.usage["input_tokens"], end.usage["output_tokens"]) == (1800, 43)

    run_async(main())


def test_a_run_that_fails_at_last_is_billed() -> None:
    async def main() -> None:
        one: Script = [("count", 100, 1), ("begin", 0, 0), ("count", 100, 1)]
        two: Script = [
            ("silent", 0, 0),
            ("refuse", 0, 0),
            ("count_error", 7, 0),
        ]
        async with world(one, two) as (runs, settling, *_):
            _, events = await played(runs, "ab")
            entry = await settled_sum(settling)
        end = events[-1]
        assert isinstance(end, m.RunEnd)
        assert (end.outcome, end.usage_unknown) == ("error", True)
        assert end.usage is not None
        assert end.usage["input_tokens"] == entry.counts.input_tokens == 207
        assert entry.unreported_calls == 2
        assert entry.estimated_tokens > 0

    run_async(main())


@pytest.mark.parametrize("act", ["count", "count_error"])
@pytest.mark.parametrize("model", ["a", "ab"])
def test_no_further_attempt_begins_when_the_budget_is_used_up(act: Act, model: str) -> None:
    async def main() -> None:
        one: Script = [(act, 100, 1)] * 3
        budget = "principal/day=105"
        async with world(one, [("answer", 1, 1)] * 3, budget) as (runs, settling, first, second):
            _, events = await played(runs, model)
            entry = await settled_sum(settling)
            assert (first.requests, second.requests) == (1, 0)
        end, step, told = events[-1], events[-2], events[-3]
        assert isinstance(end, m.RunEnd)
        assert (end.outcome, end.reason) == ("incomplete", "budget")
        assert end.usage is not None
        assert end.usage["input_tokens"] == 100
        assert isinstance(step, m.StepEnd)
        assert (step.status, step.terminal_seen) == ("incomplete", False)
        assert isinstance(told, m.RunBudget)
        assert (told.name, told.left, told.most) == ("principal/day", 0, 105)
        assert (entry.counts.total, entry.holdings) == (101, {})

    run_async(main())


def test_a_budget_in_money_counts_an_attempt_at_the_price_of_its_model() -> None:
    """1,000 tokens in cost a cent at the first provider."""

    async def main(most: str) -> tuple[str, int, int]:
        one: Script = [("count", 1000, 0), ("refuse", 0, 0), ("refuse", 0, 0)]
        budget = f"principal/day={most}"
        async with world(one, [("answer", 10, 1)], budget) as (runs, _, first, second):
            _, events = await played(runs, "ab")
            end = events[-1]
            assert isinstance(end, m.RunEnd)
            return end.outcome, first.requests, second.requests

    assert run_async(main("$0.0100001")) == ("incomplete", 1, 0)
    assert run_async(main("$0.1")) == ("complete", 3, 1)


def test_what_is_estimated_of_an_attempt_counts_for_the_budget() -> None:
    async def main() -> None:
        one: Script = [("begin", 0, 0), ("answer", 9, 1)]
        async with world(one, [], "principal/day=1000") as (runs, settling, *_):
            _, events = await played(runs, "a")
            entry = await settled_sum(settling)
        reports = [event for event in events if isinstance(event, m.Usage)]
        assert [e.source for e in reports] == ["estimated", "provider"]
        assert reports[0].input_tokens
        assert (entry.calls, entry.unreported_calls) == (2, 1)
        assert entry.counts.total == 10
        assert entry.estimated_tokens == reports[0].input_tokens

    run_async(main())


def test_what_was_billed_before_a_takeover_is_counted_after_it(tmp_path: Path) -> None:
    """A worker is lost in its second attempt; the next one makes a third."""

    async def main() -> None:
        one: Script = [("count", 100, 1), ("hold", 50, 2), ("answer", 30, 4)]
        async with billing_peer("anthropic") as peer, billing_peer("openai-chat") as other:
            peer.script = one
            registry = Peers(peer, other)

            def worker(name: str) -> Runs:
                store = open_store(f"sqlite:{tmp_path / 'runs.db'}")
                settling = Settling(store, UTC)
                runs = Runs(
                    store,
                    registry=registry,  # type: ignore[arg-type]
                    retry=QUICK,
                    lease=0.4,
                    owner=f"elsewhere:{name}:x",
                )
                runs.worker.settle_with(settling, budgets_of(["principal/day=100000"]))
                return runs

            lost, heir = worker("lost"), worker("heir")
            async with lost:
                run = await lost.start(Request(messages=[user("Hi")]), model="a")
                while peer.requests < 2:
                    await asyncio.sleep(0.01)
                crash(lost)
                async with heir:
                    follower = await heir.follow(run.id)
                    while (await follower.next()) is not None:
                        pass
                    follower.close()
                    events = (await heir.replay(run.id)).events()
                    entry = await settled_sum(Settling(heir.store, UTC))
        resets = [(e.attempt, e.reason) for e in events if isinstance(e, m.StepReset)]
        assert resets == [(2, "retry"), (3, "restart")]
        end = events[-1]
        assert isinstance(end, m.RunEnd)
        assert end.usage is not None
        # What the second one told was in the lost worker alone: that something is missing is known.
        assert (end.usage["input_tokens"], end.usage["output_tokens"]) == (130, 5)
        assert end.usage_unknown
        assert (entry.calls, entry.counts.total, entry.holdings) == (2, 135, {})

    run_async(main())


def test_a_small_request_fits_again_after_a_refusal() -> None:
    """What was not billed is not counted, however often it is tried."""

    async def main() -> None:
        one: Script = [("refuse", 0, 0)] * 3
        async with world(one, [("answer", 9, 1)], "principal/day=60") as (runs, settling, *_):
            _, events = await played(runs, "ab")
            entry = await settled_sum(settling)
        end = events[-1]
        assert isinstance(end, m.RunEnd)
        assert (end.outcome, end.usage_unknown) == ("complete", False)
        assert (entry.calls, entry.counts.total, entry.estimated_tokens) == (1, 10, 0)
        (reset,) = [event for event in events if isinstance(event, m.StepReset)]
        assert reset.reason == "refused"

    run_async(main())
