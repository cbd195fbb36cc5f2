"""Looking after many runs: some in each turn of the event loop, and all of them in the end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from support.spine import run_async
from tokenwire.relay.takeover import tending


class Owned:
    """A run that this process owns, as its tending sees it."""

    def __init__(self, run: str) -> None:
        self.run, self.producer = run, SimpleNamespace(epoch=1)
        self.look, self.is_unlisted, self.has_expired = True, False, False
        self.looks = self.stopped = 0
        self.seen_commands = 0
        self.loop = SimpleNamespace(fold=SimpleNamespace(outcome=None))

    def write_stuck(self) -> None:
        self.looks += 1

    def waits_since(self) -> float | None:
        return None

    def deliver(self, commands: list[Any]) -> bool:
        return False

    async def stop(self) -> None:
        self.stopped += 1


class Store:
    """It counts what is asked of it in one call."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.lost: set[str] = set()

    async def mailboxes(self, after: dict[str, int]) -> dict[str, list[Any]]:
        self.calls.append(len(after))
        return {}

    async def renew(self, leases: dict[str, int], *, owner: str, lease: float) -> set[str]:
        self.calls.append(len(leases))
        return self.lost & set(leases)


def worker_of(count: int, store: Store) -> Any:
    owned = {f"r{number}": Owned(f"r{number}") for number in range(count)}
    return SimpleNamespace(
        owned=owned,
        store=store,
        claims={"claim": 7},
        owner="me",
        lease=15.0,
        wait_timeout=1.0,
        draining=False,
    )


@pytest.mark.parametrize(
    ("count", "ticks"),
    [
        (0, 1),
        (3, 1),
        (tending._LOOKED_AT_LEAST, 1),
        (2 * tending._LOOKED_AT_LEAST, 2),
        (800, 4),  # a share of all
        (6 * tending._LOOKED_AT, 6),
    ],
)
def test_each_run_is_looked_at_once_a_round_and_some_in_a_tick(count: int, ticks: int) -> None:
    async def main() -> None:
        store, later = Store(), list[Any]()
        worker = worker_of(count, store)
        for tick in range(ticks):
            before = sum(owned.looks for owned in worker.owned.values())
            if tick == 1:  # it ends within the round
                gone = later[0]
                del worker.owned[gone.run]
            await tending._look_after(worker, later)
            looks = sum(owned.looks for owned in worker.owned.values())
            share = max(tending._LOOKED_AT_LEAST, -(-count // tending._LOOKED_AT_SHARE))
            assert looks - before <= min(share, tending._LOOKED_AT)
        assert {owned.looks for owned in worker.owned.values()} == ({1} if count else set())
        assert not later
        if ticks > 1:
            assert gone.looks == 0
        assert max(store.calls, default=0) <= tending._AT_ONCE
        assert sum(store.calls) == count
        worker.owned["new"] = Owned("new")
        for _ in range(ticks + 1):
            await tending._look_after(worker, later)
        assert worker.owned["new"].looks >= 1

    run_async(main())


def test_leases_are_renewed_some_at_a_time_and_the_lost_ones_are_stopped() -> None:
    async def main() -> None:
        store = Store()
        worker = worker_of(2 * tending._AT_ONCE, store)
        store.lost = {"r0", f"r{2 * tending._AT_ONCE - 1}", "nobody's"}
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await tending._renew(worker)
        counting.cancel()
        assert store.calls == [tending._AT_ONCE, tending._AT_ONCE, 1]
        assert turns >= 3, "it gives way between two calls"
        stopped = {owned.run for owned in worker.owned.values() if owned.stopped}
        assert stopped == {"r0", f"r{2 * tending._AT_ONCE - 1}"}

    run_async(main())
