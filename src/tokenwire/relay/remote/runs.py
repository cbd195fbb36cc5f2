"""Runs that a worker outside of the server writes: start, append, renew, finish, claim.

Always true: such a run belongs to the producer that holds its lease; an append is written whole or
not at all, and the same append again changes nothing; only events that every reader can follow are
written; a cancelled run's lease is not renewed, so that it ends however its producer behaves; a run
whose lease has run out never ends as ``complete``.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import OrderedDict
from weakref import WeakValueDictionary

import msgspec

from tokenwire.errors import InputError, LogLimitError, OrderError, TokenwireError
from tokenwire.events.model import Control, Event, RunEnd, StepStatus
from tokenwire.events.order import closing
from tokenwire.log.base import Inside, LogInfo
from tokenwire.observe import tracing
from tokenwire.observe.endings import run_ended
from tokenwire.observe.hooks import report
from tokenwire.relay.commands import is_cancel
from tokenwire.relay.description import RunMeta, checked_meta, meta_of, scope_of_run
from tokenwire.relay.produce.contract import LastAppend, OnEndError, ProducerLimits
from tokenwire.relay.record import Chain
from tokenwire.relay.remote.checks import (
    at_index,
    checked_events,
    is_same,
    not_as_received,
    refusal,
)
from tokenwire.relay.remote.state import Finish, RemoteState
from tokenwire.relay.replay import Replay, read_run
from tokenwire.relay.runs import Runs
from tokenwire.relay.starts.start import scoped
from tokenwire.relay.takeover.ladder import claim_of, failure, start_of, write_end
from tokenwire.relay.waiting.index import RunWaits

__all__ = ["RemoteRuns"]

#: Runs whose state stays at hand between two appends.
_MOST_KEPT = 64
#: Looks at the log, when another append comes between.
_TRIES = 5


class _Progress(msgspec.Struct):
    """A run's state after its record ``tail``; ``replay`` has the last record only."""

    replay: Replay
    tail: int
    size: int
    #: What of it waits for people, in the index.
    listing: RunWaits


