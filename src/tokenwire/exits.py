"""Exits of user code: ``SystemExit`` and ``KeyboardInterrupt``, for which asyncio ends its loop.

Always true: an exit that code of the user raises, in a task that it created as well, ends that task
only, and whoever runs the code hears of it; a Ctrl-C by signal still ends the program.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextvars import Context, ContextVar
from types import TracebackType
from typing import Any

__all__ = ["EXITS", "guarded_tasks", "is_by_signal", "run_to_end"]

_log = logging.getLogger("tokenwire")

#: What ends an event loop, wherever it is raised.
EXITS = (SystemExit, KeyboardInterrupt)

#: What to make of an exit: called with it, returns the exception that the task ends with.
OnExit = Callable[[BaseException], BaseException]

_ON_EXIT: ContextVar[OnExit | None] = ContextVar("tokenwire_on_exit", default=None)


def is_by_signal(error: BaseException) -> bool:
    """Whether a ``KeyboardInterrupt`` may be a Ctrl-C: raised by asyncio's handler, or in the main
    thread of a program whose Ctrl-C raises wherever it is."""
    if not isinstance(error, KeyboardInterrupt):
        return False
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is not None and place.tb_frame.f_code.co_name == "_on_sigint":
        return True
    is_main = threading.current_thread() is threading.main_thread()
    return is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler


@contextlib.contextmanager
def guarded_tasks(on_exit: OnExit) -> Iterator[None]:
    """Within: an exit in a task that this code creates ends the task with what ``on_exit`` makes of
    it, and not the event loop."""
    loop = asyncio.get_running_loop()
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        loop.set_task_factory(_Factory(factory))
    token = _ON_EXIT.set(on_exit)
    try:
        yield
    finally:
        _ON_EXIT.reset(token)


class _Factory:
    """Makes the tasks of one event loop; those of guarded code are guarded."""

    def __init__(self, before: Any) -> None:
        self._before = before

    def __call__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> asyncio.Future[Any]:
        context: Context | None = options.get("context")
        on_exit = _ON_EXIT.get() if context is None else context.get(_ON_EXIT)
        if on_exit is not None and asyncio.iscoroutine(coroutine):
            coroutine = _Guarded(coroutine, on_exit)
        if self._before is not None:
            return self._before(loop, coroutine, **options)
        return asyncio.Task(coroutine, loop=loop, **options)


class _Guarded(Coroutine[Any, Any, Any]):
    """A coroutine whose exits are ordinary exceptions."""

    def __init__(self, inner: Coroutine[Any, Any, Any], on_exit: OnExit) -> None:
        self._inner, self._on_exit = inner, on_exit
        self.__name__ = getattr(inner, "__name__", type(inner).__name__)
        self.__qualname__ = getattr(inner, "__qualname__", self.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # cr_frame and the like, for who shows tasks

    def send(self, value: Any, /) -> Any:
        try:
            return self._inner.send(value)
        except EXITS as error:
            self._escape(error)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        try:
            if value is None and traceback is None:
                return self._inner.throw(kind)
            return self._inner.throw(kind, value, traceback)
        except EXITS as error:
            self._escape(error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()

    def _escape(self, error: BaseException) -> None:
        if is_by_signal(error):
            raise error
        raise self._on_exit(error) from error


def run_to_end(runner: asyncio.Runner, work: Coroutine[Any, Any, Any]) -> Any:
    """`Runner.run`, and an exit in a callback of the event loop, which belongs to no task, does not
    end ``work``."""
    loop = runner.get_loop()
    task = loop.create_task(work)

    async def whole() -> Any:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:  # the runner's way of a Ctrl-C
            task.cancel()
            return await task

    while True:
        try:
            return runner.run(whole())
        except EXITS as error:
            if task.done() or is_by_signal(error):
                raise
            _log.error(
                "a callback of the event loop raised %s, which does not end the server",
                type(error).__name__,
                exc_info=error,
            )
