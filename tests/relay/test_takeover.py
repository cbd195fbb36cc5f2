"""Runs whose worker was lost, on a SQLite file; two relays stand for two processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from support.redis import need_redis, redis_server
from support.spine import QUICK, OneModel, read_all, relay, request_of, run_async, simulator
from tokenwire.errors import StoreDamagedError
from tokenwire.events import model as m
from tokenwire.events.fold import Fold, fold
from tokenwire.events.order import Order
from tokenwire.log.open import open_store
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.observe.facts import RunEnded
from tokenwire.observe.hooks import observe
from tokenwire.relay.commands import encode_command, expiry
from tokenwire.relay.description import RunMeta
from tokenwire.relay.owner import may_live, new_owner
from tokenwire.relay.record import Chain
from tokenwire.relay.replay import GLANCE, Replay
from tokenwire.relay.runs import Runs
from tokenwire.relay.takeover.ladder import ending, rung
from tokenwire.tools.registry import ToolSet, tool


def crashed(runs: Runs) -> None:
    """Stop a relay as a kill would: no end is written, no lease is released."""
    if runs._tender is not None:
        runs._tender.cancel()
    for owned in runs.owned.values():
        owned.task.cancel()


async def leave(runs: Runs) -> None:
    await asyncio.sleep(0.05)
    if runs.worker.http is not None:
        await runs.worker.http.aclose()
    await runs.store.close()


async def opened(server, path, *, take_over=True, clock=time.time, **options) -> Runs:
    runs = Runs(
        SQLiteStore(str(path), clock=clock),
        registry=OneModel(server.url),
        retry=QUICK,
        lease=0.6,
        owner=options.pop("owner", None),
        **options,
    )
    await runs.open(take_over=take_over)
    return runs


async def until_text(runs, run):
    follower = await runs.follow(run)
    seen = []
    while not any(isinstance(e, m.TextDelta) for _, e in seen):
        seen += (await follower.next()).events()
    follower.close()
    return seen


def test_another_worker_goes_on_and_a_reader_sees_one_answer(tmp_path):
    async def main():
        async with simulator(rate=2.0) as server:
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a")
            info = await first.start(request_of("scenario:text"), model="m0")
            seen = await until_text(first, info.id)
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b")
            reader = asyncio.create_task(read_all(second, info.id, after=seen[-1][0]))
            server.settings = replace(server.settings, rate=0.0)  # for whoever asks next
            crashed(first)
            rest = await asyncio.wait_for(reader, 60)
            events = [e for _, e in seen + rest]
            order = Order()
            for event in events:
                order.check(event)
            kinds = [e.type for e in events]
            assert kinds.count("run-start") == kinds.count("run-end") == 1
            claim = next(e for e in events if isinstance(e, m.RunClaim))
            reset = next(e for e in events if isinstance(e, m.StepReset))
            assert claim.epoch == 2
            assert reset.attempt == 2
            whole = await read_all(second, info.id)
            assert whole == seen + rest
            state = fold(events)
            assert state.outcome == "complete"
            alone = await second.start(request_of("scenario:text"), model="m0")
            expected = fold([e for _, e in await read_all(second, alone.id)]).text
            assert state.text == expected
            await leave(first)
            await second.aclose()

    run_async(main())


def test_a_dead_worker_whose_clock_was_ahead_holds_its_run_no_longer_than_a_lease(tmp_path):
    async def main():
        async with simulator(rate=2.0) as server:
            place, ahead = tmp_path / "log.db", lambda: time.time() + 3600.0
            first = await opened(server, place, owner="far:1:a", take_over=False, clock=ahead)
            info = await first.start(request_of("scenario:text"), model="m0")
            await until_text(first, info.id)
            server.settings = replace(server.settings, rate=0.0)  # for whoever asks next
            crashed(first)
            second = await opened(server, place, owner="far:2:b")
            events = [e for _, e in await asyncio.wait_for(read_all(second, info.id), 60)]
            assert [e.epoch for e in events if isinstance(e, m.RunClaim)] == [2]
            assert events[-1].outcome == "complete"
            await leave(first)
            await second.aclose()

    run_async(main())


def test_a_zombie_is_fenced_and_writes_nothing(tmp_path):
    async def main():
        async with simulator(rate=60.0) as server:
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a")
            info = await first.start(request_of("scenario:text"), model="m0")
            await until_text(first, info.id)
            assert first._tender is not None
            first._tender.cancel()  # it renews no more, but its run goes on: a zombie
            zombie = first.owned[info.id].task
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b")
            events = [e for _, e in await asyncio.wait_for(read_all(second, info.id), 60)]
            await asyncio.wait([zombie], timeout=60)
            assert zombie.done()
            claims = [e.seq for e in events if isinstance(e, m.RunClaim)]
            assert len(claims) == 1
            order = Order()
            for event in events:
                order.check(event)
            assert events[-1].outcome == "complete"
            await leave(first)
            await second.aclose()

    run_async(main())


def test_a_run_that_was_asked_to_stop_is_ended_and_not_started_again(tmp_path):
    async def main():
        async with simulator() as server:
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a")
            info = await first.start(request_of("scenario:stall"), model="m0")
            await until_text(first, info.id)
            crashed(first)
            await asyncio.sleep(0.05)
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b")
            await second.cancel(info.id, by="ann")
            events = [e for _, e in await asyncio.wait_for(read_all(second, info.id), 60)]
            assert events[-1].outcome == "cancelled"
            assert len(server.requests) == 1
            await leave(first)
            await second.aclose()

    run_async(main())


def test_waiting_for_an_approval_survives_the_worker(tmp_path):
    deleted = []

    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        deleted.append(path)
        return "gone"

    async def main():
        async with simulator() as server:
            tools = ToolSet([delete_file])
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a", tools=tools)
            asked = {"model": "m0", "thread": "t", "key": "k"}
            info = await first.start(request_of("scenario:approval"), **asked)
            follower = await first.follow(info.id)
            wait = None
            while wait is None:
                for _, event in (await follower.next()).events():
                    wait = event if isinstance(event, m.RunWait) else wait
            follower.close()
            # Another process tells it as waiting too, wherever it describes it.
            path = tmp_path / "log.db"
            other = await opened(server, path, owner="elsewhere:3:c", take_over=False, tools=tools)
            assert (await other.info(info.id)).state == "waiting"
            assert [run.state for run in await other.thread("t")] == ["waiting"]
            again = await other.start(request_of("scenario:approval"), **asked)
            assert (again.id, again.state) == (info.id, "waiting")
            crashed(first)
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b", tools=tools)
            follower = await second.follow(info.id)
            claimed = False
            while not claimed:
                claimed = any(
                    isinstance(e, m.RunClaim) for _, e in (await follower.next()).events()
                )
            follower.close()
            assert (await second.info(info.id)).state == "waiting"
            assert deleted == []
            await second.approve(info.id, wait.pending[0], approved=True)
            events = [e for _, e in await asyncio.wait_for(read_all(second, info.id), 60)]
            assert events[-1].outcome == "complete"
            assert deleted == ["report.txt"]
            await leave(first)
            crashed(other)
            await leave(other)
            await second.aclose()

    run_async(main())


def test_a_started_tool_that_is_not_idempotent_is_left_in_doubt(tmp_path):
    started = []

    @tool
    async def get_weather(city: str) -> str:
        """Never answers."""
        started.append(city)
        await asyncio.get_running_loop().create_future()
        return ""

    async def main():
        async with simulator() as server:
            tools = ToolSet([get_weather])
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a", tools=tools)
            info = await first.start(request_of("scenario:tool"), model="m0")
            follower = await first.follow(info.id)
            running = False
            while not running:
                running = any(
                    isinstance(e, m.ToolStart) for _, e in (await follower.next()).events()
                )
            follower.close()
            while not started:
                await asyncio.sleep(0)
            # A kill says nothing any more, so its last words must not reach the log.
            first.owned[info.id].producer.epoch = 0
            crashed(first)
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b", tools=tools)
            events = [e for _, e in await asyncio.wait_for(read_all(second, info.id), 60)]
            assert started == ["Paris"]
            assert events[-1].outcome == "interrupted"
            assert events[-1].reason == "tool_in_doubt"
            assert [e.code for e in events if isinstance(e, m.Error)] == ["tool_in_doubt"]
            await leave(first)
            await second.aclose()

    run_async(main())


def test_only_a_process_that_is_seen_to_be_dead_is_declared_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host, pid, _, scope = new_owner().split(":")
    assert int(pid) == os.getpid()
    assert not may_live(f"{host}:{child.pid}:abcd:{scope}")
    assert not may_live(f"{host}:{os.getpid()}:abcd:{scope}"), "our number, but not our name"
    assert may_live(new_owner()), "another worker of this very process"
    assert may_live(f"another-host:{child.pid}:abcd:{scope}")
    assert may_live(f"{host}:{child.pid}:abcd"), "an owner of an older version"
    assert may_live("no pid at all")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="without /proc")
def test_a_process_that_its_parent_has_not_asked_about_is_dead():
    with subprocess.Popen(["sleep", "60"]) as child:
        host, _, _, scope = new_owner().split(":")
        owner = f"{host}:{child.pid}:abcd:{scope}"
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        assert may_live(owner), "it only stands still"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it is there until `wait`
        os.kill(child.pid, 0)
        assert not may_live(owner)


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def test_the_runs_of_a_dead_process_of_this_machine_wait_for_no_lease(tmp_path, kind) -> None:
    """Their leases last for an hour, so that only the death can have released them; those of a
    process elsewhere are left alone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host, _, _, scope = new_owner().split(":")
    dead, elsewhere = f"{host}:{child.pid}:abcd:{scope}", f"other-host:{child.pid}:abcd:{scope}"

    async def main(url: str) -> None:
        async with simulator() as server:
            names = [f"run-{number:02}-0123456789ab" for number in range(12)]
            store = open_store(url)
            await store.start()
            request = msgspec.json.encode(RunMeta(model="m0", request=request_of("scenario:text")))
            for name in names:
                await store.create(name, owner=dead, meta=request, lease=3600)
            foreign = "run-of-another-0123456789"
            await store.create(foreign, owner=elsewhere, meta=request, lease=3600)
            runs = Runs(open_store(url), registry=OneModel(server.url), retry=QUICK, lease=3600)
            await runs.open()
            for name in names:
                events = [e for _, e in await asyncio.wait_for(read_all(runs, name), 60)]
                assert events[-1].outcome == "complete"
            assert (await store.describe(foreign)).owner == elsewhere
            assert await store.leases({dead}) == []
            assert await store.leases({elsewhere}) == [(foreign, 1)]
            await runs.aclose()
            await store.close()

    if kind == "sqlite":
        run_async(main(f"sqlite:{tmp_path / 'log.db'}"))
        return
    need_redis()
    with redis_server() as server:
        run_async(main(server.url))


