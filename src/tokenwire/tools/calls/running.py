"""One call of one function, async or blocking, until it ends or its time is over.

Always true: `run_tool` returns within ``timeout + grace`` whatever the function does; a blocking
function runs in a thread of its own that can never keep the process alive; an abandoned
call keeps its slot until it really ends, so that hanging tools are bounded; no exception of the
function, ``SystemExit`` and ``KeyboardInterrupt`` included, reaches the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import dataclasses
import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from tokenwire.exits import guarded_tasks, is_by_signal
from tokenwire.per_loop import PerLoop
from tokenwire.tools.calls.outcome import BadResult
from tokenwire.tools.context import Progress, ToolContext

__all__ = ["Failed", "Finished", "Job", "Slots", "run_tool"]


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    value: Any


@dataclasses.dataclass(frozen=True, slots=True)
class Failed:
    """``error`` is None when the time was over."""

    error: BaseException | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A function call and its limits."""

    function: Callable[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    context: ToolContext
    #: Reports a `Progress` or a piece of text that a generator yielded.
    say: Callable[[Progress | str], None]
    timeout: float
    grace: float
    #: Bytes of text that a generator may yield.
    cap: int


class Slots:
    """How many calls of one tool may run at once on one event loop."""

    _by_tool: ClassVar[weakref.WeakKeyDictionary[Any, PerLoop[Slots]]] = weakref.WeakKeyDictionary()

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)

    @classmethod
    def of(cls, tool: Any) -> Slots:
        """The slots of this tool on the running loop."""
        most = tool.concurrency
        return cls._by_tool.setdefault(tool, PerLoop(lambda: cls(most)))()

    async def take(self, seconds: float) -> bool:
        """Wait for a free slot; False when none became free in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            return False
        return True

    def give(self) -> None:
        """A call has ended."""
        self._free.release()


async def run_tool(job: Job, slots: Slots) -> Finished | Failed:
    """Run a job that holds a slot; the slot is given back when the function really ends."""
    loop = asyncio.get_running_loop()
    if _is_async(job.function):
        caller = asyncio.current_task()
        future = loop.create_task(
            _guard(job, job.function, job.args, job.kwargs),
            name=caller.get_name() if caller is not None else None,  # it names the tool and run
        )
        future.add_done_callback(lambda _: slots.give())
    else:
        future = _start_thread(job, loop, slots)
    _left_behind.add(future)
    future.add_done_callback(_forget)
    try:
        finished, _ = await asyncio.wait({future}, timeout=job.timeout)
    except asyncio.CancelledError:
        await _stop(future, job)
        raise
    if not finished:
        await _stop(future, job)
        return Failed(None)
    if future.cancelled():
        return Failed(RuntimeError("the tool cancelled itself"))
    return future.result()


async def _stop(future: asyncio.Future[Finished | Failed], job: Job) -> None:
    """Cancel the function, and wait a moment for its clean-up."""
    job.context.cancel()
    future.cancel()
    if not future.done():
        await asyncio.wait({future}, timeout=job.grace)


#: Calls that are not over yet; asyncio itself keeps only weak references to tasks.
_left_behind: set[asyncio.Future[Any]] = set()


def _forget(future: asyncio.Future[Any]) -> None:
    _left_behind.discard(future)
    if not future.cancelled():
        future.exception()  # somebody has looked at it: no warning when it is collected


def _is_async(function: Callable[..., Any]) -> bool:
    call = getattr(function, "__call__", function)  # noqa: B004 - objects with an async __call__
    return any(
        inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f) for f in (function, call)
    )


async def _guard(
    job: Job, function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]
) -> Finished | Failed:
    try:
        with guarded_tasks(_task_exited):
            return Finished(await _awaited(job, function(*args, **kwargs)))
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # asyncio would stop the whole loop for a SystemExit
        if is_by_signal(error):
            raise
        return Failed(error)


def _task_exited(error: BaseException) -> BaseException:
    return RuntimeError(f"a task that the tool created raised {type(error).__name__}")


async def _awaited(job: Job, value: Any) -> Any:
    if inspect.isasyncgen(value):
        collector = _Collector(job)
        try:
            async for item in value:
                if not collector.take(item):
                    break
        finally:
            await value.aclose()
        return collector.result(None)
    if isinstance(value, Awaitable):
        return await _awaited(job, await value)
    return value


def _start_thread(
    job: Job, loop: asyncio.AbstractEventLoop, slots: Slots
) -> asyncio.Future[Finished | Failed]:
    future: asyncio.Future[Finished | Failed] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(ended: Finished | Failed) -> None:
        slots.give()
        if not future.done():
            future.set_result(ended)

    def body() -> None:
        try:
            ended: Finished | Failed = Finished(context.run(_call, job))
        except BaseException as error:  # SystemExit here would end the thread without a word
            ended = Failed(error)
        try:
            loop.call_soon_threadsafe(deliver, ended)
        except RuntimeError:  # the loop was closed while the tool was hanging
            return

    try:
        # A daemon: a tool that never returns must not keep the process from leaving.
        threading.Thread(target=body, name="tokenwire-tool", daemon=True).start()
    except RuntimeError as error:  # no more threads
        deliver(Failed(error))
    return future


def _call(job: Job) -> Any:
    value = job.function(*job.args, **job.kwargs)
    if inspect.isgenerator(value):
        collector = _Collector(job)
        try:
            while True:
                try:
                    item = next(value)
                except StopIteration as end:
                    return collector.result(end.value)
                if not collector.take(item):
                    return collector.result(None)
        finally:
            value.close()
    if inspect.isasyncgen(value) or isinstance(value, Awaitable):
        # A plain function that hands out a coroutine: run it here, in a loop of its own.
        return asyncio.run(_awaited(job, value))
    return value


class _Collector:
    """What a generator yields: progress, pieces of text, and a value."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._pieces: list[str] = []
        self._room = job.cap
        self._value: Any = None

    def take(self, item: Any) -> bool:
        """One item; False when the call was cancelled."""
        if self._job.context.cancelled:
            return False
        if isinstance(item, Progress):
            self._job.say(item)
        elif isinstance(item, str):
            self._room -= len(item)
            if self._room < 0:
                message = f"the result is larger than {self._job.cap} bytes; ask for less"
                raise BadResult("oversize", message)
            self._pieces.append(item)
            self._job.say(item)
        else:
            self._value = item
        return True

    def result(self, returned: Any) -> Any:
        """The returned value, else the last value yielded, else the pieces joined."""
        if returned is not None:
            return returned
        if self._value is not None:
            return self._value
        return "".join(self._pieces) if self._pieces else None
