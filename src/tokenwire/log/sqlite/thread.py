"""One thread that works for an event loop: jobs go over in groups, answers return in groups.

Always true: jobs run in the order in which they were submitted; a group costs one wake-up of the
thread and one of the loop, however many jobs are in it. Every job is answered: with its result,
with what failed (the thread outlives any exception), or at its deadline, when its outcome is
unknown.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tokenwire.errors import StoreUnavailableError
from tokenwire.log.completion import Answer

__all__ = ["DEADLINE", "Job", "JobThread"]

_log = logging.getLogger("tokenwire.log")

#: Jobs in one group, so that one transaction stays short (milliseconds).
MOST_JOBS = 2048

#: Seconds after which a job is answered as failed. A disk that hangs must not hang its callers.
DEADLINE = 30.0


class Job:
    """One thing to do in the thread; ``act`` is called there with the thread's own state."""

    __slots__ = ("act", "future")

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.act = act
        self.future: Answer


class _Group:
    """The jobs of one turn of the loop."""

    __slots__ = ("expired", "jobs", "since")

    def __init__(self, jobs: list[Job], since: float) -> None:
        self.jobs, self.since = jobs, since
        #: Set on the loop: its callers have been answered, nothing more is done for them.
        self.expired = False


class JobThread:
    """``work(jobs)`` runs in the thread and returns one result or exception per job.

    ``on_done(jobs, results)`` then runs on the loop, before the futures are resolved.
    ``rest(is_idle)`` runs in the thread when a group has been answered; ``is_idle``: whether no
    other one waits. While `polling` is set, ``poll`` runs in the thread every ``idle`` seconds, or
    after as many as it returned.
    ``deadline``: seconds after which a job is answered with `StoreUnavailableError`.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job]], Sequence[Any]],
        *,
        on_done: Callable[[list[Job], Sequence[Any]], None] | None = None,
        rest: Callable[[bool], None] | None = None,
        poll: Callable[[], float | None] | None = None,
        idle: float = 0.01,
        deadline: float = DEADLINE,
    ) -> None:
        self._work = work
        self._on_done = on_done
        self._rest = rest
        self._poll = poll
        self._idle = self._pause = idle
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Group | None] = queue.SimpleQueue()
        self._pending: list[Job] = []
        self._outstanding: deque[_Group] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._polling = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def lag(self) -> float:
        """Seconds since the oldest job was submitted that has no answer yet."""
        return self._loop.time() - self._outstanding[0].since if self._outstanding else 0.0

    def submit(self, job: Job, answer: Answer) -> None:
        """Submit a job; it goes over with all others of this turn of the loop."""
        if self._closed:
            raise StoreUnavailableError("the store is closed")
        job.future = answer
        if not self._pending:
            self._loop.call_soon(self._hand_over)
        self._pending.append(job)

    def ask(self, job: Job) -> asyncio.Future[Any]:
        """`submit`, with a future as the answer."""
        future = self._loop.create_future()
        self.submit(job, future)
        return future

    def set_polling(self, polling: bool) -> None:
        if polling and not self._polling and not self._closed:
            self._queue.put(_Group([], 0.0))  # the thread may be waiting without a timeout
        self._polling = polling

    async def close(self) -> None:
        """Let the thread finish what was submitted, and end it. One that hangs is abandoned."""
        if not self._closed:
            self._hand_over()
            self._closed = True
            self._queue.put(None)
        end = self._loop.time() + self._deadline
        while self._thread.is_alive() and self._loop.time() < end:
            await asyncio.to_thread(self._thread.join, min(1.0, self._deadline))
        if self._timer is not None:
            self._timer.cancel()

    def _hand_over(self) -> None:
        if self._pending and not self._closed:
            group = _Group(self._pending, self._loop.time())
            self._pending = []
            self._outstanding.append(group)
            if self._timer is None:
                self._timer = self._loop.call_at(group.since + self._deadline, self._expire)
            self._queue.put(group)

    # In the thread.

    def _run(self) -> None:
        ended = False
        while not ended:
            groups, ended = self._next()
            jobs = groups[0].jobs if len(groups) == 1 else [j for g in groups for j in g.jobs]
            if jobs:
                self.tell(self._answer, groups, jobs, self._results(jobs))
                if self._rest is not None:
                    self._try(self._rest, self._queue.empty())
            if self._polling and self._poll is not None and not ended:
                self._pause = self._try(self._poll) or self._idle

    def _try(self, call: Callable[..., float | None], *arguments: Any) -> float | None:
        """Call what nobody waits for: the thread outlives it."""
        try:
            return call(*arguments)
        except Exception:
            _log.exception("work between two groups of the thread %s failed", self._thread.name)
            return None

    def _next(self) -> tuple[list[_Group], bool]:
        """The groups to work on, and whether they are the last."""
        try:
            group = self._queue.get(timeout=self._pause if self._polling else None)
        except queue.Empty:
            return [], False
        groups: list[_Group] = []
        count = 0
        while group is not None:
            if group.jobs and not group.expired:
                groups.append(group)
                count += len(group.jobs)
            if count >= MOST_JOBS or self._queue.empty():
                return groups, False
            group = self._queue.get()
        return groups, True

    def _results(self, jobs: list[Job]) -> Sequence[Any]:
        try:
            results = self._work(jobs)
            if len(results) == len(jobs):
                return results
            raise AssertionError(f"{len(results)} results for {len(jobs)} jobs")
        except BaseException as error:
            _log.exception("the thread %s failed inside", self._thread.name)
            failure = StoreUnavailableError(
                f"the store failed inside ({type(error).__name__}); see the server's log"
            )
            return [failure] * len(jobs)

    def tell(self, call: Callable[..., None], *arguments: Any) -> None:
        """From the thread: run ``call`` on the loop."""
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            self._closed = True  # the loop is gone, and everybody who waited with it

    # On the loop.

    def _answer(self, groups: list[_Group], jobs: list[Job], results: Sequence[Any]) -> None:
        late = False
        for group in groups:
            if group.expired:
                late = True
            else:
                self._outstanding.popleft()
        if self._on_done is not None:
            try:
                self._on_done(jobs, results)
            except Exception:
                _log.exception("the callback of a group of jobs failed")
        if late:
            callers = {id(job) for group in groups if group.expired for job in group.jobs}
            pairs = zip(jobs, results, strict=True)
            live = [(job, result) for job, result in pairs if id(job) not in callers]
            jobs, results = [job for job, _ in live], [result for _, result in live]
        for job, result in zip(jobs, results, strict=True):
            _resolve(job, result)

    def _expire(self) -> None:
        """Answer the jobs whose time is up; what became of them is unknown."""
        self._timer = None
        now = self._loop.time()
        while self._outstanding and now >= self._outstanding[0].since + self._deadline:
            group = self._outstanding.popleft()
            group.expired = True
            _log.error("the store did not answer %d jobs in time", len(group.jobs))
            for job in group.jobs:
                message = f"the store did not answer within {self._deadline:g} s"
                _resolve(job, StoreUnavailableError(message))
        if self._outstanding:
            end = self._outstanding[0].since + self._deadline
            self._timer = self._loop.call_at(end, self._expire)


def _resolve(job: Job, result: Any) -> None:
    if job.future.done():
        return  # the caller was cancelled; the work is done all the same
    try:
        if isinstance(result, BaseException):
            job.future.set_exception(result)
        else:
            job.future.set_result(result)
    except Exception:  # others' answers come after it
        _log.exception("the callback of a job failed")
