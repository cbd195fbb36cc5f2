"""One thread that works for an event loop: jobs go over in groups, answers come back in groups.

Always true: jobs run in the order in which they were given; a group costs one wake-up of the
thread and one of the loop, however many jobs are in it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from tokenwire.errors import StoreUnavailableError
from tokenwire.log.completion import Answer

__all__ = ["Job", "JobThread"]

#: Jobs in one group, so that one transaction stays short (milliseconds).
MOST_JOBS = 2048


class Job:
    """One thing to do in the thread; ``act`` is called there with the thread's own state."""

    __slots__ = ("act", "future")

    def __init__(self, act: Callable[[Any], Any]) -> None:
        self.act = act
        self.future: Answer


class JobThread:
    """``work(jobs)`` runs in the thread and returns one result or exception per job.

    ``done(jobs, results)`` then runs on the loop, before the futures are resolved. With
    ``idle``, ``poll`` runs in the thread every ``idle`` seconds while `polling` is set.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[Job]], Sequence[Any]],
        *,
        on_done: Callable[[list[Job], Sequence[Any]], None] | None = None,
        poll: Callable[[], None] | None = None,
        idle: float = 0.01,
    ) -> None:
        self._work = work
        self._on_done = on_done
        self._poll = poll
        self._idle = idle
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._pending: list[Job] = []
        self._closed = False
        self._polling = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, job: Job, answer: Answer) -> None:
        """Give a job; it goes over with all others of this turn of the loop."""
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
            self._queue.put([])  # a nudge: the thread may be waiting without a timeout
        self._polling = polling

    async def close(self) -> None:
        """Let the thread finish what it was given, and end it."""
        if not self._closed:
            self._hand_over()
            self._closed = True
            self._queue.put(None)
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 1.0)

    def _hand_over(self) -> None:
        if self._pending and not self._closed:
            self._queue.put(self._pending)
            self._pending = []

    def _run(self) -> None:
        ended = False
        while not ended:
            try:
                jobs = self._queue.get(timeout=self._idle if self._polling else None)
            except queue.Empty:
                jobs = []
            while jobs is not None and len(jobs) < MOST_JOBS and not self._queue.empty():
                more = self._queue.get()
                if more is None:
                    ended = True
                    break
                jobs = jobs + more
            if jobs is None:
                ended = True
            elif jobs:
                results = self._work(jobs)
                self._tell(self._answer, jobs, results)
            if self._polling and self._poll is not None and not ended:
                self._poll()

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            self._closed = True  # the loop is gone, and everybody who waited with it

    def tell(self, call: Callable[..., None], *arguments: Any) -> None:
        """From the thread: run ``call`` on the loop."""
        self._tell(call, *arguments)

    def _answer(self, jobs: list[Job], results: Sequence[Any]) -> None:
        if self._on_done is not None:
            self._on_done(jobs, results)
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():
                continue  # the caller was cancelled; the work is done all the same
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
