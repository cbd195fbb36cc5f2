"""What the encoders of other people's wires share: chunks to SSE frames, skipping, coming back.

Always true: every frame has its own ``id``; the last frame of an event carries the event's cursor,
the ones before it ``cursor.k`` ("k frames of that event were seen"); so a reader that comes back
with any id gets exactly the frames that it misses, and skipping walks the same path as telling.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import msgspec

from tokenwire.events.codec import AnyEvent
from tokenwire.wire.story import Story

__all__ = ["ChunkEncoder", "Place", "clean", "dumps", "dumps_text", "split_cursor"]

dumps = msgspec.json.encode
_INSIDE = re.compile(r"\A(\d{1,19})(-[0-9a-f]{1,64})?(?:\.(\d{1,9}))?\Z")

Chunk = dict[str, Any]


class Place(msgspec.Struct, frozen=True):
    """Where a reader left off. ``cursor`` is what the relay understands; of the event at
    ``offset`` only ``frames`` were seen, when ``frames`` is not None."""

    cursor: str
    offset: int
    frames: int | None = None

    @property
    def after(self) -> str:
        """The cursor that the log is followed after."""
        return self.cursor if self.frames is None else str(self.offset - 1)


def split_cursor(text: str) -> Place | None:
    """A frame's ``id`` as the relay's cursor and the place inside its event; None: not ours."""
    match = _INSIDE.match(text)
    if match is None:
        return None
    frames = int(match[3]) if match[3] is not None else None
    return Place(cursor=match[1] + (match[2] or ""), offset=int(match[1]), frames=frames)


def clean(**fields: Any) -> Chunk:
    """A chunk without the fields that are None: these wires have no null."""
    return {name: value for name, value in fields.items() if value is not None}


def dumps_text(value: Any) -> str:
    """A JSON value as text; a text stays itself."""
    return value if isinstance(value, str) else dumps(value).decode()


class ChunkEncoder:
    """Base of the encoders that say events as JSON chunks.

    A subclass gives `_tell` (events to chunks) and, where a resumed connection must hear open
    parts again, `_seen`, `_reopening` and `_rename`.
    """

    content_type: ClassVar[str] = "text/event-stream"
    headers: ClassVar[dict[str, str]] = {}
    #: The state comes from the events before, so a follower begins at the start and skips.
    stateless: ClassVar[bool] = False
    shared: ClassVar[str | None] = None

    def __init__(self, *, place: Place | None = None) -> None:
        self.story = Story()
        #: The wire's client has been told that it is over; what follows is not said.
        self.ended = False
        self._place = place if place is not None and place.frames is not None else None

    # --- the contract ----------------------------------------------------------------------------

    def encode(self, event: AnyEvent, cursor: str) -> bytes:
        """The frames that say ``event``."""
        place = self._place
        if place is None or event.seq > place.offset:
            return self.frames(self.chunks(event), cursor)
        # The reader comes back from the middle of this event.
        self._place = None
        chunks, seen = self._tell(event), place.frames or 0
        for chunk in chunks[:seen]:
            self._seen(chunk)
        again = [self._frame(chunk, None) for chunk in self._reopening()]
        rest = [self._out(chunk) for chunk in chunks[seen:]]
        return b"".join([*again, self.frames(rest, cursor, seen)])

    def skip(self, event: AnyEvent) -> None:
        """Take ``event`` as seen."""
        for chunk in self._tell(event):
            self._seen(chunk)
        self.ended = False

    def reopen(self) -> bytes:
        """Open parts again, where the wire needs it."""
        if self._place is not None:
            return b""  # said by `encode`, inside the event that was half seen
        return b"".join([self._frame(chunk, None) for chunk in self._reopening()])

    def finish(self) -> bytes:
        """The wire's sentinel; most have none."""
        return b""

    def heartbeat(self) -> bytes:
        """An SSE comment."""
        return b": keep-alive\n\n"

    # --- for those who want values instead of bytes ----------------------------------------------

    def chunks(self, event: AnyEvent) -> list[Chunk]:
        """The chunks that say ``event``, as JSON objects (Durable Streams, WebSocket)."""
        if self.ended:
            return []
        return [self._out(chunk) for chunk in self._tell(event)]

    def frames(self, chunks: list[Chunk], cursor: str, seen: int = 0) -> bytes:
        """Chunks as SSE frames, with ids that end at ``cursor``."""
        last = len(chunks) - 1
        return b"".join(
            self._frame(chunk, cursor if i == last else f"{cursor}.{seen + i + 1}")
            for i, chunk in enumerate(chunks)
        )

    # --- what subclasses say ---------------------------------------------------------------------

    def _tell(self, event: AnyEvent) -> list[Chunk]:
        raise NotImplementedError

    def _seen(self, chunk: Chunk) -> None:
        """Remember what the client has open."""

    def _reopening(self) -> list[Chunk]:
        return []

    def _rename(self, chunk: Chunk) -> Chunk:
        return chunk

    def _out(self, chunk: Chunk) -> Chunk:
        said = self._rename(chunk)
        self._seen(chunk)
        return said

    def _frame(self, chunk: Chunk, frame_id: str | None) -> bytes:
        if frame_id is None:
            return b"data: %b\n\n" % dumps(chunk)
        return b"id: %b\ndata: %b\n\n" % (frame_id.encode("ascii"), dumps(chunk))
