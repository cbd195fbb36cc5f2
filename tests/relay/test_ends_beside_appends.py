"""Runs that are ended from outside while an append of their own is under way.

Always true: the append is in the log before the end, or not at all; there is one end, after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire import RunContext
from tokenwire.agents.load import agents_of
from tokenwire.errors import ConflictError, StoreFullError
from tokenwire.events import model as m
from tokenwire.log.base import Store
from tokenwire.relay import commands
from tokenwire.relay.owned import OwnedRun
from tokenwire.relay.produce.contract import ProducerLimits
from tokenwire.relay.replay import read_run
from tokenwire.relay.runs import Runs
from tokenwire.tools.registry import tool

NewLog = Callable[[], Store]


class Held:
    """Holds one append of a run back, until somebody has read the run's log: it is accepted after
    that, and before the reader can append anything. ``ends``: the append that ends the run.
    ``fails``: the run is answered that there is no room, and the append comes all the same."""

    def __init__(self, store: Any, run: str, *, ends: bool = False, fails: bool = False) -> None:
        self._append, self._read, self._soon = store.append, store.read, store.append_soon
        self._run, self._ends, self._fails = run, ends, fails
        self._task: asyncio.Task[Any] | None = None
        self._is_due, self.is_held = asyncio.Event(), asyncio.Event()
        #: What the held append wants to store.
        self.records: list[bytes] = []
        store.append, store.read, store.append_soon = self.append, self.read, self.append_soon

    def append_soon(self, log: str, **more: Any) -> bool:
        return False if log == self._run and not self._ends else self._soon(log, **more)

    async def append(self, log: str, **more: Any) -> Any:
        is_due = more.get("close") is not None or not self._ends
        if log != self._run or not is_due or self._task is not None:
            if log == self._run and self._fails and not self._is_due.is_set():
                raise StoreFullError("no room")
            return await self._append(log, **more)

        async def later() -> Any:
            await self._is_due.wait()
            return await self._append(log, **more)

        self.records = more["records"]
        self._task = asyncio.create_task(later())
        self.is_held.set()
        if self._fails:
            raise StoreFullError("no room")
        return await asyncio.shield(self._task)

    async def read(self, log: str, **more: Any) -> Any:
        page = await self._read(log, **more)
        if log == self._run and self._task is not None and not self._is_due.is_set():
            await self.release()
        return page

    async def release(self) -> None:
        assert self._task is not None
        self._is_due.set()
        assert (await self._task).status == "ok"


async def begin(runs: Runs, prompt: str) -> str:
    """A run of which something is in the log."""
    run = (await runs.start(request_of(prompt), model="m0")).id
    while (await runs.store.describe(run)).tail < 4:
        await asyncio.sleep(0.01)
    return run


async def ended(runs: Runs, run: str, held: Held) -> list[Any]:
    """The events of a run that has ended, once, with the append that was held."""
    assert (await runs.store.describe(run)).closed is not None
    replay = await read_run(runs.store, run)  # raises where the order is broken
    events = replay.events()
    assert [event.type for event in events].count("run-end") == 1
    assert isinstance(events[-1], m.RunEnd)
    assert held.records
    assert all(record in replay.records for record in held.records)
    assert [event for _, event in await read_all(runs, run)] == events
    return events


@pytest.mark.parametrize("how", ["interrupted", "expired"])
def test_an_append_of_a_stopped_run_comes_first(every_log: NewLog, how: Any) -> None:
    async def main() -> None:
        async with simulator(rate=2.0) as server, relay(server, log=every_log()) as runs:
            run = await begin(runs, "scenario:text")
            held, owned = Held(runs.store, run), runs.owned[run]
            await held.is_held.wait()
            await owned.stop()
            await runs.worker._end(owned, how)
            events = await ended(runs, run, held)
            assert events[-1].outcome == ("incomplete" if how == "expired" else "interrupted")

    run_async(main())


def test_a_run_that_was_just_ending_has_its_own_end(every_log: NewLog) -> None:
    async def main() -> None:
        async with simulator(rate=2000.0) as server, relay(server, log=every_log()) as runs:
            run = (await runs.start(request_of("Hi"), model="m0")).id
            held, owned = Held(runs.store, run, ends=True), runs.owned[run]
            await held.is_held.wait()
            await owned.stop()
            await runs.worker._end(owned, "interrupted")
            assert (await ended(runs, run, held))[-1].outcome == "complete"

    run_async(main())


def test_an_append_that_failed_and_came_all_the_same(every_log: NewLog) -> None:
    """A run that ends because the store is full, and then has more in it than it was answered."""

    async def main() -> None:
        brief = ProducerLimits(store_timeout=0.1)
        async with (
            simulator(rate=2.0) as server,
            relay(server, log=every_log(), bounds=brief) as runs,
        ):
            run = await begin(runs, "scenario:text")
            task = runs.owned[run].task
            held = Held(runs.store, run, fails=True)
            await task
            events = await ended(runs, run, held)
            assert (events[-1].outcome, events[-1].reason) == ("error", "store_full")

    run_async(main())


def test_an_answer_that_is_on_its_way_into_the_log_counts(every_log: NewLog) -> None:
    """A run whose time to wait is over, at the moment at which its answer is being written."""
    ran: list[str] = []

    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        ran.append(path)
        return "gone"

    async def main() -> None:
        async with (
            simulator() as server,
            relay(server, log=every_log(), tools=[delete_file]) as runs,
        ):
            run = (await runs.start(request_of("scenario:approval"), model="m0")).id
            while (await runs.info(run)).state != "waiting":
                await asyncio.sleep(0.01)
            owned: OwnedRun = runs.owned[run]
            approval = owned.loop.fold.waiting[0]
            held = Held(runs.store, run)
            await runs.approve(run, approval, approved=True)
            await held.is_held.wait()
            await runs.worker.expire(owned)
            assert not owned.task.done()
            await held.release()
            await owned.task
            assert (await ended(runs, run, held))[-1].outcome == "complete"
            assert ran == ["report.txt"]

    run_async(main())


@pytest.mark.parametrize("kind", ["approval", "result"])
def test_an_answer_that_a_run_ended_without_is_refused(every_log: NewLog, kind: str) -> None:
    """The run ends between the look at it and the record of the answer."""

    @tool(needs_approval=kind == "approval", executor="client" if kind == "result" else "server")
    def delete_file(path: str) -> str:
        """Delete."""
        raise AssertionError(path)

    async def main() -> None:
        async with (
            simulator() as server,
            relay(server, log=every_log(), tools=[delete_file]) as runs,
        ):
            run = (await runs.start(request_of("scenario:approval"), model="m0")).id
            while not (waiting := (await runs.fold(run)).waiting):
                await asyncio.sleep(0.01)
            record = runs.store.command

            async def too_late(log: str, data: bytes) -> Any:
                owned = runs.owned[run]
                await owned.stop()
                await runs.worker._end(owned, "interrupted")
                return await record(log, data)

            runs.store.command = too_late  # type: ignore[method-assign]
            with pytest.raises(ConflictError, match="ended before"):
                if kind == "approval":
                    await runs.approve(run, waiting[0], approved=True)
                else:
                    await runs.answer_tool(run, waiting[0], content="gone")

    run_async(main())


@pytest.mark.parametrize("is_late", [True, False])
def test_whoever_answers_hears_that_the_run_has_not_taken_it_yet(
    every_log: NewLog, is_late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process of the run is another, and slower than whoever answers may wait: the answer is
    recorded, and nothing says that it counts. It does not: the run ends without it."""
    monkeypatch.setattr(commands, "_TAKEN_SECONDS", 0.0 if is_late else 60.0)

    async def main() -> None:
        fails = asyncio.Event()

        async def asks(ctx: RunContext) -> str:
            question = asyncio.create_task(ctx.request_approval("delete", {"path": "a"}))
            if not is_late:
                return str(await question)
            await fails.wait()
            question.cancel()
            raise ValueError("no")

        store, agents = every_log(), agents_of([asks])
        async with simulator() as server, relay(server, log=store, agents=agents) as runs:
            run = (await runs.start(request_of("Hi"), model="asks")).id
            while not (waiting := (await runs.fold(run)).waiting):
                await asyncio.sleep(0.01)
            door, task = Runs(store), runs.owned[run].task
            if not is_late:
                assert await door.approve(run, waiting[0], approved=True)
                await task
                return
            monkeypatch.setattr(OwnedRun, "deliver", lambda self, commands: False)  # busy
            assert not await door.approve(run, waiting[0], approved=True)
            fails.set()
            await task
            events = (await read_run(store, run)).events()
            assert isinstance(events[-1], m.RunEnd)
            assert not [event for event in events if isinstance(event, m.ApprovalAnswer)]
            with pytest.raises(ConflictError, match="ended before") as refused:
                await door.approve(run, waiting[0], approved=True)
            assert refused.value.details["reason"] == "run_ended"

    run_async(main())


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_an_answer_that_comes_while_the_end_is_written_is_refused(
    every_log: NewLog, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent fails beside its question, and the end of its run is on the way into the log."""
    monkeypatch.setattr(commands, "_TAKEN_SECONDS", 30.0)  # elsewhere it is heard from the log

    async def main() -> None:
        fails = asyncio.Event()

        async def hasty(ctx: RunContext) -> None:
            question = asyncio.create_task(ctx.request_approval("delete", {"path": "a"}))
            await fails.wait()
            question.cancel()
            raise ValueError("no")

        store, agents = every_log(), agents_of([hasty])
        async with simulator() as server, relay(server, log=store, agents=agents) as runs:
            run = (await runs.start(request_of("Hi"), model="hasty")).id
            while not (waiting := (await runs.fold(run)).waiting):
                await asyncio.sleep(0.01)
            held, record, task = Held(store, run, ends=True), store.command, runs.owned[run].task

            async def then_released(log: str, data: bytes) -> Any:
                result = await record(log, data)
                asyncio.get_running_loop().call_soon(lambda: asyncio.ensure_future(held.release()))
                return result

            fails.set()
            await held.is_held.wait()
            door = runs
            if where == "elsewhere":
                door, store.command = Runs(store), then_released  # type: ignore[method-assign]
            with pytest.raises(ConflictError, match="ended before"):
                await door.approve(run, waiting[0], approved=True)
            if where == "here":
                await held.release()
            await task
            events = await ended(runs, run, held)
            assert not [event for event in events if isinstance(event, m.ApprovalAnswer)]

    run_async(main())
