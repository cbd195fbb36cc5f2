"""Notes of runs: a look costs what is due and what changed, not what is there."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from support.redis import redis_server
from support.spine import run_async
from tokenwire import Runs, agent, open_store
from tokenwire.agents.load import agents_of
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.log.base import Store
from tokenwire.relay.upkeep import notes as module
from tokenwire.relay.upkeep.notes import Notes

KIND = "note"


class Clock:
    """The time, which only a test moves on."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now


class Counted:
    """A store that counts the notes that it gives."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.rows = self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def documents(self, kind: str, *, prefix: str = "", most: int = 1000) -> dict[str, bytes]:
        page = await self._store.documents(kind, prefix=prefix, most=most)
        self.rows += len(page)
        self.calls += 1
        return page


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "redis":
        with redis_server() as server:
            yield server.url
    else:
        yield "memory:" if request.param == "memory" else f"sqlite:{tmp_path / 'runs.db'}"


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Counted]:
    store = open_store(url)
    await store.start()
    try:
        yield Counted(store)
    finally:
        await store.close()


def notes_of(store: Any) -> Notes:
    return Notes(store, KIND, lambda data: None if data == b"open" else float(data))


async def settled(store: Counted, count: int, clock: Clock) -> Notes:
    """Notes of another process that were looked at once, and are open."""
    for number in range(count):
        await store.set_document(KIND, f"run-{number}", b"open")
    notes = notes_of(store)
    runs = await notes.due()
    assert len(runs) == count, "whoever left them may be gone"
    for run in runs:
        notes.reschedule(run, b"open", clock.now - 100_000)
    return notes


@pytest.mark.parametrize("count", [70, 1500])
def test_a_look_costs_the_same_however_many_are_open(url: str, count: int, clock: Clock) -> None:
    async def main() -> None:
        async with opened(url) as store:
            notes = await settled(store, count, clock)
            store.rows = store.calls = 0
            for _ in range(10):
                clock.now += 2
                assert await notes.due() == []
            assert (store.calls, store.rows) == (10, 640)  # one small page each

    run_async(main())


@pytest.mark.parametrize("changes", [1, 64, 65, 300])
def test_what_another_process_changed_is_found(url: str, changes: int, clock: Clock) -> None:
    async def main() -> None:
        async with opened(url) as store:
            notes = await settled(store, 400, clock)
            for number in range(changes):
                await store.set_document(KIND, f"run-{number}", b"7")
            assert await notes.expect("own", b"open")  # above them, and known here
            assert set(await notes.due()) == {f"run-{number}" for number in range(changes)}
            assert await notes.due() == []

    run_async(main())


def test_the_end_of_a_run_whose_owner_is_gone_is_found(clock: Clock) -> None:
    """Nobody announces it: it is found within half of the run's age, an hour at most."""

    async def main() -> None:
        async with opened("memory:") as store:
            notes = notes_of(store)
            assert await notes.due() == []
            await store.set_document(KIND, "other", b"open")
            assert await notes.due() == []  # a process that lives announces its end
            since, looks = clock.now, list[float]()
            while clock.now < since + 100_000:
                clock.now += 1
                for run in await notes.due():
                    looks.append(clock.now - since)
                    notes.reschedule(run, b"open", since)
            pauses = [b - a for a, b in zip([0.0, *looks], looks, strict=False)]
            assert all(
                p <= max(module.LEAST_LOOK, at / 2) + 1 for p, at in zip(pauses, looks, strict=True)
            )
            assert max(pauses) <= module.MOST_LOOK + 1
            assert len(looks) < 60

    run_async(main())


class Marked(msgspec.Struct):
    since: float
    ends: float = 0.0


def decoded(data: bytes) -> Marked:
    return msgspec.json.decode(data, type=Marked)


def marked_notes(store: Any) -> Notes:
    return Notes(store, KIND, lambda data: module.end_check_time(decoded(data)))


