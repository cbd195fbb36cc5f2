"""What a Durable Streams reader reads: a stream of ours, or a run seen as one.

Always true: `read` gives the pieces behind a position, in order, and says closed only together with
the last of them; a run's stream holds one JSON value an event (or a chunk of another wire).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from tokenwire.durable.rules import Piece, Stream
from tokenwire.durable.store import StreamStore
from tokenwire.errors import CursorError, GoneError, InputError, NotFoundError
from tokenwire.events.codec import decode
from tokenwire.log.base import Records
from tokenwire.relay.record import json_of
from tokenwire.wire.ag_ui.encoder import AGUIEncoder
from tokenwire.wire.ai_sdk.encoder import Compat, UIMessageEncoder
from tokenwire.wire.catalogue import EVERY_WAIT
from tokenwire.wire.chunk_encoder import ChunkEncoder, dumps

__all__ = ["RunSource", "Source", "StreamPage", "StreamSource"]

#: The most that one catch-up answer or SSE write takes together.
_MOST_BYTES = 4 << 20


class StreamPage(msgspec.Struct):
    """What a read gave. ``next``: the position behind its pieces. ``reason``: why a closed one
    ended, where that is known."""

    pieces: list[Piece]
    next: int
    tail: int
    closed: bool
    reason: str | None = None

    @property
    def up_to_date(self) -> bool:
        """Nothing more was there."""
        return self.next >= self.tail


class Source(Protocol):
    """A readable stream."""

    id: str
    kind: str
    content_type: str
    #: Deleted while it was read; then `read` finds nothing.
    gone: bool

    async def read(self, position: int) -> StreamPage:
        """What is behind ``position``; a position beyond the tail is an `InputError`."""
        ...

    async def tail(self) -> tuple[int, bool]:
        """``(tail, closed)``."""
        ...

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when there may be news."""
        ...


def _beyond(position: int, tail: int) -> None:
    if position > tail:
        raise InputError("the offset is beyond the end of this stream", field="offset")


class StreamSource:
    """A read-write stream, as `StreamStore.find` found it."""

    def __init__(self, streams: StreamStore, stream: Stream) -> None:
        self._streams, self._stream = streams, stream
        self.id, self.kind, self.content_type = stream.id, stream.kind, stream.content_type
        self.gone = False
        self._fresh = True

    async def read(self, position: int) -> StreamPage:
        """Pieces, up to a bound."""
        stream = self._stream
        try:
            if not self._fresh:
                await self._streams.refresh(stream)
            self._fresh = False
            tail, closed = stream.tail, stream.closed
            _beyond(position, tail)
            pieces = await self._streams.read(stream, position, _MOST_BYTES)
        except (NotFoundError, GoneError, CursorError):
            # Deleted, or the store lost records that were read: whoever comes again hears it.
            self.gone = True
            return StreamPage([], position, position, False)
        pieces = [piece for piece in pieces if piece.end <= tail]
        next_position = pieces[-1].end if pieces else max(position, tail)
        return StreamPage(pieces, next_position, tail, closed and next_position >= tail)

    async def tail(self) -> tuple[int, bool]:
        """Where it ends by now."""
        return self._stream.tail, self._stream.closed

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Called at every append, close and delete, by whatever process."""
        self._fresh = False  # what came before the subscription would not be told
        return self._streams.subscribe(self._stream, wake)


class RunSource:
    """A run as a JSON stream. ``view``: ``""`` for native events, ``ui`` or ``agui`` for theirs;
    ``compat``: the AI SDK version whose chunks ``ui`` gives.

    Positions are the run's offsets. A view is a fold, so it reads from the start and gives out what
    is behind the position; one source serves one request.
    """

    kind = "json"
    content_type = "application/json"
    gone = False

    def __init__(self, store: Records, run: str, view: str, *, compat: Compat) -> None:
        self._store, self._run = store, run
        self.id = f"{run}.{view}" if view else run
        self._read_up_to = 0
        self._encoder: ChunkEncoder | None = None
        if view == "ui":
            self._encoder = UIMessageEncoder(compat=compat, resolved_ids=EVERY_WAIT)
        elif view == "agui":
            self._encoder = AGUIEncoder(resolved_ids=EVERY_WAIT)

    async def read(self, position: int) -> StreamPage:
        """The next records behind ``position``."""
        if self._encoder is None:
            self._read_up_to = max(self._read_up_to, position)
        while True:
            page = await self._store.read(self._run, after=self._read_up_to, most_bytes=_MOST_BYTES)
            _beyond(position, page.tail)
            pieces: list[Piece] = []
            for offset, record in enumerate(page.records, page.first):
                parts = self._parts(json_of(record))
                if offset > position:
                    pieces.append(Piece(offset, parts))
            self._read_up_to += len(page.records)
            if pieces or self._read_up_to >= page.tail:
                break
        closed = page.closed is not None and self._read_up_to >= page.tail
        next_position = max(position, self._read_up_to)
        return StreamPage(pieces, next_position, page.tail, closed, page.closed if closed else None)

    def _parts(self, data: bytes) -> list[bytes]:
        if self._encoder is None:
            return [data]
        return [dumps(chunk) for chunk in self._encoder.chunks(decode(data))]

    async def tail(self) -> tuple[int, bool]:
        """Where it ends by now."""
        info = await self._store.describe(self._run)
        return info.tail, info.closed is not None

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """The log's own subscription."""
        return self._store.subscribe(self._run, wake)
