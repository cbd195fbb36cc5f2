"""An `on_end` that is part of the end of its run: one transaction, of the application's too.

Always true: what the function wrote is there if and only if the run has ended as it was told; where
it fails, its changes are undone, and after some tries the run ends as ``error: on_end_failed``,
without it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tokenwire.errors import ConfigError
from tokenwire.events.model import RunEnd
from tokenwire.exits import guarded_tasks, is_by_signal
from tokenwire.log.base import Appended, Inside, Store, Transactional
from tokenwire.relay.description import meta_of
from tokenwire.relay.outbox import EndedRun, ended_run
from tokenwire.relay.produce.contract import LastAppend, OnEndError
from tokenwire.relay.replay import read_run

__all__ = ["OnEndInside", "OnEndTransaction", "takes_connection"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds of one call, and calls before the run ends as failed, with pauses between them.
SECONDS = 5.0
TRIES = 3
PAUSE = 0.5

#: ``on_end(run, connection)``.
OnEndInside = Callable[[EndedRun, Any], Awaitable[None]]


class _CallError(Exception):
    """The application's function failed; its exception is the cause."""


def takes_connection(on_end: object) -> bool:
    """Whether a function wants the connection as well: it has two parameters without a default."""
    if not callable(on_end):
        return False
    try:
        parameters = inspect.signature(on_end).parameters.values()
    except (TypeError, ValueError):
        return False
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in plain and p.default is inspect.Parameter.empty]
    return len(needed) == 2


class OnEndTransaction:
    """The `EndTransaction` of an application's ``on_end(run, connection)``. Raises `ConfigError`
    for a store without transactions, and for a function that is not async."""

    def __init__(self, store: Store, on_end: OnEndInside) -> None:
        if not isinstance(store, Transactional):
            raise ConfigError(
                "an on_end that takes a connection needs a PostgreSQL store; "
                "write on_end(run) for others"
            )
        if not inspect.iscoroutinefunction(on_end):
            raise ConfigError("an on_end that takes a connection must be an async function")
        self._store, self._writes, self._on_end = store, store, on_end

    async def prepare(self, run: str, end: RunEnd) -> Inside:
        """The function to call within the transaction that ends ``run``. Raises `LogError`."""
        replay = await read_run(self._store, run)
        fold = replay.fold
        fold.apply(end)
        ended = await ended_run(self._store, run, meta_of(await self._store.describe(run)), fold)

        async def inside(connection: Any) -> None:
            try:
                async with asyncio.timeout(SECONDS):
                    with guarded_tasks(_task_exited):
                        await self._on_end(ended, connection)
            except BaseException as error:
                if _is_ours(error):
                    raise
                raise _CallError from error

        return inside

    async def append(self, last: LastAppend) -> Appended:
        """Append the end, with what ``last.inside`` writes. Raises `OnEndError` after `TRIES`
        failures of the function, and `LogError`."""
        for number in range(1, TRIES + 1):
            try:
                return await self._writes.append_inside(
                    last.run,
                    epoch=last.epoch,
                    first=last.first,
                    records=last.records,
                    close=last.close,
                    inside=last.inside,
                    seconds=SECONDS,
                )
            except _CallError as error:
                _log.warning("on_end of run %s failed (try %d)", last.run, number, exc_info=error)
                await asyncio.sleep(PAUSE * number)
        raise OnEndError("on_end failed; the server's log has its exception")


def _is_ours(error: BaseException) -> bool:
    """Whether an exception ends this task, and is none of the application's function."""
    task = asyncio.current_task()
    is_cancel = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    return bool(is_cancel) or isinstance(error, GeneratorExit) or is_by_signal(error)


def _task_exited(error: BaseException) -> BaseException:
    _log.error("a task that on_end created raised %s", type(error).__name__, exc_info=error)
    return RuntimeError(f"a task that on_end created raised {type(error).__name__}")
