"""Runs on a log: reading from anywhere, commands, keys, isolation, limits."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import tokenwire
from support.answers import chunk, sse
from support.raw_provider import HEAD, chunked, raw_provider
from support.redis import redis_server
from support.spine import read_all, relay, request_of, run_async, simulator
from tokenwire.agents.load import agents_of
from tokenwire.errors import (
    BusyError,
    ConflictError,
    CursorError,
    InputError,
    KeyReusedError,
    NotFoundError,
)
from tokenwire.events import model as m
from tokenwire.events.fold import fold
from tokenwire.events.message import ReasoningPart, TextPart
from tokenwire.log.base import Page
from tokenwire.log.memory import MemoryStore
from tokenwire.log.open import open_store
from tokenwire.tools.registry import tool

NOBODY = "A" * 22


def test_every_cursor_gives_exactly_the_rest():
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:text"), model="m0")
            whole = await read_all(runs, info.id)
            assert [e.seq for _, e in whole] == list(range(1, len(whole) + 1))
            for at in range(0, len(whole), 7):
                rest = await read_all(runs, info.id, after=whole[at][0])
                assert rest == whole[at + 1 :]
            assert await read_all(runs, info.id, after=str(len(whole) // 2))
            assert whole[-1][1].outcome == "complete"

    run_async(main())


def test_many_readers_at_once_read_the_same_while_it_is_written():
    async def main():
        async with simulator(rate=3000.0) as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:text"), model="m0")
            found = await asyncio.gather(*(read_all(runs, info.id) for _ in range(20)))
            assert all(events == found[0] for events in found)
            assert len(server.requests) == 1

    run_async(main())


def test_closing_a_connection_is_not_stopping_the_run():
    async def main():
        async with simulator(rate=500.0) as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:text"), model="m0")
            follower = await runs.follow(info.id)
            await follower.next()
            follower.close()
            assert await follower.next() is None
            events = await read_all(runs, info.id)
            assert events[-1][1].outcome == "complete"

    run_async(main())


@pytest.mark.parametrize("policy", ["stop", "stop:0"])
def test_a_run_may_ask_to_stop_with_its_last_reader(policy):
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:stall"), model="m0", on_disconnect=policy)
            follower = await runs.follow(info.id)
            while not any(isinstance(e, m.TextDelta) for _, e in (await follower.next()).events()):
                pass
            follower.close()
            assert (await server.wait_ended()).outcome == "disconnected"
            events = await read_all(runs, info.id)
            assert events[-1][1].outcome == "cancelled"

    run_async(main())


def test_cancel_ends_the_run_for_every_reader_and_sticks():
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:stall"), model="m0")
            readers = [asyncio.create_task(read_all(runs, info.id)) for _ in range(3)]
            follower = await runs.follow(info.id)
            while not any(isinstance(e, m.TextDelta) for _, e in (await follower.next()).events()):
                pass
            follower.close()
            await runs.cancel(info.id, by="ann", reason="enough")
            await runs.cancel(info.id, by="bob")
            for events in await asyncio.gather(*readers):
                assert events[-1][1].outcome == "cancelled"
                controls = [e for _, e in events if isinstance(e, m.Control)]
                assert [(c.by, c.reason) for c in controls] == [("ann", "enough")]
            assert (await server.wait_ended()).outcome == "disconnected"
            assert (await runs.cancel(info.id)).state == "cancelled"

    run_async(main())


@pytest.mark.parametrize("model", ["m0", "agent"])
def test_a_cancel_that_is_quicker_than_the_start_ends_the_run_all_the_same(model):
    @tokenwire.agent("agent")
    async def say(ctx):
        await ctx.say("never heard")

    async def main():
        agents = agents_of([say])
        async with simulator() as server, relay(server, agents=agents) as runs:
            info = await runs.start(request_of("scenario:stall"), model=model)
            await runs.cancel(info.id, by="ann")  # before the run's task had its first turn
            events = [e for _, e in await asyncio.wait_for(read_all(runs, info.id), 60)]
            kinds = [e.type for e in events]
            assert kinds[:2] == ["run-start", "control"]
            assert events[-1].outcome == "cancelled"

    run_async(main())


def test_foreign_and_unknown_runs_are_told_apart_by_nobody():
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("Hello"), model="m0", principal="ann")
            answers = []
            for run, who in ((info.id, "bob"), (NOBODY, "ann"), ("../etc", "ann")):
                for ask in (runs.info, runs.follow, runs.snapshot, runs.cancel, runs.delete):
                    with pytest.raises(NotFoundError) as caught:
                        await ask(run, principal=who)
                    answers.append((str(caught.value), caught.value.details))
            assert len({str(a) for a in answers}) == 1
            assert (await runs.info(info.id, principal="ann")).id == info.id

    run_async(main())


def test_cursors_of_other_runs_and_beyond_the_tail_are_refused():
    async def main():
        async with simulator() as server, relay(server) as runs:
            one = await runs.start(request_of("scenario:text"), model="m0")
            two = await runs.start(request_of("scenario:text"), model="m0")
            first, second = await read_all(runs, one.id), await read_all(runs, two.id)
            with pytest.raises(CursorError) as caught:
                await runs.follow(one.id, after=second[3][0])
            assert caught.value.details["reason"] == "other_branch"
            with pytest.raises(CursorError) as caught:
                await runs.follow(one.id, after=str(len(first) + 1))
            assert caught.value.details["reason"] == "beyond_tail"

    run_async(main())


def test_one_key_starts_one_run_also_at_the_same_time():
    async def main():
        async with simulator() as server, relay(server) as runs:
            asked = request_of("Hello")
            found = await asyncio.gather(
                *(runs.start(asked, model="m0", key="k", principal="ann") for _ in range(10))
            )
            assert len({info.id for info in found}) == 1
            assert sum(info.created_now for info in found) == 1
            other = await runs.start(asked, model="m0", key="k", principal="bob")
            assert other.id != found[0].id
            with pytest.raises(KeyReusedError):
                await runs.start(request_of("Else"), model="m0", key="k", principal="ann")
            assert len(list(server.requests)) <= 2

    run_async(main())


@pytest.mark.parametrize("store", ["memory:", "sqlite", "redis"])
def test_one_key_starts_one_run_also_under_an_id_of_the_callers_own(store, tmp_path):
    async def main(url):
        async with simulator() as server, relay(server, log=open_store(url)) as runs:
            run, asked = "caller-chose-this", request_of("scenario:stall")

            async def start():
                return await runs.start(asked, model="m0", key="k", run_id=run)

            found = await asyncio.gather(*(start() for _ in range(5)))
            owned = runs.owned[run]
            found.append(await start())
            assert runs.owned[run] is owned
            await runs.cancel(run)
            events = [event for _, event in await read_all(runs, run)]
            found.append(await start())
            assert {info.id for info in found} == {run}
            assert sum(info.created_now for info in found) == 1
            assert events[-1].outcome == "cancelled"
            assert len(list(server.requests)) <= 1
            with pytest.raises(KeyReusedError):
                await runs.start(request_of("Else"), model="m0", key="k", run_id=run)

    if store == "redis":
        with redis_server() as server:
            run_async(main(server.url))
    else:
        run_async(main(store if store == "memory:" else f"sqlite:///{tmp_path}/log.db"))


def test_a_thread_knows_its_runs_newest_first_and_only_its_owners():
    async def main():
        async with simulator() as server, relay(server) as runs:
            ids = [
                (await runs.start(request_of(str(n)), model="m0", thread="chat")).id
                for n in range(3)
            ]
            assert [info.id for info in await runs.thread("chat")] == ids[::-1]
            assert await runs.thread("chat", principal="bob") == []

    run_async(main())


def test_the_snapshot_is_the_fold_of_the_events():
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:reasoning"), model="m0")
            events = await read_all(runs, info.id)
            snapshot = await runs.snapshot(info.id)
            assert snapshot.state == "complete"
            assert snapshot.tail == len(events)
            assert snapshot.cursor == events[-1][0]
            parts = fold([e for _, e in events]).message().parts
            assert [type(part) for part in parts] == [ReasoningPart, TextPart]
            assert snapshot.message.parts == parts
            assert list(msgspec.to_builtins(snapshot)) == [
                *("id", "state", "tail", "model", "created", "cursor", "message", "messages"),
                *("input", "finish_reason", "usage", "error", "waiting", "tools"),
            ]

    run_async(main())


class SlowReads(MemoryStore):
    """A store whose reads take a while, as those of a database do."""

    async def read(self, log: str, **more: Any) -> Page:
        await asyncio.sleep(0.02)
        return await super().read(log, **more)


def test_a_snapshot_of_a_run_at_work_ends_at_its_own_cursor():
    due = asyncio.Event()

    async def answer(_: int, writer: asyncio.StreamWriter) -> None:
        for word in range(20):
            if not word % 4:  # one snapshot at least is of each of these moments
                await due.wait()
                due.clear()
            head = b"" if word else HEAD
            writer.write(head + chunked(sse([chunk({"content": f"{word} "})])))
            await writer.drain()
        writer.write(chunked(sse([chunk(reason="stop"), "[DONE]"])) + b"0\r\n\r\n")
        await asyncio.Event().wait()

    async def main():
        async with raw_provider(answer) as provider, relay(provider, log=SlowReads()) as runs:
            info = await runs.start(request_of("Count"), model="m0")
            snapshots = []
            while not snapshots or snapshots[-1].state == "running":
                snapshots.append(await runs.snapshot(info.id))
                if len(snapshots) < 2 or snapshots[-1].message.text != snapshots[-2].message.text:
                    due.set()
                await asyncio.sleep(0.01)
            events = await read_all(runs, info.id)
            texts = {snapshot.message.text for snapshot in snapshots}
            assert len(texts) > 3, "some were taken in the middle"
            for snapshot in snapshots:
                first = events[: snapshot.tail]
                assert snapshot.cursor == (first[-1][0] if first else None)
                assert snapshot.message == fold([event for _, event in first]).message()

    run_async(main())


def test_a_snapshot_stays_as_it_is():
    @tool
    async def get_weather(city: str) -> str:
        """Weather."""
        await asyncio.sleep(0.1)
        return f"sunny in {city}"

    async def main():
        async with simulator(rate=500.0) as server, relay(server, tools=[get_weather]) as runs:
            info = await runs.start(request_of("scenario:tool"), model="m0")
            snapshots = []
            while not snapshots or snapshots[-1][0].state == "running":
                snapshot = await runs.snapshot(info.id)
                snapshots.append((snapshot, msgspec.json.encode(snapshot)))
                await asyncio.sleep(0)
            assert any(tool.done for tool in snapshots[-1][0].tools)
            assert any(tool.started and not tool.done for s, _ in snapshots for tool in s.tools)
            assert all(msgspec.json.encode(snapshot) == data for snapshot, data in snapshots)

    run_async(main())


def test_an_approval_is_answered_once_and_by_its_owner():
    deleted = []

    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        deleted.append(path)
        return "gone"

    async def main():
        async with simulator() as server, relay(server, tools=[delete_file]) as runs:
            info = await runs.start(request_of("scenario:approval"), model="m0", principal="ann")
            follower = await runs.follow(info.id, principal="ann")
            waiting = None
            while waiting is None:
                for _, event in (await follower.next()).events():
                    waiting = event if isinstance(event, m.RunWait) else waiting
            assert (await runs.info(info.id, principal="ann")).state == "waiting"
            with pytest.raises(NotFoundError):
                await runs.approve(info.id, "ap_none", approved=True, principal="ann")
            with pytest.raises(NotFoundError):
                await runs.approve(info.id, waiting.pending[0], approved=True, principal="bob")
            await runs.approve(
                info.id, waiting.pending[0], approved=True, by="ann", principal="ann"
            )
            while await follower.next() is not None:
                pass
            follower.close()
            assert deleted == ["report.txt"]
            with pytest.raises(ConflictError):
                await runs.approve(info.id, waiting.pending[0], approved=False, principal="ann")

    run_async(main())


def test_of_two_answers_at_once_one_counts_and_the_other_is_told():
    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        return "gone"

    async def main():
        async with simulator() as server, relay(server, tools=[delete_file]) as runs:
            info = await runs.start(request_of("scenario:approval"), model="m0")
            follower = await runs.follow(info.id)
            waiting = None
            while waiting is None:
                for _, event in (await follower.next()).events():
                    waiting = event if isinstance(event, m.RunWait) else waiting
            told = await asyncio.gather(
                *(
                    runs.approve(info.id, waiting.pending[0], approved=yes, by=who)
                    for who, yes in (("ann", True), ("bob", False), ("cat", True))
                ),
                return_exceptions=True,
            )
            assert [type(t) for t in told if t is not True] == [ConflictError] * 2
            answers = []
            while (batch := await follower.next()) is not None:
                answers += [e for _, e in batch.events() if isinstance(e, m.ApprovalAnswer)]
            follower.close()
            (counted,) = answers
            assert counted.by == ("ann", "bob", "cat")[told.index(True)]

    run_async(main())


def test_a_poke_wakes_a_waiting_reader_with_nothing():
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:stall"), model="m0")
            follower = await runs.follow(info.id)
            batch = await follower.next()
            while batch.records:
                task = asyncio.create_task(follower.next())
                await asyncio.sleep(0)
                if not task.done():
                    follower.poke()
                batch = await task
            assert batch.records == []
            follower.close()
            await runs.cancel(info.id)
            await read_all(runs, info.id)

    run_async(main())


def test_draining_starts_nothing_and_ends_what_runs_honestly():
    async def main():
        async with simulator() as server, relay(server) as runs:
            info = await runs.start(request_of("scenario:stall"), model="m0")
            follower = await runs.follow(info.id)
            while not any(isinstance(e, m.TextDelta) for _, e in (await follower.next()).events()):
                pass
            await runs.drain(0.0)
            last = []
            while (batch := await follower.next()) is not None:
                last += batch.events()
            follower.close()
            assert last[-1][1].outcome == "interrupted"
            with pytest.raises(BusyError):
                await runs.start(request_of("Hello"), model="m0")

    run_async(main())


@pytest.mark.parametrize(
    "wrong", [{"on_disconnect": "maybe"}, {"run_id": "short"}, {"run_id": "x" * 65}]
)
def test_bad_input_starts_nothing(wrong):
    async def main():
        async with simulator() as server, relay(server) as runs:
            with pytest.raises(InputError):
                await runs.start(request_of("Hello"), model="m0", **wrong)
            assert (await runs.store.stats())["streams"] == 0

    run_async(main())


def test_a_run_can_be_deleted_at_any_moment_of_its_start():
    async def main():
        async with simulator() as server, relay(server) as runs:
            for moment in range(40):
                info = await runs.start(request_of("scenario:stall"), model="m0")
                for _ in range(moment % 20):
                    await asyncio.sleep(0)
                if moment >= 20:
                    await asyncio.sleep((moment - 20) * 0.0002)
                async with asyncio.timeout(40):
                    await runs.delete(info.id)
                assert info.id not in runs.owned
                with pytest.raises(NotFoundError):
                    await runs.info(info.id)

    run_async(main())


def test_a_look_at_a_cursor_is_no_reader_that_leaves():
    async def main():
        async with simulator(rate=2000.0) as server, relay(server) as runs:
            asked = request_of("scenario:text")
            info = await runs.start(asked, model="m0", on_disconnect="stop")
            other = await read_all(runs, (await runs.start(asked, model="m0")).id)
            while (await runs.info(info.id)).tail < 4:
                await asyncio.sleep(0.001)
            await runs.check_cursor(info.id, "3")
            with pytest.raises(CursorError):
                await runs.check_cursor(info.id, other[3][0])
            with pytest.raises(NotFoundError):
                await runs.check_cursor(info.id, "3", principal="somebody else")
            assert (await read_all(runs, info.id))[-1][1].outcome == "complete"

    run_async(main())