def test_a_marked_end_is_found_soon_however_old_the_run_is(url: str, clock: Clock) -> None:
    """Only the run that ends is looked at, however many are open."""

    async def main() -> None:
        async with opened(url) as store:
            owner, other = marked_notes(store), marked_notes(store)
            assert await other.due() == []
            since, young = clock.now - 1_000_000, clock.now
            for number in range(100):
                note = Marked(young if number == 1 else since)
                assert await owner.expect(f"run-{number}", msgspec.json.encode(note))
            for run in await other.due():
                other.reschedule(run, b"", since)
            clock.now += module.LEAST_LOOK
            for run in await other.due():
                data = await other.get(run)
                assert data is not None
                other.reschedule(run, data, decoded(data).since)
            await owner.mark("run-7", decoded)
            await owner.mark("run-1", decoded)  # young: its age is soon enough
            await owner.mark("gone", decoded)
            assert await other.due() == []
            clock.now += module.ENDING_SECONDS
            found = set(await other.due())
            assert "run-7" in found
            assert found <= {"run-7", "run-1"}
            # It has not ended yet: it is looked at again, less and less often.
            data = await other.get("run-7")
            assert data is not None
            other.reschedule("run-7", data, max(decoded(data).since, decoded(data).ends))
            clock.now += module.LEAST_LOOK
            assert "run-7" in await other.due()

    run_async(main())


def test_a_look_that_failed_follows_again_and_what_failed_for_good_does_not(clock: Clock) -> None:
    async def main() -> None:
        async with opened("memory:") as store:
            await store.set_document(KIND, "run", b"open")
            notes = notes_of(store)
            assert await notes.due() == ["run"]
            notes.retry("run")
            clock.now += module.LEAST_LOOK
            assert await notes.due() == ["run"]
            await store.set_document(KIND, "run", b"inf")
            notes.reschedule("run", b"inf", clock.now)
            clock.now += 1e9
            assert await notes.due() == []

    run_async(main())


def test_the_file_has_an_index_for_the_newest_notes(tmp_path: Path) -> None:
    async def main() -> None:
        async with opened(f"sqlite:{tmp_path / 'runs.db'}") as store:
            await store.set_document(KIND, "run", b"open")
        query = "SELECT name, data FROM document WHERE kind = ? ORDER BY changed DESC LIMIT ?"
        with sqlite3.connect(tmp_path / "runs.db") as connection:
            plan = connection.execute(f"EXPLAIN QUERY PLAN {query}", (KIND, 64)).fetchall()
        assert "document_changed" in str(plan)
        assert "B-TREE" not in str(plan)

    run_async(main())


def test_runs_that_wait_are_not_looked_at_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the runs of one process, whose ends it announces itself."""
    from tokenwire.relay.upkeep import rounds

    monkeypatch.setattr(rounds, "PERIOD", 0.01)

    @agent
    async def asks(ctx: Any) -> str:
        await ctx.request_approval("may_i")
        return "done"

    async def main() -> None:
        ended: list[str] = []
        runs = Runs(
            open_store(f"sqlite:{tmp_path / 'runs.db'}"),
            agents=agents_of([asks]),
            on_end=lambda end: ended.append(end.run),
        )
        await runs.open()
        try:
            infos = [
                await runs.start(Request(messages=[user("x")]), model="asks") for _ in range(5)
            ]
            assert runs.outbox is not None
            looks: list[str] = []
            ends: Any = runs.outbox._ends
            look, scans, due = ends._look_at, 0, ends._notes.due

            async def counted(run: str) -> None:
                looks.append(run)
                await look(run)

            async def scanned() -> list[str]:
                nonlocal scans
                scans += 1
                return await due()

            ends._look_at, ends._rounds._due = counted, scanned
            while scans < 20:
                await module.asyncio.sleep(0.01)
            assert looks == []
            for info in infos:
                await runs.cancel(info.id)
            while len(ended) < 5:
                await module.asyncio.sleep(0.01)
            assert sorted(ended) == sorted(info.id for info in infos)
        finally:
            await runs.aclose()

    run_async(main())
