"""Read-write Durable Streams kept in the server's log, by as many processes as share it.

Always true: nothing is answered or shown before the log has accepted it; every process answers by
what the log holds, not by what it remembers; a write that met another's is planned again.

A stream is a document, its `Entry`, and a stream of the log with its records. Documents change by
swapping what was seen; records are appended at the offset where the writer believes the end to be,
and the log tells it when another's are there. A stream is deleted records first: then no process
that knew it can read or write it, and one that finds the entry without records removes it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Protocol
from weakref import WeakValueDictionary

import msgspec

from tokenwire.durable.rules import (
    FRAMING,
    Answer,
    Append,
    Change,
    Create,
    Entry,
    Piece,
    Refusal,
    Stream,
    appended,
    change_of,
    created,
    first_parts,
    plan_append,
    plan_create,
    seal,
    slice_of,
)
from tokenwire.durable.usage import UNLIMITED, Quota, Usage
from tokenwire.errors import CursorError, GoneError, NotFoundError
from tokenwire.log.base import Index, Leases, Records

__all__ = ["StreamStore", "Watcher", "owner_of"]

_KIND = "ds-entry"
_OWNER = "durable-streams"
#: Nobody takes these over: their lease never runs out.
_LEASE = 1e9
#: Streams whose fold is remembered; others are folded again when they are asked for.
_MOST_CACHED = 10_000
#: A fork that was begun this long ago and is not there has failed.
_FORK_SECONDS = 60.0
#: Records of one read while folding or copying.
_PAGE, _PAGE_BYTES = 4096, 4 << 20
#: Entries that are looked at together: those of one owner, or of all in a sweep.
MOST_ENTRIES = 100_000

_log = logging.getLogger("tokenwire.server")
_encode = msgspec.msgpack.encode


class Watcher(Protocol):
    """Who wants to hear of growing streams."""

    async def stream_grew(self, owner: str, path: str) -> None:
        """Something was put into a stream, and stands: this may not raise for it."""
        ...


def owner_of(principal: str) -> str:
    """How a principal is called in names of documents."""
    return hashlib.sha256(principal.encode()).hexdigest()[:32]


class Backend(Records, Leases, Index, Protocol):
    """What Durable Streams need of a store."""


class StreamStore:
    """The read-write streams of one store. ``owner`` comes from `owner_of`."""

    def __init__(self, store: Backend, quota: Quota = UNLIMITED) -> None:
        self.store = store
        self.usage = Usage(store, quota, self._measure)
        self.watcher: Watcher | None = None
        self._cache: OrderedDict[str, Stream] = OrderedDict()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- requests ------------------------------------------------------------------------------

    async def create(self, owner: str, path: str, request: Create, now: float) -> Answer:
        """``PUT``."""
        name = _name(owner, path)
        async with self._lock(name):
            while True:
                source = await self._source(owner, request, now)
                existing = await self._look(name, now)
                planned = plan_create(path, request, existing, source, now)
                if isinstance(planned, Answer):
                    return planned
                parts = first_parts(planned, request)
                size = sum(map(len, parts)) + (source.tail if source is not None else 0)
                await self.usage.take(owner, streams=1, size=size)
                stream = await self._make(owner, planned, source, request, parts, now)
                if stream is not None:
                    break
                await self.usage.give(owner, streams=1, size=size)
        self._remember(name, stream)
        if self.watcher is not None and stream.ends:
            await self.watcher.stream_grew(owner, path)
        return created(stream, 201)

    async def append(self, owner: str, path: str, request: Append, now: float) -> Answer:
        """``POST``."""
        async with self._lock(_name(owner, path)):
            while True:
                stream = await self.find(owner, path, now)
                planned = plan_append(stream, request, now)
                if isinstance(planned, Answer):
                    return planned
                size = sum(map(len, planned.parts))
                await self.usage.take(owner, size=size)
                if await self._append(stream, [seal(planned)]):
                    break
                self.usage.refund(owner, size)
            answer = appended(stream, planned)
        if stream.entry.ttl is not None:
            await self.touch(owner, stream, now)
        if self.watcher is not None and planned.parts:
            await self.watcher.stream_grew(owner, path)
        return answer

    async def delete(self, owner: str, path: str, now: float) -> None:
        """``DELETE``: gone, or hidden for as long as forks need it."""
        async with self._lock(_name(owner, path)):
            stream = await self.find(owner, path, now)
            await self._remove(owner, stream.entry, now)

    async def find(self, owner: str, path: str, now: float) -> Stream:
        """The stream as the log has it now. 404 for none, 410 for one that only forks need."""
        stream = await self._look(_name(owner, path), now)
        if stream is None:
            raise Refusal(404, "no such stream")
        if stream.entry.hidden:
            raise Refusal(410, "this stream was deleted")
        return stream

    async def touch(self, owner: str, stream: Stream, now: float) -> None:
        """A read or a write: a sliding lifetime begins again. Written down now and then, so that
        other processes and a restart know of it too."""
        entry = stream.entry
        stream.touch(now)
        slack = min((entry.ttl or 0) / 10, 1.0)
        while entry.ttl is not None and (stream.expires or 0) - (entry.expires or 0) >= slack:
            new = msgspec.structs.replace(entry, expires=stream.expires)
            name = _name(owner, entry.path)
            if await self.store.swap_document(_KIND, name, _encode(entry), _encode(new)):
                stream.entry = new
                return
            current = await self._entry(name)
            if current is None or current.id != stream.id:
                return
            entry = stream.entry = current

    async def refresh(self, stream: Stream) -> None:
        """Take what was appended since. Raises `NotFoundError` when the stream is gone."""
        overlap = 1 if self.store.rewinds and stream.offset else 0
        while True:
            after, mark = stream.offset - overlap, stream.mark
            page = await self.store.read(
                stream.entry.log, after=after, most=_PAGE, most_bytes=_PAGE_BYTES, fresh=True
            )
            records = page.records
            if overlap and (not records or not records[0].startswith(mark)):
                raise CursorError("The store has lost records of this stream.", tail=page.tail)
            for offset, record in enumerate(records, after + 1):
                if offset == stream.offset + 1:  # another task may have taken it meanwhile
                    stream.take(record)
            if stream.offset >= page.tail:
                return
            overlap = 0

    async def read(self, stream: Stream, position: int, most_bytes: int) -> list[Piece]:
        """Pieces that end behind ``position``, at least one when there is one, up to a bound."""
        pieces: list[Piece] = []
        size = 0
        async for piece in self._pieces(stream, stream.index_after(position), most_bytes):
            size += sum(map(len, piece.parts))
            if pieces and size > most_bytes:
                break
            pieces.append(piece)
        return pieces

    def subscribe(self, stream: Stream, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when the stream may have grown, closed or gone."""
        return self.store.subscribe(stream.entry.log, wake)

    async def entries(self, owner: str) -> list[Entry]:
        """The owner's streams, those that only forks need left out."""
        documents = await self.store.documents(_KIND, prefix=f"{owner}/", most=MOST_ENTRIES)
        entries = [msgspec.msgpack.decode(data, type=Entry) for data in documents.values()]
        return [entry for entry in entries if not entry.hidden]

    async def sweep(self, now: float) -> None:
        """Remove what has expired, and give the store a sign of life of the rest."""
        alive: dict[str, int] = {}
        for name, data in (await self.store.documents(_KIND, most=MOST_ENTRIES)).items():
            entry = msgspec.msgpack.decode(data, type=Entry)
            if entry.expires is not None and now >= entry.expires + 1.0:
                async with self._lock(name):
                    await self._look(name, now)
            elif not entry.hidden:
                alive[entry.log] = 1
        names = list(alive)
        for start in range(0, len(names), 500):
            part = dict.fromkeys(names[start : start + 500], 1)
            await self.store.renew(part, owner=_OWNER, lease=_LEASE)

    # --- looking -------------------------------------------------------------------------------

    def _lock(self, name: str) -> asyncio.Lock:
        # Saves this process's own requests from meeting in the log; the others' may.
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _remember(self, name: str, stream: Stream) -> None:
        self._cache[name] = stream
        self._cache.move_to_end(name)
        if len(self._cache) > _MOST_CACHED:
            self._cache.popitem(last=False)

    def _forget(self, name: str, stream: Stream) -> None:
        if self._cache.get(name) is stream:
            del self._cache[name]

    async def _entry(self, name: str) -> Entry | None:
        data = await self.store.document(_KIND, name)
        return msgspec.msgpack.decode(data, type=Entry) if data is not None else None

    async def _look(self, name: str, now: float) -> Stream | None:
        """The stream, folded up to now, hidden ones too; None where there is none."""
        while True:
            stream = self._cache.get(name)
            remembered = stream is not None
            if stream is None:
                entry = await self._entry(name)
                if entry is None:
                    return None
                stream = Stream(entry)
                if entry.hidden:
                    return stream if await self._needed(name, entry, now) else None
            try:
                await self.refresh(stream)
            except CursorError:
                self._forget(name, stream)  # what the store has is folded instead
                continue
            except (NotFoundError, GoneError):
                stream.gone = True
                self._forget(name, stream)
                if not remembered:
                    await self._drop(name, stream.entry, now)
                continue
            self._remember(name, stream)
            if not await self._has_expired(name, stream, now):
                return stream
            await self._remove(name.partition("/")[0], stream.entry, now)

    async def _has_expired(self, name: str, stream: Stream, now: float) -> bool:
        if stream.expires is None or now < stream.expires:
            return False
        current = await self._entry(name)  # another process may have read it meanwhile
        if current is not None and current.id == stream.id:
            stream.expires = max(stream.expires, current.expires or 0.0)
            stream.entry = current
        return now >= stream.expires

    async def _source(self, owner: str, request: Create, now: float) -> Stream | None:
        if request.source is None:
            return None
        source = await self._look(_name(owner, request.source), now)
        if source is None:
            raise Refusal(404, "the stream to fork does not exist")
        if source.entry.hidden:
            raise Refusal(409, "the stream to fork was deleted")
        return source

    async def _pieces(self, stream: Stream, index: int, most_bytes: int) -> AsyncIterator[Piece]:
        """The pieces from number ``index`` on, read page by page."""
        while index < len(stream.ends):
            place = stream.places[index]
            page = await self.store.read(
                stream.entry.log, after=place - 1, most=_PAGE, most_bytes=most_bytes, fresh=True
            )
            if not page.records:
                raise CursorError("The store has lost records of this stream.", tail=page.tail)
            for offset, record in enumerate(page.records, place):
                if index < len(stream.ends) and stream.places[index] == offset:
                    yield Piece(stream.ends[index], change_of(record).parts)
                    index += 1

    # --- making and appending ------------------------------------------------------------------

    async def _append(self, stream: Stream, records: list[bytes]) -> bool:
        """Append to the end as it is known here; whether that was the end."""
        try:
            result = await self.store.append(
                stream.entry.log,
                epoch=1,
                first=stream.offset + 1,
                records=records,
                durable=True,
            )
        except (NotFoundError, GoneError):
            return False  # deleted meanwhile: the next look tells
        if result.status not in ("ok", "duplicate"):
            return False
        for offset, record in enumerate(records, result.tail - len(records) + 1):
            if offset == stream.offset + 1:  # a reader may have taken it already
                stream.take(record)
        return True

    async def _make(
        self,
        owner: str,
        entry: Entry,
        source: Stream | None,
        request: Create,
        parts: list[bytes],
        now: float,
    ) -> Stream | None:
        """Make a planned stream. None when another one came first, or its source went."""
        if source is not None and not await self._begin_fork(owner, source, entry, now):
            return None
        stream = Stream(entry)
        await self.store.create(entry.log, owner=_OWNER, lease=_LEASE, shared=True)
        is_stored = False
        try:
            if source is not None:
                await self._inherit(stream, source)
            if parts or request.closed:
                first = Change(parts=parts, close=request.closed, time=now)
                await self._append(stream, [seal(first)])
            is_stored = await self.store.swap_document(
                _KIND, _name(owner, entry.path), None, _encode(entry)
            )
        except (NotFoundError, GoneError):
            pass  # the source was deleted while it was copied
        finally:
            if not is_stored:
                await self.store.delete(entry.log)
                if source is not None:
                    await self._end_fork(owner, entry, now)
        return stream if is_stored else None

    async def _inherit(self, stream: Stream, source: Stream) -> None:
        """Copy what a fork has from its source."""
        entry, at = stream.entry, stream.entry.fork_at or 0
        records: list[bytes] = []
        size = 0
        async for piece in self._pieces(source, 0, _PAGE_BYTES):
            parts = piece.parts
            begin = piece.end - sum(map(len, parts)) - FRAMING
            if piece.end > at:
                begin = at
                parts = slice_of(stream.kind, parts, entry.fork_sub) if entry.fork_sub else []
            records.append(seal(Change(parts=parts, at=begin)))
            size += len(records[-1])
            if len(records) >= _PAGE or size > _PAGE_BYTES or piece.end > at:
                await self._append(stream, records)
                records, size = [], 0
            if piece.end > at:
                return
        if records:
            await self._append(stream, records)
        if stream.tail != at:
            await self._append(stream, [seal(Change(at=at))])

    # --- forks and deletion --------------------------------------------------------------------

    async def _begin_fork(self, owner: str, source: Stream, fork: Entry, now: float) -> bool:
        """Note in the source that the fork needs it; whether the source is still there."""
        name = _name(owner, source.entry.path)
        while True:
            entry = await self._entry(name)
            if entry is None or entry.id != source.id or entry.hidden:
                return False
            forks = {**entry.forks, fork.id: (fork.path, now)}
            new = msgspec.structs.replace(entry, forks=forks)
            if await self.store.swap_document(_KIND, name, _encode(entry), _encode(new)):
                source.entry = new
                return True

    async def _end_fork(self, owner: str, fork: Entry, now: float) -> None:
        """The fork is gone: its source, if it was only kept for it, goes too, and so on."""
        while fork.source is not None:
            name = _name(owner, fork.source)
            entry = await self._entry(name)
            if entry is None or entry.id != fork.source_id or fork.id not in entry.forks:
                return
            forks = {fork_id: begun for fork_id, begun in entry.forks.items() if fork_id != fork.id}
            new = msgspec.structs.replace(entry, forks=forks)
            cached = self._cache.get(name)
            if entry.hidden and not forks:
                if await self.store.swap_document(_KIND, name, _encode(entry), None):
                    self._cache.pop(name, None)
                    fork = entry
            elif await self.store.swap_document(_KIND, name, _encode(entry), _encode(new)):
                if cached is not None and cached.id == new.id:
                    cached.entry = new
                return

    async def _measure(self, owner: str) -> tuple[int, int]:
        """The streams of an owner, hidden ones too, and their bytes."""
        documents = await self.store.documents(_KIND, prefix=f"{owner}/", most=MOST_ENTRIES)
        sizes = [await self._size(_decode_entry(data)) for data in documents.values()]
        return len(documents), sum(sizes)

    async def _size(self, entry: Entry) -> int:
        try:
            return (await self.store.describe(entry.log)).bytes
        except (NotFoundError, GoneError):
            return 0  # hidden, or on its way out

    async def _remove(self, owner: str, entry: Entry, now: float) -> None:
        """Delete a stream: its records, then its entry."""
        name = _name(owner, entry.path)
        cached = self._cache.pop(name, None)
        if cached is not None and cached.id == entry.id:
            cached.gone = True
        size = cached.tail if cached is not None else 0  # as it was counted, without seals
        await self.store.delete(entry.log)
        if await self._drop(name, entry, now):
            is_hidden = await self._entry(name) is not None  # it counts until its forks are gone
            await self.usage.give(owner, streams=0 if is_hidden else 1, size=size)

    async def _drop(self, name: str, entry: Entry, now: float) -> bool:
        """Remove the entry of a stream without records, or hide it while forks need it. Whether
        this call did it: of several, in any process, one does."""
        owner = name.partition("/")[0]
        while True:
            current = await self._entry(name)
            if current is None or current.id != entry.id or current.hidden:
                return False
            forks = await self._living(owner, current, now)
            new = msgspec.structs.replace(
                current, forks=forks, hidden=True, expires=None, removal=secrets.token_hex(8)
            )
            if await self.store.swap_document(_KIND, name, _encode(current), _encode(new)):
                if not forks:
                    await self._needed(name, new, now)
                return True

    async def _needed(self, name: str, entry: Entry, now: float) -> bool:
        """Whether forks still need a hidden stream; without any it goes."""
        owner = name.partition("/")[0]
        if await self._living(owner, entry, now):
            return True
        if await self.store.swap_document(_KIND, name, _encode(entry), None):
            await self._end_fork(owner, entry, now)
        return False

    async def _living(self, owner: str, entry: Entry, now: float) -> dict[str, tuple[str, float]]:
        """The forks of a stream that are there, or may still be on their way."""
        living: dict[str, tuple[str, float]] = {}
        for fork_id, (path, begun) in entry.forks.items():
            fork = await self._entry(_name(owner, path))
            if (fork is not None and fork.id == fork_id) or now < begun + _FORK_SECONDS:
                living[fork_id] = (path, begun)
        return living


def _decode_entry(data: bytes) -> Entry:
    return msgspec.msgpack.decode(data, type=Entry)


def _name(owner: str, path: str) -> str:
    return f"{owner}/{hashlib.sha256(path.encode('utf-8', 'surrogateescape')).hexdigest()}"
