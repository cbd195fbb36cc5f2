"""The threads of the SQLite store: whatever fails in one, callers are answered and it goes on."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tokenwire.errors import NotFoundError, StoreUnavailableError
from tokenwire.log.base import Appended
from tokenwire.log.completion import Callback, Landing
from tokenwire.log.sqlite import lock
from tokenwire.log.sqlite.store import SQLiteStore
from tokenwire.log.sqlite.thread import Job, JobThread

Case = Callable[[SQLiteStore], Awaitable[None]]


def run(store: SQLiteStore, case: Case) -> None:
    async def main() -> None:
        await store.start()
        try:
            await asyncio.wait_for(case(store), 60)
        finally:
            await store.close()

    asyncio.run(main())


async def appended(store: SQLiteStore, log: str, first: int = 1) -> Appended:
    return await store.append(log, epoch=1, first=first, records=[b"record"])


@pytest.mark.parametrize("error", [OSError(37, "No locks available"), PermissionError(13, "no")])
def test_a_lock_that_fails_is_an_error_of_that_group_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        real, failures = lock.fcntl.flock, [error]

        def flock(file: int, operation: int) -> None:
            if operation & lock.fcntl.LOCK_EX and failures:
                raise failures.pop()
            real(file, operation)

        monkeypatch.setattr(lock.fcntl, "flock", flock)
        with pytest.raises(StoreUnavailableError, match="cannot lock"):
            await appended(store, "s")
        assert (await appended(store, "s")).status == "ok"

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


@pytest.mark.parametrize("error", [RuntimeError("unforeseen"), MemoryError(), SystemExit(3)])
@pytest.mark.parametrize("half", ["_writes", "_reads"])
def test_whatever_fails_inside_a_thread_is_answered(
    tmp_path: Path, half: str, error: BaseException
) -> None:
    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        thread: JobThread = getattr(store, half)
        real = thread._work

        def work(jobs: list[Job]) -> Any:
            thread._work = real
            raise error

        thread._work = work
        calls = [store.create("t", owner="me"), store.describe("s")]
        with pytest.raises(StoreUnavailableError, match=type(error).__name__):
            await calls.pop(0 if half == "_writes" else 1)
        calls.pop().close()
        assert (await appended(store, "s")).status == "ok"
        assert (await store.read("s")).records == [b"record"]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_an_epoch_that_was_taken_counts_after_a_commit_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wake-up that was rolled back has a number that another process's commit gets."""

    async def case(mine: SQLiteStore) -> None:
        other = SQLiteStore(mine.path)
        await other.start()
        await mine.create("s", owner="me", lease=0)
        writer = mine._writer
        assert writer is not None
        real = writer._leave_wake

        def fail() -> None:
            real()
            raise sqlite3.OperationalError("the disk failed at the commit")

        monkeypatch.setattr(writer, "_leave_wake", fail)
        with pytest.raises(StoreUnavailableError):
            await appended(mine, "s")
        monkeypatch.setattr(writer, "_leave_wake", real)
        repeated = await mine.append("s", epoch=1, first=1, records=[])
        assert repeated.status == "duplicate"
        claim = await other.claim("s", owner="you", lease=60)
        assert claim is not None
        late = await appended(mine, "s")
        assert (late.status, late.epoch) == ("fenced", 2)
        await other.close()

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_an_odd_value_refuses_its_own_job_and_no_other(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        for name in "ab":
            await store.create(name, owner="me")
        results = await asyncio.gather(
            appended(store, "a"),
            store.set_document("kind", "a name with half a character \ud800", b"x"),
            store.command("a", b"c"),
            store.set_document("kind", "n" * 10, 2**70),  # type: ignore[arg-type]
            appended(store, "b"),
            store.append("missing", epoch=1, first=1, records=[b"x"]),
            return_exceptions=True,
        )
        assert [isinstance(r, Exception) for r in results] == [
            False,
            True,
            False,
            True,
            False,
            True,
        ]
        kinds = [type(r) for r in results if isinstance(r, Exception)]
        assert kinds == [StoreUnavailableError, StoreUnavailableError, NotFoundError]
        assert [(await store.read(name)).records for name in "ab"] == [[b"record"]] * 2
        assert await store.commands("a") == [(1, b"c")]

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_a_reader_whose_transaction_could_not_end_begins_another(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        await store._read(lambda reader: reader._connection.execute("SELECT 1"))
        await store._read(lambda reader: None)
        reader = store._reader
        assert reader is not None
        reader._connection.execute("BEGIN")
        assert (await store.describe("s")).log == "s"

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_looking_for_commits_of_others_may_fail(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        polls = []
        reads = store._reads
        assert reads is not None

        def poll() -> None:
            polls.append(None)
            raise ValueError("an odd row of another version")

        reads._poll = poll
        end = store.subscribe("s", lambda: None)
        while len(polls) < 3:
            await asyncio.sleep(0.005)
        end()
        assert (await store.describe("s")).log == "s"

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_work_between_groups_comes_after_the_answer_and_may_fail(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        begun, both_there, answered = (threading.Event() for _ in range(3))
        rests: list[bool] = []

        def rest(idle: bool) -> None:
            assert answered.wait(20)
            rests.append(idle)
            raise ValueError("the disk has it that way")

        thread = JobThread("resting", lambda jobs: [job.act(None) for job in jobs], rest=rest)
        first = thread.ask(Job(lambda _: begun.set() or both_there.wait(20)))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        second = thread.ask(Job(lambda _: 2))  # a group of its own, which waits in the queue
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        both_there.set()
        assert await first is True
        assert rests == []
        answered.set()
        assert await second == 2
        for _ in range(5000):
            if len(rests) == 2:
                break
            await asyncio.sleep(0.001)
        assert rests == [False, True]
        await thread.close()

    asyncio.run(main())
    assert caplog.text.count("work between two groups of the thread resting failed") == 2


def test_a_thread_that_hangs_answers_at_the_deadline_and_goes_on() -> None:
    """As on a disk that does not come back: what had no answer in time failed, and is not done
    later, unless it was under way."""

    async def main() -> None:
        gate, done = threading.Event(), []

        def work(jobs: list[Job]) -> list[Any]:
            if not done:
                done.append("hung")
                gate.wait(20)
            return [job.act(done) for job in jobs]

        thread = JobThread("hanging", work, deadline=0.2)
        told: list[Any] = []
        first = thread.ask(Job(lambda done: done.append("first")))
        while not done:
            await asyncio.sleep(0)
        thread.submit(Job(lambda done: done.append("second")), Callback(told.append))
        await asyncio.sleep(0)
        assert thread.lag > 0
        with pytest.raises(StoreUnavailableError, match=r"within 0\.2 s"):
            await first
        while not told:
            await asyncio.sleep(0.01)
        thread._deadline = 60  # what comes now has all the time that a busy machine takes
        assert [type(problem) for problem in told] == [StoreUnavailableError]
        assert thread.lag == 0
        gate.set()
        answers = [await thread.ask(Job(lambda done, n=n: n)) for n in range(3)]
        assert answers == [0, 1, 2]
        assert done == ["hung", "first"], "the second had failed before it was begun"
        assert len(told) == 1
        await thread.close()

    asyncio.run(main())


def test_jobs_of_many_turns_are_each_answered_in_time() -> None:
    """Deadlines of jobs that are done pass; each turn has forty seconds of the loop's own clock."""

    async def main() -> None:
        loop, late = asyncio.get_running_loop(), 0.0
        clock = loop.time
        loop.time = lambda: clock() + late  # type: ignore[method-assign]
        thread = JobThread("busy", lambda jobs: [job.act(None) for job in jobs], deadline=60)
        for turn in range(30):
            futures = [thread.ask(Job(lambda _, n=n: n)) for n in range(turn)]
            assert await asyncio.gather(*futures) == list(range(turn))
            late += 40
            await asyncio.sleep(0.01)
        assert thread.lag == 0
        await thread.close()

    asyncio.run(main())


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_lost_its_name_takes_no_append(tmp_path: Path, how: str) -> None:
    """Its records would be gone with the process, and nobody would have heard of it."""
    path = tmp_path / "log.db"

    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        await store.probe()
        os.rename(path, tmp_path / "moved.db")
        if how == "replaced":
            path.write_bytes((tmp_path / "moved.db").read_bytes())
        with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
            await appended(store, "s")
        store._probe._since = -100.0
        with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
            await store.probe()
        os.rename(tmp_path / "moved.db", path)
        assert (await appended(store, "s")).status == "ok"

    run(SQLiteStore(str(path)), case)


def test_probes_at_once_are_one_write(tmp_path: Path) -> None:
    async def case(store: SQLiteStore) -> None:
        writes = []
        real = store._try_to_write

        async def counted() -> None:
            writes.append(None)
            await real()

        store._probe._call = counted
        await asyncio.gather(*(store.probe() for _ in range(100)))
        impatient = asyncio.create_task(store.probe())
        await asyncio.sleep(0)
        impatient.cancel()
        await store.probe()
        assert len(writes) == 1

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


async def taken_from(store: SQLiteStore, log: str = "s") -> None:
    await store.release(log, epoch=1)
    assert await store.claim(log, owner="another") is not None
    assert await store.renew({log: 1}, owner="me") == {log}


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.release("s", epoch=1),
        lambda store: store.delete("s"),
        taken_from,
    ],
    ids=["release", "delete", "renew"],
)
def test_a_log_that_is_given_up_has_no_spool(
    tmp_path: Path, act: Callable[..., Awaitable[None]]
) -> None:
    """What it was given before goes to the file in front of that."""

    async def case(store: SQLiteStore) -> None:
        await store.create("s", owner="me")
        told: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        assert store.append_soon("s", epoch=1, first=1, records=[b"1"], then=told.set_result)
        assert store.tape("s") is not None
        await act(store)
        assert store.tape("s") is None
        assert await told is None

    run(SQLiteStore(f"{tmp_path}/log.db"), case)


def test_a_callback_that_fails_is_logged_and_the_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def land(self: Landing, outcomes: Any) -> None:
        raise ValueError("a fault")

    async def case(store: SQLiteStore) -> None:
        for log in "st":
            await store.create(log, owner="me")
        monkeypatch.setattr(Landing, "set_result", land)
        assert store.append_soon("s", epoch=1, first=1, records=[b"1"], then=print)
        assert (await appended(store, "t")).status == "ok"

    run(SQLiteStore(f"{tmp_path}/log.db"), case)
    assert "the callback of a job failed" in caplog.text
