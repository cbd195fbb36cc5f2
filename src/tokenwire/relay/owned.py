"""A run that this process owns: its loop writes into its log until the end, a stop, or a loss.

Always true: a command in the mailbox reaches the loop, whichever process sent it; when another
worker has taken the run over, the provider's connection is closed and nothing more is written; a
run that fails here and that no other worker can resume ends all the same.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Coroutine
from typing import Protocol

from tokenwire.errors import (
    FencedError,
    GoneError,
    LimitError,
    LogError,
    NotFoundError,
    StoreFullError,
    TokenwireError,
)
from tokenwire.events.fold import Fold
from tokenwire.events.model import ApprovalAnswer, Control, Event, RunStatus
from tokenwire.log.base import Store
from tokenwire.observe.facts import RunLeft
from tokenwire.observe.hooks import report
from tokenwire.relay.commands import (
    decode_command,
    encode_command,
    expiry,
    is_expiry,
    is_late,
)
from tokenwire.relay.produce.contract import OnEndError, ProducerLimits
from tokenwire.relay.produce.producer import Producer
from tokenwire.relay.replay import read_run
from tokenwire.relay.takeover.ladder import failure, start_of, write_end
from tokenwire.relay.waiting.index import RunWaits, WaitingIndex
from tokenwire.run.engine import Engine
from tokenwire.run.inbox import Inbox
from tokenwire.run.plan import Plan

__all__ = ["OwnMailbox", "OwnedRun", "Owner"]

_log = logging.getLogger("tokenwire.relay")

#: Seconds within which the loop has made something of a command.
_TURN_SECONDS = 5.0


class Owner(Protocol):
    """Who has the run, and hears what becomes of it."""

    #: What waits for people.
    waiting: WaitingIndex

    async def command(self, run: str, command: ApprovalAnswer) -> None:
        """Send it a command in the order of its mailbox. Raises `LogError`."""
        ...

    def ended(self, owned: OwnedRun) -> None:
        """Its work is over."""
        ...

    def failed(self, run: str, error: Exception) -> None:
        """It failed without an end in its log."""
        ...

    def waits_changed(self, plan: Plan, fold: Fold) -> None:
        """What it waits for is another."""
        ...


def _nothing() -> None:
    """There is no subscription any more."""


class OwnMailbox:
    """Where a run sends commands to itself. (A function of the two would take four times as much of
    each run.)"""

    __slots__ = ("_owner", "_run")

    def __init__(self, owner: Owner, run: str) -> None:
        self._owner, self._run = owner, run

    async def __call__(self, command: ApprovalAnswer) -> None:
        await self._owner.command(self._run, command)


class OwnedRun:
    """One run's task, inbox and producer."""

    __slots__ = (
        "_checking",
        "_delivered",
        "_first",
        "_is_new",
        "_listed_changes",
        "_listing",
        "_owner",
        "_pending",
        "_seen_commands",
        "_store",
        "_tasks",
        "_unsubscribe",
        "_waiting_since",
        "has_expired",
        "inbox",
        "look",
        "loop",
        "producer",
        "run",
        "task",
    )

    def __init__(
        self,
        store: Store,
        loop: Engine,
        inbox: Inbox,
        producer: Producer,
        owner: Owner,
        *,
        is_new: bool = True,
        first: list[Event] | None = None,
    ) -> None:
        self.run = producer.run
        self.inbox, self.producer, self.loop = inbox, producer, loop
        self._store, self._owner, self._is_new = store, owner, is_new
        #: What is written before what the loop says.
        self._first = first
        #: The index of what waits for people, as far as it is this run's.
        self._listing: RunWaits | None = None
        self._listed_changes = 0
        self._seen_commands = 0
        #: What the run waits for, and since when, as last seen by `waits_since`.
        self._pending: list[str] | None = None
        self._waiting_since = 0.0
        #: Read the mailbox at the next tick: it was never read, or reading it failed.
        self.look = True
        #: The mailbox says that the wait was too long: the run is to end, whatever follows.
        self.has_expired = False
        #: Monotonic seconds at which the loop was given a command last.
        self._delivered = -math.inf
        self._checking = False
        self._tasks: set[asyncio.Task[None]] | None = None
        self._unsubscribe = store.subscribe(self.run, self._woken, appends=False)
        self.task = asyncio.create_task(self._work(), name=f"run {self.run}")
        # Not in a `finally` of the work: a task that is cancelled before its first turn has none.
        self.task.add_done_callback(self._over)

    @property
    def state(self) -> RunStatus:
        """``running`` or ``waiting`` (or the outcome, at the very end)."""
        return self.loop.fold.status

    @property
    def in_tool(self) -> bool:
        """A tool or a turn of a framework is running, or its result is being appended."""
        tools, steps = self.loop.fold.tools.values(), self.loop.fold.steps
        at_work = any(tool.started and not tool.done for tool in tools)
        at_work = at_work or (self.loop.in_turn and not self.loop.fold.waiting)
        at_work = at_work or any(s.kind == "task" and s.status == "open" for s in steps)
        return not self.task.done() and (at_work or (self.loop.leaving and self.producer.appending))

    def waits_since(self, since: float | None = None) -> float | None:
        """Unix seconds at which the run began to wait for what it waits for now, as first seen
        here, or as ``since`` says; None while it does not wait."""
        pending = self.loop.fold.waiting
        if not pending:
            self._pending = None
            return None
        if self._pending is not pending:
            self._pending = pending
            self._waiting_since = since or time.time()
        return self._waiting_since

    async def check_commands(self) -> bool:
        """Deliver new commands from the mailbox to the loop; whether there were any."""
        self.look = False
        try:
            commands = await self._store.commands(self.run, after=self._seen_commands)
        except TokenwireError as error:
            self.look = True
            _log.warning("commands of run %s could not be read: %s", self.run, error)
            return False
        return self.deliver(commands)

    @property
    def seen_commands(self) -> int:
        """The number of the last command that was delivered."""
        return self._seen_commands

    def deliver(self, commands: list[tuple[int, bytes]]) -> bool:
        """Deliver those of ``commands``, from the mailbox, that are new; whether there were any."""
        first = self._seen_commands
        for number, data in commands:
            if number <= self._seen_commands:
                continue
            before, self._seen_commands = self._seen_commands, number
            command = decode_command(data)
            if command is None:
                _log.warning("command %d of run %s cannot be read", number, self.run)
            elif is_expiry(command):
                self.has_expired = self.has_expired or not is_late(command, before)
            elif not self.has_expired:  # who sent it is told that it came too late
                self.inbox.put(command)
                self._delivered = time.monotonic()
        return self._seen_commands > first

    async def expire(self) -> bool:
        """Whether the run's wait has ended, by its mailbox: this puts the end into it unless it is
        there, or a command was delivered that may not have had its turn. Raises `LogError`."""
        if not self.has_expired:
            await self.check_commands()
            is_quiet = time.monotonic() > self._delivered + _TURN_SECONDS
            if self.task.done() or self.waits_since() is None or not is_quiet:
                return self.has_expired
            if not self.has_expired:
                # Whatever comes before it from now on, it then has no effect.
                end = expiry(self._seen_commands)
                await self._store.command(self.run, encode_command(end))
                await self.check_commands()
        return self.has_expired

    def cancel_soon(self, order: Control) -> None:
        """Cancel the run, in the order of its mailbox; where the store does not take it, at
        once."""
        self._spawn(self._cancel(order))

    async def _cancel(self, order: Control) -> None:
        try:
            # Of another process by now: that one has its own readers, and may miss none.
            if (await self._store.describe(self.run)).epoch != self.producer.epoch:
                return
            await self._store.command(self.run, encode_command(order))
        except TokenwireError:
            self.inbox.put(order)
        else:
            await self.check_commands()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        tasks = self._tasks = set() if self._tasks is None else self._tasks
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def stop(self) -> None:
        """End the task without ending the run: another worker may resume it."""
        self.task.cancel()
        await asyncio.wait([self.task])

    def _woken(self) -> None:
        if not self._checking:
            self._checking = True
            self._spawn(self._check_soon())

    def write_again(self) -> None:
        """The store has lost the log, and put it back without its records."""
        self._spawn(self._refill())

    async def _refill(self) -> None:
        try:
            await self.producer.refill()
        except FencedError:
            self.task.cancel()
        except TokenwireError as error:  # the run's task meets it, at its next append
            _log.info("run %s was not written again: %s", self.run, error)

    def write_stuck(self) -> None:
        """Repeat an append that failed, where the run has nothing more to say by itself: its
        provider may be silent for a minute, and readers are to have all that it said."""
        if self.producer.is_stuck:
            self.loop.make_up()  # what the lane has appended by hand is the producer's again
            self._spawn(self._write_stuck())

    async def _write_stuck(self) -> None:
        if self.task.done() or not self.producer.is_stuck:
            return
        try:
            await self.producer.repeat()
        except FencedError:
            self.task.cancel()  # its provider may be silent, and its tool at work, for long
        except TokenwireError as error:  # the run's task meets it, at its next append
            _log.info("run %s: an append that failed fails again: %s", self.run, error)

    async def _check_soon(self) -> None:
        self._checking = False
        await self.check_commands()

    async def _work(self) -> None:
        try:
            if self._first:
                await self.producer.write(self._first)
            # Of a run of another worker nobody knows what that one had told.
            waiting, fold = self._report_waits([] if self._is_new else None), self.loop.fold
            await self.list_waits()
            batches = self.loop.batches()
            try:
                async for batch in batches:
                    if fold.approval_changes == self._listed_changes:
                        await self.producer.put(batch)
                    else:
                        await self._write_listed(batch)
                    waiting = self._report_waits(waiting)
            finally:
                await batches.aclose()
        except (LimitError, OnEndError) as error:
            await self._fail(error)
        except FencedError:
            self._report_fenced()
        except (NotFoundError, GoneError):
            # By another process: the one that deleted it tells of it.
            _log.info("run %s was erased; this worker stops it", self.run)
            self._report_left("erased")
        except LogError as error:
            _log.error("run %s: %s; this worker stops it", self.run, error)
            # A store that others share may be there for them; one that is full is so for all.
            if not self._store.shared or isinstance(error, StoreFullError):
                await self._fail(error)
            else:  # another worker may resume it; who reads it here need not wait for that
                self._owner.failed(self.run, error)
                self._report_left("store")
        except asyncio.CancelledError:
            if self.producer.is_fenced:
                self._report_fenced()
            raise
        except Exception:
            _log.exception("run %s failed inside", self.run)
            await self._fail(TokenwireError("the server failed; see its log"))

    @property
    def is_unlisted(self) -> bool:
        """Whether the index of what waits for people is behind the log."""
        fold = self.loop.fold
        if not fold.approval_changes or self.producer.tail < fold.seq:
            return False
        return self._listing is None or self._listing.is_behind(fold)

    async def list_waits(self) -> None:
        """Bring the index of what waits for people up to date; it never fails."""
        listing = self._made_listing()
        if listing is not None and self.is_unlisted:
            await listing.settle(self.loop.fold)

    def _made_listing(self) -> RunWaits | None:
        if self._listing is None and self.loop.fold.approval_changes:
            index = self._owner.waiting
            self._listing = RunWaits(index, self._store, self.run, is_new=self._is_new)
        return self._listing

    async def _write_listed(self, batch: list[Event]) -> None:
        """Write a batch that asks a person, or settles what was asked."""
        listing, fold = self._made_listing(), self.loop.fold
        self._listed_changes = fold.approval_changes
        if listing is not None:
            await listing.announce(fold)
        await self.producer.write(batch)
        await self.list_waits()

    def _report_waits(self, before: list[str] | None) -> list[str]:
        """Report what the run waits for, if it is another than ``before``."""
        waiting = self.loop.fold.waiting
        if waiting != before:
            self._owner.waits_changed(self.loop.plan, self.loop.fold)
        return waiting

    def _report_left(self, why: str) -> None:
        """Report that this process works no more at the run, which has not ended."""
        report(RunLeft(self.run, why, self.producer.epoch))

    def _report_fenced(self) -> None:
        _log.warning("run %s was taken over by another worker; this worker stops", self.run)
        self._report_left("fenced")

    def _over(self, _: asyncio.Task[None]) -> None:
        unsubscribe, self._unsubscribe = self._unsubscribe, _nothing  # it has this run
        unsubscribe()
        if self.loop.plan.allowance is not None:
            self.loop.plan.allowance.close()
        self._owner.ended(self)

    async def _fail(self, error: TokenwireError) -> None:
        """End the run after the last record of its log, which the loop may be ahead of."""
        # The store was given its time; what does not take the end at once, does not take it.
        limits = ProducerLimits(store_timeout=0.0) if isinstance(error, LogError) else None
        try:
            if limits is None and self.loop.order.seq == self.producer.tail:
                await self.producer.write(self.loop.fail(error))
                self.loop.report_end(self.loop.fold)
                await self.list_waits()
                return
            replay = await write_end(
                self._store,
                await read_run(self._store, self.run),
                failure(error),
                epoch=self.producer.epoch,
                start=start_of(self.run, self.loop.plan),
                limits=limits,
                ending=self.producer.ending,
            )
            self.loop.report_end(replay.fold)
            if replay.fold.approvals:
                listing = RunWaits(self._owner.waiting, self._store, self.run, is_new=False)
                await listing.settle(replay.fold)
        except LogError as end_error:
            _log.error("run %s could not be ended: %s", self.run, end_error)
            self._owner.failed(self.run, error)
            self._report_left("fenced" if isinstance(end_error, FencedError) else "store")
        except Exception:
            _log.exception("run %s could not be ended", self.run)
            self._owner.failed(self.run, error)
            self._report_left("store")