class RemoteRuns:
    """The runs of ``runs`` that producers outside write. ``limits``: the bounds of a log.

    Methods raise `NotFoundError` for an unknown run and another principal's, `ConflictError` with
    ``details['reason']`` for what the state of the run does not allow, `LogError`."""

    def __init__(self, runs: Runs, limits: ProducerLimits | None = None) -> None:
        self._runs, self._store = runs, runs.store
        self._limits = limits or ProducerLimits()
        self._cache: OrderedDict[str, _Progress] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- whose it is ---------------------------------------------------------------------------

    async def start(
        self, run: str, meta: RunMeta, *, lease: float, key: str | None
    ) -> tuple[RemoteState, bool]:
        """Create a run whose producer holds its lease for ``lease`` seconds, or describe the one
        that ``key`` names; and whether it is new. Raises as `Runs.start`."""
        starts, worker = self._runs.starts, self._runs.worker
        meta = await starts.placed(meta)
        signature = starts.checked(run, meta)
        meta.agent = None
        async with starts.once(meta.principal, key):
            name = scoped(meta.principal, key)
            existing = await self._store.named(name) if name is not None else None
            if existing is None:
                meta = await starts.reviewed(run, meta, key)
                meta.agent = None
                checked_meta(meta)
            meta.nonce, meta.trace = secrets.token_hex(8), tracing.above()
            encoded = msgspec.json.encode(meta)
            outbox = worker.outbox
            is_noted = existing is None and outbox is not None and await outbox.expect(run)
            try:
                info = await self._store.create(
                    run,
                    owner=f"producer-{secrets.token_hex(8)}",
                    meta=encoded,
                    thread=scope_of_run(meta),
                    key=name,
                    key_hash=hashlib.sha256(f"remote {signature}".encode()).hexdigest(),
                    lease=lease,
                    shared=True,
                )
            except TokenwireError:
                if is_noted and outbox is not None:
                    await outbox.forget(run)
                raise
        is_new = info.meta == encoded
        if not is_new and is_noted and outbox is not None and info.log != run:
            await outbox.forget(run)
        async with self._lock(info.log):
            await self._load(info)  # writes the first record
        if is_new:
            self._tell(info.log, meta)
        return await self.state(info.log, principal=meta.principal), is_new

    async def state(
        self, run: str, *, principal: str = "", epoch: int | None = None
    ) -> RemoteState:
        """The run as its producer sees it, which is that of ``epoch``, if one is given."""
        info, _ = await self._described(run, principal)
        if epoch is not None:
            _check_epoch(info, epoch)
        return await self._state(info)

    async def renew(
        self, run: str, *, epoch: int, lease: float, principal: str = ""
    ) -> RemoteState:
        """Hold the lease for ``lease`` seconds more, unless the run is cancelled."""
        info, _ = await self._described(run, principal)
        _check_epoch(info, epoch)
        if info.closed is None and not await self._is_cancelled(run):
            losses = await self._store.renew({run: epoch}, owner=info.owner, lease=lease)
            if losses:
                info, _ = await self._described(run, principal)
                _check_epoch(info, epoch)
                if info.closed is None:
                    raise refusal("fenced", "the lease of this run is lost", epoch=info.epoch)
        info, _ = await self._described(run, principal)
        return await self._state(info)

    async def claim(
        self, run: str, *, epoch: int | None, lease: float, principal: str = ""
    ) -> RemoteState:
        """Become the run's producer, with a new epoch: when its lease has run out, or at once in
        place of the producer of ``epoch``."""
        info, _ = await self._described(run, principal)
        if info.closed is not None:
            raise _closed(info)
        if await self._is_cancelled(run):
            raise refusal("cancelled", "this run is cancelled; nobody may take it over")
        if epoch is not None:
            _check_epoch(info, epoch)
            await self._store.release(run, epoch=epoch)
        owner = f"producer-{secrets.token_hex(8)}"
        claim = await self._store.claim(run, owner=owner, lease=lease)
        if claim is None:
            info, _ = await self._described(run, principal)
            remaining = max(0.0, info.lease_until - time.time())
            raise refusal(
                "leased", "another producer holds this run", epoch=info.epoch, retry_after=remaining
            )
        async with self._lock(run):
            is_written = False
            while not is_written:
                info, _ = await self._described(run, principal)
                _check_epoch(info, claim.epoch)
                if info.closed is not None:
                    raise _closed(info)
                progress = await self._load(info)
                event = claim_of(progress.replay, "producer", claim.epoch)
                is_written = await self._write(info, progress, [event])
        return await self.state(run, principal=principal)

    # --- what it writes ------------------------------------------------------------------------

    async def append(
        self,
        run: str,
        *,
        epoch: int,
        first: int,
        values: list[dict[str, object]],
        principal: str = "",
    ) -> RemoteState:
        """Append events, which are JSON objects, at offset ``first``. Raises `InputError` that
        names an event by its index; nothing of the append is written then."""
        events = checked_events(values)
        async with self._lock(run):
            for _ in range(_TRIES):
                info, meta = await self._described(run, principal)
                overlap = await self._overlap(info, epoch, first, events)
                if overlap == len(events):
                    return await self._state(info, duplicate=True)
                if info.closed is not None:
                    raise _closed(info)
                rest = checked_events(values)[overlap:]
                await self._check_received(run, rest, overlap)
                progress = await self._load(info)
                if progress.tail != first - 1 + overlap:
                    continue  # another append came between
                self._check_room(progress, rest)
                self._apply(run, progress, rest, overlap)
                if await self._write(info, progress, rest, applied=True):
                    self._report_end(info, meta, progress)
                    info, _ = await self._described(run, principal)
                    return await self._state(info)
        raise refusal("conflict", "other appends come between; try again")

    async def finish(
        self, run: str, finish: Finish, *, epoch: int, first: int, principal: str = ""
    ) -> RemoteState:
        """End what is open, then the run; the same end again changes nothing."""
        async with self._lock(run):
            for _ in range(_TRIES):
                info, meta = await self._described(run, principal)
                _check_epoch(info, epoch)
                if info.closed is not None:
                    if info.closed != finish.outcome or first > info.tail:
                        raise _closed(info)
                    return await self._state(info, duplicate=True)
                if first != info.tail + 1:
                    raise _place(info, first)
                progress = await self._load(info)
                if progress.tail != info.tail:
                    continue
                events = _end(progress.replay, finish)
                self._apply(run, progress, events, 0)
                if await self._write(info, progress, events, applied=True):
                    self._report_end(info, meta, progress)
                    info, _ = await self._described(run, principal)
                    return await self._state(info)
        raise refusal("conflict", "other appends come between; try again")

    # --- inside --------------------------------------------------------------------------------

    def _lock(self, run: str) -> asyncio.Lock:
        return self._locks.setdefault(run, asyncio.Lock())

    async def _described(self, run: str, principal: str) -> tuple[LogInfo, RunMeta]:
        info, meta = await self._runs.described(run, principal=principal)
        if meta.remote is None:
            raise refusal("not_remote", "this run has no producer outside of the server")
        return info, meta

    async def _state(self, info: LogInfo, *, duplicate: bool = False) -> RemoteState:
        is_open = info.closed is None
        return RemoteState(
            run=info.log,
            epoch=info.epoch,
            next=info.tail + 1,
            state=info.closed or "running",
            lease=max(0.0, info.lease_until - time.time()) if is_open else 0.0,
            cancelled=await self._is_cancelled(info.log),
            duplicate=duplicate,
        )

    async def _is_cancelled(self, run: str) -> bool:
        return any(is_cancel(data) for _, data in await self._store.commands(run))

    async def _overlap(self, info: LogInfo, epoch: int, first: int, events: list[Event]) -> int:
        """How many of ``events`` the log has already."""
        _check_epoch(info, epoch)
        if first > info.tail + 1:
            raise _place(info, first)
        most = min(len(events), info.tail + 1 - first)
        count = 0
        while count < most:
            page = await self._store.read(info.log, after=first - 1 + count, most=most - count)
            if not page.records:
                raise _place(msgspec.structs.replace(info, tail=first - 1 + count), first + most)
            for record in page.records:
                if not is_same(events[count], record):
                    raise refusal(
                        "conflict",
                        f"event {first + count} of this run is another one",
                        next=info.tail + 1,
                        epoch=info.epoch,
                    )
                count += 1
        return count

    async def _check_received(self, run: str, events: list[Event], skipped: int) -> None:
        mailbox = [data for _, data in await self._store.commands(run)]
        index = not_as_received(events, mailbox)
        if index is not None:
            kind = events[index].type
            raise at_index(skipped + index, f"no such '{kind}' was sent to this run")

    def _check_room(self, progress: _Progress, events: list[Event]) -> None:
        if isinstance(events[-1], RunEnd):
            return
        is_full = (
            progress.tail + len(events) > self._limits.records or progress.size > self._limits.bytes
        )
        if is_full:
            raise LogLimitError(
                f"the run's log is full ({self._limits.records} events or "
                f"{self._limits.bytes} bytes); only its end may follow",
                limit="log_limit",
                most=self._limits.bytes,
            )

    def _apply(self, run: str, progress: _Progress, events: list[Event], skipped: int) -> None:
        """Bring the state after ``events``. What fails leaves none: it is read anew."""
        self._cache.pop(run, None)
        now = progress.replay.now()
        for index, event in enumerate(events):
            event.t = now
            try:
                progress.replay.apply(event)
            except (OrderError, InputError) as error:
                raise at_index(skipped + index, error.message) from error

    async def _load(self, info: LogInfo) -> _Progress:
        """The state after the log's last record, with its first one if there was none."""
        run = info.log
        progress = self._cache.get(run)
        if progress is not None and progress.tail == info.tail:
            # A failover may have lost the record that was there, and another have come instead.
            page = await self._store.read(run, after=info.tail - 1, most=1, fresh=True)
            if page.records == progress.replay.records:
                self._cache.move_to_end(run)
                return progress
        self._cache.pop(run, None)
        replay = await read_run(self._store, run)
        listing = RunWaits(self._runs.worker.waiting, self._store, run, is_new=False)
        size = sum(map(len, replay.records))
        progress = _Progress(replay, len(replay.records), size, listing)
        replay.records = replay.records[-1:]
        if progress.tail == 0:
            start = start_of(run, meta_of(info))
            if not await self._write(info, progress, [start]):
                return await self._load(await self._store.describe(run))
        return progress

    async def _write(
        self, info: LogInfo, progress: _Progress, events: list[Event], *, applied: bool = False
    ) -> bool:
        """Append ``events`` to the log. False when other records are there: read it anew."""
        run = info.log
        self._cache.pop(run, None)
        if not applied:
            self._apply(run, progress, events, 0)
        end, together = events[-1], self._runs.worker.closing
        close = end.outcome if isinstance(end, RunEnd) else None
        inside: Inside | None = None
        if isinstance(end, RunEnd) and together is not None:
            if len(events) > 1:  # what the application is to see of the run
                if not await self._write(info, progress, events[:-1], applied=True):
                    return False
                events = [end]
                self._cache.pop(run, None)
            inside = await together.prepare(run, end)
        last = progress.replay.records[-1][:16] if progress.replay.records else None
        records = Chain(run, last).seal_all(events)
        await progress.listing.announce(progress.replay.fold)
        try:
            epoch, first = info.epoch, progress.tail + 1
            if inside is not None and together is not None:
                last_append = LastAppend(run, epoch, first, records, close, inside)
                appended = await together.append(last_append)
            else:
                appended = await self._store.append(
                    run, epoch=epoch, first=first, records=records, close=close, durable=True
                )
        except OnEndError as error:
            replay = await read_run(self._store, run)
            start = start_of(run, meta_of(info))
            await write_end(self._store, replay, failure(error), epoch=info.epoch, start=start)
            raise
        if appended.status == "fenced":
            raise refusal("fenced", "another producer has this run now", epoch=appended.epoch)
        if appended.status not in ("ok", "duplicate"):
            return False
        progress.tail += len(records)
        progress.size += sum(map(len, records))
        progress.replay.records = records[-1:]
        await progress.listing.settle(progress.replay.fold)
        if close is None:
            self._cache[run] = progress
            while len(self._cache) > _MOST_KEPT:
                self._cache.popitem(last=False)
        return True

    def _report_end(self, info: LogInfo, meta: RunMeta, progress: _Progress) -> None:
        fold = progress.replay.fold
        if fold.outcome is None:
            return
        seconds, trace = _age(info), meta.trace
        report(run_ended(info.log, meta.model, fold, seconds, thread=meta.thread, trace=trace))
        if self._runs.outbox is not None:
            self._runs.outbox.ended(info.log)
        self._tell(info.log, meta)

    def _tell(self, run: str, meta: RunMeta) -> None:
        """The run's conversation hears what has become of it."""
        if (scope := scope_of_run(meta)) is not None:
            self._runs.worker.feeds.announce_run(scope, run)


