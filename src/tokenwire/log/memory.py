"""The log in this process's memory: as fast as a list, and gone with the process.

Always true: everything happens on one event loop, so each method is one atomic act; a wake-up is
a direct call, made after the records are in place.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Set
from typing import Any, cast

from tokenwire.errors import (
    ConflictError,
    CursorError,
    GoneError,
    KeyReusedError,
    NotFoundError,
    StoreFullError,
)
from tokenwire.express import Reader, Tape, Usage
from tokenwire.log.base import (
    Appended,
    Claim,
    Due,
    Durability,
    LogInfo,
    Page,
    Sweeper,
    Take,
    Then,
    Wake,
    private_kind,
)
from tokenwire.log.entries import Conversation, MemoryLog
from tokenwire.log.expiry import expire
from tokenwire.log.wakes import Wakes

__all__ = ["MemoryStore"]

#: Names of expired logs that are remembered, so that a late reader hears "gone" and not
#: "never was". A name is some 100 bytes: 10 MB at most.
MOST_TOMBSTONES = 100_000

#: All records together. A server that keeps a day of answers in memory stays far below it; a
#: runaway producer must not take the machine down.
MOST_BYTES = 1 << 30

#: Logs that a sweep looks at between two turns of the loop.
SLICE = 2000

#: Beyond that bound each log may still be closed, with as much as this.
CLOSING_BYTES = 64 << 10


class MemoryStore:
    """A `Store` in memory. ``clock`` gives Unix seconds; tests pass their own."""

    durability: Durability = "memory"
    shared = False
    rewinds = False

    def __init__(
        self, *, max_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._usage = Usage(max_bytes)
        self._logs: dict[str, MemoryLog] = {}
        self._open: dict[str, MemoryLog] = {}
        self._tombstones: OrderedDict[str, None] = OrderedDict()
        self._keys: dict[str, tuple[str, str]] = {}
        self._threads: dict[str, Conversation] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._wakes = Wakes(self._forget_takers)

    def retain(self, seconds: float) -> None:
        """Nothing ends here by itself; `expire` erases."""

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to flush."""

    def _log(self, name: str) -> MemoryLog:
        log = self._logs.get(name)
        if log is None:
            if name in self._tombstones:
                raise GoneError("the log has expired; its records are no longer stored")
            raise NotFoundError("no log has this name", what="log")
        return log

    async def create(
        self,
        log: str,
        *,
        owner: str,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        key_hash: str = "",
        lease: float = 15.0,
        shared: bool = False,
    ) -> LogInfo:
        if key is not None and key in self._keys:
            holder, holder_hash = self._keys[key]
            if holder_hash != key_hash:
                raise KeyReusedError("this idempotency key belongs to a different request")
            return await self.describe(holder)
        if log in self._logs or log in self._tombstones:
            raise ConflictError("a log of this name exists")
        now = self._clock()
        entry = self._logs[log] = self._open[log] = MemoryLog(
            self._usage, owner, _fitted(meta), thread, now
        )
        entry.lease_until = now + lease
        if key is not None:
            entry.key = key
            self._keys[key] = (log, key_hash)
        if thread is not None:
            conversation = self._threads.setdefault(thread, Conversation())
            conversation.logs[log] = None
            conversation.open += 1
            conversation.last_use = now
        return await self.describe(log)

    def append_soon(
        self, log: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Append in this turn. False, and nothing has happened, when this is not plainly the
        owner's next append to an open log with room for it: `append` then says why."""
        entry = self._open.get(log)
        if entry is None or entry.epoch != epoch or first != len(entry.records) + 1:
            return False
        usage, size = self._usage, sum(map(len, records))
        if usage.bytes + size > usage.most:
            return False
        entry.records += records
        entry.bytes += size
        usage.bytes += size
        usage.records += len(records)
        if len(records) == 1:
            self._wakes.grown_by(log, first, records[0])
        else:
            self._wakes.grown(log)
        then(None)
        return True

    def tape(self, log: str) -> Tape | None:
        """See `Taped`. Who makes `append_soon` another function is called for every append."""
        is_ours = self.append_soon == _append_soon.__get__(self)
        entry = self._open.get(log) if is_ours else None
        if entry is not None and entry.takers is None:
            entry.takers = tuple(
                (wake, take, take if isinstance(take, Reader) else None)
                for wake, take in self._wakes.growth(log)
            )
            entry.reader = entry.takers[0][2] if len(entry.takers) == 1 else None
        return entry

    async def append(
        self,
        log: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None = None,
        durable: bool = False,
    ) -> Appended:
        if first < 1:
            raise ValueError("offsets start at 1")
        entry = self._logs.get(log) or self._log(log)
        history = entry.records
        tail = len(history)
        if epoch != entry.epoch:
            return Appended("fenced", tail, entry.epoch)
        last = first + len(records) - 1
        if entry.closed is not None:
            if last <= tail and close in (None, entry.closed):
                other = _differs(history, first, records)
                return Appended("conflict" if other else "duplicate", tail, epoch)
            return Appended("closed", tail, epoch)
        if first > tail + 1:
            return Appended("gap", tail, epoch)
        if first <= tail and _differs(history, first, records):
            return Appended("conflict", tail, epoch)
        if last <= tail and close is None:
            return Appended("duplicate", tail, epoch)
        new = records[tail + 1 - first :] if first <= tail else records
        size = sum(map(len, new))
        # The end of a log always fits: without it its readers would wait for ever.
        ends = close is not None and size <= CLOSING_BYTES
        usage = self._usage
        if usage.bytes + size > usage.most and not ends:
            raise StoreFullError(
                "the memory store is full; shorten the retention so that old logs expire"
            )
        history.extend(new)
        usage.records += len(new)
        entry.bytes += size
        usage.bytes += size
        if close is not None:
            entry.closed, entry.writer = close, 0
            entry.closed_at = self._clock()
            del self._open[log]
            if entry.thread is not None:
                conversation = self._threads[entry.thread]
                conversation.open -= 1
                conversation.last_use = entry.closed_at
        self._wakes.grown(log)
        return Appended("ok", max(tail, last), epoch)

    def read_now(
        self, log: str, *, after: int = 0, most: int = 512, most_bytes: int = 1 << 20
    ) -> Page:
        """`read` without waiting; memory never has to."""
        entry = self._logs.get(log) or self._log(log)
        tail = len(entry.records)
        if not 0 <= after <= tail:
            raise CursorError("the offset is beyond the tail of this log", tail=tail)
        if after + 1 == tail:  # a reader that keeps up: one record at a time
            return Page([entry.records[after]], tail, tail, entry.closed)
        records = entry.records[after : after + most] if after < tail else []
        total = 0
        for count, record in enumerate(records):
            total += len(record)
            if total > most_bytes and count:
                del records[count:]
                break
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, entry.closed if reached else None)

    async def read(
        self,
        log: str,
        *,
        after: int = 0,
        most: int = 512,
        most_bytes: int = 1 << 20,
        fresh: bool = False,
    ) -> Page:
        return self.read_now(log, after=after, most=most, most_bytes=most_bytes)

    async def describe(self, log: str) -> LogInfo:
        entry = self._log(log)
        return LogInfo(
            log=log,
            epoch=entry.epoch,
            owner=entry.owner,
            tail=len(entry.records),
            closed=entry.closed,
            meta=entry.meta,
            created=entry.created,
            bytes=entry.bytes,
            lease_until=entry.lease_until,
            thread=entry.thread,
        )

    def subscribe(
        self, log: str, wake: Wake, *, appends: bool = True, take: Take | None = None
    ) -> Callable[[], None]:
        end = self._wakes.subscribe(log, wake, appends=appends, take=take)
        return cast("Callable[[], None]", end)

    def _forget_takers(self, log: str) -> None:
        entry = self._open.get(log)
        if entry is not None:
            entry.takers = None

    async def claim(self, log: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        entry = self._open.get(log)
        now = self._clock()
        if entry is None or entry.lease_until > now:
            return None
        handed_over = not entry.owner
        entry.epoch = entry.writer = entry.epoch + 1
        entry.owner = owner
        entry.lease_until = now + lease
        return Claim(log, entry.epoch, len(entry.records), handed_over)

    async def renew(self, logs: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        until = self._clock() + lease
        losses = set()
        for name, epoch in logs.items():
            entry = self._open.get(name)
            if entry is not None and (entry.epoch, entry.owner) == (epoch, owner):
                entry.lease_until = until
            else:
                losses.add(name)
        return losses

    async def release(self, log: str, *, epoch: int, handed_over: bool = False) -> None:
        entry = self._open.get(log)
        if entry is not None and entry.epoch == epoch:
            entry.lease_until = 0.0
            if handed_over:
                entry.owner = ""

    async def orphans(self, *, most: int = 100, lease: float = 15.0) -> list[str]:
        now = self._clock()
        free = (name for name, entry in self._open.items() if entry.lease_until <= now)
        return list(itertools.islice(free, most))

    async def owners(self) -> set[str]:
        now = self._clock()
        return {entry.owner for entry in self._open.values() if entry.lease_until > now}

    async def leases(self, owners: Set[str], *, most: int = 1000) -> list[tuple[str, int]]:
        now = self._clock()
        held = (
            (name, entry.epoch)
            for name, entry in self._open.items()
            if entry.lease_until > now and entry.owner in owners
        )
        return list(itertools.islice(held, most))

    async def command(self, log: str, data: bytes) -> None:
        self._log(log).commands.append(data)
        self._wakes.wake(log)

    async def commands(self, log: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        queue = self._log(log).commands
        return list(enumerate(queue[after:], after + 1)) if after < len(queue) else []

    async def mailboxes(self, places: Mapping[str, int]) -> dict[str, list[tuple[int, bytes]]]:
        entries = ((log, self._logs.get(log), after) for log, after in places.items())
        return {
            log: list(enumerate(entry.commands[after:], after + 1))
            for log, entry, after in entries
            if entry is not None and after < len(entry.commands)
        }

    async def named(self, key: str) -> str | None:
        holder = self._keys.get(key)
        return holder[0] if holder is not None else None

    async def thread(self, thread: str, *, most: int = 100, before: str = "") -> list[str]:
        conversation = self._threads.get(thread)
        logs = [] if conversation is None else list(conversation.logs)
        end = len(logs) if not before else logs.index(before) if before in logs else 0
        return logs[max(0, end - most) : end][::-1]

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        self._put(kind, name, data)

    def _put(self, kind: str, name: str, data: bytes | None) -> None:
        documents = self._documents.setdefault(kind, {})
        documents.pop(name, None)
        if data is not None:
            documents[name] = _fitted(data)

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        current = self._documents.get(kind, {}).get(name)
        if current == old:
            self._put(kind, name, new)
        return current in (old, new)

    async def document(self, kind: str, name: str) -> bytes | None:
        return self._documents.get(kind, {}).get(name)

    async def count_documents(self, kind: str, *, prefix: str = "") -> int:
        return sum(name.startswith(prefix) for name in self._documents.get(kind, ()))

    async def documents(
        self, kind: str, *, prefix: str = "", most: int = 1000, after: str | None = None
    ) -> dict[str, bytes]:
        if after is not None:
            items = self._documents.get(kind, {}).items()
            later = (pair for pair in items if pair[0].startswith(prefix) and pair[0] > after)
            return dict(heapq.nsmallest(most, later))
        newest = reversed(self._documents.get(kind, {}).items())
        matches = ((name, data) for name, data in newest if name.startswith(prefix))
        return dict(itertools.islice(matches, most))

    def _erase(self, log: str) -> None:
        entry = self._logs.pop(log, None)
        if entry is None:
            return
        was_open = self._open.pop(log, None) is not None
        self._documents.pop(private_kind(log), None)
        entry.writer = 0
        self._usage.bytes -= entry.bytes
        self._usage.records -= len(entry.records)
        if entry.key is not None:
            self._keys.pop(entry.key, None)
        if entry.thread is not None:
            conversation = self._threads[entry.thread]
            del conversation.logs[log]
            conversation.open -= was_open
            if not conversation.logs:
                del self._threads[entry.thread]

    async def delete(self, log: str) -> None:
        self._erase(log)
        self._tombstones.pop(log, None)
        self._wakes.wake(log)

    async def expire(self, *, retention: float, sweeper: Sweeper | None = None) -> int:
        return await expire(self, retention, sweeper)

    async def due(self, retention: float, most: int) -> list[Due]:
        """All that is due, as a further look would cost as much; see `Expiring`."""
        before = self._clock() - retention
        due: list[Due] = []
        for number, (log, entry) in enumerate(list(self._logs.items()), 1):
            if entry.thread is None and entry.closed is not None and entry.closed_at < before:
                due.append(Due([log]))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        for thread, conversation in list(self._threads.items()):
            if not conversation.open and conversation.last_use < before:
                due.append(Due(list(conversation.logs), thread))
        return due

    def _is_due(self, due: Due, before: float) -> bool:
        if due.thread is None:
            entry = self._logs.get(due.logs[0])
            return entry is not None and entry.closed is not None and entry.closed_at < before
        conversation = self._threads.get(due.thread)
        return conversation is not None and not conversation.open and conversation.last_use < before

    async def erase_due(self, due: list[Due], retention: float) -> list[Due]:
        before = self._clock() - retention
        erased: list[Due] = []
        for number, one in enumerate(due, 1):
            if self._is_due(one, before):
                for log in one.logs:
                    self._erase(log)
                    self._tombstones[log] = None
                    self._wakes.wake(log)
                erased.append(one)
            if number % SLICE == 0:
                await asyncio.sleep(0)
        while len(self._tombstones) > MOST_TOMBSTONES:
            self._tombstones.popitem(last=False)
        return erased

    async def postpone(self, due: list[Due], retention: float, seconds: float) -> None:
        at = self._clock() - retention + seconds
        for one in due:
            if one.thread is None:
                if (entry := self._logs.get(one.logs[0])) is not None:
                    entry.closed_at = at
            elif (conversation := self._threads.get(one.thread)) is not None:
                conversation.last_use = at

    async def probe(self) -> None:
        """Memory takes a write as long as the process lives."""

    async def stats(self) -> dict[str, Any]:
        logs = self._logs.values()
        return {
            "store": "memory",
            "durability": self.durability,
            "streams": len(logs),
            "open": len(self._open),
            "records": self._usage.records,
            "bytes": self._usage.bytes,
            "tombstones": len(self._tombstones),
            "notes": ["Logs are in memory: they end with this process."],
        }


_append_soon = MemoryStore.append_soon


def _differs(history: list[bytes], first: int, records: list[bytes]) -> bool:
    """Whether the last record that the append and the log have in common is another one."""
    last = min(len(history), first + len(records) - 1)
    return last >= first and history[last - 1] != records[last - first]


def _fitted(data: bytes) -> bytes:
    """The same bytes in memory of their size: behind what `msgspec` encodes up to half as much is
    spare, and a description is kept as long as its log."""
    return bytes(memoryview(data))
