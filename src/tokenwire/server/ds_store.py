"""Read-write Durable Streams kept in the server's log: each one a stream of opaque records there.

Always true: nothing is answered or shown to readers before the log has accepted it; what is read
from the log again is what was answered. On a log in memory nothing is kept twice.

A stream's first record is the stream itself, each later one a `Change`. Only one process may write
(the route refuses more workers): the log's order would hold, but another process's copy would be
stale.
"""

from __future__ import annotations

import asyncio
import hashlib
from weakref import WeakValueDictionary

import msgspec

from tokenwire.errors import NotFoundError
from tokenwire.log.base import Log
from tokenwire.server.ds_streams import Answer, Append, Change, Create, Stream, Streams

__all__ = ["KeptStreams"]

_KIND = "ds-stream"
#: Nobody takes these over: their lease never runs out.
_LEASE = 1e9
_encode = msgspec.msgpack.encode


class _Standing(msgspec.Struct):
    """Forks and deletion, which change without an append."""

    forks: int
    hidden: bool


class KeptStreams:
    """`Streams`, written through to a log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._keeps = log.durability != "memory"
        self.streams = Streams()
        #: path -> the log stream's next offset.
        self._next: dict[str, int] = {}
        self._looked: set[str] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._forking = asyncio.Lock()

    async def create(self, path: str, wanted: Create, now: float) -> Answer:
        """``PUT``."""
        async with self._lock(path), self._forking:
            await self._load(path)
            if wanted.source is not None:
                await self._load(wanted.source)
            planned = self.streams.plan_create(path, wanted, now)
            if isinstance(planned, Stream):
                await self._settle()
                if self._keeps:
                    await self._log.create(_name(planned), owner="durable-streams", lease=_LEASE)
                    self._next[path] = 1
                    await self._append(planned, b"S" + _encode(planned))
                    document = _name(planned).encode()
                    await self._log.set_document(_KIND, _document(path), document)
                planned = self.streams.add(planned)
            await self._settle()
            return planned

    async def append(self, path: str, wanted: Append, now: float) -> Answer:
        """``POST``."""
        async with self._lock(path):
            await self._load(path)
            planned = self.streams.plan_append(path, wanted, now)
            if isinstance(planned, Answer):
                return planned
            stream = self.streams.find(path, now)
            if self._keeps:
                await self._append(stream, b"C" + _encode(planned))
            return self.streams.apply(stream, planned)

    async def delete(self, path: str, now: float) -> None:
        """``DELETE``."""
        async with self._lock(path), self._forking:
            await self._load(path)
            self.streams.delete(path, now)
            await self._settle()

    async def find(self, path: str, now: float) -> Stream:
        """The stream, to read it."""
        if self._keeps and path not in self._looked:
            async with self._lock(path):
                await self._load(path)
        try:
            return self.streams.find(path, now)
        finally:
            if self.streams.changed:
                await self._settle()

    def _lock(self, path: str) -> asyncio.Lock:
        lock = self._locks.get(path)
        if lock is None:
            lock = self._locks[path] = asyncio.Lock()
        return lock

    async def _load(self, path: str) -> None:
        if not self._keeps or path in self._looked:
            return
        name = _document(path)
        kept = (await self._log.documents(_KIND, prefix=name, most=1)).get(name)
        if kept is not None:
            try:
                await self._replay(path, kept.decode())
            except NotFoundError:
                pass  # a delete that did not get as far as the document
        self._looked.add(path)

    async def _replay(self, path: str, log_stream: str) -> None:
        stream: Stream | None = None
        offset = 0
        while True:
            page = await self._log.read(log_stream, after=offset, most=4096, most_bytes=8 << 20)
            for record in page.records:
                stream = _apply(stream, record)
            offset += len(page.records)
            if offset >= page.tail:
                break
        if stream is not None:
            self.streams.table[path] = stream
            self._next[path] = offset + 1
            if stream.source is not None and stream.source not in self._looked:
                await self._load(stream.source)

    async def _append(self, stream: Stream, record: bytes) -> None:
        first = self._next[stream.path]
        await self._log.append(_name(stream), epoch=1, first=first, records=[record], durable=True)
        self._next[stream.path] = first + 1

    async def _settle(self) -> None:
        """Keep what changed beside the appends: forks, hiding, removal."""
        changed, self.streams.changed = self.streams.changed, []
        if not self._keeps:
            return
        for stream in changed:
            if self.streams.table.get(stream.path) is stream:
                record = b"F" + _encode(_Standing(stream.forks, stream.hidden))
                await self._append(stream, record)
            elif stream.gone:
                if stream.path not in self.streams.table:
                    await self._log.set_document(_KIND, _document(stream.path), None)
                await self._log.delete(_name(stream))


def _apply(stream: Stream | None, record: bytes) -> Stream:
    if record[:1] == b"S" or stream is None:
        return msgspec.msgpack.decode(record[1:], type=Stream)
    if record[:1] == b"C":
        stream.take(msgspec.msgpack.decode(record[1:], type=Change))
    else:
        standing = msgspec.msgpack.decode(record[1:], type=_Standing)
        stream.forks, stream.hidden = standing.forks, standing.hidden
        stream.gone = standing.hidden
    return stream


def _name(stream: Stream) -> str:
    return f"ds_{stream.id}"


def _document(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()
