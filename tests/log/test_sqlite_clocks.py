"""Leases in one SQLite file by processes whose clocks disagree."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.sqlite.watch import Term, Watch

#: The lease that is watched for: short where a dead owner's has to run out.
LEASE = 0.5
#: Bound of what must come, however slow the machine is.
PATIENCE = 30.0

Case = Callable[[SQLiteStore, SQLiteStore], Awaitable[None]]


def run(folder: Path, skews: tuple[float, float], case: Case) -> None:
    """``case`` with an owner's store and a watcher's, whose clocks are wrong by ``skews``."""

    async def main() -> None:
        owner, watcher = (
            SQLiteStore(f"{folder}/log.db", clock=lambda skew=skew: time.time() + skew)
            for skew in skews
        )
        await owner.start()
        await watcher.start()
        try:
            await case(owner, watcher)
        finally:
            await watcher.close()
            await owner.close()

    asyncio.run(main())


async def until_orphaned(store: SQLiteStore, log: str, lease: float = LEASE) -> None:
    async with asyncio.timeout(PATIENCE):
        while log not in await store.orphans(lease=lease):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("skews", [(3600.0, 0.0), (3600.0, -3600.0), (0.0, -3600.0)])
def test_the_lease_of_a_dead_owner_whose_clock_is_ahead_runs_out(
    tmp_path: Path, skews: tuple[float, float]
) -> None:
    async def case(owner: SQLiteStore, watcher: SQLiteStore) -> None:
        await owner.create("s", owner="me", lease=LEASE)
        assert await watcher.claim("s", owner="you", lease=LEASE) is None, "nobody has watched it"
        await until_orphaned(watcher, "s")
        claim = await watcher.claim("s", owner="you", lease=60)
        assert claim is not None
        assert claim.epoch == 2
        late = await owner.append("s", epoch=1, first=1, records=[b"late"])
        assert late.status == "fenced"

    run(tmp_path, skews, case)


def test_an_owner_whose_clock_is_ahead_and_who_renews_keeps_its_log(tmp_path: Path) -> None:
    """The end of a lease that was watched as stale moved in the meantime: no claim."""

    async def case(owner: SQLiteStore, watcher: SQLiteStore) -> None:
        await owner.create("s", owner="me", lease=LEASE)
        await until_orphaned(watcher, "s")
        assert await owner.renew({"s": 1}, owner="me", lease=LEASE) == set()
        assert await watcher.claim("s", owner="you", lease=LEASE) is None
        assert await watcher.orphans(lease=LEASE) == [], "it is watched anew"
        await until_orphaned(watcher, "s")

    run(tmp_path, (3600.0, 0.0), case)


def test_one_of_two_claims_of_a_stale_lease_wins(tmp_path: Path) -> None:
    async def case(owner: SQLiteStore, watcher: SQLiteStore) -> None:
        await owner.create("s", owner="me", lease=LEASE)
        await until_orphaned(watcher, "s")
        claims = await asyncio.gather(
            *(watcher.claim("s", owner=f"you{n}", lease=60) for n in range(5))
        )
        assert [claim.epoch for claim in claims if claim] == [2]

    run(tmp_path, (3600.0, 0.0), case)


def test_a_log_that_ended_is_not_claimed_though_its_lease_was_stale(tmp_path: Path) -> None:
    async def case(owner: SQLiteStore, watcher: SQLiteStore) -> None:
        await owner.create("s", owner="me", lease=LEASE)
        await until_orphaned(watcher, "s")
        await owner.append("s", epoch=1, first=1, records=[b"end"], close="complete")
        assert await watcher.claim("s", owner="you", lease=LEASE) is None
        assert await watcher.orphans(lease=LEASE) == []

    run(tmp_path, (3600.0, 0.0), case)


def test_a_lease_is_stale_after_its_time_without_a_renewal() -> None:
    now = [100.0]
    watch = Watch(clock=lambda: now[0])
    quiet, busy = Term("quiet", 1, 5000.0), Term("busy", 1, 5000.0)
    assert watch.look([quiet, busy], 15.0) == []
    now[0] += 14.9
    assert watch.look([quiet, busy._replace(end=5005.0)], 15.0) == []
    now[0] += 0.1
    assert watch.look([quiet, busy._replace(end=5005.0)], 15.0) == ["quiet"]
    assert watch.stale == {"quiet": quiet}
    now[0] += 14.9
    taken = quiet._replace(epoch=2)
    assert watch.look([taken, busy._replace(end=5005.0)], 15.0) == ["busy"], "a claim counts anew"
    assert watch.look([taken], 15.0) == [], "a log that ended is forgotten"
    assert watch.stale == {}