@pytest.mark.parametrize("part", ["boot", "namespace"])
def test_a_process_number_of_another_container_or_boot_says_nothing(part):
    """Two containers share a file and a host name; the number of one is unknown in the other."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    host, _, _, scope = new_owner().split(":")
    boot, _, namespace = scope.rpartition("-")
    other = f"{boot}-{int(namespace) + 1}" if part == "namespace" else f"{boot[::-1]}-{namespace}"
    assert may_live(f"{host}:{child.pid}:abcd:{other}")


def replay_of(*events):
    replay = Replay([], Order(), fold([]))
    for event in events:
        replay.apply(event)
    return replay


def open_step(*claims):
    start = (m.RunStart(run="r", seq=1), m.StepStart(step=1, attempt=1), m.TextStart(part=0))
    return replay_of(*start, *claims)


def lost(epoch):
    return m.RunClaim(epoch=epoch, reason="lost")


def test_a_step_that_cost_two_workers_is_not_tried_again():
    assert rung(open_step(), []) == "go-on"
    assert rung(open_step(lost(2)), []) == "interrupted"
    cancel = b'{"type":"control","command":"cancel"}'
    for step in (open_step(), open_step(lost(2))):
        assert rung(step, [(1, cancel)]) == "cancelled"
        assert rung(step, [(1, encode_command(expiry(0))), (2, cancel)]) == "expired"
        assert rung(step, [(1, cancel), (2, encode_command(expiry(0)))]) == "cancelled"


def test_a_worker_that_hands_over_costs_a_run_nothing():
    handed = [m.RunClaim(epoch=e, reason="handed-over") for e in range(2, 30)]
    assert rung(open_step(*handed), []) == "go-on"
    assert rung(open_step(*handed), [], handed_over=True) == "go-on"
    assert rung(open_step(*handed, lost(30)), []) == "interrupted", "two of them were lost"
    assert rung(open_step(lost(2)), [], handed_over=True) == "go-on"


def test_a_worker_that_is_lost_while_a_run_waits_costs_it_nothing():
    start = (
        m.RunStart(run="r"),
        m.StepStart(step=1, attempt=1),
        m.ToolCallStart(part=0, call_id="c", name="t"),
        m.ToolCallEnd(part=0, arguments={}),
        m.StepEnd(step=1, status="complete"),
        m.ApprovalRequest(approval_id="a", call_id="c", name="t", arguments={}),
        m.RunWait(reason="approval", pending=["a"]),
    )
    waiting = replay_of(*start, *(lost(e) for e in range(2, 30)))
    assert (waiting.losses, rung(waiting, [])) == (0, "go-on")
    answer = m.ApprovalAnswer(approval_id="a", call_id="c", approved=True)
    again = replay_of(*start, *(lost(e) for e in range(2, 30)), answer, lost(30))
    assert (again.losses, rung(again, [])) == (1, "go-on")


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.redis)])
def shared_store(request, tmp_path):
    """The URL of an empty store for several processes."""
    if request.param == "sqlite":
        yield f"sqlite:{tmp_path}/log.db"
        return
    need_redis()
    with redis_server() as server:
        yield server.url


def process_on(url, server, **options):
    return Runs(open_store(url), registry=OneModel(server.url), retry=QUICK, lease=30.0, **options)


def test_rolling_restarts_within_one_step_interrupt_nothing(shared_store):
    """Each round replaces the only worker while the step is open, which no round is too slow for:
    the model is quick only when the last worker asks it."""

    async def main():
        async with simulator(rate=2.0) as server:
            runs = process_on(shared_store, server)
            await runs.open()
            started = [await runs.start(request_of("scenario:text"), model="m0") for _ in range(4)]
            for left in (2, 1, 0):
                await asyncio.gather(*(until_text(runs, info.id) for info in started))
                while len(server.requests) < 4 * (3 - left):
                    await asyncio.sleep(0.01)
                successor = process_on(shared_store, server)
                await successor.open()
                assert len(runs.owned) == 4, "all are at work when it stops"
                if not left:
                    server.settings = replace(server.settings, rate=0.0)
                await runs.aclose()
                runs = successor
                while left and len(runs.owned) < 4:
                    await asyncio.sleep(0.01)
            for info in started:
                events = [e for _, e in await asyncio.wait_for(read_all(runs, info.id), 60)]
                claims = [e for e in events if isinstance(e, m.RunClaim)]
                assert [c.reason for c in claims] == ["handed-over"] * 3
                assert (events[-1].outcome, events[-1].reason) == ("complete", "stop")
            await runs.aclose()

    run_async(main())


def test_a_waiting_run_survives_twenty_restarts(shared_store):
    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        return "gone"

    async def main():
        async with simulator() as server:
            tools = ToolSet([delete_file])
            runs = process_on(shared_store, server, tools=tools)
            await runs.open()
            info = await runs.start(request_of("scenario:approval"), model="m0")
            while (await runs.info(info.id)).state != "waiting":
                await asyncio.sleep(0.01)
            for _ in range(20):
                await runs.aclose()
                runs = process_on(shared_store, server, tools=tools)
                await runs.open()
                while info.id not in runs.owned:
                    await asyncio.sleep(0.01)
            pending = (await runs.snapshot(info.id)).waiting
            await runs.approve(info.id, pending[0], approved=True)
            events = [e for _, e in await asyncio.wait_for(read_all(runs, info.id), 60)]
            assert events[-1].outcome == "complete"
            await runs.aclose()

    run_async(main())


def test_a_run_that_nobody_answers_expires(shared_store):
    """The time counts from when it began to wait, whichever process owned it meanwhile."""

    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        return "gone"

    async def main():
        async with simulator() as server:
            tools = ToolSet([delete_file])
            runs = process_on(shared_store, server, tools=tools)
            await runs.open()
            info = await runs.start(request_of("scenario:approval"), model="m0")
            while (await runs.info(info.id)).state != "waiting":
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.4)
            assert runs.census.total() == (0, 1)
            await runs.aclose()
            waited = process_on(shared_store, server, tools=tools)
            await waited.open()
            while info.id not in waited.owned:
                await asyncio.sleep(0.01)
            since = waited.owned[info.id].waits_since()
            assert since is not None
            assert time.time() - since > 0.4, "the takeover did not begin it anew"
            waited.worker.wait_timeout = 0.1
            events = [e for _, e in await asyncio.wait_for(read_all(waited, info.id), 60)]
            assert (events[-1].outcome, events[-1].reason) == ("incomplete", "expired")
            assert (await waited.info(info.id)).state == "incomplete"
            while waited.owned:
                await asyncio.sleep(0.01)
            assert waited.census.total() == (0, 0)
            await waited.aclose()

    run_async(main())


def test_an_answer_in_the_last_moment_counts(tmp_path):
    @tool(needs_approval=True)
    def delete_file(path: str) -> str:
        """Delete."""
        return "gone"

    async def main():
        async with simulator() as server:
            runs = process_on(f"sqlite:{tmp_path}/log.db", server, tools=ToolSet([delete_file]))
            await runs.open(take_over=False)
            assert runs._tender is not None
            runs._tender.cancel()
            info = await runs.start(request_of("scenario:approval"), model="m0")
            while (await runs.info(info.id)).state != "waiting":
                await asyncio.sleep(0.01)
            owned = runs.owned[info.id]
            answer = m.ApprovalAnswer(
                approval_id=owned.loop.fold.waiting[0],
                call_id=next(iter(owned.loop.fold.tools)),
                approved=True,
            )
            check, owned._checking = owned.check_commands, True  # the wake-up is late
            await runs.store.command(info.id, encode_command(answer))
            assert owned.check_commands == check
            await runs.worker.expire(owned)
            events = [e for _, e in await asyncio.wait_for(read_all(runs, info.id), 60)]
            assert events[-1].outcome == "complete"
            await runs.aclose()

    run_async(main())


def test_taken_over_runs_are_counted(tmp_path):
    async def main():
        async with simulator(rate=2.0) as server:
            first = process_on(f"sqlite:{tmp_path}/log.db", server)
            await first.open()
            info = await first.start(request_of("scenario:text"), model="m0", principal="ann")
            follower = await first.follow(info.id, principal="ann")
            await follower.next()
            follower.close()
            assert first.census.of("ann") == (1, 0)
            await first.aclose()
            assert first.census.of("ann") == (0, 0)
            second = process_on(f"sqlite:{tmp_path}/log.db", server)
            await second.open()
            while not second.owned:
                await asyncio.sleep(0.01)
            assert second.census.of("ann") == second.census.total() == (1, 0)
            await second.aclose()

    run_async(main())


def test_a_storm_of_takeovers_costs_no_lease(tmp_path):
    """Leases are renewed while runs are being taken over, those that are being read as well."""

    async def main():
        async with simulator(rate=60.0) as server:
            runs = Runs(
                open_store(f"sqlite:{tmp_path}/log.db"),
                registry=OneModel(server.url),
                retry=QUICK,
                lease=0.6,
            )
            await runs.open()
            mine = await runs.start(request_of("scenario:stall"), model="m0")
            await until_text(runs, mine.id)
            meta = (await runs.store.describe(mine.id)).meta
            lost_run = "lost" * 5
            await runs.store.create(lost_run, owner="elsewhere:1:a", meta=meta, lease=0.0)
            hung, read = [], runs.store.read

            async def slow(log, **bounds):
                if log == lost_run and not hung:
                    hung.append(log)
                    await asyncio.sleep(1.5)
                return await read(log, **bounds)

            runs.store.read = slow
            while lost_run not in runs.owned:
                await asyncio.sleep(0.02)
            assert hung == [lost_run]
            assert (await runs.store.describe(mine.id)).epoch == 1
            assert mine.id in runs.owned
            assert (await runs.store.describe(lost_run)).epoch == 2
            await runs.aclose()

    run_async(main())


def test_a_foreign_run_is_described_by_its_newest_records(tmp_path):
    """Whether it waits is read from the tail, and not from the whole log."""
    reads = []

    async def main():
        async with simulator(rate=2.0) as server:
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a")
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b", models=[])
            read = second.store.read

            async def counted(log, **bounds):
                page = await read(log, **bounds)
                reads.append(len(page.records))
                return page

            second.store.read = counted
            info = await first.start(request_of("scenario:text"), model="m0")
            await until_text(first, info.id)
            assert (await second.info(info.id)).state == "running"
            assert 0 < sum(reads) <= GLANCE
            await second.aclose()
            await first.aclose()

    run_async(main())


def test_a_log_whose_chain_is_broken_is_refused(tmp_path):
    async def main():
        async with simulator() as server, relay(server) as runs:
            chain = Chain("another")
            await runs.store.create(
                "x" * 22, owner=runs.owner, meta=b'{"model":"m0","request":{"messages":[]}}'
            )
            record = chain.seal(m.RunStart(run="x"))
            await runs.store.append("x" * 22, epoch=1, first=1, records=[record], close="complete")
            with pytest.raises(StoreDamagedError):
                await runs.snapshot("x" * 22)

    run_async(main())


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_run_whose_worker_died_before_its_first_record_has_an_end(tmp_path, cancelled):
    async def main():
        async with simulator() as server:
            first = await opened(server, tmp_path / "log.db", owner="elsewhere:1:a")
            create = first.store.create

            async def create_and_die(*args, **options):
                await create(*args, **options)
                raise StoreDamagedError("the process died here")

            first.store.create = create_and_die
            with pytest.raises(StoreDamagedError):
                await first.start(request_of("scenario:text"), model="m0", thread="t")
            crashed(first)
            [info] = await first.thread("t")
            if cancelled:
                await first.cancel(info.id)
            second = await opened(server, tmp_path / "log.db", owner="elsewhere:2:b")
            events = [e for _, e in await asyncio.wait_for(read_all(second, info.id), 60)]
            assert events[0].type == "run-start"
            assert events[-1].outcome == ("cancelled" if cancelled else "complete")
            assert len(server.requests) == (0 if cancelled else 1)
            await leave(first)
            await second.aclose()

    run_async(main())


@pytest.mark.parametrize(("announced", "is_unknown"), [(False, False), (True, True)])
def test_only_an_attempt_that_was_announced_may_have_been_billed(announced, is_unknown) -> None:
    """A worker that is lost between a reset and its next attempt had called no provider."""
    replay = Replay([], Order(), Fold())
    events: list[m.AnyEvent] = [
        m.RunStart(run="r"),
        m.StepStart(step=1),
        m.Usage(input_tokens=3, output_tokens=1),
        m.RunClaim(epoch=2, owner="a", reason="lost"),
        m.StepReset(step=1, attempt=2),
    ]
    if announced:
        events.append(m.StepStart(step=1, attempt=2))
    events.append(m.RunClaim(epoch=3, owner="b", reason="lost"))
    for number, event in enumerate(events, 1):
        event.seq = number
        replay.apply(event)
    end = ending(replay, "interrupted")[-1]
    assert isinstance(end, m.RunEnd)
    assert end.usage_unknown is is_unknown
    assert end.usage is not None
    assert end.usage["output_tokens"] == 1


def test_a_run_that_another_process_deletes_stops_its_worker_in_peace(
    tmp_path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its end is told once: by the process that deleted it."""
    facts: list[object] = []
    stop = observe(facts.append)

    async def main() -> None:
        async with simulator() as server:
            path = tmp_path / "runs.db"
            worker, other = await opened(server, path), await opened(server, path)
            info = await worker.start(request_of("scenario:slow"), model="m0")
            await until_text(other, info.id)
            task = worker.owned[info.id].task
            await other.delete(info.id)
            await asyncio.wait_for(asyncio.wait([task]), 60)
            assert info.id not in worker.owned
            for runs in (worker, other):
                await runs.aclose()
            ends = [fact for fact in facts if isinstance(fact, RunEnded)]
            assert [(end.run, end.outcome) for end in ends] == [(info.id, "deleted")]

    try:
        run_async(main())
    finally:
        stop()
    assert "Traceback" not in caplog.text
    assert "failed inside" not in caplog.text
