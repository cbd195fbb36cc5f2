"""A run in your own process: start, iterate, cancel. It needs no server and no log.

Always true: leaving the ``async with`` closes the provider's connection and ends every task; a
failed or truncated answer never counts as complete (`Run.text` and `Run.result` raise at its end);
a reader that is slower than the model makes the model wait, in a bounded buffer.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import msgspec

from tokenwire.errors import ConflictError, NotFoundError, TokenwireError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.model import (
    ApprovalAnswer,
    Control,
    Event,
    RunOutcome,
    TextDelta,
    ToolResult,
)
from tokenwire.run.buffer import Buffer, BufferLimits, BufferStats
from tokenwire.run.engine import Engine, Setup, make_engine
from tokenwire.run.failure import error_of
from tokenwire.run.inbox import Inbox
from tokenwire.run.plan import Plan
from tokenwire.tools.check import check_edited

if TYPE_CHECKING:
    from tokenwire.providers.http.client import HttpClient

__all__ = ["Result", "Run", "Timings", "new_run_id"]

_DIGITS = string.ascii_letters + string.digits


def new_run_id() -> str:
    """130 random bits as 22 letters and digits: safe in a URL, one word when clicked."""
    number, word = secrets.randbits(130), ""
    for _ in range(22):
        number, digit = divmod(number, 62)
        word += _DIGITS[digit]
    return word


class Timings(msgspec.Struct, kw_only=True):
    """Seconds, measured in this process from the start of the run."""

    first_token_seconds: float | None = None
    total_seconds: float = 0.0
    #: Output tokens per second after the first token, by the provider's count.
    tokens_per_second: float | None = None


class Result(msgspec.Struct, kw_only=True):
    """The outcome of a run: its ``message`` and text, ``finish_reason`` of the last step,
    ``outcome`` (``complete`` or ``incomplete``), ``usage`` in tokens, ``timings`` in seconds, and
    the ``model`` that answered."""

    message: Message
    #: Messages to append to the conversation: the answer, and tool results between its steps.
    history: list[Message]
    finish_reason: str | None
    outcome: RunOutcome
    usage: dict[str, int]
    timings: Timings
    model: str | None = None
    #: The validated value, when structured output was asked for.
    output: Any = None
    #: The run cost more than `usage`, or may have: not every attempt was counted.
    usage_unknown: bool = False

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.text


class Run:
    """One answer being written. Use it as a context manager::

        async with tokenwire.stream("Hello", model="demo") as run:
            async for event in run:
                ...

    `tokenwire.stream` makes it. ``plan``: the request and its models. ``http``: makes the client of
    the provider; ``own_http``: whether the run closes it. ``buffer``: bounds of what is read ahead.
    ``prepare``: called with the plan at the start; returns what the end calls. ``output``: the
    validated value of the finished run.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        http: Callable[[], HttpClient],
        own_http: bool = True,
        buffer: BufferLimits | None = None,
        prepare: Callable[[Plan], Any] | None = None,
        output: Callable[[Fold], Any] | None = None,
    ) -> None:
        self.id = plan.run
        self._plan = plan
        self._make_http, self._own_http = http, own_http
        self._http: HttpClient | None = None
        self._inbox = Inbox()
        self._fold = Fold()
        self._buffer = Buffer(buffer)
        self._prepare, self._output = prepare, output
        self._cleanup: Callable[[], Any] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._start = 0.0
        self._first: float | None = None
        self._ended: float | None = None

    async def __aenter__(self) -> Run:
        if self._pump is not None:
            raise ConflictError("this run was already started; call tokenwire.stream again")
        if self._prepare is not None:
            self._cleanup = await self._prepare(self._plan)
        self._http = self._make_http()
        self._start = time.monotonic()
        loop = make_engine(Setup(plan=self._plan, http=self._http, inbox=self._inbox))
        self._pump = asyncio.create_task(self._run(loop))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pump = self._pump
        if pump is not None and not pump.done():
            pump.cancel()
            await asyncio.wait([pump])
            self._buffer.end()  # also when it was cancelled before its first turn
        if self._http is not None and self._own_http:
            await self._http.aclose()
        if self._cleanup is not None:
            await self._cleanup()

    # --- reading -------------------------------------------------------------------------------

    async def batches(self) -> AsyncIterator[list[Event]]:
        """Events in the batches in which they arrived, for code that forwards them. Raises
        `ConflictError` before the ``async with``."""
        if self._pump is None:
            raise ConflictError(
                "the run is not started; use: async with tokenwire.stream(...) as run"
            )
        while True:
            batch = await self._buffer.take()
            if batch is None:
                return
            for event in batch:
                self._fold.apply(event)
            if self._first is None and self._fold.parts:
                self._first = time.monotonic()
            yield batch

    async def __aiter__(self) -> AsyncIterator[Event]:
        async for batch in self.batches():
            for event in batch:
                yield event

    async def text(self) -> AsyncIterator[str]:
        """The answer's text, piece by piece. At its end it raises the error that cut
        the answer off, if one did (the pieces before it are valid)."""
        async for batch in self.batches():
            for event in batch:
                if isinstance(event, TextDelta):
                    yield event.text
        self._raise_failure()

    async def result(self) -> Result:
        """Read to the end and return the answer. Raises the error that cut it off."""
        async for _ in self.batches():
            pass
        self._raise_failure()
        fold = self._fold
        value = self._output(fold) if self._output is not None else None
        return Result(
            message=fold.message(),
            history=fold.history(),
            finish_reason=fold.finish_reason,
            outcome=fold.outcome or "interrupted",
            usage=fold.usage,
            timings=self.timings,
            model=fold.steps[-1].model if fold.steps else None,
            output=value,
            usage_unknown=fold.usage_unknown,
        )

    @property
    def state(self) -> Fold:
        """The run so far, folded from the events that were read."""
        return self._fold

    @property
    def timings(self) -> Timings:
        """Durations so far, in seconds."""
        end = self._ended or time.monotonic()
        first = self._first
        tokens = self._fold.usage.get("output_tokens")
        rate = None
        if first is not None and tokens is not None and tokens > 1 and end > first:
            rate = (tokens - 1) / (end - first)
        return Timings(
            first_token_seconds=None if first is None else first - self._start,
            total_seconds=end - self._start,
            tokens_per_second=rate,
        )

    @property
    def buffer(self) -> BufferStats:
        """Fill and waits of the buffer between model and reader."""
        return self._buffer.stats

    # --- commands ------------------------------------------------------------------------------

    def cancel(self, reason: str | None = None) -> None:
        """Close the provider's connection and end the run as ``cancelled``; ``reason`` is for the
        log."""
        self._inbox.put(Control(command="cancel", reason=reason))

    def approve(
        self,
        approval_id: str,
        approved: bool = True,
        *,
        reason: str | None = None,
        arguments: dict[str, Any] | None = None,
        by: str | None = None,
    ) -> None:
        """Decide the ``approval-request`` with the id ``approval_id``: ``approved`` or not, ``by``
        whom and with which ``reason``; ``arguments`` replaces the call's own. The first decision
        wins. Raises `NotFoundError` for an id that the run has not requested (yet), and
        `InputError` for arguments that do not fit the tool; the approval then stays open."""
        tools = self._fold.tools.values()
        tool = next((tool for tool in tools if tool.approval_id == approval_id), None)
        if tool is None:
            raise NotFoundError("this run has no such approval", what="approval")
        if approved and arguments is not None:
            check_edited(self._plan.tools, tool.name, arguments)
        self._inbox.put(
            ApprovalAnswer(
                approval_id=approval_id,
                call_id=tool.call_id,
                approved=approved,
                reason=reason,
                arguments=arguments,
                by=by,
            )
        )

    def answer_tool(self, call_id: str, content: Any) -> None:
        """Give ``content``, any JSON value, as the result of the client tool's call ``call_id``."""
        self._inbox.put(ToolResult(call_id=call_id, content=content))

    # --- inside --------------------------------------------------------------------------------

    async def _run(self, loop: Engine) -> None:
        try:
            async for batch in loop.batches():
                await self._buffer.put(batch)
        except asyncio.CancelledError:
            self._buffer.end()
            raise
        except BaseException as error:
            self._buffer.end(error)
            raise
        else:
            self._ended = time.monotonic()
            self._buffer.end()

    def _raise_failure(self) -> None:
        error: TokenwireError | None = error_of(self._fold)
        if error is not None:
            raise error
