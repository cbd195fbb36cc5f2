"""Budgets set while servers run: on every store, seen by all processes, changed one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from support.spine import run_async
from tokenwire.errors import ConflictError, LimitError
from tokenwire.log.base import Store
from tokenwire.relay.spending import stored
from tokenwire.relay.spending.budgets import Budget
from tokenwire.relay.spending.stored import STALE, Limit, StoredBudgets, of_run, place_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_change_is_seen_by_every_process_and_kept_with_its_author(
    new_log: Callable[[], Store],
) -> None:
    async def main() -> None:
        store = new_log()
        await store.start()
        clock = Clock()
        here, there = StoredBudgets(store, clock), StoredBudgets(store, clock)
        assert await there.table() == {}
        limit = Limit("day", "tokens", 5)
        first = await here.put("principal/ann", [limit], by="op", version=0)
        assert first.version == 1
        assert await here.table() == {"principal/ann": [limit]}  # at once
        assert await there.table() == {}
        clock.now += STALE
        assert await there.table() == {"principal/ann": [limit]}
        with pytest.raises(ConflictError, match="version 1, not 0"):
            await there.put("principal/ann", [], by="other", version=0)
        # One after the other, whoever comes first.
        await asyncio.gather(
            *(one.put("tenant", [limit], by=str(n)) for n, one in enumerate((here, there) * 8))
        )
        tenant = await here.read("tenant")
        names = {change.by for change in tenant.changes}
        assert (tenant.version, names) == (16, {str(n) for n in range(16)})
        assert [place for place, _ in await here.page(most=1)] == ["principal/ann"]
        assert [place for place, _ in await here.page(after="principal/ann")] == ["tenant"]
        await there.put("principal/ann", [], by="op", note="the trial is over")
        cleared = await here.read("principal/ann")
        assert (cleared.limits, cleared.version) == ([], 2)
        assert cleared.changes[-1].note == "the trial is over"
        assert [place for place, _ in await here.page()] == ["tenant"]
        place = place_of("thread", "ann\x1ftalk")
        await here.put(place, [Limit(None, "tokens", 1)], by="op")
        clock.now += STALE
        assert place in await there.table()
        await here.forget_threads(["ann\x1ftalk", "ann\x1fanother"])
        assert (await here.read(place)).version == 0
        assert place not in await here.table()
        clock.now += STALE
        assert place not in await there.table()
        assert (await here.put("principal/nobody", [], by="op")).version == 0
        await store.close()

    run_async(main())


def test_owners_whose_budgets_were_cleared_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenwire.log.memory import MemoryStore

    async def main() -> None:
        monkeypatch.setattr(stored, "MOST_SET", 2)
        budgets, limits = StoredBudgets(MemoryStore()), [Limit("day", "tokens", 5)]
        for place in ("tenant/a", "tenant/b"):
            await budgets.put(place, limits, by="op")
        with pytest.raises(LimitError):
            await budgets.put("tenant/c", limits, by="op")
        await budgets.put("tenant/b", limits, by="op")
        await budgets.put("tenant/a", [], by="op")
        await budgets.put("tenant/c", limits, by="op")
        with pytest.raises(LimitError):
            await budgets.put("tenant/a", limits, by="op")
        assert len((await budgets.read("tenant/a")).changes) == 2

    run_async(main())


def test_a_process_that_died_before_its_mark_is_made_up_for() -> None:
    from tokenwire.log.memory import MemoryStore

    async def main() -> None:
        store, clock = MemoryStore(), Clock()
        there = StoredBudgets(store, clock)
        assert await there.table() == {}
        await StoredBudgets(store).put("tenant", [Limit("day", "tokens", 5)], by="op")
        await store.set_document("budgets-mark", "all", None)
        clock.now += STALE
        assert await there.table() == {}
        clock.now += 60.0
        assert set(await there.table()) == {"tenant"}

    run_async(main())


def test_which_budget_counts_of_several_for_the_same() -> None:
    configured = [Budget("principal", "day", "tokens", 100), Budget("thread", None, "tokens", 9)]
    table = {
        "principal": [Limit("day", "tokens", 50), Limit("month", "dollars", 7)],
        "principal/ann": [Limit("day", "tokens", 500)],
        "principal/acme\x1eeve": [Limit("day", "tokens", None)],
        "tenant/acme": [Limit("month", "tokens", 1000)],
        "thread/ann\x1ftalk": [Limit(None, "tokens", 1)],
    }

    def most(principal: str, thread: str | None = None) -> dict[tuple[str, str | None], int]:
        budgets = of_run(configured, table, principal=principal, thread=thread)
        return {(one.whose, one.period): one.most for one in budgets}

    thread = {("thread", None): 9}
    month = {("principal", "month"): 7}
    assert most("zoe") == {("principal", "day"): 50, **month, **thread}
    assert most("ann") == {("principal", "day"): 500, **month, **thread}
    assert most("ann", "ann\x1ftalk") == {("principal", "day"): 500, **month, ("thread", None): 1}
    assert most("acme\x1eeve") == {**month, **thread, ("tenant", "month"): 1000}
    assert most("acme\x1eann") == {
        ("principal", "day"): 50,
        **month,
        **thread,
        ("tenant", "month"): 1000,
    }
