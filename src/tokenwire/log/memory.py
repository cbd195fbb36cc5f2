"""The log in this process's memory: as fast as a list, and gone with the process.

Always true: everything happens on one event loop, so each method is one atomic act; a wake-up is
a direct call, made after the records are in place.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from tokenwire.errors import (
    ConflictError,
    CursorError,
    GoneError,
    KeyReusedError,
    NotFoundError,
    StoreFullError,
)
from tokenwire.log.base import Appended, Claim, Durability, Page, StreamInfo, Then, Wake
from tokenwire.log.wakes import Wakes

__all__ = ["MemoryLog"]

#: Names of expired streams that are remembered, so that a late reader hears "gone" and not
#: "never was". A name is some 100 bytes: 10 MB at most.
MOST_TOMBSTONES = 100_000

#: All records together. A server that keeps a day of answers in memory stays far below it; a
#: runaway producer must not take the machine down.
MOST_BYTES = 1 << 30

#: Beyond that bound each stream may still be closed, with as much as this.
CLOSING_BYTES = 64 << 10


class _Stream:
    __slots__ = (
        "bytes",
        "closed",
        "closed_at",
        "commands",
        "created",
        "epoch",
        "key",
        "lease_until",
        "meta",
        "owner",
        "records",
        "thread",
    )

    def __init__(self, owner: str, meta: bytes, thread: str | None, created: float) -> None:
        self.owner = owner
        self.meta = meta
        self.thread = thread
        self.created = created
        self.key: str | None = None
        self.epoch = 1
        self.lease_until = 0.0
        self.records: list[bytes] = []
        self.bytes = 0
        self.closed: str | None = None
        self.closed_at = 0.0
        self.commands: list[bytes] = []


class MemoryLog:
    """A `Log` in memory. ``clock`` gives Unix seconds; tests pass their own."""

    durability: Durability = "memory"
    shared = False
    rewinds = False

    def __init__(
        self, *, max_bytes: int = MOST_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._bytes = 0
        self._streams: dict[str, _Stream] = {}
        self._open: dict[str, _Stream] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()
        self._keys: dict[str, tuple[str, str]] = {}
        self._threads: dict[str, list[str]] = {}
        self._documents: dict[str, dict[str, bytes]] = {}
        self._wakes = Wakes()

    async def start(self) -> None:
        """Nothing to connect to."""

    async def close(self) -> None:
        """Nothing to flush."""

    def _stream(self, name: str) -> _Stream:
        stream = self._streams.get(name)
        if stream is None:
            if name in self._gone:
                raise GoneError("The stream has expired; its records are no longer kept.")
            raise NotFoundError("There is no such stream.")
        return stream

    async def create(
        self,
        stream: str,
        *,
        owner: str,
        meta: bytes = b"",
        thread: str | None = None,
        key: str | None = None,
        key_hash: str = "",
        lease: float = 15.0,
        shared: bool = False,
    ) -> StreamInfo:
        if key is not None and key in self._keys:
            known, known_hash = self._keys[key]
            if known_hash != key_hash:
                raise KeyReusedError("This idempotency key was used for another request.")
            return await self.describe(known)
        if stream in self._streams or stream in self._gone:
            raise ConflictError("A stream of this name exists.")
        now = self._clock()
        made = self._streams[stream] = self._open[stream] = _Stream(owner, meta, thread, now)
        made.lease_until = now + lease
        if key is not None:
            made.key = key
            self._keys[key] = (stream, key_hash)
        if thread is not None:
            self._threads.setdefault(thread, []).append(stream)
        return await self.describe(stream)

    def append_soon(
        self, stream: str, *, epoch: int, first: int, records: list[bytes], then: Then
    ) -> bool:
        """Append in this turn. False, and nothing has happened, when this is not plainly the
        owner's next append to an open stream with room for it: `append` then says why."""
        found = self._open.get(stream)
        if found is None or found.epoch != epoch or first != len(found.records) + 1:
            return False
        size = len(records[0]) if len(records) == 1 else sum(map(len, records))
        if self._bytes + size > self._max_bytes:
            return False
        found.records += records
        found.bytes += size
        self._bytes += size
        self._wakes.grown(stream)
        then(None)
        return True

    async def append(
        self,
        stream: str,
        *,
        epoch: int,
        first: int,
        records: list[bytes],
        close: str | None = None,
        durable: bool = False,
    ) -> Appended:
        if first < 1:
            raise ValueError("offsets begin at 1")
        found = self._streams.get(stream) or self._stream(stream)
        kept = found.records
        tail = len(kept)
        if epoch != found.epoch:
            return Appended("fenced", tail, found.epoch)
        last = first + len(records) - 1
        if found.closed is not None:
            if last <= tail and close in (None, found.closed):
                other = _differs(kept, first, records)
                return Appended("conflict" if other else "duplicate", tail, epoch)
            return Appended("closed", tail, epoch)
        if first > tail + 1:
            return Appended("gap", tail, epoch)
        if first <= tail and _differs(kept, first, records):
            return Appended("conflict", tail, epoch)
        if last <= tail and close is None:
            return Appended("duplicate", tail, epoch)
        new = records[tail + 1 - first :] if first <= tail else records
        size = sum(map(len, new))
        # The end of a stream always fits: without it its readers would wait for ever.
        ends = close is not None and size <= CLOSING_BYTES
        if self._bytes + size > self._max_bytes and not ends:
            raise StoreFullError("The memory log is full; let old streams expire.")
        kept.extend(new)
        found.bytes += size
        self._bytes += size
        if close is not None:
            found.closed = close
            found.closed_at = self._clock()
            del self._open[stream]
        self._wakes.grown(stream)
        return Appended("ok", max(tail, last), epoch)

    def read_now(
        self, stream: str, *, after: int = 0, most: int = 512, most_bytes: int = 1 << 20
    ) -> Page:
        """`read` without waiting; memory never has to."""
        found = self._streams.get(stream) or self._stream(stream)
        tail = len(found.records)
        if not 0 <= after <= tail:
            raise CursorError("The offset is beyond the end of this stream.", tail=tail)
        if after + 1 == tail:  # a reader that keeps up: one record at a time
            return Page([found.records[after]], tail, tail, found.closed)
        records = found.records[after : after + most] if after < tail else []
        total = 0
        for count, record in enumerate(records):
            total += len(record)
            if total > most_bytes and count:
                del records[count:]
                break
        reached = after + len(records) == tail
        return Page(records, after + 1, tail, found.closed if reached else None)

    async def read(
        self,
        stream: str,
        *,
        after: int = 0,
        most: int = 512,
        most_bytes: int = 1 << 20,
        fresh: bool = False,
    ) -> Page:
        return self.read_now(stream, after=after, most=most, most_bytes=most_bytes)

    async def describe(self, stream: str) -> StreamInfo:
        found = self._stream(stream)
        return StreamInfo(
            stream=stream,
            epoch=found.epoch,
            owner=found.owner,
            tail=len(found.records),
            closed=found.closed,
            meta=found.meta,
            created=found.created,
            bytes=found.bytes,
            lease_until=found.lease_until,
            thread=found.thread,
        )

    def subscribe(self, stream: str, wake: Wake, *, appends: bool = True) -> Callable[[], None]:
        end = self._wakes.subscribe(stream, wake, appends=appends)

        def unsubscribe() -> None:
            end()

        return unsubscribe

    async def claim(self, stream: str, *, owner: str, lease: float = 15.0) -> Claim | None:
        found = self._open.get(stream)
        now = self._clock()
        if found is None or found.lease_until > now:
            return None
        found.epoch += 1
        found.owner = owner
        found.lease_until = now + lease
        return Claim(stream, found.epoch, len(found.records))

    async def renew(self, streams: dict[str, int], *, owner: str, lease: float = 15.0) -> set[str]:
        until = self._clock() + lease
        lost = set()
        for name, epoch in streams.items():
            found = self._open.get(name)
            if found is not None and (found.epoch, found.owner) == (epoch, owner):
                found.lease_until = until
            else:
                lost.add(name)
        return lost

    async def release(self, stream: str, *, epoch: int) -> None:
        found = self._open.get(stream)
        if found is not None and found.epoch == epoch:
            found.lease_until = 0.0

    async def orphans(self, *, most: int = 100) -> list[str]:
        now = self._clock()
        free = (name for name, found in self._open.items() if found.lease_until <= now)
        return list(itertools.islice(free, most))

    async def held(self, *, most: int = 1000) -> list[tuple[str, int, str]]:
        now = self._clock()
        held = ((n, s.epoch, s.owner) for n, s in self._open.items() if s.lease_until > now)
        return list(itertools.islice(held, most))

    async def command(self, stream: str, data: bytes) -> None:
        self._stream(stream).commands.append(data)
        self._wakes.wake(stream)

    async def commands(self, stream: str, *, after: int = 0) -> list[tuple[int, bytes]]:
        kept = self._stream(stream).commands
        return list(enumerate(kept[after:], after + 1)) if after < len(kept) else []

    async def thread(self, thread: str, *, most: int = 100) -> list[str]:
        return self._threads.get(thread, [])[: -most - 1 : -1]

    async def set_document(self, kind: str, name: str, data: bytes | None) -> None:
        documents = self._documents.setdefault(kind, {})
        documents.pop(name, None)
        if data is not None:
            documents[name] = data

    async def swap_document(
        self, kind: str, name: str, old: bytes | None, new: bytes | None
    ) -> bool:
        current = await self.document(kind, name)
        if current == old:
            await self.set_document(kind, name, new)
        return current in (old, new)

    async def document(self, kind: str, name: str) -> bytes | None:
        return self._documents.get(kind, {}).get(name)

    async def documents(self, kind: str, *, prefix: str = "", most: int = 1000) -> dict[str, bytes]:
        newest = reversed(self._documents.get(kind, {}).items())
        chosen = ((name, data) for name, data in newest if name.startswith(prefix))
        return dict(itertools.islice(chosen, most))

    def _erase(self, stream: str) -> None:
        found = self._streams.pop(stream, None)
        if found is None:
            return
        self._open.pop(stream, None)
        self._bytes -= found.bytes
        if found.key is not None:
            self._keys.pop(found.key, None)
        if found.thread is not None:
            names = self._threads[found.thread]
            names.remove(stream)
            if not names:
                del self._threads[found.thread]

    async def delete(self, stream: str) -> None:
        self._erase(stream)
        self._gone.pop(stream, None)
        self._wakes.wake(stream)

    async def expire(self, *, retention: float) -> int:
        before = self._clock() - retention
        old = [
            name
            for name, found in self._streams.items()
            if found.closed is not None and found.closed_at < before
        ]
        for name in old:
            self._erase(name)
            self._gone[name] = None
            self._wakes.wake(name)
        while len(self._gone) > MOST_TOMBSTONES:
            self._gone.popitem(last=False)
        return len(old)

    async def stats(self) -> dict[str, Any]:
        streams = self._streams.values()
        return {
            "store": "memory",
            "durability": self.durability,
            "streams": len(streams),
            "open": len(self._open),
            "records": sum(len(found.records) for found in streams),
            "bytes": self._bytes,
            "notes": ["Streams are kept in memory: they end with this process."],
        }


def _differs(kept: list[bytes], first: int, records: list[bytes]) -> bool:
    """Whether the last record that the append and the stream have in common is another one."""
    last = min(len(kept), first + len(records) - 1)
    return last >= first and kept[last - 1] != records[last - first]
