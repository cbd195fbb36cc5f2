"""`on_end`: every end is told, at least once, also after a crash between the end and the call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from support.spine import run_async
from tokenwire import RunContext, Runs, agent, open_store
from tokenwire.agents.load import agents_of
from tokenwire.errors import KeyReusedError
from tokenwire.events.message import user
from tokenwire.events.request import Request
from tokenwire.relay import outbox
from tokenwire.relay.outbox import EndedRun
from tokenwire.relay.upkeep import notes, rounds


@agent
async def job(ctx: RunContext):
    yield "Hello "
    if ctx.prompt == "fail":
        raise RuntimeError("no")
    if ctx.prompt == "wait":
        await asyncio.sleep(60)
    yield ctx.prompt


@asynccontextmanager
async def opened(store: str, on_end: Any) -> AsyncIterator[Runs]:
    runs = Runs(open_store(store), agents=agents_of([job]), on_end=on_end, lease=0.4)
    await runs.open()
    try:
        yield runs
    finally:
        await runs.aclose()


async def until(condition: Any) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


def asked(text: str) -> Request:
    return Request(messages=[user(text)])


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "PERIOD", 0.1)


@pytest.mark.parametrize("store", ["memory:", "sqlite"])
def test_every_outcome_is_told_once_with_the_folded_message(store: str, tmp_path: Any) -> None:
    store = f"sqlite:{tmp_path / 'runs.db'}" if store == "sqlite" else store

    async def main() -> None:
        told: list[EndedRun] = []
        async with opened(store, told.append) as runs:
            whole = await runs.start(
                asked("you"), model="job", principal="eve", thread="t", metadata={"a": 1}
            )
            failed = await runs.start(asked("fail"), model="job")
            stopped = await runs.start(asked("wait"), model="job")
            await asyncio.sleep(0.1)
            await runs.cancel(stopped.id)
            await until(lambda: len(told) == 3)
            await asyncio.sleep(0.4)
            assert len(told) == 3
            by_run = {ended.run: ended for ended in told}
            first = by_run[whole.id]
            assert (first.message.text, first.outcome) == ("Hello you", "complete")
            assert (first.principal, first.thread, first.metadata) == ("eve", "t", {"a": 1})
            assert first.input[0].text == "you"
            assert by_run[failed.id].outcome == "error"
            assert by_run[failed.id].error is not None
            assert by_run[stopped.id].outcome == "cancelled"
            assert await runs.store.documents("on-end") == {}

    run_async(main())


def test_a_call_that_fails_is_made_again_by_whoever_is_there(tmp_path: Any) -> None:
    store = f"sqlite:{tmp_path / 'runs.db'}"

    async def main() -> None:
        tries: list[str] = []
        told: list[EndedRun] = []

        async def broken(ended: EndedRun) -> None:
            tries.append(ended.run)
            raise RuntimeError("the application's database is away")

        async with opened(store, broken) as first:
            info = await first.start(asked("you"), model="job")
            await until(lambda: tries)
        async with opened(store, told.append):
            await until(lambda: told)
        assert [ended.run for ended in told] == [info.id]

    run_async(main())


def test_two_processes_that_look_in_the_same_moment_call_once(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their notes are equal to the microsecond, and the store tells both that theirs is there."""
    store = f"sqlite:{tmp_path / 'runs.db'}"

    async def main() -> None:
        tries: list[str] = []
        told: list[EndedRun] = []

        def broken(ended: EndedRun) -> None:
            tries.append(ended.run)
            raise RuntimeError("the application's database is away")

        async def tell(ended: EndedRun) -> None:
            told.append(ended)

        async with opened(store, broken) as first:
            run = (await first.start(asked("you"), model="job")).id
            await until(lambda: tries)
        logs = [open_store(store) for _ in range(8)]
        for log in logs:
            await log.start()
        now = outbox.time.time() + 3600
        monkeypatch.setattr(outbox.time, "time", lambda: now)
        await asyncio.gather(*(outbox._Ends(log, tell)._look_at(run) for log in logs))
        monkeypatch.undo()
        assert [ended.run for ended in told] == [run]
        for log in logs:
            await log.close()

    run_async(main())


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError()])
@pytest.mark.parametrize("how", ["async", "thread"])
def test_a_call_that_exits_or_is_cancelled_within_stops_no_other(
    error: BaseException, how: str
) -> None:
    async def main() -> None:
        told: list[EndedRun] = []

        def plain(ended: EndedRun) -> None:
            if not told:
                told.append(ended)
                raise error
            told.append(ended)

        async def broken(ended: EndedRun) -> None:
            plain(ended)

        async with opened("memory:", broken if how == "async" else plain) as runs:
            first = await runs.start(asked("you"), model="job")
            await until(lambda: told)
            second = await runs.start(asked("again"), model="job")
            await until(lambda: any(ended.run == second.id for ended in told))
            # The first is told again, as after any failure.
            await until(lambda: [ended.run for ended in told].count(first.id) == 2)

    run_async(main())


