"""The blocking facade: the same names and arguments, without ``async``.

Always true: every event loop here is one thread's portal (anyio), started by the ``with`` and ended
by its exit, which closes the provider's connection, also after an exception.

::

    from tokenwire import sync

    with sync.stream("Hello", model="demo") as run:
        for text in run.text():
            print(text, end="")
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

import tokenwire
from tokenwire.errors import ConflictError
from tokenwire.events.fold import Fold
from tokenwire.events.model import Event
from tokenwire.run.buffer import BufferStats
from tokenwire.run.stream import Result, Timings
from tokenwire.run.stream import Run as AsyncRun

__all__ = ["Run", "stream"]

P = ParamSpec("P")
T = TypeVar("T")


class Run:
    """`tokenwire.run.stream.Run`, blocking. `stream` makes it, from the ``run`` that it drives."""

    def __init__(self, run: AsyncRun) -> None:
        self._run = run
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None
        self._is_closed = False

    @property
    def id(self) -> str:
        """The run's id."""
        return self._run.id

    def __enter__(self) -> Run:
        if self._portal is not None:
            raise ConflictError(
                "this run has already started; create another with tokenwire.sync.stream"
            )
        portal = self._stack.enter_context(start_blocking_portal())
        try:
            self._stack.enter_context(portal.wrap_async_context_manager(self._run))
        except BaseException:
            self._stack.close()
            raise
        self._portal = portal
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_closed = True
        self._stack.__exit__(kind, error, trace)

    def batches(self) -> Iterator[list[Event]]:
        """Events in the batches in which they arrived."""
        return self._iterate(self._run.batches())

    def __iter__(self) -> Iterator[Event]:
        for batch in self.batches():
            yield from batch

    def text(self) -> Iterator[str]:
        """The answer's text, piece by piece. Raises the error of a failed run at the end."""
        return self._iterate(self._run.text())

    def result(self) -> Result:
        """Read to the end and return the whole answer."""
        return self._wait(self._run.result)

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the run; ``reason`` is for the log. May be called from any thread."""
        self._command(lambda: self._run.cancel(reason))

    def approve(self, approval_id: str, approved: bool = True, **answer: Any) -> None:
        """Decide the ``approval-request`` with the id ``approval_id``: ``approved`` or not.
        ``answer``: the other keywords of `tokenwire.Run.approve`. May be called from any thread."""
        self._command(lambda: self._run.approve(approval_id, approved, **answer))

    def answer_tool(self, call_id: str, content: Any) -> None:
        """Give ``content``, any JSON value, as the result of the client tool's call ``call_id``.
        May be called from any thread."""
        self._command(lambda: self._run.answer_tool(call_id, content))

    @property
    def state(self) -> Fold:
        """The run so far."""
        return self._run.state

    @property
    def timings(self) -> Timings:
        """Durations so far, in seconds."""
        return self._run.timings

    @property
    def buffer(self) -> BufferStats:
        """Fill and waits of the buffer between model and reader."""
        return self._run.buffer

    def _started(self) -> BlockingPortal:
        if self._portal is None:
            raise ConflictError(
                "the run has not started: use 'with tokenwire.sync.stream(...) as run'"
            )
        return self._portal

    def _wait(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        portal = self._started()
        return _at_once(call()) if self._is_closed else portal.call(call)

    def _command(self, command: Callable[[], None]) -> None:
        portal = self._started()
        if not self._is_closed:  # after the 'with' the run is over
            portal.call(command)

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        end: Any = object()

        async def step() -> T:
            return await anext(source, end)

        while (item := self._wait(step)) is not end:
            yield item


def _at_once(ready: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits: the run is closed, its buffer has ended."""
    try:
        ready.send(None)
    except StopIteration as done:
        return done.value
    ready.close()
    raise ConflictError("the run is closed; iterate inside the 'with' block")


def _blocking(function: Callable[P, AsyncRun]) -> Callable[P, Run]:
    @functools.wraps(function)
    def blocking(*args: P.args, **kwargs: P.kwargs) -> Run:
        return Run(function(*args, **kwargs))

    return blocking


#: `tokenwire.stream`, blocking; the same arguments.
stream = _blocking(tokenwire.stream)