def _age(info: LogInfo) -> float:
    return max(0.0, time.time() - info.created)


def _check_epoch(info: LogInfo, epoch: int) -> None:
    if epoch != info.epoch:
        raise refusal(
            "fenced", f"the epoch of this run is {info.epoch}, not {epoch}", epoch=info.epoch
        )


def _closed(info: LogInfo) -> TokenwireError:
    return refusal("closed", f"this run has ended as {info.closed}", next=info.tail + 1)


def _place(info: LogInfo, first: int) -> TokenwireError:
    reason = "gap" if first > info.tail + 1 else "conflict"
    return refusal(
        reason,
        f"the next event of this run is {info.tail + 1}, not {first}",
        next=info.tail + 1,
        epoch=info.epoch,
    )


def _end(replay: Replay, finish: Finish) -> list[Event]:
    """The events that end a run as its producer says."""
    outcome = finish.outcome
    events: list[Event] = []
    if outcome == "cancelled" and not replay.fold.cancel_requested:
        events.append(Control(command="cancel"))
    if finish.error is not None:
        events.append(finish.error)
    is_whole = outcome == "complete"
    statuses: dict[str, StepStatus] = {
        "complete": "complete",
        "cancelled": "cancelled",
        "error": "error",
    }
    events += closing(
        replay.order,
        part="complete" if is_whole else "truncated",
        step=statuses.get(outcome, "incomplete"),
    )
    events.append(replay.fold.end(outcome, finish.reason))
    return events
