"""A run that this process owns: its loop writes into its log until the end, a stop, or a loss.

Always true: a command left in the log reaches the loop, whoever left it; when another worker has
taken the run over, the provider's connection is closed and nothing more is written; a run that
fails here and that no other worker can go on with ends all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

import msgspec

from tokenwire.errors import FencedError, LimitError, LogError, TokenwireError
from tokenwire.events.model import ApprovalAnswer, Control, Event, ToolResult
from tokenwire.log.base import Log
from tokenwire.relay.produce import Producer
from tokenwire.relay.takeover.ladder import read_run, start_of, write_end
from tokenwire.run.failure import failed_end
from tokenwire.run.inbox import Inbox
from tokenwire.run.loop import Loop

__all__ = ["Owned", "answers_same", "encode_command"]

_log = logging.getLogger("tokenwire.relay")
_commands = msgspec.json.Decoder(Control | ApprovalAnswer | ToolResult)


def encode_command(command: Control | ApprovalAnswer | ToolResult) -> bytes:
    """A command as the bytes that are left in the log for the owner."""
    return msgspec.json.encode(command)


def answers_same(data: bytes, answer: ApprovalAnswer | ToolResult) -> bool:
    """Whether a command that was left answers the question that ``answer`` does."""
    try:
        left = _commands.decode(data)
    except msgspec.MsgspecError:
        return False
    if isinstance(left, ApprovalAnswer) and isinstance(answer, ApprovalAnswer):
        return left.approval_id == answer.approval_id
    both = isinstance(left, ToolResult) and isinstance(answer, ToolResult)
    return both and left.call_id == answer.call_id


class Owned:
    """One run's task, inbox and producer."""

    def __init__(
        self,
        log: Log,
        loop: Loop,
        inbox: Inbox,
        producer: Producer,
        *,
        ended: Callable[[Owned], None],
        first: list[Event] | None = None,
    ) -> None:
        self.run = producer.run
        self.inbox, self.producer, self.loop = inbox, producer, loop
        self._log, self._first, self._ended = log, first or [], ended
        self._seen_commands = 0
        #: Look for commands at the next tick: nobody has yet, or it failed.
        self.look = True
        self._checking = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsubscribe = log.subscribe(self.run, self._woken, appends=False)
        self.task = asyncio.create_task(self._work(), name=f"run {self.run}")
        # Not in a `finally` of the work: a task that is cancelled before its first turn has none.
        self.task.add_done_callback(self._over)

    @property
    def state(self) -> str:
        """``running`` or ``waiting`` (or the outcome, at the very end)."""
        return self.loop.fold.status

    @property
    def in_tool(self) -> bool:
        """A tool is at work, or its result is on the way to the log."""
        tools = self.loop.fold.tools.values()
        at_work = any(tool.started and not tool.done for tool in tools)
        return not self.task.done() and (at_work or (self.loop.leaving and self.producer.appending))

    async def check_commands(self) -> None:
        """Take the commands that were left for this run."""
        self.look = False
        try:
            found = await self._log.commands(self.run, after=self._seen_commands)
        except TokenwireError as error:
            self.look = True
            _log.warning("commands of run %s could not be read: %s", self.run, error)
            return
        for number, data in found:
            if number <= self._seen_commands:
                continue
            self._seen_commands = number
            try:
                self.inbox.put(_commands.decode(data))
            except (msgspec.DecodeError, msgspec.ValidationError):
                _log.warning("command %d of run %s cannot be read", number, self.run)

    async def stop(self) -> None:
        """End the task without an end of the run: another worker goes on with it."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def _woken(self) -> None:
        if not self._checking:
            self._checking = True
            task = asyncio.ensure_future(self._check_soon())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _check_soon(self) -> None:
        self._checking = False
        await self.check_commands()

    async def _work(self) -> None:
        try:
            if self._first:
                await self.producer.write(self._first)
            async with aclosing(self.loop.batches()) as batches:
                async for batch in batches:
                    await self.producer.write(batch)
        except LimitError as error:
            await self._fail(error)
        except FencedError as error:
            _log.warning("%s; this worker stops", error)
        except LogError as error:
            _log.error("run %s: %s; it stops here", self.run, error)
            if not self._log.shared:  # else another worker goes on with it
                await self._fail(error)
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("run %s failed inside", self.run)
            await self._fail(TokenwireError("the server failed; its log says why"))

    def _over(self, _: asyncio.Task[None]) -> None:
        self._unsubscribe()
        self._ended(self)

    async def _fail(self, error: TokenwireError) -> None:
        """The run's one end, after what its log has: the loop may be ahead of that."""
        try:
            if self.loop.order.seq == self.producer.tail:
                await self.producer.write(self.loop.fail(error))
                self.loop.tell_end(self.loop.fold)
                return
            taken = await read_run(self._log, self.run)
            events = failed_end(taken.order, taken.fold, error)
            start = start_of(self.run, self.loop.plan)
            await write_end(self._log, taken, events, epoch=self.producer.epoch, start=start)
            self.loop.tell_end(taken.fold)
        except LogError as again:
            _log.error("run %s could not be ended: %s", self.run, again)
        except Exception:
            _log.exception("run %s could not be ended", self.run)
