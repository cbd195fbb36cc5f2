"""What becomes of runs after their end: `on_end`, webhooks, and what they used.

Always true: a note of the run is in the store before the run is, so that a process that looks later
knows what the application must hear; the note goes only after the application took it, or with the
run, and meanwhile the run does not expire; a failing call is tried again for a day, then listed as
failed. On a store that outlives its processes the call is made at least once, under the run's id;
on one of this process only, once at best.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from tokenwire.errors import GoneError, LogError, NotFoundError, TokenwireError
from tokenwire.events.fold import Fold
from tokenwire.events.message import Message
from tokenwire.events.model import RunOutcome
from tokenwire.events.principal import parts_of
from tokenwire.exits import guarded_tasks, is_by_signal
from tokenwire.log.base import Store
from tokenwire.observe.facts import EndDelivered
from tokenwire.observe.hooks import report
from tokenwire.relay.conversation.turns import with_history
from tokenwire.relay.description import RunMeta, meta_of
from tokenwire.relay.documents.private import model_input
from tokenwire.relay.push.deliveries import PushDeliveries
from tokenwire.relay.replay import read_run
from tokenwire.relay.spending.settling import Settling
from tokenwire.relay.upkeep.notes import (
    MOST_SECONDS,
    UNMADE_SECONDS,
    Attempts,
    Notes,
    end_check_time,
)
from tokenwire.relay.upkeep.rounds import Rounds
from tokenwire.relay.webhooks.config import Webhooks
from tokenwire.relay.webhooks.deliveries import Deliveries

__all__ = ["EndedRun", "OnEnd", "OnEndAlone", "Outbox", "ended_run"]

_log = logging.getLogger("tokenwire.relay")

_KIND = "on-end"
#: Seconds for which one process may call before another may.
CALL_SECONDS = 60.0


class EndedRun(msgspec.Struct, kw_only=True):
    """A run that has ended: what an application stores. ``run``: its id; ``outcome`` and
    ``reason``: how and why it ended; ``message``: the folded answer, ``messages``: the same with
    the results of tools; ``input``: the conversation before, ``model_input``: what a preparation
    made of that for the model (the same without one); ``usage``: tokens by kind,
    ``usage_unknown``: it used more, or may have; ``model``: that was asked for; ``thread``,
    ``principal`` and ``metadata``: of the start; ``error``: its code and message, None without
    one."""

    run: str
    outcome: RunOutcome
    reason: str | None
    message: Message
    messages: list[Message]
    input: list[Message]
    model_input: list[Message]
    usage: dict[str, int]
    model: str
    thread: str | None = None
    principal: str = ""
    metadata: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    usage_unknown: bool = False

    @property
    def user(self) -> str:
        """The plain id of the principal who started it, without its tenant."""
        return parts_of(self.principal)[0]

    @property
    def tenant(self) -> str | None:
        """The tenant of the principal; None without one."""
        return parts_of(self.principal)[1]


OnEndAlone = Callable[[EndedRun], Awaitable[None] | None]
#: ``on_end(run)``; or ``on_end(run, connection)``, in the transaction that ends the run.
OnEnd = OnEndAlone | Callable[[EndedRun, Any], Awaitable[None]]


class _Note(Attempts, kw_only=True, omit_defaults=True):
    """What the store keeps for one run until its end was told; `Noted`."""

    since: float
    ends: float = 0.0
    #: Chosen by who calls: of two processes that write equal bytes, both would.
    claim: str = ""


class Outbox:
    """What one process says about runs: calls of ``on_end``, and ``webhooks``; with ``settling``
    it counts what they used; with ``push`` it tells who wants to hear of one of them. Every process
    of a store must have the same."""

    def __init__(
        self,
        store: Store,
        on_end: OnEndAlone | None = None,
        webhooks: Webhooks | None = None,
        settling: Settling | None = None,
        push: PushDeliveries | None = None,
    ) -> None:
        self._ends = _Ends(store, on_end) if on_end is not None else None
        self._deliveries = Deliveries(store, webhooks) if webhooks is not None else None
        self._settling, self._push = settling, push

    @property
    def _parts(self) -> list[_Ends | Deliveries | Settling | PushDeliveries]:
        parts = (self._ends, self._deliveries, self._settling, self._push)
        return [part for part in parts if part is not None]

    def open(self) -> None:
        """Begin to call."""
        for part in self._parts:
            part.open()

    async def aclose(self) -> None:
        """Stop; what is left to say is said by the next process."""
        for part in self._parts:
            await part.aclose()

    async def expect(self, run: str) -> bool:
        """Note a run that is about to be created; False when there is a note of it already."""
        return any([await part.expect(run) for part in self._parts])

    async def forget(self, run: str) -> None:
        """The run was deleted, or never was."""
        for part in self._parts:
            await part.forget(run)

    async def erasing(self, run: str) -> None:
        """The run is about to be erased: nobody hears of it, and what it used stays counted."""
        if self._settling is not None:
            await self._settling.erasing(run)
        await self.forget(run)

    async def ending(self, run: str) -> None:
        """The end of a run of this process is about to be written. Fails in silence: others then
        find the end by the run's age."""
        try:
            await asyncio.gather(*(part.ending(run) for part in self._parts))
        except LogError as error:
            _log.warning("the end of run %s could not be marked: %s", run, error)

    def ended(self, run: str) -> None:
        """A run of this process is over: look at it now."""
        for part in self._parts:
            part.ended(run)

    def waits(self, run: str, fold: Fold) -> None:
        """What a run of this process waits for has changed."""
        if self._deliveries is not None:
            self._deliveries.waits(run, fold)
        if self._push is not None:
            self._push.waits(run, fold)

    async def undelivered(self, runs: list[str]) -> set[str]:
        """Those of ``runs`` of which something is still to be said: the retention waits for it."""
        names: set[str] = set()
        for part in self._parts:
            names |= await part.undelivered(runs)
        return names

    async def drop(self, runs: list[str]) -> None:
        """The runs are gone, and with them what could not be said of them."""
        for part in self._parts:
            await part.drop(runs)

    async def failed(self) -> dict[str, str]:
        """Runs of which a call failed for a day, with the last error."""
        failed: dict[str, str] = {}
        for part in self._parts:
            for run, error in (await part.failed()).items():
                failed[run] = f"{failed[run]}; {error}" if run in failed else error
        return failed