def test_what_fails_for_a_day_is_listed_and_what_is_deleted_is_forgotten(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "MOST_SECONDS", -1.0)

    async def main() -> None:
        def broken(ended: EndedRun) -> None:
            raise ValueError("secret")

        async with opened(f"sqlite:{tmp_path / 'runs.db'}", broken) as runs:
            assert runs.outbox is not None
            info = await runs.start(asked("you"), model="job")
            failed: dict[str, str] = {}
            async with asyncio.timeout(60):
                while not failed:
                    failed = await runs.outbox.failed()
                    await asyncio.sleep(0.05)
            assert failed == {info.id: "ValueError"}
            await runs.delete(info.id)
            assert await runs.outbox.failed() == {}

    run_async(main())


def test_a_start_that_fails_or_repeats_leaves_no_note(tmp_path: Any) -> None:
    async def main() -> None:
        told: list[EndedRun] = []
        async with opened(f"sqlite:{tmp_path / 'runs.db'}", told.append) as runs:
            first = await runs.start(asked("you"), model="job", key="k")
            again = await runs.start(asked("you"), model="job", key="k")
            assert again.id == first.id
            with pytest.raises(KeyReusedError):
                await runs.start(asked("other"), model="job", key="k")
            await until(lambda: told)
            async with asyncio.timeout(60):
                while await runs.store.documents("on-end"):
                    await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert len(told) == 1
            assert await runs.store.documents("on-end") == {}

    run_async(main())


@agent(restart=False)
async def asker(ctx: RunContext):
    if not await ctx.request_approval("delete", {}):
        yield "no"
    if ctx.prompt == "lost":
        await asyncio.sleep(60)
    yield "done"


@asynccontextmanager
async def unhurried(store: str, on_end: Any, **more: Any) -> AsyncIterator[Runs]:
    """A process that looks at no note because of its run's age."""
    runs = Runs(open_store(store), agents=agents_of([asker]), on_end=on_end, lease=0.4, **more)
    await runs.open()
    assert runs.outbox is not None
    assert runs.outbox._ends is not None
    runs.outbox._ends._notes._least_look = 3600.0
    try:
        yield runs
    finally:
        await runs.aclose()


async def waiting(runs: Runs, text: str) -> tuple[str, str]:
    """A run that waits, and its approval."""
    run = (await runs.start(asked(text), model="asker")).id
    await until(lambda: runs.worker.is_waiting(run))
    return run, runs.worker.owned[run].loop.fold.waiting[0]


async def die(runs: Runs) -> None:
    """Leave everything as a killed process does, but not its runs' tasks."""
    assert runs._tender is not None
    assert runs.outbox is not None
    runs._tender.cancel()
    await runs.outbox.aclose()


@pytest.mark.parametrize("how", ["complete", "cancelled"])
def test_an_old_run_whose_owner_dies_at_its_end_is_told_by_a_process_that_runs(
    how: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:{tmp_path / 'runs.db'}"
    monkeypatch.setattr(notes, "_UNMARKED_AGE", -1.0)
    monkeypatch.setattr(notes, "ENDING_SECONDS", 0.3)

    async def main() -> None:
        told: list[EndedRun] = []
        async with unhurried(store, told.append) as second, unhurried(store, told.append) as first:
            run, approval = await waiting(first, "you")
            await die(first)
            if how == "cancelled":
                await first.cancel(run)
            else:
                await first.approve(run, approval, approved=True)
            owned = first.worker.owned[run]
            await owned.check_commands()
            await owned.task
            await until(lambda: told)
            assert [(ended.run, ended.outcome) for ended in told] == [(run, how)]
            assert second.outbox is not None

    run_async(main())


def test_who_ends_the_run_of_a_lost_worker_tells_of_it(tmp_path: Any) -> None:
    store = f"sqlite:{tmp_path / 'runs.db'}"

    async def main() -> None:
        told: list[EndedRun] = []
        async with unhurried(store, told.append), unhurried(store, told.append) as first:
            run, approval = await waiting(first, "lost")
            await first.approve(run, approval, approved=True)
            await until(lambda: not first.worker.is_waiting(run))
            await die(first)
            for owned in list(first.worker.owned.values()):
                owned.task.cancel()
            first.worker.owned.clear()
            await until(lambda: told)
            assert [(ended.run, ended.outcome) for ended in told] == [(run, "interrupted")]

    run_async(main())


def test_a_run_that_nobody_answers_is_told_at_its_end(tmp_path: Any) -> None:
    async def main() -> None:
        told: list[EndedRun] = []
        store = f"sqlite:{tmp_path / 'runs.db'}"
        async with unhurried(store, told.append, wait_timeout=0.3) as runs:
            run, _ = await waiting(runs, "you")
            await until(lambda: told)
            assert [(e.run, e.outcome, e.reason) for e in told] == [(run, "incomplete", "expired")]

    run_async(main())
