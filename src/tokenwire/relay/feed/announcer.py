"""News to publish soon: queued in order until the store has accepted them.

Always true: news of one subject are published one after the other; an error of the store delays
them, and loses none before `_TRY_SECONDS`, the end of the process, or the bound of the queue; any
other error delays them as well, and loses only the news that raises it, `_BROKEN_SECONDS` later;
news equal to the last one in the queue are not queued again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, NamedTuple, TypeVar

from tokenwire.backoff import backoff
from tokenwire.errors import LogError

__all__ = ["Announcer"]

_log = logging.getLogger("tokenwire.relay")

#: Subjects that are published at the same time, and seconds that the end waits for them.
_AT_ONCE, _LAST_SECONDS = 16, 5.0
#: News of one subject, and subjects, that are kept while the store fails; the oldest go first.
MOST_KEPT, MOST_SUBJECTS = 512, 10_000
#: Seconds between two attempts, at first and at most; and for which news are attempted.
_PAUSES, _TRY_SECONDS = (0.1, 5.0), 600.0
#: Seconds for which one news is attempted that fails for another reason than the store's.
_BROKEN_SECONDS = 60.0

T = TypeVar("T")


class _Item(NamedTuple, Generic[T]):
    key: Hashable
    news: T


class Announcer(Generic[T]):
    """The queues of news of one process. ``publish(subject, news)`` appends them, and may be called
    again with the same; ``what``: a subject's kind, for log messages; ``delay``: seconds to wait
    for more news of a subject before they are published."""

    def __init__(
        self,
        publish: Callable[[str, list[T]], Awaitable[None]],
        what: str,
        *,
        delay: float = 0.0,
    ) -> None:
        self._publish, self._what, self._delay = publish, what, delay
        self._queues: dict[str, list[_Item[T]]] = {}
        #: The last news of each attempt under way: it may have read the store before a change.
        self._attempts: dict[str, _Item[T]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._gate = asyncio.Semaphore(_AT_ONCE)
        self._ending = asyncio.Event()
        self._is_closed = False

    def announce(self, subject: str, news: T, key: Hashable = None) -> None:
        """Publish ``news`` soon, after those of ``subject`` in the queue. ``key``: equal for news
        of equal meaning, of which the queue keeps one."""
        if self._is_closed:
            return
        queue = self._queues.setdefault(subject, [])
        is_last = key is not None and bool(queue) and queue[-1].key == key
        if is_last and queue[-1] is not self._attempts.get(subject):
            return
        queue.append(_Item(key, news))
        if len(queue) > MOST_KEPT:
            del queue[0]
        if subject not in self._tasks:
            if len(self._queues) > MOST_SUBJECTS:
                oldest = next(iter(self._queues))
                del self._queues[oldest]
                _log.warning("too many changes of %s to publish; dropping the oldest", self._what)
            self._tasks[subject] = asyncio.get_running_loop().create_task(
                self._work(subject), name=f"news of {self._what}"
            )

    async def flush(self) -> None:
        """Wait until the queues are empty, a few seconds at most."""
        end = time.monotonic() + _LAST_SECONDS
        while (tasks := list(self._tasks.values())) and time.monotonic() < end:
            await asyncio.wait(tasks, timeout=end - time.monotonic())

    async def aclose(self) -> None:
        """Publish what remains, with one attempt, and stop."""
        self._ending.set()
        await self.flush()
        self._is_closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, subject: str) -> None:
        failures, since = 0, time.monotonic()
        #: Since when an unknown error prevents the publishing of the first news.
        broken_since: float | None = None
        try:
            await self._wait(self._delay)
            while queue := self._queues.get(subject):
                try:
                    async with self._gate:
                        # One by one after an unknown error: only the news that raises it is lost.
                        batch = list(queue) if broken_since is None else queue[:1]
                        self._attempts[subject] = batch[-1]
                        await self._publish(subject, [one.news for one in batch])
                except (Exception, asyncio.CancelledError) as error:
                    if _is_cancelling(error):
                        raise
                    failures += 1
                    self._log_failure(error, failures)
                    now, is_last = time.monotonic(), self._ending.is_set()
                    if isinstance(error, LogError):
                        if is_last or now - since > _TRY_SECONDS:
                            _log.warning("cannot publish a change of %s: %s", self._what, error)
                            return
                        is_hopeless, broken_since = False, None
                    else:
                        is_alone, broken_since = broken_since is not None, broken_since or now
                        is_hopeless = is_alone and (is_last or now - broken_since > _BROKEN_SECONDS)
                    if not is_hopeless:
                        self._attempts.pop(subject, None)
                        first, longest = _PAUSES
                        await self._wait(backoff(failures, first=first, longest=longest))
                        continue
                    _log.error("dropping a change of %s that cannot be published", self._what)
                failures, since, broken_since = 0, time.monotonic(), None
                # Whatever was dropped meanwhile, what follows the last of these is still to come.
                last = self._attempts.pop(subject)
                index = next((n for n, one in enumerate(queue, 1) if one is last), 0)
                del queue[:index]
        finally:
            self._queues.pop(subject, None)
            self._attempts.pop(subject, None)
            del self._tasks[subject]

    def _log_failure(self, error: BaseException, failures: int) -> None:
        """One entry for a failure and its repetitions; with its traceback where it is unknown."""
        if failures > 1:
            return
        what = "cannot publish a change of %s yet: %s"
        is_of_store = isinstance(error, LogError)
        _log.log(
            logging.WARNING if is_of_store else logging.ERROR,
            what,
            self._what,
            error if is_of_store else type(error).__name__,
            exc_info=None if is_of_store else error,
        )

    async def _wait(self, seconds: float) -> None:
        """Wait, unless the end has come."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            pass


def _is_cancelling(error: BaseException) -> bool:
    """Whether this task is cancelled; a cancelled call of another's is a failure of that call."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