class _Ends:
    """The calls of ``on_end``."""

    def __init__(self, store: Store, on_end: OnEndAlone) -> None:
        self._store, self._on_end = store, on_end
        self._notes = Notes(store, _KIND, _due)
        self._rounds = Rounds(
            "ends of runs could not be delivered", self._look_at_all, self._notes.due
        )

    def open(self) -> None:
        """Begin to tell."""
        self._rounds.open("outbox")

    async def aclose(self) -> None:
        """Stop; what is not told yet is told by the next process."""
        await self._rounds.aclose()

    async def expect(self, run: str) -> bool:
        """Note a run that is about to be created; False when there is a note of it already."""
        return await self._notes.expect(run, msgspec.json.encode(_Note(since=time.time())))

    async def forget(self, run: str) -> None:
        """The run was deleted, or never was."""
        await self._notes.forget(run)

    async def undelivered(self, runs: list[str]) -> set[str]:
        """Those of ``runs`` whose end is still to be told: the retention waits for them."""
        notes = await self._notes.of(runs)
        return {run for run, data in notes.items() if not _decoded(data).is_failed}

    async def drop(self, runs: list[str]) -> None:
        """Forget undelivered ends of runs that were erased."""
        await asyncio.gather(*(self.forget(run) for run in await self._notes.of(runs)))

    async def ending(self, run: str) -> None:
        """The end of a run of this process is about to be written."""
        await self._notes.mark(run, _decoded)

    def ended(self, run: str) -> None:
        """A run of this process is over: look at it now."""
        self._rounds.soon(run)

    async def failed(self) -> dict[str, str]:
        """Runs whose end could not be delivered for a day, with the last error."""
        decoded = {run: _decoded(data) for run, data in (await self._notes.all()).items()}
        return {run: note.error or "" for run, note in decoded.items() if note.is_failed}

    async def _look_at_all(self, runs: Iterable[str]) -> None:
        left = set(runs)
        try:
            for run in tuple(left):
                await self._look_at(run)
                left.discard(run)
        finally:
            for run in left:  # the store failed
                self._notes.retry(run)

    async def _look_at(self, run: str) -> None:
        data = await self._notes.get(run)
        if data is None:
            return self._notes.reschedule(run, None, 0.0)
        note = _decoded(data)
        since = max(note.since, note.ends)
        return self._notes.reschedule(run, await self._deliver_if_due(run, data), since)

    async def _deliver_if_due(self, run: str, data: bytes) -> bytes | None:
        """Call the application where it is time; the note as it is then."""
        note, now = _decoded(data), time.time()
        if note.is_failed or now < note.until:
            return data
        try:
            info = await self._store.describe(run)
        except (NotFoundError, GoneError):
            if now > note.since + UNMADE_SECONDS:
                await self.forget(run)
                return None
            return data
        if info.closed is None:
            return data
        note.begin(now, CALL_SECONDS)
        note.claim = secrets.token_hex(8)
        mine = msgspec.json.encode(note)
        if await self._notes.swap(run, data, mine):
            return await self._deliver(run, meta_of(info), note, mine)
        return data

    async def _deliver(self, run: str, meta: RunMeta, note: _Note, mine: bytes) -> bytes | None:
        """Call the application; returns the note, which says what became of it."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                ended = await self._read(run, meta)
                with guarded_tasks(_task_exited):
                    if inspect.iscoroutinefunction(self._on_end):
                        await self._on_end(ended)
                    else:
                        result = await asyncio.to_thread(self._on_end, ended)
                        if inspect.isawaitable(result):
                            await result
        except BaseException as error:  # whatever it raises, other runs' ends are still told
            if _is_ours(error):
                raise
            safe = isinstance(error, TokenwireError)
            text = str(error) if safe else type(error).__name__
            note.fail(time.time(), text, most=MOST_SECONDS)
            _log.warning("on_end of run %s failed (try %d)", run, note.tries, exc_info=error)
            failed = msgspec.json.encode(note)
            await self._notes.swap(run, mine, failed)
            report(EndDelivered(run, "failed" if note.is_failed else "retry"))
            return failed
        else:
            await self._notes.swap(run, mine, None)
            report(EndDelivered(run, "ok"))
            return None

    async def _read(self, run: str, meta: RunMeta) -> EndedRun:
        return await ended_run(self._store, run, meta, (await read_run(self._store, run)).fold)


async def ended_run(store: Store, run: str, meta: RunMeta, fold: Fold) -> EndedRun:
    """What an application hears of ``run``, whose events are in ``fold``. Raises `LogError`."""
    meta = await with_history(store, run, meta)
    return EndedRun(
        run=run,
        outcome=fold.outcome or "interrupted",
        reason=fold.end_reason,
        message=fold.message(),
        messages=fold.history(),
        input=meta.request.messages,
        model_input=await model_input(store, run, meta),
        usage=fold.usage,
        model=meta.model,
        thread=meta.thread,
        principal=meta.principal,
        metadata=meta.metadata,
        error=fold.error,
        usage_unknown=fold.usage_unknown,
    )


def _decoded(data: bytes) -> _Note:
    return msgspec.json.decode(data, type=_Note)


def _due(data: bytes) -> float | None:
    note = _decoded(data)
    if note.is_failed:
        return float("inf")
    return note.until if note.tries else end_check_time(note)


def _is_ours(error: BaseException) -> bool:
    """Whether an exception ends this task, and is none of the application's function."""
    task = asyncio.current_task()
    is_cancel = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling()
    return bool(is_cancel) or isinstance(error, GeneratorExit) or is_by_signal(error)


def _task_exited(error: BaseException) -> BaseException:
    _log.error("a task that on_end created raised %s", type(error).__name__, exc_info=error)
    return RuntimeError(f"a task that on_end created raised {type(error).__name__}")
